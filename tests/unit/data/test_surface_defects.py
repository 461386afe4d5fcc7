"""Drawn metal: classes, masks and split, what the defects look like, and what an image follows from."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from skimage.measure import label, regionprops
from skimage.morphology import skeletonize

import xai_utils.data
from xai_utils.data.sets.surface_defects import CLASSES, _line, _metal, _spot, load_surface_defects

DEFECTS = ("blowhole", "crack")


@pytest.fixture(scope="module")
def defects():
    return load_surface_defects(n=1000)


def of(images, name):
    return images.take(np.flatnonzero(images.labels.numpy() == CLASSES.index(name)))


def ring(mask, low, high):
    """Pixels whose distance to the mask is in (low, high]."""
    apart = distance_transform_edt(~mask)
    return (apart > low) & (apart <= high)


def test_classes_take_turns_and_every_class_is_split_70_10_20(defects):
    assert defects.images.shape == (1000, 1, 64, 64)
    assert defects.class_names == ("normal", "normal_scratch", "normal_dirt", "blowhole", "crack")
    assert defects.labels[:7].tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert defects.ids[[0, 999]].tolist() == ["surface_defects/00000", "surface_defects/00999"]
    for name in CLASSES:
        split = of(defects, name).split.tolist()
        assert [split.count(part) for part in ("train", "val", "test")] == [140, 20, 40]
    few = load_surface_defects(n=25)
    for part in ("train", "val", "test"):
        assert set(few.subset(part).labels.tolist()) == {0, 1, 2, 3, 4}


def test_masks_mark_defects_and_are_empty_for_what_is_normal(defects):
    for name in CLASSES:
        area = of(defects, name).masks.sum((1, 2))
        if name in DEFECTS:
            assert area.min() >= 9
            assert area.max() < 64 * 64 / 16
        else:
            assert area.max() == 0
    for size in (16, 33):
        assert min(of(load_surface_defects(n=200, size=size), name).masks.sum((1, 2)).min() for name in DEFECTS) >= 2


def test_defects_are_darker_than_the_metal_around_their_mask(defects):
    for name in DEFECTS:
        images = of(defects, name)
        inside, around = [], []
        for image, mask in zip(images.images[:40, 0].numpy(), images.masks.numpy()):
            inside.append(image[mask].mean())
            around.append(image[ring(mask, 2, 6)].mean())
        darker = np.array(around) - np.array(inside)
        assert np.mean(darker > 0) > 0.95
        assert 0.05 < np.median(darker) < 0.25


def test_masks_have_the_shape_of_their_defect(defects):
    for mask in of(defects, "blowhole").masks.numpy():
        (region,) = regionprops(label(mask, connectivity=2))
        assert region.solidity > 0.75
        assert region.axis_minor_length > 0.3 * region.axis_major_length
    thickness = []
    for mask in of(defects, "crack").masks.numpy():
        assert label(mask, connectivity=2).max() == 1
        thickness.append(mask.sum() / skeletonize(mask).sum())
    assert 1 <= np.median(thickness) < 3.2


def change(name, rows=40, size=64):
    """What is added to flat metal, and its pixels, for `rows` shapes."""
    rng = np.random.default_rng(5)
    drawn, noise = rng.random((rows, 20)), rng.standard_normal((rows, size, size), dtype=np.float32)
    if name in ("crack", "normal_scratch"):
        return (*_line(drawn, size, jagged=name == "crack"), drawn)
    return (*_spot(drawn, noise, pit=name == "blowhole"), drawn)


def test_nothing_changes_away_from_the_mask():
    for name, reach in (("crack", 1.5), ("normal_scratch", 2.5), ("blowhole", 6.0)):
        added, inside, _ = change(name)
        for one, mask in zip(added[:8], inside):
            assert np.abs(one[ring(mask, reach, 100)]).max() < 0.01
            assert np.abs(one[mask]).max() > 0.02


def test_a_scratch_is_straighter_than_a_crack_and_mostly_bright():
    residuals = {}
    for name in ("crack", "normal_scratch"):
        _, inside, _ = change(name)
        residuals[name] = []
        for mask in inside:
            points = np.argwhere(mask) - np.argwhere(mask).mean(0)
            spread = np.linalg.svd(points, compute_uv=False)
            residuals[name].append(spread[1] / spread[0])
    assert np.median(residuals["normal_scratch"]) < 0.5 * np.median(residuals["crack"])
    added, inside, drawn = change("normal_scratch")
    sign = np.array([one[mask].mean() for one, mask in zip(added, inside)])
    assert ((sign < 0) == (drawn[:, 7] < 0.4)).all()
    assert 5 < (sign < 0).sum() < 25
    assert (change("crack")[0] <= 0).all()


def test_a_pit_has_a_lit_and_a_shaded_rim_and_dirt_a_soft_edge():
    pits, inside, drawn = change("blowhole")
    rows, columns = np.mgrid[:64, :64] / 64 + 1 / 128
    for one, mask, (row, column, *_, light) in zip(pits, inside, drawn[:, :7].tolist()):
        angle = np.arctan2(rows - 0.15 - 0.7 * row, columns - 0.15 - 0.7 * column)
        facing, rim = np.cos(angle - 2 * np.pi * light), ring(mask, 0, 2)
        assert one[mask].mean() < 0
        assert one[rim & (facing > 0.5)].mean() > one[rim & (facing < -0.5)].mean()
    dirt, stained, _ = change("normal_dirt")
    assert (dirt.mean((1, 2)) < 0).all()
    step = [np.abs(np.diff(one, axis=1)).max() / np.abs(one).max() for one in pits]
    softer = [np.abs(np.diff(one, axis=1)).max() / np.abs(one).max() for one in dirt]
    assert np.median(softer) < 0.6 * np.median(step)
    assert stained.sum() > inside.sum()


def test_metal_is_ground_along_one_direction():
    rng = np.random.default_rng(1)
    drawn = rng.random((2, 8))
    drawn[:, 0] = 0.5, 1.0  # along the rows; turned by 0.35 rad
    drawn[:, 1:] = 0.5
    metal = _metal(drawn, rng.standard_normal((2, 64, 64), dtype=np.float32))
    rough = [[np.abs(np.diff(one, axis=axis)).mean() for axis in (0, 1)] for one in metal]
    assert rough[0][0] > 1.5 * rough[0][1]
    assert rough[1][0] / rough[1][1] < rough[0][0] / rough[0][1]
    one = metal[1][16:48, 16:48] - metal[1][16:48, 16:48].mean()
    like = {}
    for shift in (-4, 0, 4):  # to 12 pixels further right, the marks lie 12 tan(0.35) = 4.4 pixels lower
        other = metal[1][16 + shift : 48 + shift, 28:60]
        like[shift] = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    assert like[4] > max(like[0], like[-4])


def test_image_i_follows_from_the_seed_and_i_alone(defects):
    np.random.seed(99)
    torch.manual_seed(99)
    few = load_surface_defects(n=130)
    assert torch.equal(few.images, defects.images[:130])
    assert torch.equal(few.masks, defects.masks[:130])
    assert torch.equal(few.labels, defects.labels[:130])
    assert few.split.tolist() == defects.split[:130].tolist()
    assert len({image.numpy().tobytes() for image in defects.images}) == 1000
    assert not torch.equal(load_surface_defects(n=130, seed=1).masks, few.masks)


def test_grey_levels_are_a_cameras_and_hardly_ever_clipped(defects):
    levels = defects.images * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert ((levels == 0) | (levels == 255)).double().mean() < 1e-3
    means = torch.stack([of(defects, name).images.mean() for name in CLASSES])
    assert means.max() - means.min() < 0.02  # the class cannot be read off the brightness


def test_the_checksum_names_what_was_drawn():
    base = load_surface_defects(n=25, size=16).provenance
    again = load_surface_defects(n=25, size=16).provenance
    assert base == again == {"name": "surface_defects", "sha256": base["sha256"], "variant": "embedded"}
    others = [{"n": 26}, {"size": 17}, {"seed": 1}]
    sums = {load_surface_defects(**{"n": 25, "size": 16, **other}).provenance["sha256"] for other in others}
    assert len(sums | {base["sha256"]}) == 4


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"n": 24}, ValueError, "n is 24, expected an int of at least 25"),
        ({"n": 100.0}, ValueError, r"n is 100\.0"),
        ({"n": True}, ValueError, "n is True"),
        ({"size": 15}, ValueError, "size is 15, expected an int of at least 16"),
        ({"size": "64"}, ValueError, "size is '64'"),
        ({"seed": -1}, ValueError, "seed = -1"),
        ({"seed": 0.5}, TypeError, r"seed = 0\.5"),
        (
            {"classes": 3},
            TypeError,
            "'surface_defects' has no option 'classes'; its options: split, limit, n, size, seed",
        ),
    ],
)
def test_bad_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        xai_utils.data.load("surface_defects", **options)
