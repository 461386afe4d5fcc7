"""RAM, Grad-RAM, MoRAM (paper 2), Grad-CAM++, Lanczos: against slow formulas, captum, pytorch-grad-cam and Pillow."""

import copy

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image
from pytorch_grad_cam import GradCAMPlusPlus as LibraryGradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from xai_utils.explain import RAM, GradCAM, GradCAMPlusPlus, GradRAM, MoRAM, cam, normalize, upsample
from xai_utils.models import vgg16_gap

SIGNED = (GradRAM, MoRAM)


class Regression(nn.Module):
    """conv → ReLU → conv → ReLU → GAP → linear, RAM's model; or with a head that RAM cannot explain."""

    def __init__(self, head="gap", outputs=1, bias=True):
        super().__init__()
        torch.manual_seed(5)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU())
        self.kind = head
        self.head = nn.Linear(6, outputs, bias=bias)
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(6 * 5 * 6, 7), nn.Tanh(), nn.Linear(7, outputs))

    def forward(self, x):
        a = self.last(self.stem(x))
        if self.kind == "dense":
            return self.dense(a)
        if self.kind == "pooled":
            a = nn.functional.max_pool2d(a, 2)
        if self.kind == "first":
            return self.head(a.mean((2, 3)))[:, :1]
        if self.kind == "softplus":
            return nn.functional.softplus(self.head(a.mean((2, 3))))
        return self.head(a.mean((2, 3)))


def net(*args, dtype=torch.float64, **options):
    return Regression(*args, **options).to(dtype).eval()


def batch(n=3, dtype=torch.float64):
    return torch.rand(n, 3, 10, 12, dtype=dtype, generator=torch.Generator().manual_seed(6))


def loops(features, weights):
    """Σ_k w_k A^k, one image, one place and one channel at a time; features (N, K, h, w), weights (N, K)."""
    n, channels, height, width = features.shape
    maps = torch.zeros(n, height, width, dtype=torch.float64)
    for image in range(n):
        for i in range(height):
            for j in range(width):
                for k in range(channels):
                    maps[image, i, j] += weights[image, k] * features[image, k, i, j]
    return maps


