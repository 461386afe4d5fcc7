"""IoU, energy inside, pointing game and pieces against scikit-learn, scikit-image and loops over pixels."""

import math

import numpy as np
import pytest
import torch
from skimage.measure import label
from sklearn.metrics import jaccard_score

from xai_utils.metrics import localization
from xai_utils.metrics.localization import energy_inside, iou, pieces, pointing_game


def pairs(n=5, dtype=torch.float64):
    """Signed maps of another scale each, rounded so that values repeat and meet thresholds exactly; and masks."""
    random = torch.Generator().manual_seed(8)
    maps = torch.randn(n, 9, 7, generator=random).mul(8).round().div(8).to(dtype)
    maps *= (10.0 ** torch.arange(n) / 100)[:, None, None].to(dtype)
    masks = torch.rand(n, 9, 7, generator=random) < torch.linspace(0.1, 0.9, n)[:, None, None]
    masks[:, 4, 3] = True
    return maps, masks


def level(saliency, threshold, of):
    """The value that pixels of the region reach."""
    if of == "maximum":
        return threshold * max(saliency.max().item(), 0)
    return np.quantile(saliency.numpy(), threshold) if of == "quantile" else threshold


@pytest.mark.parametrize("of", ["value", "maximum", "quantile"])
def test_iou_is_scikit_learns_at_each_threshold_in_any_order(of):
    maps, masks = pairs()
    thresholds = [0.5, 0.0, 1.0, 0.15, 0.95, 0.5]
    got = iou(maps, masks, thresholds, of)
    assert got.shape == (5, 6)
    assert got.dtype == torch.float64
    for n, (saliency, mask) in enumerate(zip(maps, masks)):
        for t, threshold in enumerate(thresholds):
            region = saliency >= level(saliency, threshold, of)
            if of == "maximum":
                region &= saliency > 0
            expected = jaccard_score(mask.flatten().numpy(), region.flatten().numpy(), zero_division=0)
            assert got[n, t].item() == pytest.approx(expected, abs=1e-12)
    assert len(got.unique()) >= 12
    assert torch.equal(iou(maps, masks, 0.15, of), got[:, 3])
    assert torch.equal(iou(maps, masks, torch.tensor(thresholds), of), got)


def test_iou_of_a_case_by_hand():
    saliency = torch.tensor([[[4.0, 2.0], [1.0, -3.0]]], dtype=torch.float64)
    mask = torch.tensor([[[True, False], [True, False]]])
    assert iou(saliency, mask, [4.0, 2.0, 1.0, -3.0, 4.1]).tolist() == [[1 / 2, 1 / 3, 2 / 3, 1 / 2, 0]]
    assert iou(saliency, mask, [1.0, 0.5, 0.25, 0.0], "maximum").tolist() == [[1 / 2, 1 / 3, 2 / 3, 2 / 3]]


def test_a_part_at_a_time_gives_the_same(monkeypatch):
    maps, masks = pairs()
    expected = iou(maps, masks, [0.1, 0.4], "maximum")
    monkeypatch.setattr(localization, "PIXELS", 2 * 63)
    assert torch.equal(iou(maps, masks, [0.1, 0.4], "maximum"), expected)


def test_flat_maps_have_the_documented_results():
    masks = pairs(3)[1]
    area = masks.double().mean((1, 2))
    for value in (0.0, -2.0, 3.0):
        flat = torch.full(masks.shape, value, dtype=torch.float64)
        whole = area if value > 0 else torch.zeros(3)
        torch.testing.assert_close(iou(flat, masks, 0.15, "maximum"), whole.double())
        torch.testing.assert_close(iou(flat, masks, 0.95, "quantile"), area)
        torch.testing.assert_close(iou(flat, masks, value), area)
        torch.testing.assert_close(pointing_game(flat, masks), area)
        no_share = torch.full_like(area, torch.nan)
        torch.testing.assert_close(energy_inside(flat, masks), area if value > 0 else no_share, equal_nan=True)
        assert pieces(flat).tolist() == [int(value > 0)] * 3


def test_energy_inside_counts_positive_values_only():
    maps, masks = pairs()
    for n, share in enumerate(energy_inside(maps, masks).tolist()):
        inside = total = 0.0
        for i in range(9):
            for j in range(7):
                value = max(maps[n, i, j].item(), 0.0)
                total += value
                inside += value if masks[n, i, j] else 0.0
        assert math.isclose(share, inside / total, rel_tol=1e-12)
    saliency = torch.tensor([[[3.0, 1.0], [-5.0, -2.0]]])
    assert energy_inside(saliency, torch.tensor([[[True, False], [True, False]]])).item() == 0.75


