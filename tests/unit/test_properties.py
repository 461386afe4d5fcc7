"""What holds for any input, tried on many drawn by a seed: metrics, C1C, rules, splits, parsers."""

import contextlib
import json
import string

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from xai_utils.data.imageset import stratified_split
from xai_utils.data.voc import read_voc
from xai_utils.explain import c1c
from xai_utils.metrics.consistency import normalised
from xai_utils.metrics.faithfulness import insertion_deletion
from xai_utils.metrics.localization import energy_inside, iou, pointing_game
from xai_utils.metrics.pixel_accuracy import pixel_accuracy_curve
from xai_utils.metrics.statistics import Estimate, auroc
from xai_utils.suite.rules import Condition
from xai_utils.suite.strict import load_yaml, unique

TRIALS = 40
MONOTONE = (lambda m: m * 3 + 2, torch.exp, lambda m: m**3, lambda m: torch.sigmoid(2 * m), lambda m: m - 100)


def trials(seed=0):
    """Generators, one a trial."""
    return [np.random.default_rng([seed, number]) for number in range(TRIALS)]


def maps(rng, n=3, levels=None, **size):
    """Maps (n, H, W) of double precision: continuous, or of a few levels, so that many values are equal."""
    height, width = size.get("size") or rng.integers(2, 9, 2)
    drawn = rng.normal(size=(n, height, width)) if levels is None else rng.integers(0, levels, (n, height, width))
    return torch.tensor(drawn, dtype=torch.float64)


def masks(rng, like):
    """Masks that are neither empty nor full."""
    drawn = torch.tensor(rng.random(like.shape) < rng.uniform(0.2, 0.8))
    drawn[:, 0, 0], drawn[:, -1, -1] = True, False
    return drawn


# metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", MONOTONE)
def test_insertion_deletion_and_pointing_depend_on_the_order_alone(change):
    torch.manual_seed(0)
    for rng in trials()[:10]:
        found = maps(rng, levels=5 if rng.random() < 0.5 else None)
        images = torch.tensor(rng.normal(size=(3, 1, *found.shape[1:])))
        model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 3)).double()
        steps = min(5, images[0].numel())
        one, two = (insertion_deletion(model, images, m, target=1, steps=steps) for m in (found, change(found)))
        for name in ("fractions", "insertion", "deletion", "id_score"):
            assert torch.equal(getattr(one, name), getattr(two, name))
        mask = masks(rng, found)
        assert torch.equal(pointing_game(found, mask), pointing_game(change(found), mask))


def test_insertion_of_a_map_is_deletion_of_its_opposite():
    torch.manual_seed(0)
    for rng in trials(1)[:10]:
        found = maps(rng)
        images = torch.tensor(rng.normal(size=(3, 1, *found.shape[1:])))
        model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 2)).double()
        steps = images[0].numel()
        one, two = (insertion_deletion(model, images, m, target=0, steps=steps) for m in (found, -found))
        torch.testing.assert_close(one.insertion, two.deletion.flip(1))
        torch.testing.assert_close(one.id_score, -two.id_score)


def test_energy_in_a_mask_and_outside_it_make_one():
    for rng in trials(2):
        found = maps(rng).abs() + 1e-3
        mask = masks(rng, found)
        inside = energy_inside(found, mask)
        torch.testing.assert_close(inside + energy_inside(found, ~mask), torch.ones_like(inside))
        torch.testing.assert_close(inside, energy_inside(7 * found, mask))
        assert bool(((inside >= 0) & (inside <= 1)).all())


def test_the_mask_itself_is_the_map_of_iou_one_and_its_complement_of_iou_nought():
    for rng in trials(3):
        mask = masks(rng, maps(rng))
        ones = torch.ones(len(mask), dtype=torch.float64)
        assert torch.equal(iou(mask.double(), mask, 0.5).double(), ones)
        assert torch.equal(iou((~mask).double(), mask, 0.5).double(), 0 * ones)


def test_pixel_accuracy_keeps_under_scale_and_a_shifted_map_under_any_shift():
    r = torch.linspace(0, 1, 11)
    for rng in trials(4):
        found = maps(rng, levels=4 if rng.random() < 0.5 else None).abs() + 0.5
        mask = masks(rng, found)
        for reading in ("signed", "clip", "shift"):
            one = pixel_accuracy_curve(found, mask, r, reading)
            torch.testing.assert_close(one, pixel_accuracy_curve(4 * found, mask, r, reading))
            assert bool(((one >= 0) & (one <= 1)).all())
            torch.testing.assert_close(1 - one, pixel_accuracy_curve(found, ~mask, r, reading))
        moved = pixel_accuracy_curve(found + 8, mask, r, "shift")
        torch.testing.assert_close(pixel_accuracy_curve(found, mask, r, "shift"), moved)