def slow_weights(model, x):
    """Eq. (3): the mean over places of ∂Y/∂A^k, by central differences; (N, K)."""
    with torch.no_grad():
        features = model.last(model.stem(x))
        weights = torch.zeros(features.shape[:2], dtype=torch.float64)
        for n, k, i, j in np.ndindex(*features.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = features[n : n + 1].clone()
                moved[0, k, i, j] += step
                ends.append(model.dense(moved)[0, 0] if model.kind == "dense" else model.head(moved.mean((2, 3)))[0, 0])
            weights[n, k] += (ends[0] - ends[1]) / 2e-5 / features[0, 0].numel()
    return features, weights


# eq. (1) to (4) ---------------------------------------------------------------------------------------------


def test_ram_in_dense_loops_and_its_mean_is_the_prediction():
    model, x = net(), batch()
    maps = RAM(model, "last", "head").attribute_layer(x)
    with torch.no_grad():
        features, outputs = model.last(model.stem(x)), model(x)[:, 0]
    expected = loops(features, model.head.weight.detach().expand(3, -1))
    assert (maps < 0).any()
    assert (maps > 0).any()
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(maps.mean((1, 2)) + model.head.bias.detach(), outputs, rtol=0, atol=1e-10)
    assert torch.equal(maps, RAM(model, model.last, model.head).attribute_layer(x))


@pytest.mark.parametrize("head", ["gap", "dense"])
def test_grad_ram_and_moram_in_dense_loops(head):
    """With a dense head the gradient differs from place to place: its mean is what counts."""
    model, x = net(head), batch(2)
    features, weights = slow_weights(model, x)
    assert (weights < 0).any()
    assert (weights > 0).any()
    maps = {kind: kind(model, "last").attribute_layer(x) for kind in SIGNED}
    torch.testing.assert_close(maps[GradRAM], loops(features, weights), rtol=0, atol=1e-9)
    torch.testing.assert_close(maps[MoRAM], loops(features, weights.abs()), rtol=0, atol=1e-9)
    assert maps[MoRAM].min() >= 0
    assert (maps[MoRAM] - maps[GradRAM]).abs().max() > 1e-3


@pytest.mark.parametrize("head", ["gap", "dense"])
@pytest.mark.parametrize("layer", ["stem", "last.0", "last"])
def test_captum_without_its_relu(head, layer):
    model, x = net(head), batch()
    expected = LayerGradCam(model, model.get_submodule(layer)).attribute(x)[:, 0].detach()
    torch.testing.assert_close(GradRAM(model, layer).attribute_layer(x), expected, rtol=0, atol=1e-12)


def test_grad_ram_times_the_number_of_places_is_ram():
    model, x = net(), batch()
    ram = RAM(model, "last", "head").attribute_layer(x)
    torch.testing.assert_close(GradRAM(model, "last").attribute_layer(x) * 5 * 6, ram, rtol=0, atol=1e-10)


def test_moram_is_grad_ram_where_no_weight_is_negative():
    model, x = net(), batch()
    with torch.no_grad():
        model.head.weight.abs_()
    maps = [kind(model, "last").attribute_layer(x) for kind in SIGNED]
    assert maps[0].abs().max() > 1e-3
    torch.testing.assert_close(*maps, rtol=0, atol=1e-10)


def test_a_place_that_counts_both_ways_vanishes_from_grad_ram_only():
    features = torch.tensor([[[[4.0, 0.0]], [[4.0, 2.0]]]])
    gradients = torch.tensor([1.0, -1.0])[None, :, None, None].expand_as(features)
    assert cam(features, gradients, "gradram").tolist() == [[[0.0, -2.0]]]
    assert cam(features, gradients, "moram").tolist() == [[[8.0, 2.0]]]


def test_several_outputs_take_a_target():
    model, x, targets = net(outputs=3), batch(), torch.tensor([2, 0, 1])
    maps = RAM(model, "last", "head").attribute_layer(x, targets)
    with torch.no_grad():
        features = model.last(model.stem(x))
    torch.testing.assert_close(maps, loops(features, model.head.weight.detach()[targets]), rtol=0, atol=1e-10)
    torch.testing.assert_close(GradRAM(model, "last").attribute_layer(x, targets) * 30, maps, rtol=0, atol=1e-10)
    for explainer in (RAM(model, "last", "head"), GradRAM(model, "last"), MoRAM(model, "last")):
        with pytest.raises(ValueError, match="target: got None, but the model has 3 classes"):
            explainer.attribute(x)


def test_a_head_without_bias_float32_and_no_grad():
    model, x = net(bias=False, dtype=torch.float32), batch(dtype=torch.float32)
    with torch.no_grad():
        maps = RAM(model, "last", "head").attribute(x)
        torch.testing.assert_close(RAM(model, "last", "head").attribute_layer(x).mean((1, 2)), model(x)[:, 0])
    assert maps.dtype == torch.float32
    assert maps.shape == (3, 10, 12)
    assert not maps.requires_grad


# RAM's restriction ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "layer", "head", "message"),
    [
        ("pooled", "last", "head", "something stands between layer and head. RAM needs layer → global average pooling"),
        ("softplus", "last", "head", "something stands between layer and head"),
        ("dense", "last", "head", "differs from the output by"),
        ("gap", "last.0", "head", "something stands between"),
        ("gap", "stem", "head", "head takes 6 values and gives 1; the layer has 4 channels, the model 1 outputs"),
        ("dense", "last", "dense.1", "head takes 180 values and gives 7"),
        ("gap", "last", "heads", "head: the model has no module 'heads'; close candidates: head"),
        ("gap", "lst", "head", "layer: the model has no module 'lst'; close candidates: last"),
        ("gap", "head", "head", r"layer 'head' returns \(3, 1\); expected"),
    ],
)
def test_a_model_that_ram_cannot_explain(kind, layer, head, message):
    model = net(kind)
    with pytest.raises(ValueError, match=message):
        RAM(model, layer, head).attribute(batch())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_head_with_more_outputs_than_the_model():
    with pytest.raises(ValueError, match=r"head takes 6 values and gives 2; the layer has 6 channels, the model 1"):
        RAM(net("first", outputs=2), "last", "head").attribute(batch())


def test_a_head_that_is_no_linear_layer():
    with pytest.raises(TypeError, match="head: 'last' is a Sequential; RAM reads"):
        RAM(net(), "last", "last")


