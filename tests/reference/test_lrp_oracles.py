"""LRP against dense matrices, against input × gradient, and against zennit with the same rules."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from xai_utils.explain.lrp import LRP, Step, _as_linear, propagate, trace
from xai_utils.models import from_torch, preserve_state
from xai_utils.models.layers import Add, Gate
from xai_utils.models.resnet import BasicBlock, ResNet

torchvision = pytest.importorskip("torchvision")
zennit = pytest.importorskip("zennit")
from zennit.attribution import Gradient  # noqa: E402
from zennit.canonizers import SequentialMergeBatchNorm  # noqa: E402
from zennit.composites import SpecialFirstLayerMapComposite  # noqa: E402
from zennit.core import BasicHook  # noqa: E402
from zennit.layer import Sum  # noqa: E402
from zennit.rules import Epsilon, Gamma, NoMod, Norm, Pass, ZBox, ZPlus  # noqa: E402
from zennit.torchvision import ResNetCanonizer  # noqa: E402
from zennit.types import Activation, AvgPool, Convolution, Linear  # noqa: E402

TINY = 1e-20  # zennit's denominators always have a stabiliser


def randomise(model, seed=5):
    """BatchNorm as after training, not the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
                module.weight.uniform_(0.3, 1, generator=generator).mul_(torch.randn(1, generator=generator).sign())
                module.bias.normal_(0, 0.2, generator=generator)
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    return model.double().eval()


def exactly_mergeable(model):
    """Zennit's merged BatchNorm still divides by √(1 + eps), so that its network is not quite the model."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    return model


def images(n=2, size=16, channels=3, seed=4):
    return torch.randn(n, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Gated(nn.Module):
    """Everything with a rule: skips with and without convolution, a gate, all pools, all that passes."""

    def __init__(self, bias=True, residual=False, norm=True):
        super().__init__()

        def layer(a, b, size=3, stride=1):
            convolution = nn.Conv2d(a, b, size, stride, padding=size // 2, bias=bias)
            return nn.Sequential(convolution, nn.BatchNorm2d(b)) if norm else convolution

        self.stem = nn.Sequential(layer(3, 6), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Dropout2d(0.3))
        self.first, self.relu1, self.second = layer(6, 6), nn.ReLU(), layer(6, 6)
        self.add1, self.relu2 = Add(), nn.ReLU()
        self.attention = nn.Sequential(nn.Conv2d(6, 1, 1), nn.Sigmoid())
        self.gate = Gate(residual)
        self.third, self.shortcut = layer(6, 8, 3, 2), layer(6, 8, 1, 2)
        self.add2, self.relu3, self.pool = Add(), nn.ReLU(), nn.AvgPool2d(2)
        self.head = nn.Sequential(nn.Flatten(), nn.Identity(), nn.Linear(8 * 4, 7, bias=bias), nn.ReLU())
        self.head.append(nn.Dropout(0.5))
        self.fc = nn.Linear(7, 5, bias=bias)

    def features(self, x):
        x = self.stem(x)
        return self.relu2(self.add1(self.second(self.relu1(self.first(x))), x))

    def forward(self, x, attention=None):
        x = self.features(x)
        x = self.gate(x, self.attention(x) if attention is None else attention)
        x = self.relu3(self.add2(self.third(x), self.shortcut(x)))
        return self.fc(self.head(self.pool(x)))


def gated(**options):
    torch.manual_seed(0)
    return randomise(Gated(**options))


# input × gradient


@pytest.mark.parametrize("options", [{"bias": False, "norm": False}, {"residual": True}, {}])
def test_epsilon_to_zero_is_input_times_gradient(options):
    """With biases and BatchNorm too: what they absorb is what input × gradient leaves out."""
    model, x, targets = gated(**options), images(), torch.tensor([3, 0])
    explainer = LRP(model, "epsilon", "signed", epsilon=1e-14)
    relevance = explainer.attribute(x, targets)
    x.requires_grad_()
    with torch.no_grad():
        attention = model.attention(model.features(x))  # a gate is a constant
    scores = model(x, attention).gather(1, targets[:, None])
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    expected = (x * gradient).sum(1).detach()
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(relevance, expected, rtol=0, atol=1e-8)
    if not options.get("bias", True):
        torch.testing.assert_close(relevance.sum((1, 2)), scores[:, 0].detach(), rtol=0, atol=1e-8)


def test_epsilon_to_zero_on_a_resnet():
    torch.manual_seed(1)
    model, x = randomise(ResNet(BasicBlock, (1, 1, 1, 1), 6, 8)), images(size=40).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, 2].sum(), x)
    relevance = LRP(model, "epsilon", "signed", epsilon=1e-14).attribute(x, 2)
    torch.testing.assert_close(relevance, (x * gradient).sum(1).detach(), rtol=0, atol=1e-8)


# zennit


def sharing(skip, epsilon):
    """The skip rules for zennit's Sum over (shortcut, block), stacked in the last dimension."""
    if skip == "signed":
        return Norm(epsilon or TINY)
    if skip == "magnitude":
        return BasicHook(
            [torch.abs],
            [NoMod(param_keys=[])],
            [lambda output: output],
            lambda gradient, outputs: gradient / (outputs[0] + TINY),
            lambda inputs, gradients: inputs[0] * gradients[0],
        )
    share = 1.0 if skip == "none" else skip
    return BasicHook(
        [lambda x: x],
        [NoMod(param_keys=[])],
        [lambda output: output],
        lambda gradient, outputs: gradient,
        lambda inputs, gradients: gradients[0] * torch.tensor([1 - share, share]).to(gradients[0]),
    )


