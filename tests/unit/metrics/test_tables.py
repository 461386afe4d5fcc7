"""Tables of maps by loops over pixels, paired differences by all signs of whole clusters, and what follows."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from xai_utils.metrics import estimates, faithfulness, tables
from xai_utils.metrics.statistics import Estimate
from xai_utils.seeds import generator

SEED = 0
METHODS = ("RISE", "Grad-CAM", "LRP", "ABN", "LRP-BN")
SCALE = ((0.5, 0.25), (0.2, 0.1))


def noise(*shape, seed=1, dtype=torch.float32):
    return torch.rand(*shape, generator=generator(seed, "noise"), dtype=dtype)


def some_masks(n, height, width):
    masks = noise(n, height, width, seed=5) > 0.97
    masks[0] = False
    masks[0, height // 3, : width // 2] = True
    masks[:, 2, 3] = True
    return masks


# a row per map and image ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd():
    """A linear network of three classes, images, labels and three maps."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 8, 3)).eval()
    images = (noise(3, 2, 8, 8, seed=6) - torch.tensor(SCALE[0])[:, None, None]) / torch.tensor(SCALE[1])[:, None, None]
    maps = {"zigzag": noise(3, 8, 8, seed=7) - 0.3, "alpha": noise(3, 8, 8, seed=8), "flat": torch.ones(3, 8, 8)}
    return model, images, torch.tensor([2, 0, 1]), maps


@pytest.mark.parametrize(
    "options", [{}, {"baseline": "black", "normalization": SCALE}, {"baseline": "blur", "steps": 5}]
)
def test_faithfulness_is_insertion_and_deletion_map_by_map(crowd, options):
    model, images, labels, maps = crowd
    found = tables.faithfulness_table(model, images, labels, maps, **options)
    assert list(found) == ["map", "image", "insertion", "deletion", "id_score", "tied", "empty"]
    expected = [(name, image) for name in maps for image in range(3)]
    assert list(found[["map", "image"]].itertuples(index=False, name=None)) == expected
    assert found.index.tolist() == list(range(9))
    for (name, image), row in zip(expected, found.to_dict("records"), strict=True):
        one = faithfulness.insertion_deletion(model, images[[image]], maps[name][[image]], labels[[image]], **options)
        insertion, deletion = one.insertion_auc.item(), one.deletion_auc.item()
        scores = [row[column] for column in ("insertion", "deletion", "id_score")]
        assert scores == pytest.approx([insertion, deletion, insertion - deletion], abs=1e-6)
        assert row["empty"] == pytest.approx(one.deletion[0, -1].item(), abs=1e-6)


@pytest.mark.parametrize(("baseline", "hidden"), [("zero", (0, 0)), ("black", (-2.5, -2.5))])
def test_faithfulness_by_pictures_drawn_pixel_by_pixel(crowd, baseline, hidden):
    model, images, labels, maps = crowd
    found = tables.faithfulness_table(
        model, images, labels, {"one": maps["zigzag"]}, steps=4, baseline=baseline, normalization=SCALE
    )
    for image in range(3):
        order = sorted(range(64), key=lambda k: -maps["zigzag"][image].flatten()[k].item())
        inserted, deleted = [], []
        for count in (0, 16, 32, 48, 64):
            first = torch.zeros(64, dtype=torch.bool)
            first[order[:count]] = True
            black = torch.tensor(hidden, dtype=torch.float32)[:, None].expand(2, 64)
            for curve, shown in ((inserted, first), (deleted, ~first)):
                picture = torch.where(shown, images[image].flatten(1), black).reshape(1, 2, 8, 8)
                curve.append(model(picture).softmax(1)[0, labels[image]].item())
        row = found.iloc[image]
        for column, curve in (("insertion", inserted), ("deletion", deleted)):
            assert row[column] == pytest.approx((curve[0] / 2 + sum(curve[1:4]) + curve[4] / 2) / 4, abs=1e-6)


def slowly_localized(values, mask):
    """One row of `localization_table` from lists of numbers."""
    pixels, inside = [max(v, 0) for v in values.flatten().tolist()], mask.flatten().tolist()
    lowest = min(pixels) if max(pixels) > min(pixels) else 0
    pixels = [v - lowest for v in pixels]
    highest, crack = max(pixels), sum(inside)
    nothing = highest <= 0

    def iou(share):
        region = [v > 0 and v >= share * highest for v in pixels]
        return sum(map(min, region, inside)) / sum(map(max, region, inside))

    sweep = [iou(k / 20) for k in range(1, 20)]
    high = [v > 0 and v >= highest / 2 for v in pixels]
    peaks = [i for v, i in zip(pixels, inside) if v == highest]
    on_crack = crack / len(pixels) if nothing else sum(v for v, i in zip(pixels, inside) if i) / sum(pixels)
    return {
        "iou": iou(0.15),
        "best_iou": max(sweep),
        "mean_iou": sum(sweep) / 19,
        "pointing": 0 if nothing else sum(peaks) / len(peaks),
        "strong": sum(high) / len(pixels),
        "coverage": sum(h and i for h, i in zip(high, inside)) / crack,
        "outside": 1 - on_crack,
    }


