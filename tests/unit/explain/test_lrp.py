"""LRP: what is refused, where relevance goes, and that nothing else changes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xai_utils.explain import lrp
from xai_utils.explain.lrp import LRP, Rules, propagate, trace
from xai_utils.models import from_torch
from xai_utils.models.layers import Add, Gate
from xai_utils.models.resnet import resnet18

ALL = [
    {"rule": rule, "skip": skip}
    for rule in ("zplus", "epsilon", "gamma")
    for skip in (0.5, "magnitude", "signed", "none")
]


def images(n=2, size=12, dtype=torch.float64, channels=3):
    x = torch.randn(n, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return x.to(dtype)


class Net(nn.Module):
    """A small net with rules for all it does; `forward` of a subclass does something else in the middle."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.block, self.add = nn.Conv2d(4, 4, 3, padding=1), Add()
        self.gate, self.attention = Gate(), nn.Sequential(nn.Conv2d(4, 1, 1), nn.Sigmoid())
        self.relu, self.pool, self.flatten = nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        self.head = nn.Linear(16, 3)
        self.double().eval()

    def middle(self, x):
        return self.add(self.block(x), x)

    def forward(self, x):
        return self.head(self.flatten(self.pool(self.relu(self.middle(self.stem(x))))))


class Inner(nn.Module):
    """A module inside, which does `function` in its forward."""

    def __init__(self, function):
        super().__init__()
        self.function, self.part = function, nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return self.function(self.part(x), x)


def inside(function):
    model = Net()
    model.block = nn.Sequential(Inner(function), nn.ReLU()).double()
    return model.eval()


def plus_equal(a, b):
    a += b
    return a


def item(a, b):
    a[:, 0] = 0
    return a