def of_zennit(model, x, target, rule, canonizer, skip="none", epsilon=0.0, first=None):
    layers = [(Activation, Pass()), (Sum, sharing(skip, epsilon)), (AvgPool, Norm(epsilon or TINY))]
    layers += [(Convolution, rule), (Linear, rule)]
    first = [(Convolution, first or rule)]
    composite = SpecialFirstLayerMapComposite(layers, first, canonizers=[canonizer])

    def start(output):
        return output * torch.nn.functional.one_hot(torch.as_tensor(target).expand(len(output)), output.shape[1])

    with Gradient(model, composite) as attributor:
        _, relevance = attributor(x.clone(), start)
    return relevance.sum(1).detach()


def same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert np.corrcoef(mine.flatten(), other.flatten())[0, 1] > 0.999
    torch.testing.assert_close(ours.sum((1, 2)), theirs.sum((1, 2)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9 * float(theirs.abs().max()))


def of_depth(depth):
    torch.manual_seed(2)
    if depth == 10:
        block = torchvision.models.resnet.BasicBlock
        return exactly_mergeable(randomise(torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=20)))
    return exactly_mergeable(randomise(getattr(torchvision.models, f"resnet{depth}")()))


@pytest.mark.parametrize(
    ("depth", "skip", "biases", "epsilon"),
    [
        (18, 0.5, False, 0.0),
        (50, 0.5, False, 0.0),
        (10, "magnitude", False, 0.0),
        (10, "none", True, 0.0),
        (10, 0.3, True, 0.0),
        (10, "signed", False, 1e-3),
    ],
)
def test_zplus_on_torchvision_resnets_as_zennit(depth, skip, biases, epsilon):
    library, x, target = of_depth(depth), images(1 if depth == 50 else 2, 64), 17
    rule = ZPlus(epsilon or TINY, zero_params=None if biases else ["bias"])
    theirs = of_zennit(library, x, target, rule, ResNetCanonizer(), skip, epsilon)
    explainer = LRP(from_torch(library), skip=skip, biases=biases, epsilon=epsilon)
    same(explainer.attribute(x, target), theirs)


def vgg(bias=True):
    torch.manual_seed(3)
    blocks = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    blocks += [nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(3)]
    blocks += [nn.Flatten(), nn.Linear(12 * 9, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5)]
    return randomise(nn.Sequential(*blocks))


