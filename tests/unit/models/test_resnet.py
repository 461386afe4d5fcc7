"""ResNets built of modules, against torchvision's."""

import pytest
import torch
from torch import nn

from xai_utils.models.layers import Add, Gate
from xai_utils.models.resnet import BasicBlock, Bottleneck, ResNet, resnet18, resnet34, resnet50

torchvision = pytest.importorskip("torchvision")


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
