"""RISE: its masks, its weighting against a slow loop over the same masks, and what it refuses."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xai_utils.explain.rise import RISE
from xai_utils.seeds import generator


def net(n_outputs=4, dtype=torch.float64):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(5 * 9 * 11, n_outputs))
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    return model.to(dtype).eval()


def images(n=3, dtype=torch.float64):
    return torch.rand(n, 3, 9, 11, dtype=dtype, generator=torch.Generator().manual_seed(4))


TARGETS = torch.tensor([2, 0, 3])


def all_masks(explainer, size, batch_size=1000):
    return torch.cat(list(explainer.masks(size, batch_size)))


# masks


def test_masks_are_enlarged_grids_cut_out_at_a_random_place():
    """Sect. 3.2 of the paper, one mask at a time, by torch's own bilinear interpolation."""
    explainer = RISE(net(), n_masks=40, cells=(3, 4), keep=0.3, seed=5)
    masks = all_masks(explainer, (9, 14))
    drawn = torch.rand(40, 14, generator=generator(5, "RISE"), dtype=torch.float64)
    places = set()
    for mask, row in zip(masks, drawn):
        grid = (row[:12] < 0.3).float().reshape(1, 1, 3, 4)
        down, right = math.ceil(9 / 3), math.ceil(14 / 4)
        large = F.interpolate(grid, (4 * down, 5 * right), mode="bilinear")[0, 0]
        top, left = int(row[12] * (down + 1)), int(row[13] * (right + 1))
        places.add((top, left))
        torch.testing.assert_close(mask, large[top : top + 9, left : left + 14], rtol=0, atol=1e-6)
    assert {top for top, _ in places} == set(range(4))
    assert {left for _, left in places} == set(range(5))


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
@pytest.mark.parametrize(("cells", "size"), [(7, (28, 28)), ((2, 5), (13, 22)), (1, (4, 4)), (7, (5, 5))])
def test_the_masks_mean_is_keep_at_every_pixel(keep, cells, size):
    masks = all_masks(RISE(net(), n_masks=6000, cells=cells, keep=keep), size)
    assert masks.shape == (6000, *size)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6
    error = math.sqrt(keep * (1 - keep) / 6000)  # of a mask of zeros and ones; soft masks vary less
    assert (masks.mean(0) - keep).abs().max() < 5 * error
    assert abs(masks.mean() - keep) < 4 * error


def test_masks_do_not_depend_on_the_batch_size_and_only_on_the_seed():
    masks = all_masks(RISE(net(), n_masks=50), (28, 28))
    assert torch.equal(all_masks(RISE(net(), n_masks=50), (28, 28), batch_size=7), masks)
    assert torch.equal(all_masks(RISE(net(), n_masks=30), (28, 28)), masks[:30])
    assert not torch.equal(all_masks(RISE(net(), n_masks=50, seed=1), (28, 28)), masks)
    assert len({mask.numpy().tobytes() for mask in masks}) == 50
    assert [len(batch) for batch in RISE(net(), n_masks=50).masks((8, 8), 20)] == [20, 20, 10]


# maps


def slow_rise(model, x, targets, masks, score):
    """One image, one mask, one pixel at a time."""
    maps = torch.zeros(len(x), *x.shape[2:], dtype=torch.float64)
    for n, image in enumerate(x):
        values = []
        for mask in masks:
            with torch.no_grad():
                outputs = model((image * mask)[None])[0]
            values.append(float(score(outputs)[targets[n]]))
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                weights = [float(mask[i, j]) for mask in masks]
                weighted = sum(weight * value for weight, value in zip(weights, values))
                maps[n, i, j] = weighted / sum(weights) if sum(weights) else np.mean(values)
    return maps


@pytest.mark.parametrize("batch_size", [None, 7, 1])
@pytest.mark.parametrize(("score", "function"), [("probability", lambda o: o.softmax(0)), ("logit", lambda o: o)])
def test_slow_loop_with_the_same_masks(score, function, batch_size):
    model, x = net(), images()
    explainer = RISE(model, n_masks=30, cells=(2, 3), keep=0.4, score=score, batch_size=batch_size)
    masks = all_masks(explainer, (9, 11)).double()
    expected = slow_rise(model, x, TARGETS.tolist(), masks, function)
    maps = explainer.attribute(x, TARGETS)
    assert maps.dtype == torch.float64
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-12)
    assert expected.std() > 1e-4


def test_a_pixel_that_no_mask_shows_gets_the_mean_score():
    model, x = net(), images()
    explainer = RISE(model, n_masks=6, cells=4, keep=0.05, score="logit")
    masks = all_masks(explainer, (9, 11)).double()
    hidden = masks.sum(0) == 0
    assert 0 < hidden.sum() < hidden.numel()
    maps = explainer.attribute(x, TARGETS)
    torch.testing.assert_close(maps, slow_rise(model, x, TARGETS.tolist(), masks, lambda o: o), rtol=0, atol=1e-12)
    assert len(maps[0][hidden].unique()) == 1