@pytest.mark.parametrize("name", ["zplus", "epsilon", "gamma", "box"])
def test_rules_on_a_sequential_cnn_as_zennit(name):
    model, x = exactly_mergeable(vgg()), images(3, 20).tanh()
    target = model(x).argmax(1)
    assert (model(x).amax(1) > 0).all()  # zennit's γ has another form for negative outputs
    low, high = torch.tensor([-1.0, -1.2, -1.1]), torch.tensor([1.0, 1.1, 2.0])
    low_image, high_image = (bound.double()[None, :, None, None].expand_as(x) for bound in (low, high))
    rule, first, options = {
        "zplus": (ZPlus(1e-6), None, {}),
        "epsilon": (Epsilon(1e-6), None, {"rule": "epsilon"}),
        "gamma": (Gamma(0.4, 1e-12), None, {"rule": "gamma", "gamma": 0.4}),
        "box": (ZPlus(1e-6), ZBox(low_image, high_image, stabilizer=1e-6), {"box": (low, high)}),
    }[name]
    epsilon = 1e-12 if name == "gamma" else 1e-6  # ours is beside (1 + γ) times the average, its own beside that alone
    theirs = of_zennit(model, x, target, rule, SequentialMergeBatchNorm(), epsilon=epsilon, first=first)
    same(LRP(model, epsilon=epsilon, biases=True, **options).attribute(x, target), theirs)


# dense matrices


def dense(function, shape):
    """The matrix (outputs, inputs) of a linear function of images, one column at a time."""
    size = int(np.prod(shape))
    columns = [function(unit.reshape(1, *shape)).flatten() for unit in torch.eye(size, dtype=torch.float64)]
    return torch.stack(columns, 1)


def slow(matrix, x, relevance, contribution, bias=None, epsilon=0.0):
    """R_i = Σ_j c_ij R_j / (Σ_k c_kj + b_j ± ε), one pair at a time; also what finds no way on."""
    out, absorbed = torch.zeros(len(x), dtype=torch.float64), 0.0
    for j in range(len(relevance)):
        parts = [contribution(float(matrix[j, i]), float(x[i])) for i in range(len(x))]
        below = sum(parts) + (0.0 if bias is None else contribution(float(bias[j]), 1.0))
        below += epsilon * (1 if below >= 0 else -1)
        if below == 0:
            absorbed += float(relevance[j])
            continue
        for i, part in enumerate(parts):
            out[i] += part / below * relevance[j]
        absorbed += (below - sum(parts)) / below * float(relevance[j])
    return out, absorbed


def relu(value):
    return max(value, 0.0)


RULES = {
    "zplus": ({"rule": "zplus"}, lambda w, z: relu(w * z), False, 0.0),
    "zplus with biases": ({"rule": "zplus", "biases": True}, lambda w, z: relu(w * z), True, 0.0),
    "epsilon": ({"rule": "epsilon", "epsilon": 0.01}, lambda w, z: w * z, True, 0.01),
    "epsilon without biases": ({"rule": "epsilon", "biases": False}, lambda w, z: w * z, False, 1e-6),
    "gamma": ({"rule": "gamma", "gamma": 0.7}, lambda w, z: w * z + 0.7 * relu(w * z), True, 1e-6),
}


