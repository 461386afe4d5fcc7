"""ResNets built of modules, and the copy of a torchvision ResNet."""

import pytest
import torch
from torch import nn

from xai_utils.models.layers import Add, Gate
from xai_utils.models.resnet import BasicBlock, Bottleneck, ResNet, from_torchvision, resnet18, resnet34, resnet50

torchvision = pytest.importorskip("torchvision")
theirs = torchvision.models.resnet


def images(size=40, channels=3):
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def randomised(model):
    torch.manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.3, 1)
            nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


@pytest.mark.parametrize(
    ("ours", "library"),
    [(resnet18, "resnet18"), (resnet34, "resnet34"), (resnet50, "resnet50")],
)
def test_parameters_and_outputs_of_torchvision(ours, library):
    model, other = ours(n_classes=7), getattr(torchvision.models, library)(num_classes=7)
    shapes = {name: value.shape for name, value in other.state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes
    model.load_state_dict(randomised(other).state_dict(), strict=True)
    with torch.no_grad():
        expected = other(images())
        torch.testing.assert_close(model.eval()(images()), expected, rtol=0, atol=1e-6)
        twin = from_torchvision(other)
        torch.testing.assert_close(twin(images()), expected, rtol=0, atol=1e-6)
    assert twin.state_dict().keys() == other.state_dict().keys()
    assert not twin.training


def small(block=theirs.BasicBlock, layers=(1, 1, 1, 1), **options):
    torch.manual_seed(3)
    return randomised(theirs.ResNet(block, list(layers), num_classes=5, **options))


def changed_stem():
    model = small()
    model.conv1, model.maxpool = nn.Conv2d(1, 64, 3, padding=1), nn.Identity()
    model.fc = nn.Sequential(nn.Dropout(), nn.Linear(512, 3))
    return model.eval()


@pytest.mark.parametrize(
    "make",
    [
        lambda: small(layers=(2, 1, 3, 1)),
        lambda: small(theirs.Bottleneck),
        lambda: small(theirs.Bottleneck, groups=4, width_per_group=16),
        lambda: small(theirs.Bottleneck, width_per_group=128),
        lambda: small(theirs.Bottleneck, (1, 1, 2, 2), replace_stride_with_dilation=[False, True, True]),
        changed_stem,
    ],
    ids=["layers", "bottleneck", "grouped", "wide", "dilated", "stem and head"],
)
def test_copies_of_variants_have_equal_outputs(make):
    model = make()
    x = images(channels=model.conv1.in_channels)
    twin = from_torchvision(model)
    with torch.no_grad():
        torch.testing.assert_close(twin(x), model(x), rtol=0, atol=1e-6)


def test_the_copy_is_the_copys_own_and_of_the_same_mode():
    model = small().train()
    model.bn1.eval()  # a frozen one
    model.fc.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = from_torchvision(model)
    assert twin.training
    assert twin.layer1[0].relu1.training
    assert not twin.bn1.training
    assert not twin.fc.weight.requires_grad
    twin(images()).sum().backward()  # moves BatchNorm statistics
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert from_torchvision(small().double()).fc.weight.dtype == torch.float64


class Own(theirs.ResNet):
    pass


class OwnBlock(theirs.BasicBlock):
    pass


def with_a_forward():
    model = small()
    model.forward = lambda x: x
    return model


def mixed():
    model = small()
    model.layer4[0] = theirs.Bottleneck(256, 128, downsample=nn.Conv2d(256, 512, 1))
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(2, 2), "got .*Linear.*expected a torchvision.models.ResNet"),
        (lambda: resnet18(5, 4), "got .*xai_utils.models.resnet.ResNet"),
        (lambda: Own(theirs.BasicBlock, [1, 1, 1, 1]), "got .*Own.*its own forward"),
        (with_a_forward, "expected a torchvision.models.ResNet with its own forward"),
        (lambda: small(OwnBlock), "got blocks .*OwnBlock.*expected torchvision's BasicBlock"),
        (mixed, "BasicBlock alone, or Bottleneck alone"),
    ],
    ids=["linear", "ours", "subclass", "own forward", "own block", "mixed"],
)
def test_refused(make, message):
    with pytest.raises(TypeError, match=message):
        from_torchvision(make())


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_width_and_channels(block):
    model = ResNet(block, (2, 1, 1, 1), n_classes=3, width=6, in_channels=1)
    assert model(images(channels=1)).shape == (2, 3)
    features = model.maxpool(model.relu(model.bn1(model.conv1(images(64, 1)))))
    for i, side in enumerate((16, 8, 4, 2)):
        features = model.get_submodule(f"layer{i + 1}")(features)
        assert features.shape == (2, 6 * 2**i * block.expansion, side, side)
    with pytest.raises(ValueError, match=r"got layers=\(1, 1, 1\), n_classes=0"):
        ResNet(block, (1, 1, 1), n_classes=0)
    with pytest.raises(ValueError, match="width=0"):
        resnet18(width=0)


def test_every_call_has_a_module_of_its_own_and_nothing_is_in_place():
    model, calls = resnet18(4, 4).eval(), []
    for module in model.modules():
        assert not getattr(module, "inplace", False)
        if not list(module.children()):
            module.register_forward_hook(lambda module, *_: calls.append(module))
    model(images())
    leaves = [module for module in model.modules() if not list(module.children())]
    assert len(calls) == len(set(calls)) == len(leaves)
    assert sum(isinstance(module, Add) for module in calls) == 8


def test_a_step_of_training_lowers_the_loss():
    torch.manual_seed(4)
    model, x, y = resnet18(2, 4), images(), torch.tensor([0, 1])
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_add_and_gate():
    a, b = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    attention = torch.rand(2, 1, 4, 5)
    assert torch.equal(Add()(a, b), a + b)
    plain, residual = Gate()(a, attention), Gate(residual=True)(a, attention)
    for n, k, i, j in [(0, 0, 0, 0), (1, 2, 3, 4), (1, 0, 2, 1)]:
        assert plain[n, k, i, j] == a[n, k, i, j] * attention[n, 0, i, j]
        assert residual[n, k, i, j] == a[n, k, i, j] * (1 + attention[n, 0, i, j])
    with pytest.raises(ValueError, match=r"shapes \(2, 3, 4, 5\) and \(2, 1, 4, 5\); expected one shape"):
        Add()(a, attention)
    for wrong in (b, attention[:1], attention[..., :1], attention[:, 0]):
        with pytest.raises(ValueError, match=r"features and attention have shapes .*\(N, 1, h, w\)"):
            Gate()(a, wrong)
