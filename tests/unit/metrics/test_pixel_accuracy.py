"""The pixel-accuracy curve against its definition in exact fractions, scikit-learn, and closed forms."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from xai_utils.metrics import pixel_accuracy
from xai_utils.metrics.pixel_accuracy import pixel_accuracy_curve

READINGS = ("signed", "clip", "shift")
R = torch.linspace(0, 1, 11, dtype=torch.float64)


def maps_and_masks(n=6, height=5, width=7, offset=0.3):
    draw = torch.Generator().manual_seed(5)
    saliency = torch.randn(n, height, width, generator=draw, dtype=torch.float64) + offset
    return saliency, torch.rand(n, height, width, generator=draw) < 0.4


def importances(saliency, normalise):
    """R of one map as exact fractions: step 2 of the paper, after `normalise`."""
    values = [Fraction(v) for v in saliency.flatten().tolist()]
    if normalise == "clip":
        values = [max(v, Fraction(0)) for v in values]
    if normalise == "shift":
        values = [v - min(values) for v in values]
    if sum(values) == 0:
        return [Fraction(1, len(values))] * len(values)
    return [v / sum(values) for v in values]


def slow_curve(saliency, mask, r, normalise):
    """Steps 3 to 5, one pixel and one threshold at a time, averaged over every order of equal pixels."""
    share, curves, orders = importances(saliency, normalise), [], []
    for value in sorted(set(share)):
        equal = [i for i in range(len(share)) if share[i] == value]
        orders.append(itertools.permutations(equal) if value else [equal])  # zeros add nothing, in any order
    for order in itertools.product(*orders):
        cumulative, total = {}, Fraction(0)
        for i in itertools.chain(*order):
            total += share[i]
            cumulative[i] = total
        assert total == 1
        curve = []
        for level in r.tolist():
            black = [cumulative[i] >= Fraction(level) for i in range(len(share))]
            curve.append(accuracy_score(mask.flatten().tolist(), black))
        curves.append(curve)
    return np.mean(curves, axis=0)


@pytest.mark.parametrize("normalise", READINGS)
@pytest.mark.parametrize("offset", [0.3, -0.3, 0.02])  # sums above 0, below 0, small beside the values
def test_definition_in_exact_fractions(normalise, offset):
    saliency, masks = maps_and_masks(offset=offset)
    r = torch.tensor([0.0, 0.013, 0.1, 0.37, 0.5, 0.77, 0.999, 1.0], dtype=torch.float64)
    curves = pixel_accuracy_curve(saliency, masks, r, normalise)
    expected = [slow_curve(one, mask, r, normalise) for one, mask in zip(saliency, masks)]
    np.testing.assert_allclose(curves.numpy(), expected, rtol=0, atol=1e-13)
    assert curves.dtype == torch.float64
    if normalise != "signed":
        np.testing.assert_allclose(curves[:, 0], masks.double().mean((1, 2)), atol=1e-15)  # all black


def test_signed_is_the_default_and_the_readings_differ():
    saliency, masks = maps_and_masks()
    curves = {reading: pixel_accuracy_curve(saliency, masks, R, reading) for reading in READINGS}
    assert torch.equal(pixel_accuracy_curve(saliency, masks, R), curves["signed"])
    for one, other in itertools.combinations(READINGS, 2):
        assert (curves[one] - curves[other]).abs().max() > 0.05


def test_signed_by_hand():
    """R = −1/2, 1, 3/2, −1; ascending −1, −1/2, 1, 3/2; cumulated −1, −3/2, −1/2, 1: one black pixel, the largest."""
    saliency = torch.tensor([[[-1.0, 2.0], [3.0, -2.0]]])
    mask = torch.tensor([[[False, True], [True, False]]])
    assert pixel_accuracy_curve(saliency, mask, [0.0, 0.5, 1.0]).tolist() == [[0.75, 0.75, 0.75]]
    # clipped: 0, 2/5, 3/5, 0; cumulated in that order 0, 2/5, 1, 0
    assert pixel_accuracy_curve(saliency, mask, [0.0, 0.4, 0.5, 1.0], "clip").tolist() == [[0.5, 1.0, 0.75, 0.75]]
    # shifted by 2: 1/8, 4/8, 5/8 of 10/8 …: 1/10, 4/10, 5/10, 0; cumulated 1/10, 5/10, 1, 0
    curve = pixel_accuracy_curve(saliency, mask, [0.0, 0.05, 0.25, 0.75], "shift")
    assert curve.tolist() == [[0.5, 0.75, 1.0, 0.75]]


def test_a_negative_sum_turns_the_order_round_as_the_formula_says():
    """R = L̂ / ΣΣL̂ is the same for L̂ and −L̂: where the sum is below 0, low values become important."""
    saliency, masks = maps_and_masks(offset=0.5)
    assert (saliency.sum((1, 2)) > 0).all()
    curves = pixel_accuracy_curve(saliency, masks, R)
    torch.testing.assert_close(pixel_accuracy_curve(-saliency, masks, R), curves, rtol=0, atol=0)
    torch.testing.assert_close(pixel_accuracy_curve(saliency * 1e-9, masks, R), curves, rtol=0, atol=0)
    assert (pixel_accuracy_curve(-saliency, masks, R, "shift") - curves).abs().max() > 0.05


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 2, 2, 5, 3, 3, 0, 0],
        [-1, -1, 4, 4, 4, -2, 0, 0, 0],  # a negative group is crossed twice
        [7, 7, 7, 7, 1, 1, 3, 5, 0],
        [-3, -3, -1, -1, -1, 1, 1, 2, 2],  # sum below 0
    ],
)
@pytest.mark.parametrize("normalise", READINGS)
def test_equal_pixels_are_averaged_over_all_their_orders(values, normalise):
    saliency = torch.tensor(values, dtype=torch.float64).reshape(3, 3)
    mask = torch.tensor([1, 0, 1, 0, 1, 1, 0, 0, 1], dtype=torch.bool).reshape(3, 3)
    r = torch.tensor([0, 0.03, 0.11, 0.21, 0.43, 0.64, 0.83, 1], dtype=torch.float64)
    expected = slow_curve(saliency, mask, r, normalise)
    curve = pixel_accuracy_curve(saliency[None], mask[None], r, normalise)[0]
    np.testing.assert_allclose(curve.numpy(), expected, rtol=0, atol=1e-13)
    flipped = pixel_accuracy_curve(saliency.flip(0, 1)[None], mask.flip(0, 1)[None], r, normalise)[0]
    torch.testing.assert_close(flipped, curve, rtol=0, atol=1e-14)


@pytest.mark.parametrize("normalise", READINGS)
def test_uniform_map_goes_straight_from_the_share_of_the_mask_to_the_rest(normalise):
    masks = torch.zeros(3, 8, 16, dtype=torch.bool)
    masks[0, :3] = masks[1, 5:] = masks[2, :, ::4] = True
    r = torch.arange(1, 129, dtype=torch.float64) / 128  # one pixel fewer at each
    share = masks.double().mean((1, 2))[:, None]
    curves = pixel_accuracy_curve(torch.full((3, 8, 16), 0.25), masks, r, normalise)
    white = r - 1 / 128  # the pixel that reaches r is black
    torch.testing.assert_close(curves, (1 - white) * share + white * (1 - share), rtol=0, atol=1e-12)
    fine = torch.linspace(0, 1, 101, dtype=torch.float64)
    area = torch.trapezoid(pixel_accuracy_curve(torch.full((3, 8, 16), 0.25), masks, fine, normalise), fine)
    torch.testing.assert_close(area, torch.full_like(area, 0.5), rtol=0, atol=4e-3)


@pytest.mark.parametrize("normalise", READINGS)
def test_the_mask_as_map_is_nearly_the_best(normalise):
    masks = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.3
    inside = masks.sum((1, 2)).double()[:, None]
    r = torch.tensor([0.003, 0.1, 0.3333, 0.52, 0.99, 1.0], dtype=torch.float64)
    best = pixel_accuracy_curve(masks.double(), masks, r, normalise)
    torch.testing.assert_close(best, 1 - ((r * inside).ceil() - 1) / 64, rtol=0, atol=1e-14)
    fine = torch.linspace(0, 1, 201, dtype=torch.float64)
    area = torch.trapezoid(pixel_accuracy_curve(masks.float(), masks, fine, normalise), fine)
    torch.testing.assert_close(area, 1 - inside[:, 0] / 128, rtol=0, atol=0.01)
    other = masks + 0.5 * torch.rand(masks.shape, generator=torch.Generator().manual_seed(0))
    assert (torch.trapezoid(pixel_accuracy_curve(other, masks, fine, normalise), fine) < area).all()


@pytest.mark.parametrize(
    ("values", "readings"),
    [
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], READINGS),
        ([0.7, 0.7, 0.7, 0.7, 0.7, 0.7], READINGS),
        ([-0.7, -0.7, -0.7, -0.7, -0.7, -0.7], READINGS),
        ([-1.0, -2.0, 0.0, -5.0, -1.0, -0.5], ("clip",)),
        ([1.0, -1.0, 2.0, -2.0, 3.0, -3.0], ("signed",)),
        ([0.1, 0.2, -0.3, 0.1, 0.2, -0.3], ("signed",)),  # 1e-16 by rounding only
    ],
)
def test_a_sum_of_zero_counts_as_a_uniform_map(values, readings):
    saliency = torch.tensor(values, dtype=torch.float64).reshape(1, 2, 3)
    mask = torch.tensor([[[True, True, False], [False, False, False]]])
    r = [0.0, 0.1, 0.2, 0.4, 0.6, 0.7, 0.9, 1.0]  # none of them k/6 but the ends, where rounding would decide
    uniform = pixel_accuracy_curve(torch.ones(1, 2, 3), mask, r)
    assert uniform[0, 0] == pytest.approx(1 / 3)
    for reading in readings:
        torch.testing.assert_close(pixel_accuracy_curve(saliency, mask, r, reading), uniform, rtol=0, atol=1e-14)


def test_a_small_sum_that_is_no_rounding_is_used_as_it_is():
    saliency = torch.tensor([[[1.0, -1.0, 2.0], [-2.0, 3.0, -3.0 + 1e-9]]], dtype=torch.float64)
    mask = torch.tensor([[[False, False, False], [False, True, False]]])
    curve = pixel_accuracy_curve(saliency, mask, R)[0]
    np.testing.assert_allclose(curve, slow_curve(saliency[0], mask[0], R, "signed"), rtol=0, atol=1e-14)
    assert (curve == 1).all()  # R of the largest is 3e9, all the others' cumulations are below 0


def test_empty_and_full_masks_give_the_share_of_white_and_of_black():
    saliency, masks = maps_and_masks(n=3)
    for reading in READINGS:
        empty = pixel_accuracy_curve(saliency, torch.zeros_like(masks), R, reading)
        full = pixel_accuracy_curve(saliency, torch.ones_like(masks), R, reading)
        torch.testing.assert_close(empty + full, torch.ones_like(full), rtol=0, atol=1e-14)
        for i in range(3):
            np.testing.assert_allclose(full[i], slow_curve(saliency[i], torch.ones_like(masks[i]), R, reading))


def test_thresholds_in_any_order_type_and_number():
    saliency, masks = maps_and_masks()
    sorted_curve = pixel_accuracy_curve(saliency, masks, R)
    shuffled = torch.tensor([7, 0, 10, 3, 3, 9])
    assert torch.equal(pixel_accuracy_curve(saliency, masks, R[shuffled]), sorted_curve[:, shuffled])
    assert torch.equal(pixel_accuracy_curve(saliency, masks, R.numpy()), sorted_curve)
    assert torch.equal(pixel_accuracy_curve(saliency, masks, R.tolist()), sorted_curve)
    assert torch.equal(pixel_accuracy_curve(saliency, masks, (1, 0)), sorted_curve[:, [10, 0]])
    assert pixel_accuracy_curve(saliency, masks, [0.5]).shape == (6, 1)


@pytest.mark.parametrize("normalise", READINGS)
@pytest.mark.parametrize("batch", [1, 80, 2**18])  # of pixels: one map, two maps, all of them
def test_each_map_is_judged_on_its_own_whatever_the_batch(monkeypatch, normalise, batch):
    saliency, masks = maps_and_masks()
    saliency[2], saliency[4] = 0, -saliency[4]
    alone = [pixel_accuracy_curve(saliency[i : i + 1], masks[i : i + 1], R, normalise) for i in range(6)]
    monkeypatch.setattr(pixel_accuracy, "_BATCH", batch)
    torch.testing.assert_close(pixel_accuracy_curve(saliency, masks, R, normalise), torch.cat(alone), rtol=0, atol=0)


@pytest.mark.parametrize("normalise", READINGS)
def test_inputs_are_left_alone_and_may_be_views_with_gradients(normalise):
    saliency, masks = maps_and_masks()
    before, turned = saliency.clone(), saliency.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    curves = pixel_accuracy_curve(turned, masks, R, normalise)
    assert torch.equal(turned, before)
    assert not curves.requires_grad
    assert torch.equal(curves, pixel_accuracy_curve(saliency, masks, R, normalise))
    assert torch.equal(saliency, before)
    rounded = saliency.float()
    assert torch.equal(
        pixel_accuracy_curve(rounded, masks, R, normalise), pixel_accuracy_curve(rounded.double(), masks, R, normalise)
    )


def test_no_maps_give_no_curves():
    assert pixel_accuracy_curve(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4, dtype=torch.bool), R).shape == (0, 11)


def with_value(value):
    saliency = torch.ones(3, 4, 4)
    saliency[1, 2, 3] = value
    return saliency


MAPS, MASKS = torch.ones(3, 4, 4), torch.ones(3, 4, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((MAPS.numpy(), MASKS, R), TypeError, "saliency: got ndarray; expected a floating-point tensor"),
        ((MAPS.long(), MASKS, R), TypeError, r"saliency: got torch\.int64"),
        ((MAPS, MASKS.float(), R), TypeError, r"mask: got torch\.float32; expected a tensor of bool.*mask > 0\.5"),
        ((MAPS, MASKS.numpy(), R), TypeError, "mask: got ndarray"),
        ((MAPS[0], MASKS[0], R), ValueError, r"shape \(4, 4\); expected maps \(N, H, W\); add the batch dimension"),
        ((MAPS[:, None], MASKS[:, None], R), ValueError, r"saliency: got shape \(3, 1, 4, 4\)"),
        ((MAPS[:, :0], MASKS[:, :0], R), ValueError, r"saliency: got shape \(3, 0, 4\)"),
        (
            (MAPS[:, :2, :2], MASKS, R),
            ValueError,
            r"shape \(3, 4, 4\), but the maps have \(3, 2, 2\).*upsample",
        ),
        ((MAPS, MASKS[:2], R), ValueError, r"mask: got shape \(2, 4, 4\), but the maps have \(3, 4, 4\)"),
        ((with_value(torch.nan), MASKS, R), ValueError, r"saliency: maps \[1\] hold NaN or infinite values"),
        ((with_value(-torch.inf), MASKS, R), ValueError, r"saliency: maps \[1\] hold NaN or infinite values"),
        ((MAPS, MASKS, [0.5, 1.01]), ValueError, r"r: got the threshold 1\.01; expected values in \[0, 1\]"),
        ((MAPS, MASKS, [-0.01, 0.5]), ValueError, r"r: got the threshold -0\.01"),
        ((MAPS, MASKS, [0.5, float("nan")]), ValueError, "r: got the threshold nan"),
        ((MAPS, MASKS, []), ValueError, r"r: got shape \(0,\); expected one or more thresholds"),
        ((MAPS, MASKS, 0.5), ValueError, r"r: got shape \(\)"),
        ((MAPS, MASKS, R[None]), ValueError, r"r: got shape \(1, 11\)"),
        ((MAPS, MASKS, R, "abs"), ValueError, "normalise: got 'abs'; expected one of signed, clip, shift"),
    ],
)
def test_bad_input_is_named(arguments, error, text):
    with pytest.raises(error, match=text):
        pixel_accuracy_curve(*arguments)