@pytest.mark.parametrize("sign", ["mixed", "positive"])
@pytest.mark.parametrize("rule", RULES)
def test_layers_as_dense_matrices(rule, sign):
    """A convolution with its BatchNorm, an average, and a linear layer, each on its own; some windows are all zero."""
    options, contribution, has_bias, epsilon = RULES[rule]
    torch.manual_seed(6)
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64)
    x = x.relu() if sign == "positive" else x
    x[:, :, 2:] = 0
    block = randomise(nn.Sequential(nn.Conv2d(2, 3, 3, (2, 1), (1, 0), bias=True), nn.BatchNorm2d(3)))
    linear = randomise(nn.Sequential(nn.Flatten(), nn.Linear(40, 4), nn.BatchNorm1d(4)))
    layers = [
        (block, fuse_conv_bn_eval(*block)),
        (linear, nn.Sequential(nn.Flatten(), fuse_linear_bn_eval(*linear[1:]))),
        (nn.AvgPool2d(2, padding=1, stride=2), nn.AvgPool2d(2, padding=1, stride=2)),
        (nn.AdaptiveAvgPool2d((2, 3)), nn.AdaptiveAvgPool2d((2, 3))),
    ]
    rules = LRP(block, **options).rules
    for model, affine in layers:
        model, affine = model.double().eval(), affine.double()
        zero = affine(torch.zeros_like(x)).detach()  # the bias
        matrix = dense(affine, x.shape[1:]).detach() - zero.flatten()[:, None]
        seed = torch.randn(zero.shape, dtype=torch.float64)
        bias = zero.flatten() if has_bias else None
        expected, absorbed = slow(matrix, x.flatten(), seed.flatten(), contribution, bias, epsilon)
        steps, outputs, numbers = trace(model, x)
        relevance, ledger = propagate(steps, {numbers[outputs]: seed}, rules)
        torch.testing.assert_close(relevance.flatten(), expected, rtol=1e-9, atol=1e-12)
        row = ledger.iloc[-1]
        assert row.layer == ""
        assert abs(row.absorbed - absorbed) < 1e-9
        assert abs(row.relevance_in + row.absorbed - row.relevance_out) < 1e-10