def test_localization_by_loops_over_pixels_and_thresholds():
    masks = some_masks(4, 11, 9)
    on_crack = noise(4, 11, 9, seed=2, dtype=torch.float64) * (0.3 + masks)
    halves = (noise(4, 11, 9, seed=3) * 4).floor().double() / 4  # 0, 1/4, 1/2, 3/4: many of one height
    halves[1] *= 4 / 3 / 2
    maps = {"signed": noise(4, 11, 9, seed=9, dtype=torch.float64) - 0.6, "on crack": on_crack, "halves": halves}
    maps["far above 0"] = on_crack + 5
    maps["flat"] = torch.full((4, 11, 9), 0.3, dtype=torch.float64)
    maps["none"] = torch.stack(
        [torch.zeros(11, 9), -torch.ones(11, 9), -noise(11, 9) - 0.1, masks[3].float() - 1]
    ).double()
    found = tables.localization_table(maps, masks)
    assert list(found)[:2] == ["map", "image"]
    assert list(found[["map", "image"]].itertuples(index=False, name=None)) == [(m, i) for m in maps for i in range(4)]
    for _, row in found.iterrows():
        expected = slowly_localized(maps[row["map"]][row["image"]], masks[row["image"]])
        got = {column: float(row[column]) for column in expected}
        assert got == pytest.approx(expected, abs=2e-6), (row["map"], row["image"])
    assert set(found) == {"map", "image", *expected}


def test_localization_of_a_perfect_a_flat_and_an_empty_map():
    masks = torch.zeros(1, 4, 5, dtype=torch.bool)
    masks[0, 1, :4] = True
    maps = {"perfect": masks.float(), "flat": torch.ones(1, 4, 5), "empty": torch.zeros(1, 4, 5)}
    found = tables.localization_table(maps, masks).set_index("map").drop(columns="image")
    assert found.loc["perfect"].tolist() == [1, 1, 1, 1, pytest.approx(0.2), 1, 0]
    assert found.loc["flat"].tolist() == pytest.approx([0.2, 0.2, 0.2, 0.2, 1, 1, 0.8])
    assert found.loc["empty"].tolist() == pytest.approx([0, 0, 0, 0, 0, 0, 0.8])


def test_localization_of_a_map_far_above_zero_is_that_of_the_map():
    masks = some_masks(3, 11, 9)
    values = noise(3, 11, 9, dtype=torch.float64)
    values[:, 0, 0] = 0  # its lowest
    found = tables.localization_table({"map": values, "lifted": values + 7}, masks).set_index(["map", "image"])
    np.testing.assert_allclose(found.loc["lifted"], found.loc["map"], atol=1e-6)


def test_coverage_by_hand():
    masks = torch.zeros(2, 2, 5, dtype=torch.bool)
    masks[:, 0, :4] = True
    values = torch.zeros(2, 2, 5)
    values[0, 0, 3:] = 0.1
    values[0, 1, 0] = 2.0
    values[1] = -1
    found = tables.coverage_table({"one": values, "all": values.abs() + 1}, masks)
    assert found.to_dict("list") == {
        "map": ["one", "one", "all", "all"],
        "image": [0, 1, 0, 1],
        "region": [0.25, 0, 1, 1],
        "area": [pytest.approx(0.3), 0, 1, 1],
    }


def test_the_best_threshold_is_chosen_image_by_image():
    masks = torch.zeros(2, 2, 5, dtype=torch.bool)
    masks[:, 0, :2] = True
    maps = torch.zeros(2, 2, 5)
    maps[:, 0] = torch.tensor([[1.0, 0.9, 0.6, 0.2, 0.1], [1.0, 0.3, 0.25, 0.2, 0.05]])
    found = tables.localization_table({"one": maps}, masks)
    assert found["best_iou"].tolist() == [1, 1]  # at 65 to 90 %, and at 30 % alone
    assert found["iou"].tolist() == [0.5, 0.5]
    expected = [(2 / 5 * 2 + 2 / 4 * 2 + 2 / 3 * 8 + 1 * 6 + 1 / 2) / 19, (2 / 5 + 2 / 4 * 3 + 2 / 3 + 1 + 13 / 2) / 19]
    assert found["mean_iou"].tolist() == pytest.approx(expected, abs=1e-6)


