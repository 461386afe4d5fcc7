"""CAM core and Grad-CAM against a slow formula, captum and pytorch-grad-cam."""

import cv2
import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM as LibraryGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy.stats import spearmanr
from torch import nn

from xai_utils.explain import GradCAM, cam, features_and_gradients, normalize, upsample
from xai_utils.models import SmallCNN, preserve_state


def net(activation=nn.ReLU, n_classes=4, dtype=torch.float64):
    """A classifier whose head is not linear in the feature maps, so that gradients differ from place to place."""
    torch.manual_seed(3)
    model = nn.Sequential()
    model.add_module("stem", nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), activation()))
    model.add_module("conv", nn.Conv2d(5, 7, 3, stride=2, padding=1))
    model.add_module("relu", activation())
    model.add_module("last", nn.Conv2d(7, 6, 3, padding=1))
    model.add_module("head", nn.Sequential(activation(), nn.Flatten(), nn.Linear(6 * 30, 8), nn.Tanh()))
    model.add_module("logits", nn.Linear(8, n_classes))
    with torch.no_grad():
        model.stem[1].running_mean.normal_()
        model.stem[1].running_var.uniform_(0.5, 2)
    return model.to(dtype).eval()


def batch(n=3, dtype=torch.float64):
    return torch.rand(n, 3, 10, 12, dtype=dtype, generator=torch.Generator().manual_seed(4))


TARGETS = torch.tensor([2, 0, 3])


def slow_grad_cam(model, x, targets, relu=True):
    """Eq. (1) and (2) of paper 3, one image, one channel and one pixel at a time; ∂y/∂A by central differences."""
    maps = []
    for image, c in zip(x, targets):
        with torch.no_grad():
            features = model.conv(model.stem(image[None]))[0]
            channels, height, width = features.shape
            total = torch.zeros(height, width, dtype=torch.float64)
            for k in range(channels):
                weight = 0.0
                for i in range(height):
                    for j in range(width):
                        ends = []
                        for step in (1e-5, -1e-5):
                            moved = features.clone()
                            moved[k, i, j] += step
                            after = model.head(model.last(moved[None].relu()))
                            ends.append(model.logits(after)[0, c])
                        weight += float(ends[0] - ends[1]) / 2e-5 / (height * width)
                for i in range(height):
                    for j in range(width):
                        total[i, j] += weight * features[k, i, j]
        maps.append(total.clamp(min=0) if relu else total)
    return torch.stack(maps)


def test_formula_in_dense_loops():
    model, x, targets = net(), batch(2), torch.tensor([3, 1])
    expected = slow_grad_cam(model, x, targets)
    assert (expected > 0).any()
    assert (expected == 0).any()  # both sides of the ReLU are seen
    torch.testing.assert_close(GradCAM(model, "conv").attribute_layer(x, targets), expected, rtol=1e-6, atol=1e-9)
    features, gradients, outputs = features_and_gradients(model, "conv", x, targets)
    signed = slow_grad_cam(model, x, targets, relu=False)
    assert (signed < 0).any()
    torch.testing.assert_close(cam(features, gradients, relu=False).detach(), signed, rtol=1e-6, atol=1e-9)
    assert torch.equal(outputs, model(x))
    assert outputs.shape == (2, 4)


@pytest.mark.parametrize("layer", ["stem", "stem.0", "conv", "relu", "last"])
def test_captum(layer):
    model, x = net(), batch()
    expected = LayerGradCam(model, model.get_submodule(layer)).attribute(x, target=TARGETS, relu_attributions=True)
    maps = GradCAM(model, layer).attribute_layer(x, TARGETS)
    assert maps.abs().max() > 1e-4
    torch.testing.assert_close(maps, expected[:, 0].detach(), rtol=0, atol=1e-12)
    assert torch.equal(GradCAM(model, model.get_submodule(layer)).attribute_layer(x, TARGETS), maps)


