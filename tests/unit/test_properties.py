"""What holds for any input, which hypothesis looks for a counter-example to: metrics, C1C, rules, splits, parsers."""

import contextlib
import hashlib
import json
import string
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn

from xai_utils.data import store
from xai_utils.data.grouping import divided, grouped_split
from xai_utils.data.imageset import SPLITS, stratified_split
from xai_utils.data.voc import read_voc
from xai_utils.explain import c1c
from xai_utils.metrics.consistency import normalised
from xai_utils.metrics.faithfulness import insertion_deletion
from xai_utils.metrics.localization import energy_inside, iou, pointing_game
from xai_utils.metrics.pixel_accuracy import pixel_accuracy_curve
from xai_utils.metrics.statistics import Estimate, auroc
from xai_utils.suite.rules import Condition
from xai_utils.suite.strict import load_yaml, unique

# the same examples every time, and no file of failures: a test that fails, fails on every machine
ANY = settings(max_examples=40, derandomize=True, database=None, deadline=None)
MONOTONE = (lambda m: m * 3 + 2, torch.exp, lambda m: m**3, lambda m: torch.sigmoid(m / 8), lambda m: m - 100)
# quarters: exact, so that a monotone function neither joins two values nor parts two equal ones
SIGNED = st.integers(-24, 24).map(lambda k: k / 4)
POSITIVE = st.integers(1, 24).map(lambda k: k / 4)


SHAPES = array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=8)


def maps(values=SIGNED, shape=SHAPES):
    """Maps (N, H, W), double precision; with so few values, many are equal."""
    return arrays(np.float64, shape, elements=values).map(torch.from_numpy)


@st.composite
def maps_and_masks(draw, values=SIGNED):
    """Maps (N, H, W), and masks of that shape that are neither empty nor full."""
    found = draw(maps(values))
    mask = torch.from_numpy(draw(arrays(np.bool_, tuple(found.shape))))
    mask[:, 0, 0], mask[:, -1, -1] = True, False
    return found, mask


def judged_by_weights(found, classes=3):
    """Images and a linear network for maps (N, H, W), from one seed."""
    torch.manual_seed(0)
    images = torch.randn(len(found), 1, *found.shape[1:], dtype=torch.float64)
    return nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), classes)).double(), images


# metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", MONOTONE)
@ANY
@given(maps_and_masks())
def test_insertion_deletion_and_pointing_depend_on_the_order_alone(change, pair):
    found, mask = pair
    model, images = judged_by_weights(found)
    for ties in ("reading", "together"):
        steps = min(5, images[0].numel())
        one, two = (
            insertion_deletion(model, images, m, target=1, steps=steps, ties=ties) for m in (found, change(found))
        )
        for name in ("fractions", "insertion", "deletion", "id_score", "tied"):
            assert torch.equal(getattr(one, name), getattr(two, name))
    assert torch.equal(pointing_game(found, mask), pointing_game(change(found), mask))


@ANY
@given(SHAPES, st.integers(0, 2**32 - 1))
def test_insertion_of_a_map_is_deletion_of_its_opposite(shape, seed):
    found = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)  # no two are equal
    model, images = judged_by_weights(found)
    one, two = (insertion_deletion(model, images, m, target=0, steps=images[0].numel()) for m in (found, -found))
    torch.testing.assert_close(one.insertion, two.deletion.flip(1))
    torch.testing.assert_close(one.id_score, -two.id_score)


@ANY
@given(maps_and_masks(POSITIVE))
def test_energy_in_a_mask_and_outside_it_make_one(pair):
    found, mask = pair
    inside = energy_inside(found, mask)
    torch.testing.assert_close(inside + energy_inside(found, ~mask), torch.ones_like(inside))
    torch.testing.assert_close(inside, energy_inside(7 * found, mask))
    assert bool(((inside >= 0) & (inside <= 1)).all())


@ANY
@given(maps_and_masks())
def test_the_mask_itself_is_the_map_of_iou_one_and_its_complement_of_iou_nought(pair):
    _, mask = pair
    ones = torch.ones(len(mask), dtype=torch.float64)
    assert torch.equal(iou(mask.double(), mask, 0.5).double(), ones)
    assert torch.equal(iou((~mask).double(), mask, 0.5).double(), 0 * ones)


