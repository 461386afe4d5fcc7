"""Drawn asphalt: classes, masks and split, what cracks and what is no crack looks like, what an image follows from."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

import xai_utils.data
from xai_utils.data.drawing import distance_to_line
from xai_utils.data.sets.road_cracks import crack_counts
from xai_utils.data.sets.road_patches import CLASSES, _asphalt, _cracks, load_road_patches


@pytest.fixture(scope="module")
def patches():
    return load_road_patches(n=320)


@pytest.fixture(scope="module")
def cracks():
    """Loss of light, pixels and drawn numbers of 60 patches; the very first number says whether there are two."""
    drawn = np.random.default_rng(3).random((60, 2, 43))
    return (*_cracks(drawn, 64), drawn)


def test_classes_take_turns_and_both_are_split_70_10_20(patches):
    assert patches.images.shape == (320, 1, 64, 64)
    assert patches.class_names == CLASSES == ("no_crack", "crack")
    assert patches.labels[:4].tolist() == [0, 1, 0, 1]
    assert patches.ids[[0, 319]].tolist() == ["road_patches/00000", "road_patches/00319"]
    for label in (0, 1):
        split = patches.split[patches.labels.numpy() == label].tolist()
        assert [split.count(part) for part in ("train", "val", "test")] == [112, 16, 32]
    few = load_road_patches(n=20, size=16)
    for part in ("train", "val", "test"):
        assert set(few.subset(part).labels.tolist()) == {0, 1}


def test_masks_are_thin_and_dark_and_of_cracks_alone(patches):
    masks = patches.masks.numpy()
    assert not masks[0::2].any()
    assert masks[1::2].sum((1, 2)).min() >= 20
    assert masks[1::2].mean((1, 2)).max() < 0.12
    darker, thickness = [], []
    for image, mask in zip(patches.images[1::2, 0].numpy(), masks[1::2]):
        apart = distance_transform_edt(~mask)
        darker.append(image[(apart > 1.5) & (apart < 4)].mean() - image[mask].mean())
        thickness.append(mask.sum() / skeletonize(mask).sum())
    assert np.mean(np.array(darker) > 0) > 0.97
    assert np.percentile(darker, 10) < 0.12 < 0.2 < np.percentile(darker, 90)  # faint ones and strong ones
    assert 1 <= np.median(thickness) < 2.2
    assert load_road_patches(n=40, size=16).masks[1::2].sum((1, 2)).min() >= 4


def test_three_in_ten_have_two_separate_cracks(patches, cracks):
    _, inside, drawn = cracks
    counts = crack_counts(torch.from_numpy(inside), gap=0.03).numpy()
    two = drawn[:, 0, 0] < 0.3
    assert (counts[~two] == 1).all()
    assert (counts[two] == 2).mean() > 0.85
    share = (crack_counts(patches.masks[1::2], gap=0.03) == 2).double().mean()
    assert 0.2 < share < 0.4


def test_a_crack_takes_light_away_on_its_pixels_only(cracks):
    cover, inside, drawn = cracks
    assert cover.min() >= 0
    assert cover.max() < 0.75
    for k in range(20):
        apart = distance_transform_edt(~inside[k])
        assert cover[k][apart > 1.5].max() == 0
        assert cover[k][inside[k]].min() > 0
    strongest = cover.max((1, 2))
    one = drawn[:, 0, 0] >= 0.3
    assert strongest[one] == pytest.approx(0.25 + 0.5 * drawn[one, 0, 2], abs=0.12)


def test_cracks_bend_and_change_their_width(cracks):
    _, inside, drawn = cracks
    bent = []
    for mask in inside[drawn[:, 0, [0, 23, 33]].min(1) >= 0.5]:  # one crack, and neither of its branches
        points = np.argwhere(mask) - np.argwhere(mask).mean(0)
        spread = np.linalg.svd(points, compute_uv=False)
        bent.append(spread[1] / spread[0])
    assert np.median(bent) > 0.06  # a straight line has 0.03
    widths = [distance_transform_edt(mask)[skeletonize(mask)] for mask in inside]
    assert np.mean([width.max() > 1.3 * width.min() for width in widths]) > 0.5


def test_distance_from_a_line_is_that_of_its_nearest_piece():
    path = np.array([[[0.5, 0.1], [0.5, 0.6], [0.9, 0.6]]])
    half = np.array([[0.02, 0.05]])
    near = distance_to_line(path, half, 50)[0]
    rows, columns = (np.mgrid[:50, :50] + 0.5) / 50
    slow = np.full((50, 50), np.inf)
    for (a, b), width in zip(((path[0, 0], path[0, 1]), (path[0, 1], path[0, 2])), half[0]):
        for share in np.linspace(0, 1, 400):
            y, x = a + share * (b - a)
            slow = np.minimum(slow, np.hypot(rows - y, columns - x) - width)
    assert near == pytest.approx(slow, abs=0.001)


def test_what_is_no_crack_comes_as_often_with_cracks_as_without():
    rng, plain = np.random.default_rng(1), np.full((40, 32), 0.99)
    noise = rng.standard_normal((40, 64, 64), dtype=np.float32)
    plain[:, [0, 1, 2, 3, 6, 9]] = 0
    bare = _asphalt(plain, noise)
    assert bare.std() < 0.06
    seen = {"stain": 14, "joint": 21, "marking": 25, "shadow": 30}
    middle = {10: 0.5, 11: 0.5, 12: 0.9, 15: 0.9, 16: 0.5, 17: 0.5, 19: 0.3, 20: 0.9, 22: 0.5, 23: 0.5, 28: 0.5}
    for name, number in seen.items():
        drawn = plain.copy()
        for at, value in middle.items():
            drawn[:, at] = value
        without = _asphalt(drawn, noise)
        drawn[:, number] = 0
        change = _asphalt(drawn, noise) - without
        assert (change > 0.05).any() == (name == "marking")
        assert (change < -0.05).any() == (name != "marking")
        share = (np.abs(change) > 0.05).mean()
        low, high = {"stain": (0.03, 0.3), "joint": (0.005, 0.06), "marking": (0.08, 0.35), "shadow": (0.2, 0.8)}[name]
        assert low < share < high, name


def test_brightness_does_not_tell_the_class(patches):
    brightness = patches.images.mean((1, 2, 3)).numpy()
    labels = patches.labels.numpy()
    best = max(
        abs(np.mean((brightness > cut) == labels) - 0.5) for cut in np.quantile(brightness, np.linspace(0, 1, 41))
    )
    assert best < 0.08
    assert 0.3 < brightness.mean() < 0.6
    assert ((patches.images == 0) | (patches.images == 1)).double().mean() < 0.003


def test_image_i_follows_from_the_seed_and_i_alone(patches):
    np.random.seed(99)
    torch.manual_seed(99)
    few = load_road_patches(n=50)
    assert torch.equal(few.images, patches.images[:50])
    assert torch.equal(few.masks, patches.masks[:50])
    assert few.split.tolist() == patches.split[:50].tolist()
    assert len({image.numpy().tobytes() for image in patches.images}) == 320
    assert not torch.equal(load_road_patches(n=50, seed=1).masks, few.masks)
    assert torch.allclose(few.images * 255, (few.images * 255).round(), atol=1e-4)


def test_the_checksum_names_what_was_drawn():
    base = load_road_patches(n=20, size=16).provenance
    assert base == load_road_patches(n=20, size=16).provenance
    assert (base["name"], base["variant"]) == ("road_patches", "embedded")
    others = [{"n": 21}, {"size": 17}, {"seed": 1}]
    sums = {load_road_patches(**{"n": 20, "size": 16, **other}).provenance["sha256"] for other in others}
    assert len(sums | {base["sha256"]}) == 4


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"n": 19}, ValueError, "n is 19, expected an int of at least 20"),
        ({"n": True}, ValueError, "n is True"),
        ({"size": 15}, ValueError, "size is 15, expected an int of at least 16"),
        ({"seed": -1}, ValueError, "seed = -1"),
        ({"classes": 3}, TypeError, "'road_patches' has no option 'classes'; its options: split, limit, n, size, seed"),
    ],
)
def test_bad_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        xai_utils.data.load("road_patches", **options)
