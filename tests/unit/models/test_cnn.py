"""The small classifier: its grid for heat maps, what it refuses, and that it learns."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from xai_utils.models import SmallCNN


@pytest.mark.parametrize(("size", "grid"), [(28, 7), (32, 8), (16, 4)])
def test_last_conv_is_the_last_feature_map_after_its_relu(size, grid):
    model, found = SmallCNN(n_classes=5, in_channels=3, width=8).eval(), []
    model.last_conv.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    x = torch.randn(2, 3, size, size)
    logits = model(x)
    assert found[0].shape == (2, 16, grid, grid)
    assert found[0].min() == 0
    # conv → GAP → linear: nothing but the mean stands between that map and the logits
    torch.testing.assert_close(found[0].mean((2, 3)) @ model.head.weight.T + model.head.bias, logits)
    assert not any(getattr(module, "inplace", False) for module in model.modules())


@pytest.mark.parametrize("shape", [(2, 1, 15, 28), (2, 3, 28, 28), (1, 28, 28)])
def test_refuses_other_images(shape):
    with pytest.raises(ValueError, match=r"expected \(N, 1, H, W\) with H and W at least 16"):
        SmallCNN()(torch.zeros(shape))


@pytest.mark.parametrize("options", [{"n_classes": 0}, {"in_channels": 0}, {"width": 1}])
def test_refuses_an_empty_network(options):
    with pytest.raises(ValueError, match="expected at least one class"):
        SmallCNN(**options)


def test_learns_digits():
    digits = load_digits()
    x = F.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, 16, mode="bilinear")
    y = torch.tensor(digits.target)
    model = SmallCNN(width=16)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(4):
        for batch in torch.randperm(1400).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        accuracy = (model.eval()(x[1400:]).argmax(1) == y[1400:]).double().mean()
    assert accuracy > 0.85
