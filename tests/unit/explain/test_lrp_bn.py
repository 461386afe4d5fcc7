"""LRP-BN against dense matrices and zennit, where its relevance goes, and its edge cases."""

import copy

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from checks import as_trained
from torch import nn

from xai_utils.explain import LRP, LRPBN, AttentionMap, c1c, lrp_bn, upsample
from xai_utils.explain.lrp import Rules
from xai_utils.models import Add, AttentionBranchNetwork, Gate, resnet18

TARGETS = torch.tensor([2, 0])


def images(n=2, height=20, width=28, channels=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, height, width, dtype=torch.float64, generator=generator).to(dtype)


def network(depth=18, n_classes=3, width=4, in_channels=2, dtype=torch.float64, **options):
    """A tiny one in evaluation mode, with BatchNorm as after training, and a map that varies around 0.5."""
    torch.manual_seed(0)
    model = as_trained(AttentionBranchNetwork(depth, n_classes, width, in_channels, **options).double())
    with torch.no_grad():
        branch = model.attention
        scores = branch.map[:4](branch.reduce(branch.blocks(model.extractor(images(channels=in_channels)))))
        branch.map[4].running_mean.fill_(scores.mean())
        branch.map[4].running_var.fill_(scores.var())
        branch.map[4].bias.zero_()
    return model.to(dtype)


# dense matrices: the paper's formulas, one image at a time, on the network's structure


def zplus(layers, x, relevance):
    """Eq. (3) for layers that are affine together: R_i = Σ_j ReLU(w_ij z_i) / Σ_k ReLU(w_kj z_k) R_j, as a matrix."""
    zero = layers(torch.zeros_like(x))
    units = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])
    matrix = (layers(units) - zero).flatten(1).T  # w_ij at [j, i]
    contributions = (matrix * x.flatten()).clamp(min=0)
    below = contributions.sum(1, keepdim=True)
    shares = torch.where(below > 0, contributions / below, 0.0)
    return (shares.T @ relevance.flatten()).reshape(x.shape)


def winners(pool, x, relevance):
    _, where = F.max_pool2d(x, pool.kernel_size, pool.stride, pool.padding, return_indices=True)
    out = torch.zeros_like(x).flatten(2)
    return out.scatter_add(2, where.flatten(2), relevance.flatten(2)).reshape(x.shape)


def back(layers, x, relevance, gamma):
    """Relevance of x, the input of a list of modules, of that of their output."""
    groups = []  # (BatchNorm goes with the layer before it)
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            groups[-1] = nn.Sequential(groups[-1], layer)
        else:
            groups.append(layer)
    inputs = [x]
    for layer in groups:
        inputs.append(layer(inputs[-1]))
    for layer, z in zip(reversed(groups), reversed(inputs[:-1])):
        if isinstance(layer, (nn.ReLU, nn.Flatten)):
            relevance = relevance.reshape(z.shape)
        elif isinstance(layer, nn.MaxPool2d):
            relevance = winners(layer, z, relevance)
        elif hasattr(layer, "add"):  # a residual block, eq. (5)
            main = [getattr(layer, name) for name in ("conv1", "bn1", "relu1", "conv2", "bn2")]
            if hasattr(layer, "conv3"):
                main += [layer.relu2, layer.conv3, layer.bn3]
            shortcut = [] if layer.downsample is None else list(layer.downsample)
            through = back(main, z, gamma * relevance, gamma)
            relevance = through + back(shortcut, z, (1 - gamma) * relevance, gamma)
        else:
            relevance = zplus(layer, z, relevance)
    return relevance


@torch.no_grad()
def slow(model, x, targets, gamma, start="probability"):
    """R_AB and R_PB at h, and R = that of FE for their sum, eq. (4); of each image."""
    at_h, maps = [], []
    for image, target in zip(x[:, None], targets):
        h = model.extractor(image)
        attention, branch = model.attention(h)
        alpha = torch.where(attention < model.threshold.theta, 0.0, attention)
        gated = h * (1 + alpha) if model.gate.residual else h * alpha
        prediction = model.perception(gated)
        seeds = []
        for logits in (branch, prediction):
            value = {"probability": logits.softmax(1), "logit": logits, "one": torch.ones_like(logits)}[start]
            seeds.append(value * F.one_hot(target, logits.shape[1]))
        layers = [*model.attention.blocks, *model.attention.reduce, *model.attention.classes]
        of_attention = back(layers, h, seeds[0], gamma)
        of_perception = back(list(model.perception), gated, seeds[1], gamma)  # at α′ ⊙ h, and so at h
        at_h.append((of_attention, of_perception))
        maps.append(back(list(model.extractor), image, of_attention + of_perception, gamma).sum(1)[0])
    return at_h, torch.stack(maps)