def test_a_changed_bias_is_not_overlooked():
    """The check compares the output with what RAM explains: a model that adds something later is refused."""
    model = net(dtype=torch.float32)
    good = RAM(model, "last", "head").attribute(batch(dtype=torch.float32))
    handle = model.register_forward_hook(lambda _module, _inputs, output: output + 1e-3)
    with pytest.raises(ValueError, match=r"by 0\.001"):
        RAM(model, "last", "head").attribute(batch(dtype=torch.float32))
    handle.remove()
    assert torch.equal(RAM(model, "last", "head").attribute(batch(dtype=torch.float32)), good)


def test_constant_and_zero_maps_stay_so():
    model, x = net(), batch()
    with torch.no_grad():
        model.last[0].weight.zero_()
        model.last[0].bias.fill_(0.5)
    flat = RAM(model, "last", "head").attribute_layer(x)
    torch.testing.assert_close(flat, flat[:, :1, :1].expand_as(flat), rtol=0, atol=0)
    with torch.no_grad():
        model.last[0].bias.fill_(-0.5)
    for explainer in (RAM(model, "last", "head"), GradRAM(model, "last"), MoRAM(model, "last")):
        assert torch.equal(explainer.attribute(x), torch.zeros(3, 10, 12, dtype=torch.float64))


def test_weights_that_are_not_finite():
    model = net()
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    for explainer in (GradRAM(model, "last"), MoRAM(model, "last")):
        with pytest.raises(ValueError, match="NaN or infinite values"):
            explainer.attribute(batch())


# VGG16 with GAP ------------------------------------------------------------------------------------------------


def test_vgg16_is_torchvisions_trunk_with_gap():
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.vgg16(weights=None).features.double().eval()
    ours = vgg16_gap().double().eval()
    ours.features.load_state_dict(theirs.state_dict())  # the names fit, every one of them
    x = torch.rand(1, 3, 40, 33, dtype=torch.float64)
    with torch.no_grad():
        features = ours.features(x)
        torch.testing.assert_close(features, theirs[:30](x), rtol=0, atol=1e-12)  # [30] is the last pooling
        torch.testing.assert_close(ours(x), ours.head(features.mean((2, 3))), rtol=0, atol=1e-12)
        five = vgg16_gap(poolings=5).double().eval()
        five.features.load_state_dict(theirs.state_dict())
        torch.testing.assert_close(five.features(x), theirs(x), rtol=0, atol=1e-12)
    assert [tuple(p.shape) for p in theirs.parameters()] == [tuple(p.shape) for p in ours.features.parameters()]


def test_vgg16_width_poolings_channels_and_its_maps():
    model = vgg16_gap(width=2, poolings=2, in_channels=1, n_outputs=1).eval()
    x = torch.rand(2, 1, 16, 20)
    assert model.features(x).shape == (2, 16, 4, 5)
    assert [m.out_channels for m in model.features if isinstance(m, nn.Conv2d)] == [2] * 2 + [4] * 2 + [8] * 3 + [
        16
    ] * 6
    assert model(x).shape == (2, 1)
    with torch.no_grad():
        model.head.bias.fill_(0.25)
    ram = RAM(model, model.features, model.head).attribute_layer(x)
    torch.testing.assert_close(ram.mean((1, 2)) + 0.25, model(x)[:, 0].detach())
    assert not any(getattr(m, "inplace", False) for m in model.modules())


def test_vgg16_starts_as_torchvisions_so_that_it_trains_without_batchnorm():
    torch.manual_seed(0)
    model = vgg16_gap(width=16)
    for conv in (m for m in model.features if isinstance(m, nn.Conv2d)):
        expected = (2 / (9 * conv.out_channels)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.12)
        assert not conv.bias.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"poolings": 6}, "poolings=6.*expected 0 to 5 poolings"),
        ({"width": 0}, "width=0"),
        ({"n_outputs": 0}, "n_outputs=0"),
    ],
)
def test_vgg16_refuses_sizes_that_make_no_network(options, message):
    with pytest.raises(ValueError, match=message):
        vgg16_gap(**options)


@pytest.mark.parametrize("shape", [(2, 3, 3, 16), (2, 1, 16, 16), (3, 16, 16)])
def test_vgg16_refuses_images_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"images: got shape .*; expected \(N, 3, H, W\) with H and W at least 4"):
        vgg16_gap(width=1, poolings=2)(torch.rand(shape))


# Grad-CAM++ ----------------------------------------------------------------------------------------------------


def classifier(dtype=torch.float64):
    torch.manual_seed(7)
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 5, 3, padding=1))
    model.add_module("relu", nn.ReLU())
    model.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(600, 8), nn.Tanh(), nn.Linear(8, 4)))
    return model.to(dtype).eval()