def test_a_constant_score_gives_a_flat_map_at_any_number_of_masks():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 2), 0.25, dtype=x.dtype).cumsum(1)

    for keep in (0.05, 0.5, 0.95):
        maps = RISE(Constant(), n_masks=5, keep=keep, score="logit").attribute(images(), 1)
        torch.testing.assert_close(maps, torch.full_like(maps, 0.5), rtol=0, atol=1e-12)


def test_many_masks_find_the_one_pixel_that_counts_and_agree_with_the_papers_normalisation():
    class Pixel(nn.Module):
        def forward(self, x):
            return x[:, 0, 6, 2]

    x = torch.ones(1, 3, 9, 11, dtype=torch.float64)
    explainer = RISE(Pixel(), n_masks=4000, cells=3, keep=0.3)
    (found,) = explainer.attribute(x)
    masks = all_masks(explainer, (9, 11)).double()
    (peak,) = (found == found.max()).nonzero()
    assert (peak - torch.tensor([6, 2])).abs().max() <= 1  # soft masks vary most near the border
    of_the_paper = torch.einsum("m,mhw->hw", masks[:, 6, 2], masks) / (4000 * 0.3)  # eq. (6)
    torch.testing.assert_close(found, of_the_paper, rtol=0.08, atol=0)
    far = found[0, 9].item()  # more than a cell away: E[f M] / E[M] = E[f] = keep
    assert far == pytest.approx(0.3, abs=0.02)


def test_each_image_on_its_own_has_the_same_map():
    model, x = net(), images()
    explainer = RISE(model, n_masks=25, batch_size=4)
    maps = explainer.attribute(x, TARGETS)
    for n, target in enumerate(TARGETS.tolist()):
        torch.testing.assert_close(explainer.attribute(x[n : n + 1], target)[0], maps[n], rtol=0, atol=1e-12)
    assert not torch.equal(explainer.attribute(x, 1), maps)


def test_a_single_output_is_the_score_and_needs_no_target():
    model, x = net(n_outputs=1), images()
    explainer = RISE(model, n_masks=20, cells=3)
    masks = all_masks(explainer, (9, 11)).double()
    expected = slow_rise(model, x, [0, 0, 0], masks, lambda outputs: outputs)
    torch.testing.assert_close(explainer.attribute(x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(explainer.attribute(x, 0), expected, rtol=0, atol=1e-12)


def test_float32_runs_its_folded_copy_to_the_same_map():
    model, x = net(dtype=torch.float32), images(dtype=torch.float32)
    maps = RISE(model, n_masks=60).attribute(x, TARGETS)
    assert maps.dtype == torch.float32
    expected = RISE(model.double(), n_masks=60).attribute(x.double(), TARGETS)
    torch.testing.assert_close(maps.double(), expected, rtol=1e-5, atol=1e-6)


def test_masks_are_made_batch_by_batch(monkeypatch):
    sizes = []

    class Model(nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return x.mean((1, 2, 3))

    made = []
    original = RISE.masks

    def watched(self, size, batch_size):
        for batch in original(self, size, batch_size):
            made.append(len(batch))
            yield batch
            assert len(sizes) >= 1 + 2 * len(made)  # both images are scored before the next batch is made

    monkeypatch.setattr(RISE, "masks", watched)
    RISE(Model(), n_masks=50, batch_size=8).attribute(images(2))
    assert max(sizes) == 8
    assert made == [8] * 6 + [2]


# refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "keep: got 0; expected a probability above 0 and below 1"),
        ({"keep": 1.0}, r"keep: got 1\.0"),
        ({"keep": math.nan}, "keep: got nan"),
        ({"n_masks": 0}, "n_masks: got 0; expected a positive integer"),
        ({"n_masks": 2.5}, r"n_masks: got 2\.5"),
        ({"n_masks": True}, "n_masks: got True"),
        ({"cells": 0}, "cells: got 0"),
        ({"cells": (7, -1)}, r"cells: got \(7, -1\)"),
        ({"cells": (7, 7, 7)}, r"cells: got \(7, 7, 7\); expected one number, or \(rows, columns\)"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        RISE(net(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "prob"}, "score: got 'prob'"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_bad_settings_that_are_seen_on_use(options, message):
    with pytest.raises(ValueError, match=message):
        RISE(net(), n_masks=3, **options).attribute(images(), 0)


def test_a_softmax_inside_and_logits_that_are_not_finite():
    with pytest.raises(ValueError, match="probabilities already"):
        RISE(nn.Sequential(net(), nn.Softmax(1)), n_masks=3).attribute(images(), 0)
    broken = net()
    with torch.no_grad():
        broken[-1].bias[1] = torch.nan
    with pytest.raises(ValueError, match="outputs hold NaN"):
        RISE(broken, n_masks=3).attribute(images(), 0)


def test_its_random_numbers_are_its_own():
    model = net()
    before = torch.get_rng_state()
    first = RISE(model, n_masks=5).attribute(images(), 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(RISE(model, n_masks=5).attribute(images(), 0), first)