def test_box_as_a_dense_matrix():
    """z^B: c_ij = w_ij x_i - ReLU(w_ij) l_i + ReLU(-w_ij) h_i, padding being at zero, with l, h of its channel."""
    torch.manual_seed(7)
    convolution = nn.Conv2d(2, 3, 3, 2, bias=True).double()
    x, low, high = images(1, 5, 2).sigmoid(), torch.tensor([-0.5, 0.0]), torch.tensor([1.0, 2.0])
    model = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).double()
    explainer = LRP(model, box=(low, high))
    relevance = explainer.attribute(x, 1)
    with torch.no_grad():
        bias = convolution.bias[None, :, None, None]
        matrix = dense(lambda v: convolution(v) - bias, (2, 5, 5))
        hidden = model[:3](x)[0]
        score = float(model(x)[0, 1])
    seed, _ = slow(
        model[3].weight[1:2].detach(), hidden, torch.tensor([score], dtype=torch.float64), lambda w, z: relu(w * z)
    )
    bounds = [bound.double()[:, None, None].expand(2, 5, 5).flatten() for bound in (low, high)]
    expected = torch.zeros(50, dtype=torch.float64)
    for j in range(12):
        row = matrix[j].detach()
        parts = row * x.flatten() - row.clamp(min=0) * bounds[0] + (-row).clamp(min=0) * bounds[1]
        expected += parts / parts.sum() * seed[j]
    torch.testing.assert_close(relevance.flatten(), expected.reshape(2, 25).sum(0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("skip", [0.5, 0.3, "magnitude", "signed", "none"])
def test_sums_value_by_value(skip):
    torch.manual_seed(8)
    main, short, seed = (torch.randn(2, 3, 4, 4, dtype=torch.float64) for _ in range(3))
    main[0, 0, 0], short[0, 0, 0] = 0, 0  # a zero denominator
    step = Step("add", Add(), (1, 2), 3, main.shape, (main, short))
    (ours_main, ours_short), absorbed = LRP(nn.ReLU(), skip=skip).rules(step, seed)
    expected, lost = [torch.zeros_like(main), torch.zeros_like(main)], torch.zeros(2, dtype=torch.float64)
    for at in np.ndindex(2, 3, 4, 4):
        m, s, r = float(main[at]), float(short[at]), float(seed[at])
        whole = {"magnitude": abs(m) + abs(s), "signed": m + s}.get(skip, 1.0)
        if whole == 0:
            lost[at[0]] += r
            continue
        shares = {"magnitude": (abs(m), abs(s)), "signed": (m, s), "none": (1, 0)}.get(skip) or (skip, 1 - skip)
        for part, share in zip(expected, shares):
            part[at] = share / whole * r
    torch.testing.assert_close(ours_main, expected[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.zeros_like(main) if skip == "none" else ours_short, expected[1])
    torch.testing.assert_close(torch.zeros(2).double() if absorbed is None else absorbed, lost)
    if skip in ("magnitude", "signed"):
        assert float(lost[0]) != 0


def test_the_largest_of_a_window_gets_all():
    x, seed = images(1, 6, 2), images(1, 3, 2, seed=9)
    steps, outputs, numbers = trace(nn.MaxPool2d(3, 2, 1), x)
    relevance, _ = propagate(steps, {numbers[outputs]: seed}, LRP(nn.ReLU()).rules)
    expected = torch.zeros_like(x)
    for c, i, j in np.ndindex(2, 3, 3):
        window = [(y, z) for y in range(2 * i - 1, 2 * i + 2) for z in range(2 * j - 1, 2 * j + 2) if min(y, z) >= 0]
        y, z = max(window, key=lambda at: float(x[0, c][at]))
        expected[0, c, y, z] += seed[0, c, i, j]
    torch.testing.assert_close(relevance, expected, rtol=0, atol=1e-12)


# folding


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_folding_as_torch(bias, affine):
    torch.manual_seed(9)
    for layer, norm, x, fuse in (
        (nn.Conv2d(3, 4, 3, 2, bias=bias), nn.BatchNorm2d(4, affine=affine), images(), fuse_conv_bn_eval),
        (nn.Linear(6, 4, bias=bias), nn.BatchNorm1d(4, affine=affine), images(2, 6)[:, 0, 0], fuse_linear_bn_eval),
    ):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        model = nn.Sequential(layer, norm).double().eval()
        (step,), outputs, _ = trace(model, x)
        function, weight, offset = _as_linear(step)
        if affine:
            fused = fuse(layer, norm)
            torch.testing.assert_close(weight, fused.weight.detach(), rtol=1e-12, atol=0)
            torch.testing.assert_close(offset.flatten(), fused.bias.detach(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(function(x, weight) + offset, outputs, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(layer(x), model[0](x))  # the layer itself is as it was


def test_same_relevance_with_batchnorm_folded_by_torch():
    """In the sequence and in the shortcut."""
    model, x = gated(), images()
    folded = gated()
    for name in ("first", "second", "third", "shortcut"):
        setattr(folded, name, fuse_conv_bn_eval(*folded.get_submodule(name)))
    folded.stem[0] = fuse_conv_bn_eval(*folded.stem[0])
    for options in ({"skip": 0.5}, {"rule": "gamma", "skip": "magnitude"}):
        ours = LRP(model, **options).attribute(x, 1)
        torch.testing.assert_close(ours, LRP(folded, **options).attribute(x, 1), rtol=1e-7, atol=1e-10)


# two starts and a gate, as a branch network has them


def test_two_starts_add_up_where_the_branches_meet():
    """Paper 5, eq. (4): R(h) = R_AB + R_PB, and the walk below h is linear in R(h)."""

    class Branches(Gated):
        def forward(self, x):
            h = self.features(x)
            branch = self.branch(h)
            x = self.relu3(self.add2(self.third(self.gate(h, self.attention(h))), self.shortcut(h)))
            return self.fc(self.head(self.pool(x))), branch

    torch.manual_seed(0)
    model = Branches()
    model.branch = nn.Sequential(nn.Conv2d(6, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model, x = randomise(model), images()
    rules = LRP(model).rules
    with preserve_state(model), torch.no_grad():
        steps, (main, branch), numbers = trace(model, x)
        seeds = {numbers[main]: main.softmax(1), numbers[branch]: branch.softmax(1)}
        together, ledger = propagate(steps, seeds, rules)
        each = [propagate(steps, {number: seed}, rules)[0] for number, seed in seeds.items()]
    assert all(part.abs().max() > 1e-6 for part in each)
    torch.testing.assert_close(together, each[0] + each[1], rtol=1e-9, atol=1e-12)
    assert abs(ledger.iloc[-1].relevance_out - 4) < 1e-12
