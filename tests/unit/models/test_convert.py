"""from_torch: any traceable network as a network of modules, with equal outputs, or a clear refusal."""

import pytest
import torch
import torch.nn.functional as F
from checks import as_trained
from torch import nn

from xai_utils.explain import LRP
from xai_utils.models import Add, Concat, Gate, from_torch, resnet18, resnet50
from xai_utils.models.convert import TOLERANCE

torchvision = pytest.importorskip("torchvision")
models = torchvision.models
theirs = models.resnet


def images(n=2, size=40, channels=3, dtype=torch.float32):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1)).to(dtype)


def made(name, **options):
    torch.manual_seed(3)
    return as_trained(getattr(models, name)(weights=None, num_classes=5, **options)).eval()


def resnet(block=theirs.BasicBlock, layers=(1, 1, 1, 1), **options):
    torch.manual_seed(3)
    return as_trained(theirs.ResNet(block, list(layers), num_classes=5, **options)).eval()


def functions(twin):
    return [node.target for node in twin.graph.nodes if node.op in ("call_function", "call_method")]


NETWORKS = {
    "resnet, layers": lambda: resnet(layers=(2, 1, 3, 1)),
    "resnet, bottleneck": lambda: resnet(theirs.Bottleneck),
    "resnet, grouped": lambda: resnet(theirs.Bottleneck, groups=4, width_per_group=16),
    "resnet, dilated": lambda: resnet(
        theirs.Bottleneck, (1, 1, 2, 2), replace_stride_with_dilation=[False, True, True]
    ),
    "vgg11": lambda: made("vgg11"),
    "alexnet": lambda: made("alexnet"),
    "googlenet": lambda: made("googlenet", init_weights=False, aux_logits=False),
    "squeezenet": lambda: made("squeezenet1_1"),
    "mobilenet v2": lambda: made("mobilenet_v2"),
    "mobilenet v3": lambda: made("mobilenet_v3_small"),
    "efficientnet": lambda: made("efficientnet_b0"),
    "regnet": lambda: made("regnet_y_400mf"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_become_modules_with_equal_outputs_that_lrp_takes(name):
    model, x = NETWORKS[name](), images(size=64)
    twin = from_torch(model, x)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(twin(x), expected, rtol=0, atol=TOLERANCE * expected.abs().max().item())
    assert functions(twin) == []
    assert not twin.training
    explainer = LRP(twin)
    relevance = explainer.attribute(x, 3)
    whole = explainer.ledger.iloc[-1]
    torch.testing.assert_close(
        torch.tensor(whole.relevance_in + whole.absorbed), torch.tensor(whole.relevance_out), rtol=1e-3, atol=1e-5
    )
    assert relevance.abs().amax() > 0


@pytest.mark.parametrize(("ours", "name"), [(resnet18, "resnet18"), (resnet50, "resnet50")])
def test_relevance_of_the_twin_is_that_of_the_network_built_of_modules(ours, name):
    model = made(name).double()
    own = ours(n_classes=5).double()
    own.load_state_dict(model.state_dict())
    x = images(1, 64, dtype=torch.float64)
    for skip in (0.3, "magnitude", "none"):  # these tell block and shortcut apart
        mine, other = (LRP(each.eval(), skip=skip).attribute(x, 1) for each in (from_torch(model, x), own))
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


class Block(nn.Module):
    """One of whatever is handed in, between two convolutions, with a shortcut."""

    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(4, 2)
        self.body = forward

    def forward(self, x):
        return self.head(self.body(self, x))


def pooled(x):
    return x.mean((2, 3))


FORWARDS = {
    "plus": (lambda m, x: pooled(m.second(h := m.first(x)) + h), {Add}),
    "plus, shortcut first": (lambda m, x: pooled((h := m.first(x)) + m.second(h)), {Add}),
    "in place": (lambda m, x: pooled(m.second(h := m.first(x)).add_(h)), {Add}),
    "iadd": (lambda m, x: pooled(plus_equals(m.second(h := m.first(x)), h)), {Add}),
    "torch.add": (lambda m, x: pooled(torch.add(m.second(h := m.first(x)), h)), {Add}),
    "one relu, twice": (lambda m, x: pooled(m.relu(m.second(m.relu(m.first(x))))), {nn.ReLU}),
    "functional": (lambda m, x: F.adaptive_avg_pool2d(F.relu(m.first(x), inplace=True), 1).flatten(1), {nn.ReLU}),
    "silu": (lambda m, x: pooled(F.silu(m.first(x))), {nn.SiLU}),
    "gelu": (lambda m, x: pooled(F.gelu(m.first(x), approximate="tanh")), {nn.GELU}),
    "leaky": (lambda m, x: pooled(F.leaky_relu(m.first(x), negative_slope=0.3)), {nn.LeakyReLU}),
    "gate of channels": (lambda m, x: pooled((h := m.first(x)) * h.mean((2, 3), keepdim=True).sigmoid()), {Gate}),
    "gate of places": (lambda m, x: pooled(m.first(x)[:, :1].sigmoid() * m.first(x)), {Gate}),
    "cat": (lambda m, x: pooled(m.second(torch.cat([m.first(x)[:, :2], m.first(x)[:, 2:]], dim=1))), {Concat}),
    "view": (lambda m, x: F.max_pool2d(m.first(x), 40).view(x.size(0), -1), {nn.MaxPool2d, nn.Flatten}),
    "reshape": (lambda m, x: F.avg_pool2d(m.first(x), 40).reshape(len(x), 4), {nn.AvgPool2d, nn.Flatten}),
    "dropout": (lambda m, x: pooled(F.dropout(m.first(x), 0.5, m.training)), {nn.Dropout}),
}


def plus_equals(one, two):
    one += two
    return one


@pytest.mark.parametrize("name", FORWARDS)
def test_every_way_to_write_it(name):
    forward, expected = FORWARDS[name]
    if name == "reshape":  # len of a traced tensor is refused: the same by its size
        forward = lambda m, x: F.avg_pool2d(m.first(x), 40).reshape(x.shape[0], 4)  # noqa: E731
    model, x = Block(forward).eval(), images()
    twin = from_torch(model, x)
    with torch.no_grad():
        assert torch.equal(twin(x), model(x))
    assert expected <= {type(module) for module in twin.modules()}
    assert not any(getattr(module, "inplace", False) for module in twin.modules())


@pytest.mark.parametrize("name", ["plus", "plus, shortcut first", "in place"])
def test_the_shortcut_is_the_second_of_a_sum(name):
    twin = from_torch(Block(FORWARDS[name][0]).eval(), images())
    add = next(n for n in twin.graph.nodes if n.op == "call_module" and isinstance(twin.get_submodule(n.target), Add))
    assert [argument.target for argument in add.args] == ["second", "first"]


def test_the_twin_is_the_twins_own_and_of_the_same_mode():
    model = resnet().train()
    model.bn1.eval()  # a frozen one
    model.fc.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = from_torch(model)
    assert twin.training
    assert twin.layer1.get_submodule("0.add").training
    assert not twin.bn1.training
    assert not twin.fc.weight.requires_grad
    twin(images()).sum().backward()  # moves BatchNorm statistics
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert not model.bn1.training
    assert from_torch(resnet().double()).fc.weight.dtype == torch.float64


def test_random_numbers_are_left_alone():
    model = Block(lambda m, x: pooled(F.dropout(m.first(x), 0.5, True))).eval()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    twin = from_torch(model)  # always on, so it stays as it is
    assert F.dropout in functions(twin)
    assert torch.equal(torch.rand(3), expected)


def with_a_hook(kind):
    model = resnet()
    if kind == "pre":
        model.layer1.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    else:
        model.layer1.register_forward_hook(lambda module, args, output: output + 1)
    return model


@pytest.mark.parametrize("kind", ["pre", "after"])
def test_hooks_are_followed(kind):
    model, x = with_a_hook(kind), images()
    with torch.no_grad():
        assert not torch.equal(resnet()(x), model(x))
        torch.testing.assert_close(from_torch(model)(x), model(x), rtol=0, atol=1e-5)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        return pooled(self.conv(x if x.mean() > 0 else -x))


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.calls = nn.Conv2d(3, 2, 3), 0

    def forward(self, x):
        self.calls += 1
        return pooled(self.conv(x)) * self.calls


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        return {"scores": pooled(self.conv(x))}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (Remembering, ValueError, "gives other outputs .*something else at every call"),
        (Branching, TypeError, "torch.fx cannot follow the forward of Branching"),
        (Several, ValueError, "returns a dict; expected one tensor"),
        (lambda: nn.Linear(7, 2), TypeError, "does not take images of shape .*give some that it takes: images="),
        (lambda: "net", TypeError, "model is a str; expected a torch.nn.Module"),
    ],
    ids=["remembers", "branch", "dict", "other input", "no module"],
)
def test_refused(make, error, message):
    model = make()
    with pytest.raises(error, match=message):
        from_torch(model)


def test_what_is_left_over_is_named_by_lrp():
    model = Block(lambda m, x: pooled(F.layer_norm(m.first(x), (40, 40)))).eval()
    twin = from_torch(model, images())
    assert F.layer_norm in functions(twin)
    with pytest.raises(ValueError, match=r"calls 'layer_norm'.*or let xai_utils.models.from_torch do it"):
        LRP(twin).attribute(images(), 0)