def test_by_map_orders_images_and_picks_rows():
    rows = [(m, c, i, 10 * i + 100 * c + (m == "b")) for m in "ba" for c in (False, True) for i in range(12)]
    table = pd.DataFrame(rows, columns=["map", "c1c", "image", "score"])
    shuffled = table.iloc[np.random.default_rng(0).permutation(len(table))]
    for chosen in (False, True):
        found = tables.by_map(shuffled, "score", c1c=chosen)
        assert set(found) == {"a", "b"}
        for name, values in found.items():
            assert isinstance(values, np.ndarray)
            assert values.tolist() == [10 * i + 100 * chosen + (name == "b") for i in range(12)]
    assert list(tables.by_map(table, "score", c1c=True)) == ["b", "a"]
    assert tables.by_map(shuffled, "score", c1c=True, image=3)["a"].tolist() == [130]
    with pytest.raises(ValueError, match="score: several rows for a map and image; pick some, by c1c=False"):
        tables.by_map(table, "score")


# one map against the others -------------------------------------------------------------------------------------


@pytest.fixture
def scored():
    rng = np.random.default_rng(2)
    values = {name: np.round(rng.random(14), 2) for name in (*METHODS, "random")}
    values["LRP-BN"] = values["LRP-BN"] + 0.4
    values["ABN"] = values["LRP-BN"] - 0.1 - rng.random(14) / 10
    return values, np.repeat(list("abcdefg"), 2)


def some_scores(n=40, seed=3):
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(level, 0.3, n) for name, level in zip(METHODS, (0.5, 0.1, 0.9, 0.4, 0.45))}
    return values, np.repeat(np.arange(8), n // 8)


def adjusted(p):
    """Holm: the k-th smallest of m times m − k + 1, at least as large as the one before, at most 1."""
    found, last = {}, 0.0
    for k, name in enumerate(sorted(p, key=p.get)):
        last = found[name] = min(1.0, max(last, (len(p) - k) * p[name]))
    return found


def test_paired_table_by_all_signs_of_whole_segments(scored):
    values, clusters = scored
    found = tables.paired_table(values, "LRP-BN", clusters, 3, METHODS)
    assert list(found.index) == ["RISE", "Grad-CAM", "LRP", "ABN"]
    assert list(found) == ["difference", "low", "high", "p", "p_holm"]
    p = {}
    for other in found.index:
        gains = values["LRP-BN"] - values[other]
        assert found.loc[other, "difference"] == pytest.approx(gains.mean())
        expected = estimates.mean(gains, clusters, 3)
        assert found.loc[other, ["low", "high"]].tolist() == [expected.low, expected.high]
        sums = [gains[clusters == segment].sum() for segment in "abcdefg"]
        flips = [abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=7)]
        p[other] = np.mean([total >= abs(sum(sums)) - 1e-9 for total in flips])
        assert found.loc[other, "p"] == pytest.approx(p[other])
    assert found["p_holm"].to_dict() == pytest.approx(adjusted(p))
    assert len(set(p.values())) > 1


def test_paired_table_without_segments_and_with_other_competitors(scored):
    values, _ = scored
    values = {name: numbers[:6] for name, numbers in values.items()}
    found = tables.paired_table(values, "ABN", None, 1, ("random", "ABN", "LRP-BN"))
    assert list(found.index) == ["random", "LRP-BN"]
    for other in found.index:
        gains = values["ABN"] - values[other]
        flips = [abs(np.dot(signs, gains)) for signs in itertools.product((1, -1), repeat=6)]
        assert found.loc[other, "p"] == pytest.approx(np.mean([v >= abs(gains.sum()) - 1e-9 for v in flips]))
        expected = estimates.mean(gains, None, 1)
        assert found.loc[other, ["difference", "low", "high"]].tolist() == pytest.approx(
            [expected.value, expected.low, expected.high]
        )
    assert found.loc["LRP-BN", "difference"] < 0
    assert found["p_holm"].to_dict() == pytest.approx(adjusted(found["p"].to_dict()))


def test_one_cluster_gives_differences_without_intervals_and_a_note(scored):
    values, _ = scored
    found = tables.paired_table(values, "LRP-BN", np.array(["a"] * 14), 0, METHODS)
    assert list(found.index) == ["RISE", "Grad-CAM", "LRP", "ABN"]
    assert found.isna().all(axis=None)
    assert tables.smallest_difference(found, 14) == Estimate(
        None, 14, note="fewer than two independent groups of images"
    )


