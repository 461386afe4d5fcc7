"""Where patches are cut: around every piece of a mask that counts, inside the picture, and anywhere."""

import numpy as np
import pytest

from xai_utils.data.patches import anywhere, around
from xai_utils.seeds import numpy_rng


def marked(*boxes, shape=(60, 80)):
    """A mask with rectangles (first row, first column, rows, columns)."""
    mask = np.zeros(shape, bool)
    for row, column, rows, columns in boxes:
        mask[row : row + rows, column : column + columns] = True
    return mask


def test_a_patch_is_centred_on_its_piece_and_shifted_to_stay_inside():
    assert around(marked((30, 40, 5, 5)), 20) == [(22, 32)]  # its middle pixel (32, 42) has row and column 10 of 20
    assert around(marked((0, 0, 5, 5)), 20) == [(0, 0)]
    assert around(marked((55, 75, 5, 5)), 20) == [(40, 60)]
    assert around(marked((2, 40, 5, 5)), 20) == [(0, 32)]
    assert around(marked((2, 2, 4, 4), shape=(20, 20)), 20) == [(0, 0)]  # a picture of one patch


def test_pieces_apart_have_their_own_patches_the_largest_first():
    mask = marked((5, 5, 4, 4), (45, 60, 5, 5))
    assert around(mask, 16) == [(39, 54), (0, 0)]
    assert around(np.zeros((60, 80), bool), 16) == []


def test_a_piece_within_the_patch_of_a_larger_one_has_none_of_its_own():
    whole = marked((28, 38, 5, 5))  # its patch has rows 20 to 39 and columns 30 to 49
    patch = [(20, 30)]
    assert around(whole, 20) == patch
    for row, column in ((20, 30), (36, 46), (20, 46)):
        assert around(whole | marked((row, column, 4, 4)), 20) == patch
    for row, column in ((19, 30), (37, 46), (20, 47), (20, 29)):  # sticks out by one pixel
        assert len(around(whole | marked((row, column, 4, 4)), 20)) == 2


def test_pixels_that_touch_at_a_corner_are_one_piece():
    assert len(around(marked((10, 10, 4, 4), (14, 14, 4, 4)), 6)) == 1
    assert len(around(marked((10, 10, 4, 4), (15, 15, 4, 4)), 6)) == 2


def test_specks_are_left_out():
    assert around(marked((10, 10, 3, 3)), 20) == []
    assert around(marked((10, 10, 2, 5)), 20) != []
    assert around(marked((10, 10, 3, 3)), 20, least=9) == [(1, 1)]


def test_a_bent_piece_is_met_although_its_centre_of_gravity_lies_beside_it():
    mask = marked((5, 5, 50, 2), (5, 5, 2, 70), (53, 5, 2, 70))  # a bracket, open to the right
    ((top, left),) = around(mask, 12)
    assert mask[top : top + 12, left : left + 12].any()
    pixels = np.argwhere(mask)
    away = ((pixels - pixels.mean(0)) ** 2).sum(1)
    assert away[(pixels == [top + 6, left + 6]).all(1)] == away.min()


def test_places_without_a_mask_are_drawn_evenly_and_fit():
    rng = numpy_rng(0, "test")
    found = np.array([anywhere((24, 22), 20, rng) for _ in range(1500)])
    counts = np.zeros((5, 3))
    np.add.at(counts, tuple(found.T), 1)
    assert (found.min(0).tolist(), found.max(0).tolist()) == ([0, 0], [4, 2])
    assert counts.min() > 60
    assert counts.max() < 145
    assert anywhere((20, 20), 20, rng) == (0, 0)


def test_a_patch_larger_than_the_picture_is_named():
    for call in (lambda: around(marked(shape=(19, 40)), 20), lambda: anywhere((40, 19), 20, numpy_rng(0, "test"))):
        with pytest.raises(
            ValueError, match=r"a patch of 20 pixels does not fit into a picture of \((19|40), (19|40)\)"
        ):
            call()
