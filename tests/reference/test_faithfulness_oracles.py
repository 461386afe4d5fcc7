"""Insertion and deletion against a loop over pixels, the closed form of a linear model, and torchvision's blur."""

import numpy as np
import pytest
import torch
from sklearn.metrics import auc
from torch import nn
from torchvision.transforms.functional import gaussian_blur

from xai_utils.metrics.faithfulness import insertion_deletion
from xai_utils.seeds import generator

MEAN, STD = (0.4, 0.5, 0.3), (0.2, 0.25, 0.3)


def net(n_outputs=4):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Tanh(), nn.Flatten())
    model.append(nn.Linear(5 * 63, n_outputs))
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    return model.double().eval()


def batch(n=3):
    """Images 9×7, and maps with many ties."""
    random = torch.Generator().manual_seed(4)
    images = torch.rand(n, 3, 9, 7, dtype=torch.float64, generator=random)
    return images, torch.randn(n, 9, 7, generator=random, dtype=torch.float64).mul(2).round()


TARGETS = torch.tensor([2, 0, 3])


def hiding(name, image):
    """What hides the image's pixels (C, H, W)."""
    if name == "blur":
        return gaussian_blur(image, [11, 11], [5.0, 5.0])
    hidden = torch.zeros_like(image)
    for c in range(3):
        colours = {"zero": 0.0, "black": (0 - MEAN[c]) / STD[c], "mean": sum(image[c].flatten().tolist()) / 63}
        hidden[c] = colours[name]
    return hidden


def slow_curves(model, image, saliency, target, steps, name):
    """Eq. (7) and (8) of paper 5, a pixel at a time."""
    height, width = saliency.shape
    places = [(i, j) for i in range(height) for j in range(width)]
    places.sort(key=lambda place: -saliency[place].item())  # Python's sort is stable: ties in reading order
    hidden = hiding(name, image)
    inserted, deleted = hidden.clone(), image.clone()
    curves, done, fractions = ([], []), 0, []
    for step in range(steps + 1):
        until = round(step * len(places) / steps)
        for i, j in places[done:until]:
            inserted[:, i, j] = image[:, i, j]
            deleted[:, i, j] = hidden[:, i, j]
        done = until
        fractions.append(until / len(places))
        for curve, picture in zip(curves, (inserted, deleted)):
            with torch.no_grad():
                curve.append(model(picture[None])[0].softmax(0)[target].item())
    return fractions, *curves


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("steps", [1, 4, 10, 63])
@pytest.mark.parametrize("name", ["zero", "black", "mean", "blur"])
def test_a_loop_over_pixels(name, steps, batch_size):
    images, saliency = batch()
    result = insertion_deletion(
        net(), images, saliency, TARGETS, steps=steps, baseline=name, normalization=(MEAN, STD), batch_size=batch_size
    )
    for n, image in enumerate(images):
        fractions, insertion, deletion = slow_curves(net(), image, saliency[n], TARGETS[n], steps, name)
        np.testing.assert_allclose(result.fractions, fractions, rtol=0, atol=1e-15)
        np.testing.assert_allclose(result.insertion[n], insertion, rtol=0, atol=1e-10)
        np.testing.assert_allclose(result.deletion[n], deletion, rtol=0, atol=1e-10)
        areas = auc(fractions, insertion), auc(fractions, deletion)
        assert result.insertion_auc[n].item() == pytest.approx(areas[0], abs=1e-10)
        assert result.deletion_auc[n].item() == pytest.approx(areas[1], abs=1e-10)
        assert result.id_score[n].item() == pytest.approx(areas[0] - areas[1], abs=1e-10)
    assert result.insertion.std() > 1e-3


@pytest.mark.parametrize("steps", [1, 4, 10, 63])
def test_ties_together_are_a_threshold(steps):
    """As the authors' later code has it: every pixel at or above the value of the k-th pixel, a step at a time."""
    images, saliency = batch()
    result = insertion_deletion(net(), images, saliency, TARGETS, steps=steps, ties="together")
    for n, image in enumerate(images):
        falling = sorted(saliency[n].flatten().tolist(), reverse=True)
        for step in range(steps + 1):
            k = round(step * 63 / steps)
            chosen = saliency[n] >= falling[k - 1] if k else torch.zeros(9, 7, dtype=torch.bool)
            for curve, picture in ((result.insertion, image * chosen), (result.deletion, image * ~chosen)):
                with torch.no_grad():
                    expected = net()(picture[None])[0].softmax(0)[TARGETS[n]].item()
                assert curve[n, step].item() == pytest.approx(expected, abs=1e-10)


def test_ties_at_random_are_a_shuffle_before_a_stable_sort():
    images, saliency = batch()
    result = insertion_deletion(net(), images, saliency, TARGETS, steps=9, ties="random", seed=5)
    drawn = torch.rand(3, 63, generator=generator(5, "ties"), dtype=torch.float64)
    for n, image in enumerate(images):
        places = sorted(range(63), key=lambda place: drawn[n, place].item())
        places.sort(key=lambda place: -saliency[n].flatten()[place].item())
        for step in range(10):
            chosen = torch.zeros(63, dtype=torch.bool)
            chosen[places[: 7 * step]] = True
            with torch.no_grad():
                expected = net()((image * chosen.view(9, 7))[None])[0].softmax(0)[TARGETS[n]].item()
            assert result.insertion[n, step].item() == pytest.approx(expected, abs=1e-10)


def test_a_linear_models_curves_are_cumulated_contributions():
    """f(x) = b + Σ w x: each pixel adds what it has more than the baseline, and the order decides the area alone."""
    torch.manual_seed(0)
    images, _ = batch()
    weights, bias, baseline = torch.randn(3, 9, 7).double(), 0.7, torch.rand(3, 1, 1).double()
    model = nn.Sequential(nn.Flatten(), nn.Linear(189, 1)).double()
    with torch.no_grad():
        model[1].weight[:] = weights.flatten()
        model[1].bias.fill_(bias)
    contributions = ((images - baseline) * weights).sum(1)
    result = insertion_deletion(model, images, contributions, steps=63, baseline=baseline)
    ordered = contributions.flatten(1).sort(descending=True).values
    rising = torch.cat([torch.zeros(3, 1, dtype=torch.float64), ordered.cumsum(1)], 1)
    empty, full = bias + (baseline * weights).sum(), bias + (images * weights).sum((1, 2, 3))
    torch.testing.assert_close(result.insertion, empty + rising, rtol=0, atol=1e-10)
    torch.testing.assert_close(result.deletion, full[:, None] - rising, rtol=0, atol=1e-10)
    # trapezoids of width 1/P: a pixel of rank r counts for (P - r - 1/2) / P of the area
    share = (63 - torch.arange(63).double() - 0.5) / 63
    torch.testing.assert_close(result.insertion_auc, empty + (ordered * share).sum(1), rtol=0, atol=1e-10)
    torch.testing.assert_close(result.deletion_auc, full - (ordered * share).sum(1), rtol=0, atol=1e-10)
    # no other order has a higher ID score
    for other in (-contributions, torch.rand_like(contributions), contributions.abs()):
        worse = insertion_deletion(model, images, other, steps=63, baseline=baseline)
        assert (worse.id_score < result.id_score).all()