FUNCTIONS = {
    "+": (lambda a, b: a + b, "'add'.*xai_utils.models.Add"),
    "+=": (plus_equal, "'add'.*xai_utils.models.Add"),
    "torch.add": (torch.add, "'add'.*xai_utils.models.Add"),
    "add_": (lambda a, b: a.add_(b), "'add'"),
    "1 + x": (lambda a, b: 1 + a, "'r?add'"),
    "*": (lambda a, b: a * b, "'mul'.*xai_utils.models.Gate"),
    "cat": (lambda a, b: torch.cat([a, b])[: len(a)], "'cat'"),
    "out=": (lambda a, b: torch.add(torch.ones(1), 1, out=a), "'add'"),
    "relu": (lambda a, b: F.relu(a), "'relu'.*nn.ReLU"),
    "relu_": (lambda a, b: a.relu_(), "'relu'"),
    "flatten": (lambda a, b: a.flatten(1).view(a.shape), r"'flatten'.*nn\.Flatten\(\)"),
    "softmax": (lambda a, b: F.softmax(a, 1), "'softmax'.*explain the logits"),
    "index": (lambda a, b: a[:], "'getitem'"),
    "item": (item, "'setitem'"),
    "conv2d": (lambda a, b: F.conv2d(b, torch.ones(4, 4, 1, 1).double()), "'conv2d'"),
    "zeros_like": (lambda a, b: torch.zeros_like(a), "'zeros_like'"),
    "detach": (lambda a, b: a.detach(), "'detach'"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operations_outside_modules_are_refused(name):  # whatever the rule: before any is looked up
    function, message = FUNCTIONS[name]
    model, x = inside(function), images()
    before = x.clone()
    with pytest.raises(ValueError, match=rf"module 'block\.0' \(Inner\) calls {message}"):
        LRP(model).attribute(x, 1)
    assert torch.equal(x, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_operations_in_the_models_own_forward():
    class Sum(Net):
        def middle(self, x):
            return self.block(x) + x

    class Softmax(Net):
        def forward(self, x):
            return super().forward(x).softmax(1)

    for kind, message in ((Sum, "'add'"), (Softmax, "'softmax'.*explain the logits")):
        with pytest.raises(ValueError, match=rf"the model itself \({kind.__name__}\) calls {message}"):
            LRP(kind()).attribute(images(), 1)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_torchvision_models_as_they_come_are_refused(name):
    models = pytest.importorskip("torchvision").models
    with pytest.raises(ValueError, match=r"'relu' \(ReLU\) works in place|in place|calls 'cat'"):
        LRP(getattr(models, name)(num_classes=3).eval()).attribute(images(1, 32, torch.float32), 1)


def replaced(**modules):
    model = Net()
    for name, module in modules.items():
        parent, _, last = name.rpartition("__")
        setattr(model.get_submodule(parent.replace("__", ".")), last, module.double())
    return model.eval()


class Subclass(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.weight


class Plus(nn.Module):
    def forward(self, main, skip):
        return main + skip


class Changes(nn.Module):
    def forward(self, x):
        return x.mul_(2)


def with_hook(kind):
    model = Net()
    if kind == "forward":
        model.block.register_forward_hook(lambda module, args, output: output * 2)
    else:
        model.block.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    return model


def own_forward():
    model = Net()
    model.block.forward = lambda x: x * 2
    return model


def parametrized():
    model = Net()
    nn.utils.parametrizations.weight_norm(model.block)
    return model


def twice():
    model = Net()
    model.relu = model.stem[2]
    return model


class Twice(Net):
    def middle(self, x):
        return self.add(self.block(self.block(x)), x)


class NormAlone(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4).double().eval()

    def middle(self, x):
        return self.norm(super().middle(x))


class NormBesides(NormAlone):
    def middle(self, x):
        y = self.block(x)
        return self.add(y, self.norm(y))


class NormAfterwards(NormAlone):
    def middle(self, x):
        y = self.block(x)
        other = self.gate(y, self.attention(x))
        return self.add(self.norm(y), other)


class NormTwice(NormAlone):
    def middle(self, x):
        return self.add(self.norm(self.block_norm(self.block(x))), x)

    def __init__(self):
        super().__init__()
        self.block_norm = nn.BatchNorm2d(4).double().eval()


class ByName(Net):
    def middle(self, x):
        return self.add(main=self.block(x), skip=x)


class Constant(Net):
    def middle(self, x):
        return self.add(self.block(x), torch.ones(2, 4, 12, 12).double())


class Through(Net):
    def middle(self, x):
        with torch._C.DisableTorchFunction():
            y = x * 2
        return self.add(self.block(y), x)


class Behind(Net):
    def middle(self, x):
        with torch._C.DisableTorchFunction():
            x.mul_(2)
        return self.add(self.block(x), x)


class Ends(Net):
    def forward(self, x):
        with torch._C.DisableTorchFunction():
            return super().forward(x) * 1


class Pair(Net):
    def forward(self, x):
        return super().forward(x), x


STRUCTURES = {
    "sigmoid": (lambda: replaced(relu=nn.Sigmoid()), r"module 'relu' \(Sigmoid\) has no rule"),
    "softplus": (lambda: replaced(stem__2=nn.Softplus()), r"module 'stem\.2' \(Softplus\) has no rule"),
    "softmax": (
        lambda: replaced(flatten=nn.Sequential(nn.Flatten(), nn.Softmax(1))),
        r"'flatten\.1' .*explain the log",
    ),
    "a sum of its own": (lambda: replaced(add=Plus()), r"module 'add' \(Plus\) has no rule"),
    "subclass": (lambda: replaced(block=Subclass(4, 4, 3, padding=1)), r"module 'block' \(Subclass\) has no rule"),
    "own parameters": (lambda: replaced(relu=Bare()), r"module 'relu' \(Bare\) has no rule"),
    "changes its input": (lambda: replaced(relu=Changes()), r"input of module 'relu' \(Changes\) was changed in place"),
    "own forward": (own_forward, r"module 'block' \(Conv2d\) has no rule"),
    "parametrized": (parametrized, r"'block' \(ParametrizedConv2d\) calls 'conv2d'"),
    "forward hook": (lambda: with_hook("forward"), "the model itself .* calls 'mul'"),
    "forward pre-hook": (lambda: with_hook("pre"), "the model itself .* calls 'mul'"),
    "relu in place": (lambda: replaced(relu=nn.ReLU(inplace=True)), r"'relu' \(ReLU\) works in place"),
    "dropout in place": (lambda: replaced(relu=nn.Dropout(inplace=True)), r"'relu' \(Dropout\) works in place"),
    "reused": (Twice, r"module 'block' \(Conv2d\) is called twice"),
    "reused ReLU": (twice, r"module 'stem\.2' \(ReLU\) is called twice"),
    "norm alone": (NormAlone, r"module 'norm' \(BatchNorm2d\) cannot be folded"),
    "norm besides": (NormBesides, r"module 'add' \(Add\) got 1 of its 2 tensors"),
    "norm afterwards": (NormAfterwards, r"module 'norm' \(BatchNorm2d\) cannot be folded.*nothing else uses"),
    "two norms": (NormTwice, r"module 'norm' \(BatchNorm2d\) cannot be folded"),
    "no statistics": (
        lambda: replaced(stem__1=nn.BatchNorm2d(4, track_running_stats=False)),
        r"'stem\.1' .*statistics",
    ),
    "by name": (ByName, r"module 'add' \(Add\) got 0 of its 2 tensors.*by position"),
    "a constant": (Constant, r"module 'add' \(Add\) got 1 of its 2 tensors"),
    "unseen": (Through, r"module 'block' \(Conv2d\) got 0 of its 1 tensors"),
    "unseen in place": (Behind, r"an input of module 'block' \(Conv2d\) was changed in place"),
    "indices": (lambda: replaced(pool=nn.MaxPool2d(6, return_indices=True)), r"module 'pool' .* returns a tuple"),
    "unseen end": (Ends, "no module with a rule made what the model returns"),
    "two outputs": (Pair, "the model returned tuple"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_that_are_refused(name):
    make, message = STRUCTURES[name]
    model = make()
    hooks = [(dict(module._forward_hooks), dict(module._forward_pre_hooks)) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        LRP(model).attribute(images(), 1)
    assert [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()] == hooks


def test_a_module_without_rule_on_the_skip_is_refused_even_where_nothing_goes_there():
    class Skip(Net):
        def __init__(self):
            super().__init__()
            self.tanh = nn.Tanh()

        def middle(self, x):
            return self.add(self.block(x), self.tanh(x))

    with pytest.raises(ValueError, match=r"module 'tanh' \(Tanh\) has no rule"):
        LRP(Skip(), skip="none").attribute(images(), 1)


class WithGate(Net):
    def middle(self, x):
        return self.gate(x, self.attention(x))


def test_a_gate_passes_all_to_the_features_and_needs_no_rule_for_the_attention():
    explainer = LRP(WithGate())
    relevance = explainer.attribute(images(), 1)
    assert relevance.abs().max() > 1e-4
    ledger = explainer.ledger.set_index("layer")
    gate = ledger.loc["gate"]
    assert gate.relevance_in == gate.relevance_out != 0
    assert gate.absorbed == 0
    assert not any("attention" in layer for layer in ledger.index)


def test_what_reads_only_or_touches_other_tensors_is_allowed():
    class Reads(Net):
        def forward(self, x):
            self.seen = (x.shape, x.size(0), x.ndim, x.dtype, x.device, len(x), x.dim(), x.numel())
            self.calls = torch.zeros(1) + 1
            if x.shape[1] != 3 or not x.is_floating_point():
                raise ValueError
            return super().forward(x)

    assert torch.equal(LRP(Reads()).attribute(images(), 1), LRP(Net()).attribute(images(), 1))


# where relevance goes


def check(ledger, tolerance=1e-10):
    error = ledger.relevance_in + ledger.absorbed - ledger.relevance_out
    assert (error.abs() <= tolerance * (1 + ledger.relevance_out.abs().max())).all()


@pytest.mark.parametrize("options", ALL, ids=str)
def test_the_ledger_closes_at_every_layer_and_over_the_net(options):
    torch.manual_seed(1)
    model, x = resnet18(4, 6).double().eval(), images(3, 40)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.bias.normal_(0, 0.2)
    explainer = LRP(model, **options, epsilon=1e-2 if options["skip"] == "signed" else None)
    assert explainer.ledger is None
    relevance = explainer.attribute(x, 2)
    ledger = explainer.ledger
    check(ledger)
    whole, layers = ledger.iloc[-1], ledger.iloc[:-1]
    with torch.no_grad():
        assert abs(whole.relevance_out - float(model(x)[:, 2].sum())) < 1e-10
    scale = (
        1 + layers.relevance_out.abs().max()
    )  # ε beside a fixed share is unstable: sums of millions for a logit of 2
    assert abs(whole.relevance_in - float(relevance.sum())) < 1e-10 * scale
    assert abs(whole.absorbed - layers.absorbed.sum()) < 1e-10 * scale
    assert (layers.module == "Add").sum() == 8
    names = dict(model.named_modules())
    assert all(type(names[row.layer]).__name__ == row.module for row in layers.itertuples())
    assert layers.layer.iloc[[0, -1]].tolist() == ["fc", "conv1"]
    assert (layers.absorbed.abs() > 1e-3).any() or options["rule"] == "zplus"


@pytest.mark.parametrize("start", ["logit", "probability", "one"])
def test_starts(start):
    model, x = Net(), images()
    explainer, targets = LRP(model, start=start), torch.tensor([2, 0])
    relevance = explainer.attribute(x, targets)
    with torch.no_grad():
        logits = model(x)
    values = {"logit": logits, "probability": logits.exp() / logits.exp().sum(1, keepdim=True)}
    expected = values.get(start, torch.ones(2, 3).double())[[0, 1], targets]
    assert abs(explainer.ledger.iloc[-1].relevance_out - float(expected.sum())) < 1e-12
    # rules are linear in the relevance: maps differ by the start alone
    one = LRP(model, start="one").attribute(x, targets)
    torch.testing.assert_close(relevance, one * expected[:, None, None], rtol=1e-9, atol=1e-13)


def test_float32_closes_within_its_tolerance_with_room():
    torch.manual_seed(2)
    model, x = resnet18(10, 16).eval(), images(4, 64, torch.float32)
    explainer = LRP(model)
    relevance = explainer.attribute(x, 1)
    assert relevance.dtype == torch.float32
    check(explainer.ledger, 1e-5)
    expected = LRP(resnet_double(model)).attribute(x.double(), 1)
    torch.testing.assert_close(relevance.double(), expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def resnet_double(model):
    twin = resnet18(10, 16).double().eval()
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layer", ["Conv2d", "Linear", "AdaptiveAvgPool2d", "Add", "ReLU", "Flatten", "MaxPool2d"])
def test_a_corrupted_rule_makes_the_check_fire(layer, dtype, monkeypatch):
    model = replaced(flatten=nn.Sequential(nn.MaxPool2d(1), nn.Flatten())).to(dtype)
    correct = Rules.__call__

    def corrupted(self, step, relevance):
        parts, absorbed = correct(self, step, relevance)
        if type(step.module).__name__ == layer:
            wrong = parts[0].clone()
            wrong[1] *= 1.02  # of the second image alone
            parts = (wrong, *parts[1:])
        return parts, absorbed

    x = images(dtype=dtype)
    LRP(model).attribute(x, 1)
    monkeypatch.setattr(Rules, "__call__", corrupted)
    with pytest.raises(ArithmeticError, match=rf"not conserved at module '.*' \({layer}\)"):
        LRP(model).attribute(x, 1)


def test_absorbed_relevance_that_is_left_out_makes_the_check_fire(monkeypatch):
    correct = Rules.__call__
    monkeypatch.setattr(Rules, "__call__", lambda *arguments: (correct(*arguments)[0], None))
    with pytest.raises(ArithmeticError, match="not conserved at module"):
        LRP(Net(), "epsilon", epsilon=0.1).attribute(images(), 1)


@pytest.mark.parametrize(("dtype", "tiny"), [(torch.float32, 1e-41), (torch.float64, 1e-315)])
def test_no_overflow_where_half_of_the_relevance_goes_to_next_to_nothing(dtype, tiny):
    model = Net().to(dtype)
    nn.init.constant_(model.block.weight, tiny)
    nn.init.zeros_(model.block.bias)
    explainer = LRP(model, start="one")
    assert explainer.attribute(images(dtype=dtype), 1).abs().max() > 0
    row = explainer.ledger.set_index("layer").loc["block"]
    assert abs(row.absorbed) > 0
    assert abs(row.absorbed - row.relevance_out) < 1e-6  # as if these denominators were zero


def test_all_zero_relevance():
    model = Net()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    explainer = LRP(model)
    assert torch.equal(explainer.attribute(images(), 1), torch.zeros(2, 12, 12).double())
    assert (explainer.ledger.iloc[-1, 2:] == 0).all()
    explainer = LRP(model, start="one")  # all of it is absorbed: there is nothing that it could go to
    assert torch.equal(explainer.attribute(images(), 1), torch.zeros(2, 12, 12).double())
    assert explainer.ledger.iloc[-1].absorbed == 2


# a sequential CNN, batches, dtypes, modes


def vgg():
    torch.manual_seed(5)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1)]
    layers += [nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 10)]
    layers += [nn.BatchNorm1d(10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 4)]
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("rule", ["zplus", "epsilon", "gamma"])
def test_sequential_cnn_image_by_image(rule):
    model, x, targets = vgg(), images(4), torch.tensor([0, 3, 3, 1])
    explainer = LRP(model, rule)
    together = explainer.attribute(x, targets)
    assert model.training
    for i in range(4):
        torch.testing.assert_close(explainer.attribute(x[i : i + 1], targets[i])[0], together[i], rtol=1e-9, atol=1e-12)
    check(explainer.ledger)
    assert not torch.allclose(explainer.attribute(x, 2), together)


def test_changed_weights_and_statistics_are_seen_by_the_next_call():
    model, x = vgg().eval(), images()
    explainer = LRP(model)
    before = explainer.attribute(x, 1)
    for change in (model[3].weight.data, model[4].running_var, model[4].weight.data):
        change.mul_(torch.linspace(0.2, 3, change.numel()).double().view(change.shape))
        after = explainer.attribute(x, 1)
        assert not torch.allclose(after, before)
        assert torch.equal(LRP(model).attribute(x, 1), after)
        before = after


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_model_and_images_are_left_as_found(training, fails):
    model, x = vgg().train(training), images().requires_grad_()
    model[4].train(not training)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    if fails:
        model[5].inplace = True
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes, values = [module.training for module in model.modules()], x.detach().clone()
    keys = [sorted(vars(module)) for module in model.modules()]
    if fails:
        with pytest.raises(ValueError, match="in place"):
            LRP(model).attribute(x, 1)
    else:
        assert not LRP(model).attribute(x, 1).requires_grad
    assert [module.training for module in model.modules()] == modes
    assert [sorted(vars(module)) for module in model.modules()] == keys
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert torch.equal(x.detach(), values)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_without_gradients_and_in_inference_mode():
    expected = LRP(vgg()).attribute(images(), 1)
    with torch.no_grad():
        assert torch.equal(LRP(vgg()).attribute(images(), 1), expected)
    model = vgg()
    with torch.inference_mode():
        assert torch.equal(LRP(model).attribute(images(), 1), expected)
    assert torch.equal(LRP(vgg().requires_grad_(False)).attribute(images(), 1), expected)


def test_a_copied_torchvision_resnet_for_one_image():
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(6)
    model = from_torch(models.resnet18(num_classes=6))
    explainer = LRP(model)
    relevance = explainer.attribute(images(1, 64, torch.float32), 5)
    assert relevance.shape == (1, 64, 64)
    check(explainer.ledger, 1e-5)


def test_a_single_output_needs_no_target():
    model = vgg()
    model[-1] = nn.Linear(10, 1).double()
    assert torch.equal(LRP(model).attribute(images()), LRP(model).attribute(images(), 0))
    with pytest.raises(ValueError, match="needs several classes"):
        LRP(model, start="probability").attribute(images())


# bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "z+"}, "rule: got 'z\\+'; expected one of zplus, epsilon, gamma"),
        ({"skip": "half"}, "skip: got 'half'; expected a number from 0 to 1, or one of magnitude, signed, none"),
        ({"skip": 1.5}, "skip: got 1.5"),
        ({"skip": True}, "skip: got True"),
        ({"skip": float("nan")}, "skip: got nan"),
        ({"start": "loss"}, "start: got 'loss'; expected one of logit, probability, one"),
        ({"epsilon": -1.0}, r"epsilon=-1\.0"),
        ({"gamma": float("inf")}, "gamma=inf"),
    ],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(ValueError, match=message):
        LRP(Net(), **options)


@pytest.mark.parametrize(
    ("wrong", "target", "error", "message"),
    [
        (images()[0], 1, ValueError, r"got shape \(3, 12, 12\).*inputs\[None\]"),
        (images() * torch.nan, 1, ValueError, "hold NaN"),
        (images().int(), 1, TypeError, "int32"),
        (images(), 3, ValueError, "got 3, but the model has 3 classes"),
        (images(), None, ValueError, "got None, but the model has 3 classes"),
        (images(), 1.0, TypeError, r"got 1\.0"),
    ],
)
def test_wrong_images_and_targets(wrong, target, error, message):
    with pytest.raises(error, match=message):
        LRP(Net()).attribute(wrong, target)


def test_logits_that_are_not_finite():
    model = Net()
    with torch.no_grad():
        model.head.weight[0] = torch.nan
    for target in (0, 1):
        with pytest.raises(ValueError, match="outputs hold NaN or infinite values"):
            LRP(model).attribute(images(), target)


def test_boxes():
    x = images().sigmoid()
    assert LRP(Net(), box=(0, 1)).attribute(x, 1).abs().max() > 0
    for box, message in [
        ((0.6, 1), r"box: pixels from .* lie outside of \(0.6, 1\)"),
        ((0, 0.5), "box: pixels from"),
        ((torch.zeros(2), torch.ones(3)), "two tensors of 3 channels"),
    ]:
        with pytest.raises(ValueError, match=message):
            LRP(Net(), box=box).attribute(x, 1)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(432, 2)).double()
    with pytest.raises(ValueError, match="box: no convolution or linear layer takes the images themselves"):
        LRP(flat, box=(0, 1)).attribute(x, 1)
    with pytest.raises(ValueError, match="box: no convolution or linear layer takes the images themselves"):
        LRP(flat, box="ones").attribute(x, 1)


def test_a_first_layer_that_sees_ones_depends_on_the_weights_alone():
    """R_i = Σ_j ReLU(w_ij) / Σ_k ReLU(w_kj) R_j in the first layer, padding being no pixel; z⁺ behind it."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2)).double().eval()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    found = LRP(model, box="ones", start="one").attribute(x, 1)
    weight, positive = model[0].weight.detach().clamp(min=0), model[3].weight.detach()[1].clamp(min=0)
    for n in range(2):
        share = positive * model[:3](x[n : n + 1])[0].detach()
        seed = (share / share.sum()).reshape(3, 3, 3)
        expected = torch.zeros(5, 5, dtype=torch.float64)
        for j in range(3):
            for row in range(3):
                for column in range(3):
                    cells = [
                        (c, 2 * row + a - 1, 2 * column + b - 1, weight[j, c, a, b])
                        for c in range(2)
                        for a in range(3)
                        for b in range(3)
                        if 0 <= 2 * row + a - 1 < 5 and 0 <= 2 * column + b - 1 < 5
                    ]
                    total = sum(w for *_, w in cells)
                    for _, y, z, w in cells:
                        expected[y, z] += w / total * seed[j, row, column]
        torch.testing.assert_close(found[n], expected, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=r"box: got 'one'.*\"ones\""):
        LRP(model, box="one")


def test_images_that_the_score_does_not_depend_on():
    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.features, self.attention = Gate(), Constant(), nn.Conv2d(3, 1, 1)
            self.end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def forward(self, x):
            return self.end(self.gate(self.features(), self.attention(x)))

    class Constant(nn.Module):
        def forward(self):
            return torch.ones(2, 3, 12, 12).double()

    with pytest.raises(ValueError, match=r"module 'features' \(Constant\) has no rule"):
        LRP(Alone().double()).attribute(images(), 0)
    with pytest.raises(ValueError, match="the score does not depend on the images"):
        propagate([], {3: images()}, LRP(Net()).rules)


def test_what_is_absorbed_on_the_way_counts_for_the_rounding_of_the_whole():
    """Large sums may cancel, or be absorbed again: rounding is on their scale, not on that of the end."""
    model, x = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Identity(), nn.Conv2d(3, 2, 1)).double(), images()
    steps, outputs, numbers = trace(model, x)
    large = torch.full((2,), 1e9 / 3).double()

    def rules(step, relevance):
        part = (relevance if step.name == "2" else relevance[:, :1] * 0).expand(2, 2, 12, 12)
        part = torch.cat([part, torch.zeros(2, 1, 12, 12)], 1) + (large[0] / 3 if step.name == "2" else 1e-3)
        total = part.sum((1, 2, 3))
        return (part,), relevance.sum((1, 2, 3)) - total

    propagate(steps, {numbers[outputs]: torch.randn(2, 2, 12, 12).double()}, rules)


def test_the_recording_holds_what_rules_look_at_and_no_more():
    model, x = Net(), images()
    steps, outputs, numbers = trace(model, x, LRP(model).rules.keeps)
    kept = {step.name: len(step.inputs) for step in steps}
    assert kept == {"stem.0": 1, "stem.2": 0, "block": 1, "add": 0, "relu": 0, "pool": 1, "flatten": 0, "head": 1}
    assert len(numbers) < len(steps)
    assert numbers[outputs] == len(steps)
    assert numbers[x] == 0


# rules by layer -----------------------------------------------------------------------------------------------------


def rule_of(explainer, name):
    """The weights, ε and use of biases that a layer's relevance goes by."""
    own = explainer.rules.layers.get(explainer.model.get_submodule(name), {})
    return explainer.rules._replace(**own)[:3]


def test_rules_by_name_by_function_and_by_kind_are_one_thing():
    model = Net()
    layers = [name for name, module in model.named_modules() if type(module) in (nn.Conv2d, nn.Linear)]
    linear = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    assert linear
    assert set(layers) - set(linear)
    named = LRP(model, rule=dict.fromkeys(linear, "epsilon"))
    made = LRP(model, rule=lambda name, module: "epsilon" if isinstance(module, nn.Linear) else None)
    composed = LRP(model, rule="epsilon_plus")
    for explainer in (named, made, composed):
        for name in layers:
            weights, epsilon, biases = rule_of(explainer, name)
            assert weights is (lrp.epsilon_weight if name in linear else lrp.zplus_weight)
            assert (epsilon, biases) == ((1e-6, True) if name in linear else (0.0, False))
    found = [explainer.attribute(images(), 1) for explainer in (named, made, composed)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], LRP(model).attribute(images(), 1))
    every = dict.fromkeys(layers, "epsilon")
    pools = {name: "epsilon" for name, module in model.named_modules() if type(module) in lrp.POOLS}
    torch.testing.assert_close(
        LRP(model, rule=every | pools).attribute(images(), 1), LRP(model, rule="epsilon").attribute(images(), 1)
    )


def test_the_composite_with_a_box_in_the_first_layer():
    model = Net()
    explainer = LRP(model, rule="epsilon_gamma_box", gamma=0.5, box=(-9.0, 9.0))
    first = next(name for name, module in model.named_modules() if type(module) is nn.Conv2d)
    weights, epsilon, _ = rule_of(explainer, first)
    assert (weights.func, weights.keywords) == (lrp.gamma_weight, {"gamma": 0.5})
    assert epsilon == 1e-6
    assert explainer.attribute(images(), 1).isfinite().all()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("flat", "rule: got 'flat'; expected one of zplus, epsilon, gamma; by kind: epsilon_plus, epsilon_gamma_box"),
        ({"stem.1": "flat"}, "rule: got 'flat'"),
        ({"stem.99": "epsilon"}, r"the model has no module 'stem.99'; the closest: stem\.\d"),
        (lambda name, module: "flat", "rule: got 'flat'"),
        (0.5, "rule: got 0.5"),
    ],
)
def test_unknown_rules_and_modules_are_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        LRP(Net(), rule=rule)