def test_smallest_difference_takes_each_end_from_its_smallest():
    table = pd.DataFrame({"difference": [0.3, 0.1, 0.2], "low": [0.2, 0.05, -0.1], "high": [0.35, 0.4, 0.5]})
    assert tables.smallest_difference(table, 7) == Estimate(0.1, 7, -0.1, 0.35)
    undefined = table.assign(low=math.nan)
    assert tables.smallest_difference(undefined, 7) == Estimate(
        None, 7, note="fewer than two independent groups of images"
    )


def test_smallest_difference_is_above_zero_where_each_of_the_others_is(scored):
    values, clusters = scored
    found = tables.paired_table(values, "LRP-BN", clusters, 3, METHODS)
    least = tables.smallest_difference(found, 14)
    assert least.low == min(estimates.mean(values["LRP-BN"] - values[m], clusters, 3).low for m in METHODS[:4])
    assert (least.low > 0) == bool((found.low > 0).all())
    beaten = values | {"RISE": values["LRP-BN"] + 1}
    assert tables.smallest_difference(tables.paired_table(beaten, "LRP-BN", clusters, 3, METHODS), 14).high < 0


def test_the_largest_p_is_the_largest_adjusted_one():
    values, segments = some_scores()
    table = tables.paired_table(values, "LRP-BN", segments, SEED, METHODS)
    assert tables.largest_p(table, 40) == Estimate(max(table["p_holm"].tolist()), 40)
    assert tables.largest_p(table.loc[["Grad-CAM"]], 40).value < 0.05
    close = pd.DataFrame({"p": [0.04, 0.05], "p_holm": [0.08, 0.08]})
    assert tables.largest_p(close, 7) == Estimate(0.08, 7)
    alone = tables.paired_table(values, "LRP-BN", np.zeros(40), SEED, METHODS)
    assert tables.largest_p(alone, 40) == Estimate(None, 40, note="fewer than two independent groups of images")


def test_the_largest_difference_is_with_intervals_for_four_tries():
    values, segments = some_scores()
    found = tables.largest_difference(values, "LRP-BN", segments, SEED, METHODS)
    gains = {name: values["LRP-BN"] - values[name] for name in METHODS[:-1]}
    assert found.value == pytest.approx(gains["Grad-CAM"].mean())
    assert found.value == max(gain.mean() for gain in gains.values())
    draws = np.random.default_rng(0).integers(8, size=(20000, 8))  # segments of five images
    means = gains["Grad-CAM"].reshape(8, 5).mean(1)[draws].mean(1)
    np.testing.assert_allclose([found.low, found.high], np.quantile(means, [0.05 / 8, 1 - 0.05 / 8]), atol=0.02)
    plain = estimates.mean(gains["Grad-CAM"], segments, SEED)
    assert found.low < plain.low
    assert found.n == 40
    assert tables.largest_difference(values, "LRP-BN", np.zeros(40), SEED, METHODS).value is None
    assert tables.largest_difference(values, "Grad-CAM", segments, SEED, METHODS).high < 0  # the lowest is above none


def test_reversals_of_each_two_conditions_by_hand():
    values = {
        "zero": {"a": np.array([0.9, 0.7, 0.8]), "b": np.array([0.5, 0.6, 0.7]), "blind": np.array([2.0, 2.0, 2.0])},
        "black": {"a": np.array([0.1, 0.2, 0.1]), "b": np.array([0.3, 0.2, 0.4]), "blind": np.array([2.0, 2.0, 2.0])},
        "blur": {"a": np.array([0.6, 0.6, 0.6]), "b": np.array([0.5, 0.4, 0.5]), "blind": np.array([0.0, 0.0, 0.0])},
    }
    found = tables.reversals(values, ("a", "b"), None, seed=0)
    assert list(found) == ["zero_black.reversal", "zero_blur.reversal", "black_blur.reversal"]
    assert found["zero_black.reversal"].value == pytest.approx(0.5 / 3)  # a ahead by 0.6 / 3, then behind by 0.5 / 3
    assert found["zero_blur.reversal"].value == pytest.approx(-0.4 / 3)  # a leads both times
    assert found["black_blur.reversal"].value == pytest.approx(0.4 / 3)
    assert found["zero_black.reversal"].low == pytest.approx(0.0)  # one image may be drawn three times
    one = tables.reversals(values, ("a", "b"), np.array(["s", "s", "s"]), seed=0)
    assert {(estimate.value, estimate.note) for estimate in one.values()} == {(None, tables.FEW)}
