"""Consistency of maps against SciPy and loops over maps, pairs and pixels."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass
from scipy.stats import pearsonr
from torch.autograd import gradcheck, gradgradcheck

from xai_utils.metrics.consistency import (
    ClassMeans,
    attention_area,
    attention_spread,
    between_class_distance,
    cam_consistency,
    class_means,
    consistency_loss,
    distance_to_class_mean,
    normalised,
    pairwise_correlation,
    updated_means,
)

LABELS = torch.tensor([0, 1, 0, 3, 1, 0, 1, 3, 0, 1])  # no map of class 2
CORRECT = torch.tensor([True, True, False, True, True, True, False, False, True, True])
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


def images(n=10, seed=0, dtype=torch.float64, signed=False):
    """Maps on a grid of 5 × 3, of another size each; without negative values unless signed."""
    random = torch.Generator().manual_seed(seed)
    maps = torch.randn(n, 5, 3, generator=random, dtype=torch.float64)
    maps = maps if signed else maps.square() + 0.01
    return (maps * 10.0 ** torch.linspace(-2, 2, n, dtype=torch.float64)[:, None, None]).to(dtype)


def slow_normalised(saliency, how):
    total = 0.0
    for value in saliency.flatten().tolist():
        total += abs(value) if how == "sum" else value * value
    size = {"none": 1.0, "sum": total, "norm": math.sqrt(total)}[how]
    return [[value / size for value in row] for row in saliency.tolist()]


def slow_mean(maps, rows, how):
    parts = [slow_normalised(maps[i], how) for i in rows]
    return [[sum(part[y][x] for part in parts) / len(parts) for x in range(3)] for y in range(5)]


def slow_distance(a, b):
    return sum((a[y][x] - b[y][x]) ** 2 for y in range(5) for x in range(3))


def rows_of(label, correct):
    return [i for i in range(len(LABELS)) if LABELS[i] == label and correct[i]]


@pytest.mark.parametrize("how", ["none", "sum", "norm"])
def test_normalised_by_loop_and_free_of_the_maps_size(how):
    maps = images(signed=True)
    for got, saliency in zip(normalised(maps, how), maps):
        torch.testing.assert_close(got, torch.tensor(slow_normalised(saliency, how), dtype=maps.dtype), **CLOSE)
    tiny = images(dtype=torch.float32) * 1e-28  # the squares are 0 in float32
    if how != "none":
        torch.testing.assert_close(normalised(tiny, how), normalised(tiny * 1e28, how))
        torch.testing.assert_close(normalised(tiny * 1e28 * 1e28, how), normalised(tiny * 1e28, how))


@pytest.mark.parametrize("how", ["none", "sum", "norm"])
def test_class_means_and_distances_by_loop(how):
    maps, others = images(), images(seed=1)
    means = class_means(maps, LABELS, CORRECT, 5, how)
    assert means.counts.tolist() == [3, 3, 0, 1, 0]
    assert means.empty == [2, 4]
    assert means.maps[[2, 4]].isnan().all()
    slow = {label: slow_mean(maps, rows_of(label, CORRECT), how) for label in (0, 1, 3)}
    for label, mean in slow.items():
        torch.testing.assert_close(means.maps[label], torch.tensor(mean, dtype=maps.dtype), **CLOSE)
    expected = [
        slow_distance(slow_normalised(saliency, how), slow[label]) for saliency, label in zip(others, LABELS.tolist())
    ]
    got = distance_to_class_mean(others, LABELS, means)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=maps.dtype), **CLOSE)
    assert cam_consistency(others, LABELS, means).distance.tolist() == got.tolist()
    pairs = [slow_distance(slow[a], slow[b]) for a, b in itertools.combinations(slow, 2)]
    assert between_class_distance(means) == pytest.approx(sum(pairs) / 3, rel=1e-11)


def test_the_wrong_class_as_label_gives_the_distance_to_that_classs_mean():
    maps = images()
    means = class_means(maps, LABELS, CORRECT, 4)
    swapped = torch.where(LABELS == 0, 1, LABELS)
    own, other = (distance_to_class_mean(maps, labels, means) for labels in (LABELS, swapped))
    assert torch.equal(own != other, LABELS == 0)


def test_unit_norm_bounds_the_distance_and_ties_it_to_the_mean():
    """Mean ‖u − m‖² over the maps of the mean is 1 − ‖m‖²; m is not normalised again."""
    maps, labels = images(), torch.zeros(10, dtype=torch.int64)
    means = class_means(maps, labels, torch.ones(10, dtype=torch.bool), 1)
    distance = distance_to_class_mean(maps, labels, means)
    assert distance.mean().item() == pytest.approx(1 - means.maps[0].square().sum().item(), rel=1e-12)
    apart = torch.eye(2, dtype=torch.float64).reshape(2, 1, 2)
    one = class_means(apart[:1], labels[:1], torch.ones(1, dtype=torch.bool), 1)
    assert distance_to_class_mean(7 * apart, labels[:2], one).tolist() == [0, 2]


def test_updated_means_keeps_the_last_mean_of_an_empty_class():
    def means(values, counts):
        maps = torch.tensor(values, dtype=torch.float64)[:, None, None].expand(-1, 2, 2)
        return ClassMeans(maps, torch.tensor(counts), "norm")

    last, new = means([1, 2, math.nan, math.nan], [4, 5, 0, 0]), means([3, math.nan, 7, math.nan], [2, 0, 1, 0])
    for momentum, first in ((0.0, 3.0), (0.9, 0.9 * 1 + 0.1 * 3)):
        got = updated_means(last, new, momentum)
        torch.testing.assert_close(got.maps, means([first, 2, 7, math.nan], [0] * 4).maps, equal_nan=True, **CLOSE)
        assert got.counts.tolist() == [2, 5, 1, 0]
        assert got.empty == [3]
        assert got.normalise == "norm"


def test_no_gradient_through_the_mean():
    maps = images().requires_grad_()
    means = class_means(maps, LABELS, CORRECT, 4)
    assert not means.maps.requires_grad
    consistency_loss(maps, LABELS, means).backward()
    assert maps.grad.abs().sum() > 0


def test_loss_is_the_mean_over_images_whose_class_has_a_mean():
    maps = images().requires_grad_()
    correct = CORRECT & (LABELS != 3)
    means = class_means(maps, LABELS, correct, 4)
    distance = distance_to_class_mean(maps, LABELS, means)
    assert torch.equal(distance.isnan(), LABELS == 3)
    loss = consistency_loss(maps, LABELS, means)
    assert loss.item() == pytest.approx(distance[LABELS != 3].mean().item(), rel=1e-12)
    loss.backward()
    assert maps.grad.isfinite().all()
    assert (maps.grad[LABELS == 3] == 0).all()
    nothing = class_means(maps, LABELS, torch.zeros_like(CORRECT), 4)
    maps.grad = None
    loss = consistency_loss(maps, LABELS, nothing)
    loss.backward()
    assert loss.item() == 0
    assert (maps.grad == 0).all()


def test_a_batch_of_one_class_only():
    maps, labels = images(), torch.zeros(10, dtype=torch.int64)
    means = class_means(maps, labels, CORRECT, 3)
    assert math.isnan(between_class_distance(means))
    assert consistency_loss(maps, labels, means).isfinite()
    found = cam_consistency(maps, labels, means)
    assert found.counts.tolist() == [10, 0, 0]
    assert found.class_correlation.isnan().tolist() == [False, True, True]
    assert found.centroid_scatter.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("how", ["none", "sum", "norm"])
def test_gradients_of_the_losses(how):
    means = class_means(images(), LABELS, CORRECT, 4, how)
    scale = torch.linspace(0.5, 2, 4, dtype=torch.float64)[:, None, None]
    maps = (normalised(images(seed=2)[:4], "norm") * scale).requires_grad_()
    signed = normalised(images(seed=3, signed=True)[:4], "norm").requires_grad_()
    for loss, x in (
        (lambda x: consistency_loss(x, LABELS[:4], means), signed),
        (lambda x: normalised(x, how), signed),
        (attention_spread, maps),
        (attention_area, maps),
    ):
        assert gradcheck(loss, (x,))
        assert gradgradcheck(loss, (x,))


def slow_moments(saliency):
    h, w = saliency.shape
    cells = [(y, x, max(saliency[y, x].item(), 0)) for y in range(h) for x in range(w)]
    total = sum(value for *_, value in cells)
    row = sum(value * (y + 0.5) / h for y, _, value in cells) / total
    column = sum(value * (x + 0.5) / w for _, x, value in cells) / total
    spread = sum(v * (((y + 0.5) / h - row) ** 2 + ((x + 0.5) / w - column) ** 2) for y, x, v in cells) / total
    return row, column, spread


def test_spread_and_area_by_loop_and_scipy():
    maps = images(signed=True)
    for saliency, spread, area in zip(maps, attention_spread(maps), attention_area(maps)):
        row, column, second = slow_moments(saliency)
        assert spread.item() == pytest.approx(second, rel=1e-11)
        values = saliency.clamp(min=0)
        by_scipy = (np.array(center_of_mass(values.numpy())) + 0.5) / (5, 3)
        np.testing.assert_allclose([row, column], by_scipy, rtol=1e-12)
        total, squares = sum(values.flatten().tolist()), sum(v * v for v in values.flatten().tolist())
        assert area.item() == pytest.approx(total**2 / squares / 15, rel=1e-12)


def test_spread_and_area_of_cases_by_hand():
    maps = torch.zeros(4, 4, 4, dtype=torch.float64)
    maps[0, 1, 2] = 5  # one pixel
    maps[1, 0, 0] = maps[1, 3, 3] = 2  # opposite corners, centres 3/4 apart on each side
    maps[2, 1:3, 1:3] = 0.1
    maps[3] = 3
    assert attention_spread(maps).tolist() == pytest.approx([0, 2 * 0.375**2, 2 * 0.125**2, 2 * (1 - 1 / 16) / 12])
    assert attention_area(maps).tolist() == pytest.approx([1 / 16, 2 / 16, 4 / 16, 1])


def test_pairwise_correlation_is_scipys_over_all_pairs():
    maps = images(signed=True) + 100  # an offset that the correlation does not see
    got = pairwise_correlation(maps, LABELS, 4)
    for label in (0, 1, 3):
        rows = rows_of(label, torch.ones(10, dtype=torch.bool))
        every = {i: [pearsonr(maps[i].flatten(), maps[j].flatten())[0] for j in rows if j != i] for i in rows}
        for i in rows:
            assert got[i].item() == pytest.approx(np.mean(every[i]), abs=1e-9)
    alone = pairwise_correlation(maps[:2], LABELS[:2], 4)
    assert alone.isnan().all()


def test_cam_consistency_of_each_class():
    maps = images()
    found = cam_consistency(maps, LABELS, class_means(images(seed=1), LABELS, CORRECT, 4))
    assert found.counts.tolist() == [4, 4, 0, 2]
    assert torch.equal(found.spread, attention_spread(maps))
    for label in (0, 1, 3):
        rows = rows_of(label, torch.ones(10, dtype=torch.bool))
        pairs = [pearsonr(maps[i].flatten(), maps[j].flatten())[0] for i, j in itertools.combinations(rows, 2)]
        assert found.class_correlation[label].item() == pytest.approx(np.mean(pairs), abs=1e-9)
        centroids = np.array([slow_moments(maps[i])[:2] for i in rows])
        scatter = math.sqrt(centroids.var(0, ddof=1).sum())
        assert found.centroid_scatter[label].item() == pytest.approx(scatter, rel=1e-9)
        np.testing.assert_allclose(found.centroid[rows].numpy(), centroids, rtol=1e-12)
    assert found.class_correlation[2].isnan()
    assert found.centroid_scatter[2].isnan()


def test_flat_and_all_zero_maps_are_defined():
    random = images(seed=4)[:1] + 0.1
    maps = torch.cat([torch.zeros(1, 5, 3), torch.full((1, 5, 3), 0.1), random]).requires_grad_()
    labels, correct = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.bool)
    uniform = (1 - 1 / 25) / 12 + (1 - 1 / 9) / 12
    for how in ("none", "sum", "norm"):
        means = class_means(maps, labels, correct, 1, how)
        loss = consistency_loss(maps, labels, means)
        found = cam_consistency(maps, labels, means)
        for values in found:
            assert values.isfinite().all()
        assert found.distance[0].item() == pytest.approx(means.maps.square().sum().item())
        (gradient,) = torch.autograd.grad(loss, maps)
        assert gradient.isfinite().all()
        assert how == "none" or (gradient[0] == 0).all()
        flat = normalised(maps, how)[1]
        assert flat.max() == flat.min()
        assert flat.max() > 0
    assert found.spread[:2].tolist() == pytest.approx([uniform] * 2)
    assert found.centroid[:2].flatten().tolist() == pytest.approx([0.5] * 4)
    assert found.correlation.tolist() == [0, 0, 0]
    assert attention_area(maps)[:2].tolist() == pytest.approx([1, 1])
    for measure in (attention_spread, attention_area):
        (gradient,) = torch.autograd.grad(measure(maps).sum(), maps)
        assert gradient.isfinite().all()
        assert (gradient[0] == 0).all()


def test_maps_flat_but_for_rounding_correlate_with_none():
    noise = torch.tensor([0.0, 1, 0, 1, 1, 0]).reshape(1, 2, 3) * torch.finfo(torch.float32).eps
    maps = torch.cat([1 + noise, 1 + noise])
    assert pairwise_correlation(maps, torch.tensor([0, 0]), 1).tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_computed_in_float32(dtype):
    maps = (images() / images().amax((1, 2), keepdim=True)).to(dtype).requires_grad_()
    means = class_means(maps, LABELS, CORRECT, 4)
    assert means.maps.dtype == torch.float32
    loss = consistency_loss(maps, LABELS, means)
    exact = maps.detach().double()
    expected = consistency_loss(exact, LABELS, class_means(exact, LABELS, CORRECT, 4))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert maps.grad.dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert consistency_loss(maps, LABELS, means).item() == loss.item()


MEANS = class_means(images(), LABELS, CORRECT, 4)
BAD_MAP = images().index_fill(0, torch.tensor([3]), math.nan)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: normalised(images(), "minmax"), ValueError, "normalise: got 'minmax'; expected one of none, sum"),
        (lambda: normalised(images().numpy()), TypeError, "maps: got ndarray; expected a floating-point tensor"),
        (lambda: attention_spread(images().long()), TypeError, "maps: got torch.int64"),
        (lambda: attention_area(images()[0]), ValueError, r"maps: got shape \(5, 3\).*maps\[None\]"),
        (lambda: attention_spread(images()[:0]), ValueError, "expected one or more maps"),
        (lambda: consistency_loss(BAD_MAP, LABELS, MEANS), ValueError, r"maps \[3\] hold NaN or infinite values$"),
        (lambda: normalised(BAD_MAP.half()), ValueError, "compute the map in float32"),
        (lambda: consistency_loss(images(), LABELS.float(), MEANS), TypeError, "labels: got torch.float32"),
        (lambda: consistency_loss(images(), LABELS[:3], MEANS), ValueError, r"labels: got shape \(3,\); expected \(10"),
        (
            lambda: consistency_loss(images(), LABELS + 1, MEANS),
            ValueError,
            "labels: got 4; expected classes from 0 to 3",
        ),
        (lambda: cam_consistency(images(), LABELS - 1, MEANS), ValueError, "labels: got -1"),
        (lambda: consistency_loss(images()[:, :2], LABELS, MEANS), ValueError, r"a grid of \(2, 3\).*from one layer"),
        (lambda: class_means(images(), LABELS, CORRECT.long(), 4), TypeError, "correct: got torch.int64.*bool"),
        (lambda: class_means(images(), LABELS, CORRECT[:2], 4), ValueError, r"correct: got shape \(2,\)"),
        (lambda: updated_means(MEANS, MEANS, 1.0), ValueError, "momentum: got 1.0"),
        (lambda: updated_means(MEANS, MEANS, -0.1), ValueError, "momentum: got -0.1"),
        (
            lambda: updated_means(MEANS, MEANS._replace(normalise="sum")),
            ValueError,
            "normalise was 'norm' and is now 'sum'",
        ),
        (lambda: updated_means(MEANS, MEANS._replace(maps=MEANS.maps[:2])), ValueError, "shape was .* and is now"),
    ],
)
def test_bad_input_is_refused(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