@ANY
@given(maps_and_masks(POSITIVE), st.sampled_from(("signed", "clip", "shift")))
def test_pixel_accuracy_keeps_under_scale_and_a_shifted_map_under_any_shift(pair, reading):
    (found, mask), r = pair, torch.linspace(0, 1, 11)
    one = pixel_accuracy_curve(found, mask, r, reading)
    torch.testing.assert_close(one, pixel_accuracy_curve(4 * found, mask, r, reading))
    assert bool(((one >= 0) & (one <= 1)).all())
    torch.testing.assert_close(1 - one, pixel_accuracy_curve(found, ~mask, r, reading))
    moved = pixel_accuracy_curve(found + 8, mask, r, "shift")
    torch.testing.assert_close(pixel_accuracy_curve(found, mask, r, "shift"), moved)


@ANY
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_auroc_of_the_opposite_score_is_the_rest_to_one(cases):
    scores = np.array([0.2, 0.6, *(score / 5 for score, _ in cases)] * 3)
    labels = np.array([True, False, *(label for _, label in cases)] * 3)
    one = auroc(scores, labels, n_resamples=50).value
    assert auroc(-scores, labels, n_resamples=50).value == pytest.approx(1 - one, abs=1e-12)
    assert auroc(scores**3 + 2, labels, n_resamples=50).value == one


@ANY
@given(maps(POSITIVE))
def test_a_normalised_map_does_not_know_its_scale(found):
    torch.testing.assert_close(normalised(found), normalised(12 * found))


# C1C --------------------------------------------------------------------------------------------------------------


@ANY
@given(maps(shape=(2, 12, 10)), st.sampled_from((4, 8)), st.integers(1, 3))
def test_c1c_is_never_negative_never_higher_and_scales_with_its_map(found, connectivity, keep):
    options = {"size": 6, "connectivity": connectivity, "keep": keep}
    kept = c1c(found, **options)
    assert kept.shape == found.shape
    assert float(kept.min()) >= 0
    assert bool((kept.amax((1, 2)) <= found.amax((1, 2)).clamp(min=0) + 1e-12).all())
    torch.testing.assert_close(c1c(4 * found, **options), 4 * kept)
    more = c1c(found, **options | {"keep": keep + 1})
    assert bool((more >= kept - 1e-12).all())  # one component more takes nothing away


# rules ------------------------------------------------------------------------------------------------------------

NUMBERS = st.integers(-400, 400).map(lambda k: k / 64)


@ANY
@given(
    test=st.sampled_from(("above", "at_least", "below", "at_most", "within")),
    ends=st.tuples(NUMBERS, NUMBERS, NUMBERS).map(sorted),
    bound=NUMBERS,
    tolerance=POSITIVE,
    wide=st.tuples(POSITIVE, POSITIVE),
    narrow=st.tuples(st.sampled_from((0.0, 0.25, 0.5, 1.0)), st.sampled_from((0.0, 0.25, 0.5, 1.0))),
)
def test_a_wider_interval_never_makes_a_condition_hold_and_a_narrower_one_never_breaks_it(
    test, ends, bound, tolerance, wide, narrow
):
    low, value, high = ends
    condition = Condition(metric="P1.1.a", test=test, bound=bound, tolerance=tolerance if test == "within" else None)

    def holds(low, high):
        return condition.check({"P1.1.a": Estimate(value, low=low, high=high)}).holds

    now = holds(low, high)
    assert holds(low - wide[0], high + wide[1]) in (now, None)  # it only becomes open
    inner = holds(low + narrow[0] * (value - low), high - narrow[1] * (high - value))
    assert now is None or inner is now  # it stays what it was


# splits and parsers -----------------------------------------------------------------------------------------------


@ANY
@given(st.lists(st.integers(0, 2), min_size=30, max_size=90), st.randoms(use_true_random=False))
def test_a_split_is_a_matter_of_ids_and_seed_and_keeps_the_proportions_of_every_class(drawn, random):
    labels, ids = np.array(drawn), [f"image {k}" for k in range(len(drawn))]
    order = random.sample(range(len(drawn)), len(drawn))
    one = stratified_split(labels.tolist(), ids, seed=4)
    two = stratified_split(labels[order].tolist(), [ids[k] for k in order], seed=4)
    assert one[order].tolist() == two.tolist()
    for label in set(drawn):
        count = int((labels == label).sum())
        assert abs((one[labels == label] == "train").sum() - 0.7 * count) <= 1


