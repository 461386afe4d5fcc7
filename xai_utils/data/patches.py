"""Where small patches are cut from large pictures: around what a mask marks, or anywhere."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

Corner = tuple[int, int]  # first row and column of a patch


def around(mask: np.ndarray, size: int, least: int = 10) -> list[Corner]:
    """Corners of square patches around the connected pieces (8 neighbours) of a mask, the largest piece first.

    A patch is centred on the piece's pixel that is nearest to its centre of gravity, so that a bent piece is met, too,
    and is shifted as far as it has to be to lie within the picture. Of a piece that is larger than a patch the middle
    is shown. A piece that lies within the patch of a larger one gets no patch of its own, and one of fewer than `least`
    pixels (a speck left by the brush) none at all.

    Args:
        mask: (H, W) bool.
        size: side of the patches, at most H and W.
        least: pixels of the smallest piece that counts.

    Raises:
        ValueError: the picture is smaller than a patch.
    """
    _check_fits(mask.shape, size)
    pieces, _ = ndimage.label(mask, np.ones((3, 3)))
    areas, corners = np.bincount(pieces.ravel()), []
    boxes = ndimage.find_objects(pieces)
    for piece in 1 + np.argsort(-areas[1:], kind="stable"):
        rows, columns = boxes[piece - 1]
        shown = any(
            top <= rows.start and rows.stop <= top + size and left <= columns.start and columns.stop <= left + size
            for top, left in corners
        )
        if areas[piece] < least or shown:
            continue
        pixels = np.argwhere(pieces == piece)
        middle = pixels[((pixels - pixels.mean(0)) ** 2).sum(1).argmin()]
        top, left = (
            int(np.clip(place - size // 2, 0, side - size)) for place, side in zip(middle, mask.shape, strict=True)
        )
        if (top, left) not in corners:
            corners.append((top, left))
    return corners


def anywhere(shape: Sequence[int], size: int, rng: np.random.Generator) -> Corner:
    """A corner drawn evenly from all places in a picture of `shape` (H, W) where a square patch fits.

    Raises:
        ValueError: the picture is smaller than a patch.
    """
    _check_fits(shape, size)
    top, left = (int(rng.integers(side - size + 1)) for side in shape)
    return top, left


def _check_fits(shape: Sequence[int], size: int) -> None:
    if min(shape) < size:
        raise ValueError(
            f"a patch of {size} pixels does not fit into a picture of {tuple(shape)}: choose a smaller size"
        )