def test_auroc_of_the_opposite_score_is_the_rest_to_one():
    for rng in trials(5):
        scores, labels = rng.integers(0, 6, 30) / 5.0, rng.random(30) < 0.4
        labels[:2] = True, False
        one = auroc(scores, labels, n_resamples=50).value
        assert auroc(-scores, labels, n_resamples=50).value == pytest.approx(1 - one, abs=1e-12)
        assert auroc(scores**3 + 2, labels, n_resamples=50).value == one


def test_a_normalised_map_does_not_know_its_scale():
    for rng in trials(6):
        found = maps(rng).abs() + 1e-3
        torch.testing.assert_close(normalised(found), normalised(12 * found))


# C1C --------------------------------------------------------------------------------------------------------------


def test_c1c_is_never_negative_never_higher_and_scales_with_its_map():
    for rng in trials(7):
        found = maps(rng, size=(12, 10))
        options = {"size": 6, "connectivity": int(rng.choice([4, 8])), "keep": int(rng.integers(1, 4))}
        kept = c1c(found, **options)
        assert kept.shape == found.shape
        assert float(kept.min()) >= 0
        assert bool((kept.amax((1, 2)) <= found.amax((1, 2)).clamp(min=0) + 1e-12).all())
        torch.testing.assert_close(c1c(4 * found, **options), 4 * kept)
        more = c1c(found, **options | {"keep": options["keep"] + 1})
        assert bool((more >= kept - 1e-12).all())  # one component more takes nothing away


# rules ------------------------------------------------------------------------------------------------------------


def test_a_wider_interval_never_makes_a_condition_hold_and_a_narrower_one_never_breaks_it():
    for rng in trials(8):
        low, value, high = np.sort(rng.normal(size=3)).tolist()
        bound = float(rng.normal())
        for test in ("above", "at_least", "below", "at_most", "within"):
            tolerance = float(rng.exponential()) if test == "within" else None
            condition = Condition(metric="P1.1.a", test=test, bound=bound, tolerance=tolerance)

            def holds(low, high, condition=condition, value=value):
                return condition.check({"P1.1.a": Estimate(value, low=low, high=high)}).holds

            wide, narrow, now = rng.exponential(2), rng.random(), holds(low, high)
            inner = holds(low + narrow * (value - low), high - narrow * (high - value))
            outer = holds(low - wide, high + wide)
            assert outer in (now, None)  # it only becomes open
            assert now is None or inner is now  # it stays what it was


# splits and parsers -----------------------------------------------------------------------------------------------


def test_a_split_is_a_matter_of_ids_and_seed_and_keeps_the_proportions_of_every_class():
    for rng in trials(9):
        n = int(rng.integers(30, 90))
        labels, ids = rng.integers(0, 3, n), [f"image {k}" for k in range(n)]
        order = rng.permutation(n)
        one = stratified_split(labels.tolist(), ids, seed=4)
        two = stratified_split(labels[order].tolist(), [ids[k] for k in order], seed=4)
        assert one[order].tolist() == two.tolist()
        for label in set(labels.tolist()):
            count = int((labels == label).sum())
            assert abs((one[labels == label] == "train").sum() - 0.7 * count) <= 1


def test_boxes_are_read_as_they_were_written_and_noise_is_a_value_error():
    for rng in trials(10):
        count, sides = rng.integers(0, 5), ("xmin", "ymin", "xmax", "ymax")
        boxes = [("D" + str(rng.integers(0, 50)), *map(int, rng.integers(0, 500, 4))) for _ in range(count)]
        objects = ""
        for name, *values in boxes:
            corners = "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, values))
            objects += f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"
        text = f"<annotation>{objects}</annotation>".encode()
        assert read_voc(text, "a.xml") == boxes
        noise = bytearray(text)
        for place in rng.integers(0, len(noise), 3):
            noise[place] = rng.integers(0, 256)
        with contextlib.suppress(ValueError):  # nothing else may come out
            read_voc(bytes(noise), "a.xml")


def drawn_data(rng, depth=3):
    kind = rng.integers(0, 6 if depth else 4)
    if kind == 4:
        return [drawn_data(rng, depth - 1) for _ in range(rng.integers(0, 4))]
    if kind == 5:
        names = rng.choice(list(string.ascii_lowercase), rng.integers(0, 4), replace=False)
        return {str(name): drawn_data(rng, depth - 1) for name in names}
    return [int(rng.integers(-99, 99)), float(rng.normal()), bool(rng.random() < 0.5), None][kind]


def test_data_written_as_yaml_or_json_are_read_back_and_noise_is_no_crash():
    for rng in trials(11):
        data = {"a": drawn_data(rng)}
        text = yaml.safe_dump(data)
        assert load_yaml(text) == data
        assert json.loads(json.dumps(data), object_pairs_hook=unique) == data
        noise = list(text)
        for place in rng.integers(0, len(noise), 4):
            noise[place] = rng.choice(list("[]{}:*&!|>-\"'%@`\n\t #,?a1"))
        with contextlib.suppress(ValueError, yaml.YAMLError):
            load_yaml("".join(noise))