CASES = [
    ({}, 0.5, "probability"),
    ({"theta": 0.5}, 0.3, "probability"),
    ({"residual": True, "theta": 0.45, "max_pool": False}, 0.5, "logit"),
    ({"depth": 50, "blocks": 5}, 0.8, "one"),
]


@pytest.mark.parametrize(("options", "gamma", "start"), CASES, ids=str)
def test_as_dense_matrices(options, gamma, start):
    model, x = network(**{"width": 2, **options}), images(height=16, width=20)
    at_h, expected = slow(model, x, TARGETS, gamma, start)
    assert expected.abs().max() > 1e-3
    explainer = LRPBN(model, skip=gamma, start=start, multiply=False, c1c=False)
    torch.testing.assert_close(explainer.attribute(x, TARGETS), expected, rtol=1e-9, atol=1e-12)
    ledger = explainer.ledger.set_index("layer")
    # per block: what it gives down is what the formulas say, and what is missing was absorbed
    attention, perception = (sum(float(pair[i].sum()) for pair in at_h) for i in (0, 1))
    gate = ledger.loc["gate"]
    assert abs(gate.relevance_out - perception) < 1e-10
    assert abs(gate.relevance_in - perception) < 1e-10
    below = ledger[ledger.index.str.startswith("extractor")]
    assert abs(below.relevance_out.iloc[0] - (attention + perception)) < 1e-10
    assert abs(ledger.relevance_in.iloc[-1] - float(expected.sum())) < 1e-10


@pytest.mark.parametrize("skip", [0.5, "magnitude"])
@pytest.mark.parametrize("rule", ["zplus", "epsilon"])
def test_every_block_conserves_and_the_whole_closes_against_both_starts(rule, skip):
    model, x = network(theta=0.5), images()
    explainer = LRPBN(model, rule, skip)
    assert explainer.ledger is None
    explainer.attribute(x, TARGETS)
    ledger = explainer.ledger
    error = (ledger.relevance_in + ledger.absorbed - ledger.relevance_out).abs()
    assert (error < 1e-10 * (1 + ledger.relevance_out.abs().max())).all()
    with torch.no_grad():
        found = model.branches(x)
    starts = sum(float(logits.softmax(1).gather(1, TARGETS[:, None]).sum()) for logits in found[:2])
    assert abs(ledger.relevance_out.iloc[-1] - starts) < 1e-12
    assert abs(ledger.absorbed.iloc[-1] - ledger.absorbed.iloc[:-1].sum()) < 1e-9 * (1 + ledger.absorbed.abs().max())
    names = set(ledger.layer)
    assert {"attention.classes.0", "attention.blocks.0.add", "perception.fc", "gate"} <= names
    assert not any(name.startswith(("attention.map", "threshold")) for name in names)  # signal takes all


@pytest.mark.parametrize("layer", ["gate", "attention.classes.0", "perception.fc", "extractor.conv1"])
def test_a_corrupted_rule_makes_the_check_fire(layer, monkeypatch):
    model, x = network(), images()
    correct = Rules.__call__

    def corrupted(self, step, relevance):
        parts, absorbed = correct(self, step, relevance)
        return ((parts[0] * 1.01, *parts[1:]) if step.name == layer else parts), absorbed

    monkeypatch.setattr(Rules, "__call__", corrupted)
    with pytest.raises(ArithmeticError, match=f"not conserved at module '{layer}'"):
        LRPBN(model).attribute(x, TARGETS)


# zennit


class Stacked(nn.Module):
    """Zennit's Sum over (shortcut, block) for our Add."""

    def __init__(self, sum_):
        super().__init__()
        self.sum = sum_

    def forward(self, main, skip):
        return self.sum(torch.stack([skip, main], -1))


class SignalTakesAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, attention):
        return features * attention

    @staticmethod
    def backward(ctx, relevance):
        return relevance, None