@ANY
@given(st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=60), st.integers(0, 99), st.randoms())
def test_no_group_is_divided_and_three_groups_of_a_class_reach_every_part(groups, seed, random):
    labels = [ord(group) % 3 for group in groups]
    split = grouped_split(labels, groups, seed=seed)
    where = {group: {str(part) for part, own in zip(split, groups) if own == group} for group in groups}
    assert all(len(parts) == 1 for parts in where.values())
    assert divided(split, groups) == []
    for label in set(labels):
        of_class = {group for group in groups if ord(group) % 3 == label}
        if len(of_class) >= 3:
            assert set.union(*(where[group] for group in of_class)) == set(SPLITS)
    order = random.sample(range(len(groups)), len(groups))
    again = grouped_split([labels[k] for k in order], [groups[k] for k in order], seed=seed)
    assert again.tolist() == split[order].tolist()


@ANY
@given(st.lists(st.tuples(st.sampled_from(SPLITS), st.sampled_from("abc")), max_size=12))
def test_a_divided_group_is_named(images):
    split, groups = [part for part, _ in images], [group for _, group in images]
    expected = sorted({g for p, g in images if any(g == other and p != part for part, other in images)})
    assert divided(split, groups) == expected


LETTERS = st.sampled_from(string.ascii_lowercase)


# the store --------------------------------------------------------------------------------------------------------


@ANY
@given(st.binary(min_size=1, max_size=40), st.lists(st.tuples(st.integers(0, 99), st.binary(max_size=3)), max_size=3))
def test_a_file_is_intact_with_its_very_bytes_and_no_others(content, noise):
    file = store.DataFile(path="a.npz", bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    damaged = content
    for place, instead in noise:
        damaged = damaged[:place] + instead + damaged[place + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, file.path)
        path.write_bytes(damaged)
        found = store.problem(path, file)
    assert (found is None) == (damaged == content)
    if found:
        assert str(path) in found
        assert file.sha256 in found


@ANY
@given(st.text(st.sampled_from("ab./\\~-_ \n:é"), max_size=12))
def test_a_registered_path_stays_below_its_folder(name):
    with contextlib.suppress(ValueError):
        file = store.DataFile(path=name, bytes=1, sha256="0" * 64)
        root = Path("/data/sets")
        assert root in (root / file.path).resolve().parents
        assert ".." not in file.path.split("/")


@ANY
@given(st.dictionaries(st.text(LETTERS, min_size=1, max_size=3), st.text("0123456789abcdef", min_size=64, max_size=64)))
def test_the_checksum_of_several_files_knows_names_and_contents_and_no_order(checksums):
    found = store.sha256_of_lines(checksums)
    assert found == store.sha256_of_lines(dict(reversed(checksums.items())))
    if len(checksums) > 1 and len(set(checksums.values())) > 1:
        first, *others = checksums.values()
        swapped = dict(zip(checksums, [*others, first]))
        assert (found == store.sha256_of_lines(swapped)) == (swapped == checksums)


NAMES = st.sampled_from(("D00", "D10", "クラック", "a & b"))
BOXES = st.lists(st.tuples(NAMES, *[st.integers(0, 500)] * 4), max_size=4)


@ANY
@given(BOXES, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3))
def test_boxes_are_read_as_they_were_written_and_noise_is_a_value_error(boxes, noise):
    objects, sides = "", ("xmin", "ymin", "xmax", "ymax")
    for name, *values in boxes:
        corners = "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, values))
        objects += f"<object><name>{name.replace('&', '&amp;')}</name><bndbox>{corners}</bndbox></object>"
    text = f"<annotation>{objects}</annotation>".encode()
    assert read_voc(text, "a.xml") == boxes
    damaged = bytearray(text)
    for place, byte in noise:
        damaged[place % len(damaged)] = byte
    with contextlib.suppress(ValueError):  # nothing else may come out
        read_voc(bytes(damaged), "a.xml")


FLOATS = st.floats(-1e6, 1e6, allow_subnormal=False)
PLAIN = st.integers(-99, 99) | FLOATS | st.booleans() | st.none() | st.text(max_size=5)
DATA = st.recursive(
    PLAIN,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(LETTERS, part, max_size=3),
    max_leaves=12,
)
SIGNS = st.sampled_from("[]{}:*&!|>-\"'%@`\n\t #,?a1")


@ANY
@given(DATA, st.lists(st.tuples(st.integers(0, 10_000), SIGNS), max_size=4))
def test_data_written_as_yaml_or_json_are_read_back_and_noise_is_no_crash(drawn, noise):
    data = {"a": drawn}
    text = yaml.safe_dump(data)
    assert load_yaml(text) == data
    assert json.loads(json.dumps(data), object_pairs_hook=unique) == data
    damaged = list(text)
    for place, sign in noise:
        damaged[place % len(damaged)] = sign
    with contextlib.suppress(ValueError, yaml.YAMLError):
        load_yaml("".join(damaged))