TARGETS = torch.tensor([2, 0, 3])


@pytest.mark.parametrize("layer", ["conv", "relu"])
def test_grad_cam_plus_plus_in_closed_form(layer):
    """Eq. (19): α = g² / (2 g² + ΣA · g³), w = Σ α ReLU(g); 0 where g is 0."""
    model, x = classifier(), batch()
    features = (model.conv(x) if layer == "conv" else model.conv(x).relu()).detach().requires_grad_()
    scores = model.head(features.relu() if layer == "conv" else features).gather(1, TARGETS[:, None])
    (g,) = torch.autograd.grad(scores.sum(), features)
    a = features.detach()
    expected = torch.zeros(3, 10, 12, dtype=torch.float64)
    for n in range(3):
        for k in range(5):
            weight, total = 0.0, a[n, k].sum().item()
            for value in g[n, k].flatten().tolist():
                if value > 0:
                    weight += value**2 / (2 * value**2 + total * value**3) * value
            expected[n] += weight * a[n, k]
    expected = expected.clamp(min=0)
    maps = GradCAMPlusPlus(model, layer).attribute_layer(x, TARGETS)
    assert maps.max() > 1e-3
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-10)
    assert (maps - GradCAM(model, layer).attribute_layer(x, TARGETS)).abs().max() > 1e-3


def test_grad_cam_plus_plus_as_the_library():
    """That library has an absolute ε of 1e-6 and scales to [0, 1]: large logits make the ε small."""
    model, x = classifier(torch.float32), batch(dtype=torch.float32)
    with torch.no_grad():
        model.head[3].weight.mul_(300)
    with LibraryGradCAMPlusPlus(model, [model.relu]) as library:
        expected = library(x, [ClassifierOutputTarget(c) for c in TARGETS.tolist()])
    maps = GradCAMPlusPlus(model, "relu").attribute(x, TARGETS)
    np.testing.assert_allclose(normalize(maps).numpy(), expected, rtol=0, atol=2e-4)


def test_grad_cam_plus_plus_where_the_gradient_or_the_denominator_vanishes():
    features = torch.tensor([[[[1.0, 2.0]], [[-3.0, 1.0]]]])
    gradients = torch.tensor([[[[0.0, 0.0]], [[1.0, 0.5]]]])  # ΣA = −2: 2 + ΣA · g is 0 and 1
    maps = cam(features, gradients, "gradcam++", relu=False)
    assert torch.isfinite(maps).all()
    weight = 1.0 / 1e-6 + 0.5 / 1.0
    torch.testing.assert_close(maps, torch.tensor([[[-3.0, 1.0]]]) * weight)
    assert torch.equal(cam(features, torch.zeros_like(features), "gradcam++"), torch.zeros(1, 1, 2))


# upsampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (30, 17), (4, 3)])
def test_lanczos_is_pillows(size):
    maps = torch.randn(3, 8, 7, generator=torch.Generator().manual_seed(8))
    ours = upsample(maps, size, "lanczos")
    for mine, values in zip(ours, maps):
        image = Image.fromarray(values.numpy()).resize((size[1], size[0]), Image.Resampling.LANCZOS)
        np.testing.assert_allclose(mine.numpy(), np.asarray(image), rtol=0, atol=1e-5)


def test_lanczos_overshoots_and_moves_the_mean_a_little():
    """What the docstring of `upsample` says: negative values beside a bright place, a mean kept nearly."""
    maps = torch.zeros(1, 8, 8)
    maps[0, 3, 3] = 1.0
    large = upsample(maps, (64, 64), "lanczos")
    assert large.min() < -0.02
    assert large.sum().item() / 64 == pytest.approx(1.0, abs=0.02)
    maps = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(9))
    for mode in ("lanczos", "bilinear"):
        apart = (upsample(maps, (64, 64), mode).mean((1, 2)) - maps.mean((1, 2))).abs().max()
        assert 0 < apart < 0.02
    model, x = net(), batch()
    explainer = MoRAM(model, "last", upsampling="lanczos")
    assert torch.equal(explainer.attribute(x), upsample(explainer.attribute_layer(x), (10, 12), "lanczos"))


def test_the_model_is_left_alone():
    model, x = net("dense").train(), batch()
    before = copy.deepcopy(model.state_dict())
    MoRAM(model, "last").attribute(x)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
