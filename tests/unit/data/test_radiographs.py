"""Drawn radiographs: classes, masks and split, what makes them radiographs, and what an image follows from."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from skimage.measure import label

import xai_utils.data
from xai_utils.data.drawing import blurred
from xai_utils.data.sets.radiographs import (
    _anatomy,
    _cage,
    _exposed,
    _floor,
    _lungs,
    _opacity,
    _posed,
    _ribs,
    _soft,
    load_radiographs,
)


@pytest.fixture(scope="module")
def radiographs():
    return load_radiographs(n=600)


def upright(rows=6, size=64):
    """Places in bodies that are neither turned nor moved, and the numbers of their anatomy."""
    pose = np.full((rows, 16), 0.5)
    pose[:, 3] = 5 / 9  # scale 1
    return (*_posed(pose, size), np.random.default_rng(3).random((rows, 16)))


def test_classes_take_turns_and_both_are_split_70_10_20(radiographs):
    assert radiographs.images.shape == (600, 1, 64, 64)
    assert radiographs.class_names == ("normal", "opacity")
    assert radiographs.labels[:5].tolist() == [0, 1, 0, 1, 0]
    assert radiographs.ids[[0, 599]].tolist() == ["radiographs/00000", "radiographs/00599"]
    for kind in (0, 1):
        split = radiographs.split[radiographs.labels.numpy() == kind].tolist()
        assert [split.count(part) for part in ("train", "val", "test")] == [210, 30, 60]
    few = load_radiographs(n=10)
    for part in ("train", "val", "test"):
        assert set(few.subset(part).labels.tolist()) == {0, 1}


@pytest.mark.parametrize("size", [32, 64])
def test_masks_mark_opacities_and_are_empty_for_what_is_normal(size):
    images = load_radiographs(n=200, size=size)
    share = images.masks.double().mean((1, 2))
    assert share[images.labels == 0].max() == 0
    assert share[images.labels == 1].min() > 0.004
    assert share[images.labels == 1].max() < 0.09
    one_piece = [label(mask.numpy()).max() == 1 for mask in images.masks[1::2]]
    assert np.mean(one_piece) > 0.95  # the diaphragm may cut a lobe off


def test_an_opacity_lies_in_a_lung_field_and_the_mask_is_where_its_cover_is_at_least_half():
    across, down, body = upright(200)
    lungs = _lungs(across, down, body)
    shape = np.random.default_rng(4).random((200, 16))
    cover, mask = _opacity(across, down, lungs, body, shape)
    assert np.array_equal(mask, cover > 0.5)
    assert (lungs[mask] > 0.5).all()
    side = np.array([np.sign(across[row][one].mean()) for row, one in enumerate(mask)])
    assert np.array_equal(side, np.where(shape[:, 0] < 0.5, -1, 1))
    heights = np.array([down[row][one].mean() for row, one in enumerate(mask)])
    assert heights.min() < -0.15
    assert heights.max() > 0.12
    for one, inside in zip(cover[:40], mask):
        assert one[distance_transform_edt(~inside) > 8].max() < 0.02


def test_opacities_are_brighter_than_the_same_place_without_them_and_sometimes_faint(radiographs):
    mirrored, normal = [], radiographs.images[radiographs.labels == 0, 0].mean(0).numpy()
    normal = (normal - normal.mean()) / normal.std()
    for image, mask in zip(radiographs.images[1::2, 0].numpy(), radiographs.masks[1::2].numpy()):
        mirrored.append(((image - image[~mask].mean()) / image.std() - normal)[mask].mean())
    brighter = np.array(mirrored)
    assert np.mean(brighter > 0) > 0.85
    assert np.median(brighter) > 0.35
    assert np.mean(np.abs(brighter) < 0.25) > 0.04


def test_all_share_one_composition_of_dark_lungs_bright_spine_and_air_outside(radiographs):
    images = radiographs.images[radiographs.labels == 0, 0]
    lungs = torch.cat([images[:, 22:42, 15:22], images[:, 22:42, 45:50]], 2).mean((1, 2))
    spine, belly = images[:, 15:50, 31:34].mean((1, 2)), images[:, 58:, 20:44].mean((1, 2))
    air = torch.cat([images[:, :4, :8], images[:, :4, -8:]], 2).mean((1, 2))
    assert ((air < lungs) & (lungs < spine) & (lungs < belly)).double().mean() > 0.97
    assert ((spine - lungs) > 0.1).double().mean() > 0.9
    flat = images.flatten(1) - images.mean((1, 2))[:, None]
    flat /= flat.norm(dim=1, keepdim=True)
    alike = (flat @ flat.T)[*np.triu_indices(len(flat), 1)]
    assert 0.7 < alike.median() < 0.95
    assert alike.max() < 0.998


def test_the_heart_reaches_further_to_the_right_and_the_left_diaphragm_is_higher():
    across, down, body = upright()
    body[:, 1] = 1.0
    lungs = _lungs(across, down, body)
    blank = np.random.default_rng(0).standard_normal(across.shape)
    density = _anatomy(across, down, lungs, body, blank)
    heart = (np.abs(down - 0.13) < 0.05) & (np.abs(across) > 0.1) & (np.abs(across) < 0.14)
    for one, u, inside in zip(density, across, heart):
        assert one[inside & (u > 0)].mean() > one[inside & (u < 0)].mean() + 0.1
    left, right = (_floor(np.full((6, 1, 1), side), body) for side in (-0.17, 0.17))
    assert right - left == pytest.approx(np.full((6, 1, 1), 0.05))


def test_lungs_lie_between_spine_cage_and_diaphragm():
    across, down, body = upright()
    lungs = _lungs(across, down, body)
    assert 0.15 < lungs.mean() < 0.35
    assert lungs[np.abs(across) < 0.02].max() == 0
    assert lungs[np.abs(across) > _cage(down) + 0.025].max() == 0
    assert lungs[down > _floor(across, body) + 0.02].max() == 0
    inside = (np.abs(across) > 0.14) & (np.abs(across) < _cage(down) - 0.025) & (down < _floor(across, body) - 0.02)
    assert lungs[inside].min() == 1


def test_ribs_repeat_down_the_lungs_and_fall_outwards_behind():
    across, down, body = upright(1, 256)
    body[:, 3:5] = 0.5, 0.25
    ribs = _ribs(across, down, body)[0]
    column = ribs[60:190, 100]
    wave = np.abs(np.fft.rfft(column - column.mean(), 1024))
    assert 1024 / wave.argmax() / 256 == pytest.approx(0.095, rel=0.2)  # the gap between ribs, in sides
    near, far = ribs[110:186, 128 - 31], ribs[:, 128 - 64]
    match = {shift: np.corrcoef(near, far[110 + shift : 186 + shift])[0, 1] for shift in range(-9, 10)}
    assert 2 <= max(match, key=match.get) <= 6
    assert ribs[:, 128].max() < 0.01  # none over the spine


def test_a_pose_moves_turns_and_scales_the_body():
    pose = np.full((4, 16), 0.5)
    pose[:, 3] = 5 / 9
    pose[1, 0], pose[2, 2], pose[3, 3] = 1.0, 1.0, 1.0
    across, down = _posed(pose, 50)
    rows, columns = np.mgrid[:50, :50] / 50 + 0.01 - 0.5
    assert across[0] == pytest.approx(columns)
    assert down[0] == pytest.approx(rows)
    assert across[1] == pytest.approx(columns - 0.04)
    turned = np.array([[np.cos(0.08), np.sin(0.08)], [-np.sin(0.08), np.cos(0.08)]])
    expected = np.einsum("ij,jhw->ihw", turned, np.stack([columns, rows]))
    assert np.stack([across[2], down[2]]) == pytest.approx(expected)
    assert across[3] == pytest.approx(columns / 1.08)


def test_soft_is_a_smooth_step_and_blurred_noise_is_a_gaussian_blur():
    assert _soft(np.array([-0.4, -0.3, 0.0, 0.3, 0.4]), 0.1) == pytest.approx([0, 0, 0.5, 1, 1])
    assert _soft(np.array([-0.15, 0.15]), 0.1) == pytest.approx([0.15625, 0.84375])
    dot = np.zeros((1, 32, 32))
    dot[0, 16, 16] = 1
    row, column = np.mgrid[:32, :32] - 16
    expected = np.exp(-(row**2 + column**2) / (2 * 1.6**2))
    expected -= expected.mean()
    assert blurred(dot, 1.6 / 32)[0] == pytest.approx(expected / expected.std(), abs=1e-4)


def test_a_film_is_brighter_where_it_is_denser_and_noisy():
    drawn = np.full((1, 16), 0.5)
    steps = np.repeat(np.linspace(0, 1, 64)[None, None], 64, axis=1)
    film = _exposed(steps, drawn, np.random.default_rng(0).standard_normal((1, 64, 64)))[0]
    middle = 0.075 + 1.025 * (1 - np.exp(-1.6 * steps[0, 0] ** 1.1))
    assert film.mean(0) / 255 == pytest.approx(middle, abs=0.012)
    assert (np.diff(film.mean(0)) > -2).all()
    assert 0.008 < (film / 255 - middle).std() < 0.03


def test_image_i_follows_from_the_seed_and_i_alone(radiographs):
    np.random.seed(99)
    torch.manual_seed(99)
    few = load_radiographs(n=110)
    assert torch.equal(few.images, radiographs.images[:110])
    assert torch.equal(few.masks, radiographs.masks[:110])
    assert torch.equal(few.labels, radiographs.labels[:110])
    assert few.split.tolist() == radiographs.split[:110].tolist()
    assert len({image.numpy().tobytes() for image in radiographs.images}) == 600
    assert not torch.equal(load_radiographs(n=110, seed=1).masks, few.masks)


def test_grey_levels_are_a_films_and_the_class_is_not_its_brightness(radiographs):
    levels = radiographs.images * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert ((levels == 0) | (levels == 255)).double().mean() < 0.02
    means = radiographs.images.mean((1, 2, 3))
    normal, sick = means[radiographs.labels == 0], means[radiographs.labels == 1]
    above = (sick[:, None] > normal[None]).double().mean()
    assert 0.45 < above < 0.58  # area under the ROC curve


def test_the_checksum_names_what_was_drawn():
    base = load_radiographs(n=10, size=32).provenance
    again = load_radiographs(n=10, size=32).provenance
    assert base == again == {"name": "radiographs", "sha256": base["sha256"], "variant": "embedded"}
    others = [{"n": 11}, {"size": 33}, {"seed": 1}]
    sums = {load_radiographs(**{"n": 10, "size": 32, **other}).provenance["sha256"] for other in others}
    assert len(sums | {base["sha256"]}) == 4


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"n": 9}, ValueError, "n is 9, expected an int of at least 10"),
        ({"n": 100.0}, ValueError, r"n is 100\.0"),
        ({"n": True}, ValueError, "n is True"),
        ({"size": 31}, ValueError, "size is 31, expected an int of at least 32"),
        ({"size": "64"}, ValueError, "size is '64'"),
        ({"seed": -1}, ValueError, "seed = -1"),
        ({"seed": 0.5}, TypeError, r"seed = 0\.5"),
        ({"masks": True}, TypeError, "'radiographs' has no option 'masks'; its options: split, limit, n, size, seed"),
    ],
)
def test_bad_options_are_named(options, error, text):
    with pytest.raises(error, match=text):
        xai_utils.data.load("radiographs", **options)