class ZennitGate(nn.Module):
    def forward(self, features, attention):
        return SignalTakesAll.apply(features, attention.detach())


@pytest.mark.parametrize(("depth", "gamma"), [(18, 0.5), (50, 0.3)])
def test_as_zennit_with_the_same_rules(depth, gamma):
    pytest.importorskip("zennit")
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import LayerMapComposite
    from zennit.core import BasicHook
    from zennit.layer import Sum
    from zennit.rules import NoMod, Pass, ZPlus
    from zennit.types import Activation, AvgPool, Convolution, Linear

    model, x, tiny = network(depth, theta=0.4), images(height=40, width=48), 1e-20
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0  # zennit's merged BatchNorm still divides by √(1 + eps)
    twin = copy.deepcopy(model)
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, Add):
                setattr(module, name, Stacked(Sum()))
            elif isinstance(child, Gate):
                setattr(module, name, ZennitGate())
    skip = BasicHook(
        [lambda z: z],
        [NoMod(param_keys=[])],
        [lambda output: output],
        lambda gradient, outputs: gradient,
        lambda inputs, gradients: gradients[0] * torch.tensor([1 - gamma, gamma]).to(gradients[0]),
    )
    average = BasicHook(  # z⁺ too: the attention branch's GAP is of class scores of both signs
        [lambda z: z.clamp(min=0)],
        [NoMod()],
        [lambda output: output],
        lambda gradient, outputs: gradient / (outputs[0] + tiny),
        lambda inputs, gradients: inputs[0] * gradients[0],
    )
    rule = ZPlus(tiny, zero_params=["bias"])
    layers = [(Activation, Pass()), (Sum, skip), (AvgPool, average), (Convolution, rule), (Linear, rule)]
    with LayerMapComposite(layers, canonizers=[SequentialMergeBatchNorm()]).context(twin) as hooked:
        start = x.clone().requires_grad_()
        found = hooked.branches(start)
        seeds = [logits.detach().softmax(1) * F.one_hot(TARGETS, 3) for logits in found[:2]]
        (theirs,) = torch.autograd.grad(found[:2], start, seeds)
    ours = LRPBN(model, skip=gamma, multiply=False, c1c=False).attribute(x, TARGETS)
    torch.testing.assert_close(ours, theirs.sum(1), rtol=1e-6, atol=1e-9 * float(ours.abs().max()))
    assert torch.corrcoef(torch.stack([ours.flatten(), theirs.sum(1).flatten()]))[0, 1] > 0.999999


# branches and starts


@pytest.mark.parametrize("skip", [0.5, "magnitude", "signed", "none"])
@pytest.mark.parametrize("rule", ["zplus", "epsilon", "gamma"])
def test_relevance_is_the_sum_of_both_branches(rule, skip):
    """Linear in the starts: the two walks, each down to the images, add up to the one of the sum."""
    model, x = network(theta=0.5), images()
    options = {"epsilon": 0.05} if rule == "epsilon" else {}
    both = LRPBN(model, rule, skip, **options).parts(x, TARGETS)
    scale = float(torch.stack(both[-2:]).abs().max())
    assert all(float(part.abs().max()) > 1e-6 for part in both[-2:])
    torch.testing.assert_close(
        both.relevance, both.from_attention + both.from_perception, rtol=1e-9, atol=1e-12 * scale
    )
    for branch in ("attention", "perception"):
        alone = LRPBN(model, rule, skip, branches=branch, **options)
        parts = alone.parts(x, TARGETS)
        assert torch.equal(parts.relevance, getattr(both, f"from_{branch}"))
        assert torch.equal(parts.from_attention, both.from_attention)
        assert torch.equal(parts.from_perception, both.from_perception)
        assert torch.equal(alone.attribute(x, TARGETS), parts.component)
        other = "perception" if branch == "attention" else "attention"
        assert not any(name.startswith(other) for name in alone.ledger.layer)