@pytest.mark.parametrize("layer", ["stem", "conv"])
def test_final_map_of_pytorch_grad_cam(layer):
    """That library scales each map to [0, 1], resizes it with OpenCV, and scales it again."""
    model, x = net(dtype=torch.float32), batch(dtype=torch.float32)
    with torch.no_grad():
        model.logits.weight.mul_(100)  # its epsilon of 1e-7 is absolute
    with LibraryGradCAM(model, [model.get_submodule(layer)]) as library:
        expected = library(x, [ClassifierOutputTarget(c) for c in TARGETS.tolist()])
    maps = GradCAM(model, layer).attribute_layer(x, TARGETS)
    final = normalize(upsample(normalize(maps), x.shape[2:]))
    np.testing.assert_allclose(final.numpy(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(normalize(GradCAM(model, layer).attribute(x, TARGETS)), final, rtol=0, atol=1e-5)


def test_one_class_for_all_and_each_image_on_its_own():
    model, x = net(), batch()
    explainer = GradCAM(model, "last")
    together = explainer.attribute(x, TARGETS)
    for i, c in enumerate(TARGETS.tolist()):
        torch.testing.assert_close(explainer.attribute(x[i : i + 1], c)[0], together[i], rtol=0, atol=1e-12)
    assert torch.equal(explainer.attribute(x, 1), explainer.attribute(x, torch.tensor([1, 1, 1])))


# as a training loss


def distance_to_mean(maps):
    return ((maps - maps.mean(0, keepdim=True).detach()) ** 2).sum((1, 2)).mean()


def test_as_a_loss_its_gradients_are_those_through_captum():
    """create_graph: the derivative of the map by every weight, the trunk's too."""
    model, x = net(nn.Softplus), batch()
    features, gradients, outputs = features_and_gradients(model, "conv", x, TARGETS, create_graph=True)
    loss = distance_to_mean(cam(features, gradients)) + nn.functional.cross_entropy(outputs, TARGETS)
    ours = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    maps = LayerGradCam(model, model.conv).attribute(
        x, target=TARGETS, relu_attributions=True, grad_kwargs={"create_graph": True}
    )
    loss = distance_to_mean(maps[:, 0]) + nn.functional.cross_entropy(model(x), TARGETS)
    theirs = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert sum(gradient.abs().max() > 1e-6 for gradient in ours) == len(ours)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-12)


def test_as_a_loss_gradcheck():
    model = net(nn.Softplus)

    def maps(weight, images):
        def call(model, *arguments):
            return torch.func.functional_call(model, {"stem.0.weight": weight}, arguments)

        functional = nn.Module()
        functional.model = model
        functional.forward = lambda images: call(model, images)
        features, gradients, _ = features_and_gradients(functional, "model.conv", images, 1, create_graph=True)
        return cam(features, gradients, relu=False)

    weight = model.stem[0].weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(maps, (weight, batch(2).requires_grad_()), fast_mode=True)


def test_a_training_step_lowers_the_distance_in_train_mode():
    torch.manual_seed(0)
    model = SmallCNN(n_classes=2, width=4).train()
    x, y = torch.rand(8, 1, 16, 16), torch.arange(8) % 2
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        features, gradients, _ = features_and_gradients(model, "last_conv", x, y, create_graph=True)
        loss = 1e3 * distance_to_mean(cam(features, gradients))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


# one forward pass, a short backward pass, nothing overwritten


class Watch(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(torch.is_grad_enabled())
        return x * 1.0


def test_one_forward_pass_and_no_gradient_up_to_the_layer():
    model, x = net(), batch()
    model.stem.add_module("watch", Watch())
    model.head.add_module("watch", Watch())
    GradCAM(model, "conv").attribute(x, TARGETS)
    assert model.stem.watch.seen == [False]
    assert model.head.watch.seen == [True]
    assert all(parameter.grad is None for parameter in model.parameters())
    features, gradients, _ = features_and_gradients(model, "conv", x, TARGETS)
    assert features.is_leaf
    assert not gradients.requires_grad
    assert torch.is_grad_enabled()
    with torch.no_grad():
        features_and_gradients(model, "conv", x, TARGETS)
        assert not torch.is_grad_enabled()


def test_an_in_place_relu_after_the_layer_and_as_the_layer():
    x = batch()
    expected, inplace = net(), net(lambda: nn.ReLU(inplace=True))
    for layer in ("conv", "relu", "stem.1", "last"):
        maps = GradCAM(inplace, layer).attribute_layer(x, TARGETS)
        assert torch.equal(maps, GradCAM(expected, layer).attribute_layer(x, TARGETS))
        with preserve_state(inplace):
            features, gradients, _ = features_and_gradients(inplace, layer, x, TARGETS, create_graph=True)
        assert (features.min() < 0) == (layer != "relu")
        torch.testing.assert_close(cam(features, gradients).detach(), maps, rtol=0, atol=1e-12)


def test_an_in_place_sum_after_the_layer():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 4)
            self.skip = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            out = self.conv(x)
            out += self.skip(x)
            return self.head(out.relu_().mean((2, 3)))

    model = Residual().double()
    features, _, _ = features_and_gradients(model, "conv", batch(), TARGETS)
    assert torch.equal(features, model.conv(batch()))


# separate steps


def test_upsample_in_loops():
    maps = torch.rand(2, 3, 4, dtype=torch.float64)
    size = (7, 10)
    expected = torch.zeros(2, *size, dtype=torch.float64)
    for n in range(2):
        for i in range(size[0]):
            for j in range(size[1]):  # pixel centres at (i + ½) h / H − ½, clamped to the map
                y, x = (i + 0.5) * 3 / size[0] - 0.5, (j + 0.5) * 4 / size[1] - 0.5
                y, x = min(max(y, 0.0), 2.0), min(max(x, 0.0), 3.0)
                top, left = int(y), int(x)
                bottom, right = min(top + 1, 2), min(left + 1, 3)
                a, b = y - top, x - left
                upper = (1 - b) * maps[n, top, left] + b * maps[n, top, right]
                lower = (1 - b) * maps[n, bottom, left] + b * maps[n, bottom, right]
                expected[n, i, j] = (1 - a) * upper + a * lower
    torch.testing.assert_close(upsample(maps, size), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("mode", "opencv"),
    [("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC), ("nearest", cv2.INTER_NEAREST)],
)
def test_upsample_as_opencv(mode, opencv):
    maps = torch.rand(1, 5, 6, dtype=torch.float64) - 0.5
    expected = cv2.resize(maps[0].numpy(), (18, 10), interpolation=opencv)
    np.testing.assert_allclose(upsample(maps, (10, 18), mode)[0].numpy(), expected, rtol=0, atol=1e-6)
    model, x = net(), batch()
    explainer = GradCAM(model, "conv", upsampling=mode)
    assert torch.equal(explainer.attribute(x, 1), upsample(explainer.attribute_layer(x, 1), (10, 12), mode))
    with pytest.raises(ValueError, match="mode: got 'sinc'; expected one of bilinear, bicubic, lanczos, nearest"):
        upsample(maps, (10, 10), "sinc")


def test_normalize():
    maps = torch.tensor([[[1.0, 3.0], [2.0, 1.5]], [[-2.0, 0.0], [2.0, 6.0]], [[5.0, 5.0], [5.0, 5.0]]])
    expected = [[[0, 1], [0.5, 0.25]], [[0, 0.25], [0.5, 1]], [[0, 0], [0, 0]]]
    with pytest.warns(UserWarning, match="maps hold negative values.*signed=True"):
        assert normalize(maps).tolist() == expected
    with pytest.warns(UserWarning, match="maps hold negative values"):
        assert normalize(maps[:, None]).tolist() == [[m] for m in expected]
    around_zero = [[[1 / 3, 1], [2 / 3, 0.5]], [[-1 / 3, 0], [1 / 3, 1]], [[1, 1], [1, 1]]]
    torch.testing.assert_close(normalize(maps, signed=True), torch.tensor(around_zero))
    assert not normalize(torch.zeros(1, 2, 2), signed=True).any()
    flat = torch.full((1, 2, 2), 3.0, requires_grad=True)
    normalize(flat).sum().backward()
    assert flat.grad.isfinite().all()
    with pytest.raises(ValueError, match="NaN or infinite"):
        normalize(torch.tensor([[[0.0, torch.nan]]]))


def test_a_flat_map_stays_flat():
    model, x = net(), batch()
    with torch.no_grad():
        model.logits.weight.zero_()
    maps = GradCAM(model, "conv").attribute(x, 1)
    assert torch.equal(maps, torch.zeros(3, 10, 12, dtype=torch.float64))
    assert torch.equal(normalize(maps), maps)


# what is refused


class Odd(nn.Module):
    """A layer called twice, one never called, two without influence, one that returns a pair."""

    def __init__(self):
        super().__init__()
        self.twice, self.never, self.idle = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.pair, self.detached = nn.Identity(), nn.Conv2d(3, 3, 1)
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        self.idle(x)
        self.pair((x, x))
        x = self.detached(x).detach()
        return self.linear(self.twice(self.twice(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("twice", "layer 'twice' is called several times"),
        ("never", "layer 'never' is not reached"),
        ("idle", "score does not depend on layer 'idle'"),
        ("detached", "score does not depend on layer 'detached'"),
        ("pair", "layer 'pair' returns tuple; expected"),
        ("linear", r"layer 'linear' returns \(3, 2\); expected"),
        ("", r"layer '' returns \(3, 2\)"),
        ("twise", "no module 'twise'; close candidates: twice"),
        ("zzzz", "no module 'zzzz'; close candidates: twice, never, idle"),
        (nn.ReLU(), "this ReLU is not part of the model"),
    ],
)
def test_layers_that_cannot_be_explained(layer, message):
    model = Odd().double()
    with pytest.raises(ValueError, match=message):
        GradCAM(model, layer).attribute(batch(), 0)
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_core_refuses_other_kinds_and_shapes():
    a = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ValueError, match="kind: got 'gradcan'; expected one of gradcam"):
        cam(a, a, "gradcan")
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 3\) and \(1, 2, 3\); expected"):
        cam(a, a[0, :, :, 0][None])


# does the map depend on what the model has learnt?


def test_randomising_the_top_layer_changes_the_map():
    """Sanity check of Adebayo et al. 2018: rank correlation with the maps of models whose last layer is new."""
    torch.manual_seed(0)
    model, x = SmallCNN(width=16).eval(), torch.rand(6, 1, 28, 28)

    def maps():
        features, gradients, _ = features_and_gradients(model, "last_conv", x, 3)
        return cam(features, gradients, relu=False).detach().flatten(1)

    def correlation(a, b):
        return np.mean([spearmanr(p, q)[0] for p, q in zip(a, b)])

    before = maps()
    assert correlation(before, maps()) == pytest.approx(1)
    after = []
    for _ in range(20):
        model.head.reset_parameters()
        after.append(correlation(before, maps()))
    assert abs(np.mean(after)) < 0.4