def test_pointing_game_and_its_ties():
    saliency = torch.zeros(4, 3, 3)
    saliency[:, 2, 0] = 5.0
    saliency[2:, 0, 1] = 5.0  # earlier in reading order
    saliency[3, 1, 1] = 5.0
    mask = torch.zeros(4, 3, 3, dtype=torch.bool)
    mask[0, 2, 0] = mask[1, 0, 2] = mask[2, 2, 0] = mask[3, 2, 0] = True
    torch.testing.assert_close(pointing_game(saliency, mask), torch.tensor([1.0, 0.0, 1 / 2, 1 / 3]))


def test_pieces_are_scikit_images_with_eight_neighbours():
    maps, _ = pairs()
    for fraction in (0.25, 0.5, 1.0):
        expected = [
            label((saliency >= fraction * saliency.max()).numpy(), connectivity=2, return_num=True)[1]
            for saliency in maps
        ]
        assert pieces(maps, fraction).tolist() == expected
        assert len(set(expected)) > 1
    saliency = torch.zeros(3, 4, 4)
    saliency[0, 0, 0] = saliency[0, 1, 1] = 1.0  # touch by a corner
    saliency[1, 0, 0], saliency[1, 3, 3], saliency[1, 0, 3] = 1.0, 0.5, 0.49  # at the half: in
    saliency[2] = -1.0
    assert pieces(saliency).tolist() == [1, 2, 0]


def test_arrays_other_types_and_the_mask_as_a_map():
    maps, masks = pairs()
    for function in (energy_inside, pointing_game, lambda s, m: iou(s, m, 0.15, "maximum")):
        expected = function(maps, masks)
        assert torch.equal(function(maps.numpy(), masks.numpy()), expected)
        assert function(maps.float(), masks).dtype == torch.float32
        assert torch.equal(function(masks, masks), torch.ones(5))
        assert not function(maps.clone().requires_grad_(), masks).requires_grad
    assert torch.equal(pieces(maps.numpy()), pieces(maps))


EVERY = {
    "iou": lambda saliency, mask: iou(saliency, mask, 0.5),
    "energy_inside": energy_inside,
    "pointing_game": pointing_game,
}


@pytest.mark.parametrize("name", EVERY)
def test_bad_masks(name):
    function, (maps, masks) = EVERY[name], pairs()
    with pytest.raises(ValueError, match=r"mask: got shape \(5, 9, 8\); expected that of the maps, \(5, 9, 7\)"):
        function(maps, torch.ones(5, 9, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask: got shape \(1, 9, 7\)"):
        function(maps, masks[:1])
    with pytest.raises(TypeError, match=r"mask: got torch.uint8; expected bool \(mask > 0\)"):
        function(maps, masks.to(torch.uint8))
    masks[3] = False
    with pytest.raises(ValueError, match=r"masks \[3\] are empty"):
        function(maps, masks)


@pytest.mark.parametrize("name", [*EVERY, "pieces"])
def test_bad_maps(name):
    function, (maps, masks) = EVERY.get(name, lambda saliency, _: pieces(saliency)), pairs()
    for value in (torch.nan, torch.inf, -torch.inf):
        broken = maps.clone()
        broken[2, 1, 1] = value
        with pytest.raises(ValueError, match=r"maps \[2\] hold NaN or infinite"):
            function(broken, masks)
    with pytest.raises(ValueError, match=r"saliency: got shape \(9, 7\); expected maps \(N, H, W\)"):
        function(maps[0], masks[0])
    with pytest.raises(ValueError, match=r"got shape \(0, 9, 7\)"):
        function(maps[:0], masks[:0])


@pytest.mark.parametrize(
    ("threshold", "of", "message"),
    [
        (0.5, "max", "of: got 'max'; expected one of value, maximum, quantile"),
        ([], "value", r"threshold: got \[\]"),
        ([[0.1]], "value", "several in one row"),
        (math.nan, "value", "threshold: got nan"),
        (15, "maximum", "threshold: got 15 of the maximum; expected numbers from 0 to 1"),
        ([0.5, -0.1], "quantile", "of the quantile; expected numbers from 0 to 1"),
    ],
)
def test_bad_thresholds(threshold, of, message):
    with pytest.raises(ValueError, match=message):
        iou(*pairs(), threshold, of)


@pytest.mark.parametrize("wrong", [0, 1.5, math.nan])
def test_bad_level(wrong):
    with pytest.raises(ValueError, match=f"level: got {wrong}"):
        pieces(pairs()[0], wrong)