@pytest.mark.parametrize("skip", [0.5, "magnitude", "none"])
@pytest.mark.parametrize("options", [{}, {"rule": "epsilon", "epsilon": 0.05}, {"rule": "gamma"}, {"box": "ones"}])
def test_one_walk_gives_the_numbers_of_a_walk_for_each_start(options, skip, monkeypatch):
    """Maps to the bit; in each layer, contributions once, and shares once for equal relevances.

    The ledger's sums agree to the last digit of single precision: some processors add a part of a batch in another
    order than the whole (an Intel Xeon of model 207 one of 67 rows, by 1.5e-7 of itself).
    """
    model, x = network(theta=0.5).float(), images().float()
    made = []
    correct = Rules.contributions
    monkeypatch.setattr(Rules, "contributions", lambda self, step: (made.append(step.name), correct(self, step))[1])
    explainer = LRPBN(model, skip=skip, **options)
    parts = explainer.parts(x, TARGETS)
    assert len(made) == len(set(made))
    alone = {
        branch: LRPBN(model, skip=skip, branches=branch, multiply=False, c1c=False, **options)
        for branch in ("both", "attention", "perception")
    }
    maps = {branch: one.attribute(x, TARGETS) for branch, one in alone.items()}
    assert torch.equal(parts.relevance, maps["both"])
    assert torch.equal(parts.from_attention, maps["attention"])
    assert torch.equal(parts.from_perception, maps["perception"])
    assert not torch.equal(maps["both"], maps["perception"])
    pd.testing.assert_frame_equal(explainer.ledger, alone["both"].ledger, rtol=2.4e-7, atol=1e-7)


def test_the_perception_branch_alone_is_lrp_on_the_network():
    model, x = network(), images()
    for start in ("logit", "probability", "one"):
        alone = LRPBN(model, start=start, branches="perception", multiply=False, c1c=False)
        plain = LRP(model, start=start)
        torch.testing.assert_close(alone.attribute(x, TARGETS), plain.attribute(x, TARGETS), rtol=1e-12, atol=1e-15)
        assert alone.ledger.equals(plain.ledger)


@pytest.mark.parametrize("start", ["probability", "logit", "one"])
@pytest.mark.parametrize("seeds", ["own", "perception"])
def test_starts(seeds, start):
    model, x = network(), images()
    with torch.no_grad():
        found = model.branches(x)
    values = {"probability": lambda z: z.softmax(1), "logit": lambda z: z, "one": torch.ones_like}[start]
    perception, attention = (values(logits).gather(1, TARGETS[:, None])[:, 0] for logits in found[:2])
    if seeds == "perception":
        attention = perception
    explainer = LRPBN(model, start=start, seeds=seeds)
    parts = explainer.parts(x, TARGETS)
    assert abs(explainer.ledger.relevance_out.iloc[-1] - float((perception + attention).sum())) < 1e-12
    one = LRPBN(model, start="one").parts(x, TARGETS)
    for part, unit, value in (
        (parts.from_attention, one.from_attention, attention),
        (parts.from_perception, one.from_perception, perception),
    ):
        torch.testing.assert_close(part, unit * value[:, None, None], rtol=1e-9, atol=1e-13)


def test_the_start_is_the_probability_and_gamma_a_half_unless_said_otherwise():
    model, x = network(), images()
    expected = LRPBN(model, "zplus", 0.5, "probability", branches="both", seeds="own", multiply=True, c1c=True)
    assert torch.equal(LRPBN(model).attribute(x, TARGETS), expected.attribute(x, TARGETS))


# from R to the explanation


