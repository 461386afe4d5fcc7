"""Rectangles: pixels, masks and targets against slow loops and scikit-image, and what is drawn."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from skimage.measure import label, regionprops

from xai_utils.data import load


@pytest.fixture(scope="module")
def rectangles():
    return load("rectangles", n=2000, size=32)


def boxes(images):
    """(left, top, width, height) of each mask, from its outermost pixels."""
    found = []
    for mask in images.masks.numpy():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        found.append((columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1))
    return np.array(found)


def target(width, height, size, low, high):
    """Paper 2, §4: the area rescaled linearly from [low, high) to [−π, π), then the sine."""
    share = width * height / size**2
    assert low <= share < high
    angle = -math.pi + (share - low) / (high - low) * 2 * math.pi
    assert -math.pi <= angle < math.pi
    return math.sin(angle)


def test_one_filled_rectangle_each_in_pixels_mask_and_target(rectangles):
    for image, mask, value, box in zip(
        rectangles.images[:50], rectangles.masks, rectangles.labels.tolist(), boxes(rectangles).tolist()
    ):
        left, top, width, height = box
        for y in range(32):
            for x in range(32):
                inside = left <= x < left + width and top <= y < top + height
                assert mask[y, x].item() == inside
                assert image[:, y, x].tolist() == [1.0 if inside else 0.0] * 3
        assert value == pytest.approx(target(width, height, 32, 0.02, 0.5), abs=1e-6)


def test_scikit_image_finds_the_same_rectangles(rectangles):
    for image, box in zip(rectangles.images[:200, 1].numpy(), boxes(rectangles)):
        (region,) = regionprops(label(image > 0.5, connectivity=1))
        assert region.extent == 1  # it fills its bounding box
        top, left, bottom, right = region.bbox
        assert [left, top, right - left, bottom - top] == box.tolist()


def test_areas_are_uniform_and_so_is_the_place(rectangles):
    left, top, width, height = boxes(rectangles).T
    share = width * height / 32**2
    assert share.min() >= 0.02
    assert share.max() < 0.5
    assert kstest(share, "uniform", args=(0.02, 0.48)).statistic < 0.04
    assert np.all(np.maximum(width, height) <= 2 * np.minimum(width, height))
    assert abs(np.log(width / height).mean()) < 0.03  # neither lying nor standing
    assert len(set(zip(width, height))) > 150
    for start, extent in ((left, width), (top, height)):
        room = 32 - extent
        place = start[room > 0] / room[room > 0]
        assert place.min() == 0
        assert place.max() == 1
        assert place.mean() == pytest.approx(0.5, abs=0.03)
        assert abs(np.corrcoef(share[room > 0], place)[0, 1]) < 0.08
    assert rectangles.labels.min() < -0.999
    assert rectangles.labels.max() > 0.999
    assert rectangles.labels.mean().abs() < 0.06


def test_image_i_follows_from_the_seed_and_i_alone():
    first = load("rectangles", n=30, size=16, seed=4)
    np.random.seed(99)
    torch.manual_seed(99)
    more = load("rectangles", n=60, size=16, seed=4)
    assert torch.equal(more.images[:30], first.images)
    assert torch.equal(more.labels[:30], first.labels)
    assert more.split[:30].tolist() == first.split.tolist()
    assert more.ids[[0, 29, 59]].tolist() == ["rectangles/00000", "rectangles/00029", "rectangles/00059"]
    assert not torch.equal(load("rectangles", n=30, size=16, seed=5).labels, first.labels)


def test_the_checksum_names_what_was_drawn():
    options = {"n": 12, "size": 16, "seed": 0}
    base = load("rectangles", **options)
    assert base.provenance == {**load("rectangles", **options).provenance, "name": "rectangles", "variant": "embedded"}
    assert base.provenance["sha256"] == "9b0138f2911c4be3be811b1b1d7ffd99fdf5336d9734e800f32d5c3935989807"
    others = [{"n": 13}, {"size": 17}, {"seed": 1}, {"colours": ("red", "white")}, {"area": (0.02, 0.4)}]
    others.append({"non_negative": True})
    sums = {load("rectangles", **{**options, **other}).provenance["sha256"] for other in others}
    assert len(sums | {base.provenance["sha256"]}) == 7


def test_split_is_70_10_20_and_the_first_five_images_have_all_three(rectangles):
    parts = {part: int((rectangles.split == part).sum()) for part in ("train", "val", "test")}
    assert parts == {"train": 1400, "val": 200, "test": 400}
    assert set(load("rectangles", n=5, size=8).split.tolist()) == {"train", "val", "test"}
    few = load("rectangles", n=100, size=8, split="val", limit=3)
    assert few.masks.shape == (3, 8, 8)
    assert few.class_names == ()


def test_colours_size_and_area_are_parameters():
    images = load("rectangles", n=40, size=24, colours=("#ff8000", "rgb(0, 0, 51)"), area=(0.1, 0.9))
    assert images.images.shape == (40, 3, 24, 24)
    assert images.images.is_contiguous()
    ground, paint = torch.tensor([1.0, 128 / 255, 0.0]), torch.tensor([0.0, 0.0, 0.2])
    for image, mask in zip(images.images, images.masks):
        torch.testing.assert_close(image[:, mask], paint[:, None].expand(-1, mask.sum()), rtol=0, atol=1e-7)
        torch.testing.assert_close(image[:, ~mask], ground[:, None].expand(-1, (~mask).sum()), rtol=0, atol=1e-7)
    for (_, _, width, height), value in zip(boxes(images), images.labels.tolist()):
        assert value == pytest.approx(target(width, height, 24, 0.1, 0.9), abs=1e-6)
    whole = load("rectangles", n=200, size=8, area=(0, 1))
    assert whole.masks.sum((1, 2)).min() >= 1
    assert whole.masks.sum((1, 2)).max() < 64


def test_without_negative_targets_the_same_images_have_a_sine_of_another_range():
    images, signed = (load("rectangles", n=2000, size=32, non_negative=flag) for flag in (True, False))
    assert torch.equal(images.masks, signed.masks)
    assert torch.equal(images.images, signed.images)
    assert images.labels.min() >= 0
    assert images.labels.max() > 0.999
    for (_, _, width, height), value in zip(boxes(images)[:100], images.labels.tolist()):
        share = (width * height / 32**2 - 0.02) / 0.48
        assert value == pytest.approx(math.sin(math.pi * share), abs=1e-6)
    assert images.provenance["sha256"] != signed.provenance["sha256"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"n": 4}, ValueError, "n is 4, expected an int of at least 5"),
        ({"n": 10.0}, ValueError, r"n is 10\.0"),
        ({"n": True}, ValueError, "n is True"),
        ({"size": 3}, ValueError, "size is 3, expected an int of at least 4"),
        ({"seed": -1}, ValueError, "seed = -1"),
        ({"seed": 0.5}, TypeError, r"seed = 0\.5"),
        ({"area": (0.5, 0.02)}, ValueError, r"area is \(0\.5, 0\.02\), expected \(lo, hi\) with 0 <= lo < hi <= 1"),
        ({"area": (-0.1, 0.5)}, ValueError, "area is"),
        ({"area": (0.1, 1.5)}, ValueError, "area is"),
        ({"area": (0.1, float("nan"))}, ValueError, "area is"),
        ({"area": 0.5}, ValueError, r"area is 0\.5"),
        ({"area": (0.5, 0.5004)}, ValueError, r"area: 1 areas of whole pixels lie in \[2048, 2049.64\) of 64×64"),
        ({"area": (0.99, 0.999)}, ValueError, "area: 0 areas of whole pixels.*widen the range or take larger images"),
        ({"colours": ("black", "blakc")}, ValueError, "colours are .*'blakc'.*expected names"),
        ({"colours": (0, 1)}, ValueError, r"colours are \(0, 1\).*expected names"),
        ({"colours": ("white", "#ffffff")}, ValueError, "the rectangle could not be seen"),
        ({"colours": ("white",)}, ValueError, "expected two: of the ground and of the rectangle"),
        ({"colours": "ab"}, ValueError, "colours are 'ab', expected two"),
        ({"channels": 1}, TypeError, "'rectangles' has no option 'channels'; its options: split, limit, n, size, seed"),
    ],
)
def test_bad_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        load("rectangles", **options)
