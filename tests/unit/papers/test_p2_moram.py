"""Paper 2's measures of maps against the true region, rewritten slowly, with answers known by hand."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import r2_score

from xai_utils.metrics import estimates
from xai_utils.metrics.pixel_accuracy import pixel_accuracy_curve
from xai_utils.metrics.statistics import Estimate
from xai_utils.papers import p2_moram as paper

SEED = 0


def maps_and_masks(n=6):
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(n, 5, 6, generator=generator, dtype=torch.float64)
    return maps, torch.rand(n, 5, 6, generator=generator) < 0.4


def pixels(values, mask):
    inside = [v for v, m in zip(values.flatten().tolist(), mask.flatten().tolist()) if m]
    outside = [v for v, m in zip(values.flatten().tolist(), mask.flatten().tolist()) if not m]
    return inside, outside


def test_inside_difference_in_loops():
    maps, masks = maps_and_masks()
    for found, values, mask in zip(paper.inside_difference(maps, masks), maps, masks):
        inside, outside = pixels(values, mask)
        expected = sum(inside) / len(inside) - sum(outside) / len(outside)
        assert found.item() == pytest.approx(expected / max(abs(v) for v in inside + outside), abs=1e-12)


def test_a_map_that_denies_the_region_is_below_zero_and_a_flat_one_zero():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :2] = True
    assert paper.inside_difference(torch.where(mask, -1.0, 1.0), mask).item() == -2
    assert paper.inside_difference(torch.where(mask, 3.0, 0.0), mask).item() == 1
    assert paper.inside_difference(torch.zeros(1, 4, 4), mask).item() == 0
    assert paper.misled(
        torch.stack([torch.where(mask, -1.0, 1.0)[0], torch.zeros(4, 4)]), mask.repeat(2, 1, 1)
    ).tolist() == [1, 0]


def test_high_area_in_loops_and_for_a_map_without_positive_values():
    maps, masks = maps_and_masks()
    for found, values, mask in zip(paper.high_area(maps, masks), maps, masks):
        inside, outside = pixels(values, mask)
        half = max(inside + outside) / 2
        assert found.item() == pytest.approx(sum(v > half for v in inside) / len(inside), abs=1e-6)
    assert paper.high_area(-torch.ones(1, 5, 6), masks[:1]).item() == 0


def test_without_a_region_nothing_is_defined():
    maps, masks = maps_and_masks(2)
    for measure in (paper.inside_difference, paper.high_area, paper.misled):
        assert measure(maps, None).isnan().all()
        assert measure(maps, None).shape == (2,)
    full = torch.ones_like(masks)
    for odd in (full, ~full):
        assert paper.inside_difference(maps, odd).isnan().all()
        assert paper.misled(maps, odd).isnan().all()
    found = paper.mean_of_known(paper.inside_difference(maps, None), SEED)
    assert found == Estimate(None, 0, note="fewer than two images with a true region")
    share = paper.share_difference(paper.misled(maps, None), torch.tensor([True, False]), SEED)
    assert (share.value, share.n) == (None, 0)
    r = torch.linspace(0, 1, 5)
    curves = paper.curves({"RAM": maps, "MoRAM": maps.abs()}, None, r)
    assert {values.shape for values in curves.values()} == {(2, 5)}
    for entry in paper.compare_readings(curves, r, partial(paper.mean_of_known, seed=SEED)).values():
        assert [value.value for value in entry.values()] == [None] * 4


def test_an_interval_leaves_images_without_region_out():
    values = torch.tensor([1.0, math.nan, 2.0, 6.0])
    found = paper.mean_of_known(values, SEED)
    assert (found.value, found.n) == (3.0, 3)
    assert 1 <= found.low < 3 < found.high <= 6
    assert paper.mean_of_known(values[:2], SEED).value is None


def test_share_difference_by_counting():
    hits = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, math.nan])
    group = torch.tensor([True, True, True, True, False, False, False, False, True])
    found = paper.share_difference(hits, group, SEED)
    assert found.value == pytest.approx(3 / 4 - 1 / 4)
    assert found.n == 8
    assert found.low < 0.5 < found.high
    assert paper.share_difference(hits, torch.ones(9, dtype=torch.bool), SEED).value is None
    three, two = group & (torch.arange(9) > 0), torch.arange(9) < 2
    assert paper.share_difference(hits, three, SEED).value == pytest.approx(2 / 3 - 2 / 5)
    assert paper.share_difference(hits, ~three, SEED).value == pytest.approx(2 / 5 - 2 / 3)
    assert paper.share_difference(hits, two, SEED).value == pytest.approx(1 - 2 / 6)
    note = "fewer than two images with a true region in one of the groups"
    assert paper.share_difference(hits, two & (torch.arange(9) > 0), SEED) == Estimate(None, 8, note=note)


def test_nearest_targets():
    assert paper.nearest(torch.tensor([0.9, -0.8, -0.3, 0.1]), [-0.78, -0.32, 0.95]) == [1, 2, 0]


def test_relative_difference_in_loops():
    maps, _ = maps_and_masks(3)
    other = maps.abs()
    for found, one, two in zip(paper.relative_difference(maps, other), maps, other):
        expected = sum(abs(a - b) for a, b in zip(one.flatten().tolist(), two.flatten().tolist()))
        assert found.item() == pytest.approx(expected / sum(map(abs, two.flatten().tolist())))
    assert paper.relative_difference(other, other).tolist() == [0, 0, 0]


def test_curves_and_areas_are_those_of_the_metric():
    maps, masks = maps_and_masks()
    r = torch.tensor([0.0, 0.2, 0.7, 1.0])
    curves = paper.curves({"RAM": maps, "MoRAM": maps.abs()}, masks, r)
    assert list(curves) == [(reading, name) for reading in ("signed", "clip", "shift") for name in ("RAM", "MoRAM")]
    for (reading, name), values in curves.items():
        saliency = maps if name == "RAM" else maps.abs()
        assert torch.equal(values, pixel_accuracy_curve(saliency, masks, r, normalise=reading))
        expected = [np.trapezoid(row, r) for row in values.numpy()]
        np.testing.assert_allclose(paper.areas(curves, r)[reading, name], expected, rtol=1e-7)


def test_readings_are_compared_moram_minus_ram():
    r = torch.linspace(0, 1, 3)
    ram = torch.tensor([[0.2, 0.5, 0.9], [0.4, 0.5, 0.7]])
    up = torch.tensor([[0.0, 0.1, 0.0], [0.0, 0.3, 0.0]])
    curves = {(reading, "RAM"): ram for reading in paper.READINGS}
    curves |= {("signed", "MoRAM"): ram - up, ("clip", "MoRAM"): ram + up - 0.01, ("shift", "MoRAM"): ram + up}
    found = paper.compare_readings(curves, r, partial(paper.mean_of_known, seed=SEED))
    assert [found[reading]["share_of_r"].value for reading in paper.READINGS] == pytest.approx([2 / 3, 1 / 3, 1])
    assert found["shift"]["auc_difference"].value == pytest.approx(0.1)  # the mean of 0.05 and 0.15
    assert found["shift"]["auc_difference"].low == pytest.approx(0.05)
    assert found["signed"]["auc_difference"].value == pytest.approx(-0.1)
    assert found["clip"]["ram_area"].value == pytest.approx((0.525 + 0.525) / 2)
    assert found["clip"]["moram_area"].value == pytest.approx(0.525 + 0.1 - 0.01)
    assert paper.best_reading(found) == "shift"
    found["clip"]["share_of_r"] = Estimate(1.0, 3)
    assert paper.best_reading(found) == "shift"  # equal shares: the larger area decides
    found["clip"]["auc_difference"] = Estimate(0.2, 2)
    assert paper.best_reading(found) == "clip"


def test_areas_by_sign_of_the_target():
    r = torch.tensor([0.0, 1.0])
    curves = {("signed", "RAM"): torch.tensor([[0.0, 0.2], [0.5, 0.5], [1.0, 1.0]])}
    table = paper.areas_by_sign(curves, r, torch.tensor([-0.5, 0.0, 0.3]))
    expected = pd.DataFrame({"all": [1.6 / 3], "target < 0": [0.1], "target ≥ 0": [0.75]})
    np.testing.assert_allclose(table.to_numpy(), expected.to_numpy(), rtol=1e-6)
    assert list(table.columns) == list(expected.columns)


def test_sums_that_flip_and_sums_near_zero():
    maps = torch.tensor([[[1.0, 1.0]], [[-2.0, 1.0]], [[-1.0, 1.001]], [[-3.0, 0.5]], [[4.0, 1.0]]])
    found = paper.sums(maps)
    assert found["flipped"] == pytest.approx(0.4)
    assert found["nearly_zero"] == pytest.approx(0.2)
    assert found["largest"] == pytest.approx(1001, rel=1e-3)


def test_targets_of_one_sign_leave_the_other_not_defined():
    found = paper.sums(torch.ones(3, 2, 2)[:0])
    assert all(np.isnan(value) for value in found.values())
    assert paper.share(found["flipped"], 0) == Estimate(
        None, 0, unit="share", note="no image with a target of this sign"
    )
    assert paper.share(0.25, 4) == Estimate(0.25, 4, unit="share")


def test_cancelled_in_loops_on_a_grid_of_whole_cells():
    generator = torch.Generator().manual_seed(2)
    up, down = torch.rand(2, 3, 2, 2, generator=generator, dtype=torch.float64)  # what pushes up, what pushes down
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[:, :2, :2] = True  # the upper left cell,
    masks[:, 2, 2:] = True  # and the upper half of the lower right one
    share = [[1.0, 0.0], [0.0, 0.5]]
    found = paper.cancelled(up - down, up + down, masks)
    assert list(found) == ["all", "inside", "outside"]
    for i in range(3):
        for place, weight in (("all", lambda s: 1), ("inside", lambda s: s), ("outside", lambda s: 1 - s)):
            cells = [(y, x, weight(share[y][x])) for y in (0, 1) for x in (0, 1)]
            signed = sum(w * abs(up[i, y, x] - down[i, y, x]).item() for y, x, w in cells)
            total = sum(w * (up[i, y, x] + down[i, y, x]).item() for y, x, w in cells)
            assert found[place][i].item() == pytest.approx(1 - signed / total)


def test_nothing_cancels_under_one_sign_and_all_of_it_between_equals():
    up = torch.tensor([[[3.0, 1.0]], [[2.0, 5.0]], [[0.0, 0.0]]])
    down = torch.tensor([[[0.0, 0.0]], [[2.0, 5.0]], [[0.0, 0.0]]])
    found = paper.cancelled(up - down, up + down)
    assert found["all"][:2].tolist() == [0, 1]
    assert found["all"][2].isnan()  # an empty map: nothing to cancel
    assert found["inside"].isnan().all()
    assert found["outside"].isnan().all()
    toy = torch.tensor([[[0.0, 0.0], [-2.0, 1.0]]]), torch.tensor([[[8.0, 0.0], [2.0, 1.0]]])  # the notebook's
    assert paper.cancelled(*toy)["all"].item() == pytest.approx(8 / 11)


def test_intervals_keep_groups_together():
    """Ten photographs of four crops each, alike within a photograph: the interval is that of ten values."""
    own = torch.randn(10, generator=torch.Generator().manual_seed(1))
    values, groups = own.repeat_interleave(4), np.repeat([f"p{i}" for i in range(10)], 4)
    images = SimpleNamespace(groups=groups)
    found = paper.mean_over(images, SEED, values)
    assert found == estimates.mean(values.numpy(), groups, SEED)
    alone = paper.mean_over(SimpleNamespace(groups=None), SEED, values)
    assert alone == paper.mean_of_known(values, SEED)
    assert found.high - found.low > 1.5 * (alone.high - alone.low)
    which = torch.arange(40) % 8 < 4  # every other photograph
    part = paper.mean_over(images, SEED, values, which)
    assert part == estimates.mean(values[which].numpy(), groups[which.numpy()], SEED)
    some = values.clone()
    some[:4] = torch.nan  # no region: the whole photograph is left out
    assert paper.mean_over(images, SEED, some) == estimates.mean(values[4:].numpy(), groups[4:], SEED)
    apart = paper.share_difference((values > 0).float(), which, SEED, images)
    assert apart.value == paper.share_difference((values > 0).float(), which, SEED).value
    few = torch.arange(40) < 4
    assert paper.share_difference((values > 0).float(), few, SEED, images).note.startswith(
        "4 of 40 images, of 1 groups"
    )


def test_of_own_images_the_examples_lie_at_the_same_places_among_the_targets():
    targets = torch.arange(0.0, 1001.0)  # no target near −0.8
    assert paper.nearest(targets, [-0.8, 0.0, 1.0]) == [0, 0, 1]
    assert paper.nearest(targets, [-0.8, 0.0, 1.0], own="folder") == [100, 500, 1000]
    shuffled = torch.tensor([30.0, 10, 20])
    assert paper.nearest(shuffled, [-1.0, 0.0, 1.0], own="folder") == [1, 2, 0]


def test_r_squared_is_scikit_learns_and_its_interval_covers_groups_as_wholes():
    rng = np.random.default_rng(0)
    truth = torch.tensor(rng.normal(3, 2, 60), dtype=torch.float32)
    said = truth + torch.tensor(rng.normal(0, 1, 60), dtype=torch.float32)
    found = paper.r_squared(truth, said, seed=0)
    assert found.value == pytest.approx(r2_score(truth, said), rel=1e-5)
    assert found.low < found.value < found.high < 1
    twice = np.arange(60) // 20
    grouped = paper.r_squared(truth, said, 0, twice)
    assert grouped.value == found.value
    assert (grouped.low, grouped.high) != (found.low, found.high)
    mean = paper.r_squared(truth, truth.mean().expand(60), seed=0)
    assert mean.value == pytest.approx(0, abs=1e-5)
    assert mean.low < 0
    assert paper.r_squared(torch.ones(9), said[:9], seed=0).note == "all targets are alike"