def test_product_and_component_by_formula():
    model, x = network(theta=0.5), images()
    explainer = LRPBN(model)
    parts = explainer.parts(x, TARGETS)
    with torch.no_grad():
        attention = model.branches(x).attention
    alpha = torch.where(attention < 0.5, 0.0, attention)  # α′, not α̃
    assert not torch.equal(alpha, attention)
    enlarged = F.interpolate(alpha, size=(20, 28), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(parts.attention, enlarged, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(parts.product, parts.relevance * enlarged, rtol=1e-12, atol=1e-16)
    assert torch.equal(parts.component, c1c(parts.product, 28, "mean", 8, 1))
    assert torch.equal(explainer.attribute(x, TARGETS), parts.component)
    assert not torch.equal(parts.component, parts.product)


def test_steps_can_be_left_out_and_set():
    model, x = network(), images()
    parts = LRPBN(model).parts(x, TARGETS)
    expected = {
        (True, False): parts.product,
        (False, False): parts.relevance,
        (False, True): c1c(parts.relevance),
        (True, True): parts.component,
    }
    for (multiply, component), maps in expected.items():
        explainer = LRPBN(model, multiply=multiply, c1c=component)
        assert torch.equal(explainer.attribute(x, TARGETS), maps)
        for again, part in zip(explainer.parts(x, TARGETS), parts, strict=True):
            assert torch.equal(again, part)  # all of them, whatever `attribute` uses
    options = {"size": 7, "threshold": 0.0, "connectivity": 4, "keep": 2}
    chosen = LRPBN(model, c1c=options)
    assert torch.equal(chosen.attribute(x, TARGETS), c1c(parts.product, **options))
    assert torch.equal(chosen.parts(x, TARGETS).component, c1c(parts.product, **options))
    assert not torch.equal(chosen.attribute(x, TARGETS), parts.component)


def test_options_of_lrp_are_passed_on():
    model, x = network(), images().sigmoid()
    plain = LRPBN(model, "gamma", gamma=0.7, epsilon=0.1, biases=False, box=(0, 1)).parts(x, TARGETS)
    lrp = LRP(model, "gamma", start="probability", gamma=0.7, epsilon=0.1, biases=False, box=(0, 1))
    torch.testing.assert_close(plain.from_perception, lrp.attribute(x, TARGETS), rtol=1e-12, atol=1e-15)
    with pytest.raises(ValueError, match="box: pixels from"):
        LRPBN(model, box=(0, 0.5)).attribute(x, TARGETS)


# edges


def test_attention_that_is_empty_after_theta():
    model, x = network(theta=1.0), images()
    explainer = LRPBN(model)
    parts = explainer.parts(x, TARGETS)
    zero = torch.zeros(2, 20, 28).double()
    for part in (parts.attention, parts.product, parts.component, parts.from_perception):
        assert torch.equal(part, zero)
    assert torch.equal(explainer.attribute(x, TARGETS), zero)
    assert torch.equal(parts.relevance, parts.from_attention)
    assert parts.relevance.abs().max() > 1e-6
    ledger = explainer.ledger.set_index("layer")  # all that the perception branch starts with is absorbed on its way
    assert ledger.loc["gate"].relevance_out == 0
    assert torch.equal(AttentionMap(model).attribute(x, 0), zero)


def relevance_of(maps, monkeypatch):
    """Let the walk return these maps."""
    monkeypatch.setattr(lrp_bn, "propagate_each", lambda _, starts, __: [(maps[:, None], None)] * len(starts))


def test_of_equal_peaks_the_larger_component_then_the_first(monkeypatch):
    maps = torch.zeros(2, 28, 28).double()
    maps[:, 3, 5] = maps[:, 20:22, 9] = 4.0  # image 0: the lower one is larger
    maps[1, 4, 5] = 4.0  # image 1: equally large, so the upper one
    relevance_of(maps, monkeypatch)
    found = LRPBN(network(), multiply=False).attribute(images(height=28, width=28), 0)
    expected = torch.zeros_like(maps)
    expected[0, 20:22, 9] = expected[1, 3:5, 5] = 4.0
    assert torch.equal(found, expected)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_relevance_that_is_nowhere_positive(value, monkeypatch):
    relevance_of(torch.full((2, 20, 28), value).double(), monkeypatch)
    assert torch.equal(LRPBN(network()).attribute(images(), 0), torch.zeros(2, 20, 28).double())


def test_logits_of_zero_and_below():
    model, x = network(), images()
    with torch.no_grad():
        for layer in (model.perception.fc, model.attention.classes[0]):
            layer.weight.zero_()
            layer.bias.zero_()
    explainer = LRPBN(model, start="logit")
    assert all(torch.equal(part, torch.zeros_like(part)) for part in explainer.parts(x, 1)[2:])
    assert (explainer.ledger.iloc[-1, 2:] == 0).all()
    with torch.no_grad():
        for layer in (model.perception.fc, model.attention.classes[0]):
            layer.weight.uniform_(0, 0.1)
            layer.bias.fill_(-9)
    parts = explainer.parts(x, 1)
    assert parts.relevance.amax() <= 0 > parts.relevance.amin()
    assert torch.equal(parts.component, torch.zeros_like(parts.component))


def test_a_batch_of_one_class_and_image_by_image():
    model, x = network(), images(3)
    explainer = LRPBN(model)
    together = explainer.attribute(x, 1)
    assert torch.equal(together, explainer.attribute(x, torch.tensor([1, 1, 1])))
    for i in range(3):
        torch.testing.assert_close(explainer.attribute(x[i : i + 1], 1)[0], together[i], rtol=1e-9, atol=1e-13)
    assert not torch.allclose(explainer.attribute(x, 2), together)


def test_a_network_with_one_output():
    model, x = network(n_classes=1), images()
    explainer = LRPBN(model, start="logit")
    assert torch.equal(explainer.attribute(x), explainer.attribute(x, 0))
    with pytest.raises(ValueError, match="start='probability' needs several classes"):
        LRPBN(model).attribute(x)


def test_float32_is_near_float64():
    explainer = LRPBN(network(dtype=torch.float32), c1c=False)
    maps = explainer.attribute(images(dtype=torch.float32), TARGETS)
    assert maps.dtype == torch.float32
    expected = LRPBN(network(), c1c=False).attribute(images(), TARGETS)
    torch.testing.assert_close(maps.double(), expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("make", [LRPBN, AttentionMap])
class TestBothExplainers:
    @pytest.mark.parametrize("wrong", [resnet18(2, 2), nn.Linear(2, 2), "abn"])
    def test_another_model(self, make, wrong):
        kind = type(wrong).__name__
        with pytest.raises(TypeError, match=f"abn: got a {kind}; {make.__name__} explains an .*AttentionBranchNetwork"):
            make(wrong)

    @pytest.mark.parametrize(
        ("target", "error"), [(3, ValueError), (-1, ValueError), (None, ValueError), (1.0, TypeError)]
    )
    def test_wrong_target(self, make, target, error):
        with pytest.raises(error, match="target: got"):
            make(network()).attribute(images(), target)

    @pytest.mark.parametrize("training", [True, False])
    def test_modes_and_contexts_give_one_map(self, make, training):
        x, expected = images(), make(network()).attribute(images(), 1)
        model = network().train(training)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            with context():
                assert torch.equal(make(model).attribute(x, 1), expected)
        assert all(module.training is training for module in model.modules())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert not expected.requires_grad

    def test_a_failing_forward_leaves_the_model_as_found(self, make):
        class Fails(nn.Module):
            def forward(self, features):
                raise RuntimeError("the forward pass failed")

        model = network().train()
        model.perception.block6 = Fails()
        keys = [sorted(vars(module)) for module in model.modules()]
        with pytest.raises(RuntimeError, match="the forward pass failed"):
            make(model).attribute(images(), 1)
        assert all(module.training for module in model.modules())
        assert [sorted(vars(module)) for module in model.modules()] == keys
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

    @pytest.mark.parametrize("layer", ["perception.fc", "attention.classes.0"])
    def test_logits_that_are_not_finite(self, make, layer):
        model = network()
        with torch.no_grad():
            model.get_submodule(layer).weight[0] = torch.nan
        with pytest.raises(ValueError, match="outputs hold NaN or infinite values"):
            make(model).attribute(images(), 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"branches": "AB"}, ValueError, "branches: got 'AB'; expected one of both, attention, perception"),
        ({"seeds": "both"}, ValueError, "seeds: got 'both'; expected one of own, perception"),
        ({"start": "loss"}, ValueError, "start: got 'loss'"),
        ({"skip": 2}, ValueError, "skip: got 2"),
        ({"c1c": None}, TypeError, "c1c: got None; expected True, False, or a dict"),
        ({"c1c": {"size": 0}}, ValueError, "size: got 0"),
        ({"c1c": {"cells": 28}}, TypeError, "cells"),
        ({"theta": 0.1}, TypeError, "theta"),
    ],
)
def test_options_that_do_not_exist(options, error, message):
    with pytest.raises(error, match=message):
        LRPBN(network(), **options)


# the plain map


@pytest.mark.parametrize("thresholded", [True, False])
def test_attention_map(thresholded):
    model, x = network(theta=0.5), images()
    explainer = AttentionMap(model, thresholded=thresholded)
    with torch.no_grad():
        attention = model.branches(x).attention[:, 0]
    expected = torch.where(attention < 0.5, 0.0, attention) if thresholded else attention
    assert torch.equal(explainer.attribute_layer(x, 0), expected)
    assert (expected == 0).any() == thresholded
    maps = explainer.attribute(x, TARGETS)
    assert torch.equal(maps, upsample(expected, (20, 28)))
    assert torch.equal(maps, explainer.attribute(x, 1))  # one map for all classes
