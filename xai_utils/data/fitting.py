"""How pictures of any shape become squares: with margins, stretched, or cut. Masks go the same way."""

from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn.functional import adaptive_max_pool2d

Fit = Literal["letterbox", "stretch", "crop"]
FITS: tuple[Fit, ...] = ("letterbox", "stretch", "crop")


def fitted(pixels: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """A picture as a square (bilinear with antialiasing).

    Args:
        pixels: (H, W, C) float32 in [0, 1].
        size: side of the square.
        fit: "letterbox" scales the longer side to `size` and lays the picture in the middle of its own mean colour
            (black margins would put edges there); "stretch" changes the aspect ratio; "crop" keeps the central square.

    Returns:
        (C, size, size) float32 in [0, 1].
    """
    planes = [Image.fromarray(plane) for plane in np.moveaxis(pixels, 2, 0)]
    if fit == "crop":
        squares = [np.asarray(ImageOps.fit(plane, (size, size), Image.Resampling.BILINEAR)) for plane in planes]
        return np.clip(np.stack(squares), 0, 1)
    rows, columns = _place(pixels.shape[0], pixels.shape[1], size, fit)
    square = np.empty((len(planes), size, size), np.float32)
    square[:] = pixels.mean((0, 1))[:, None, None]
    inner = (columns.stop - columns.start, rows.stop - rows.start)
    for channel, plane in enumerate(planes):
        square[channel, rows, columns] = np.asarray(plane.resize(inner, Image.Resampling.BILINEAR))
    return np.clip(square, 0, 1)


def fitted_mask(mask: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """A mask (H, W) bool as (size, size) bool, in the place of its picture.

    It shrinks by maximum: a pixel is inside if any part of it is, so that a thin crack does not vanish. Margins are
    outside.
    """
    square = np.zeros((size, size), dtype=bool)
    kept = mask[central(*mask.shape)] if fit == "crop" else mask
    rows, columns = _place(kept.shape[0], kept.shape[1], size, fit)
    inner = (rows.stop - rows.start, columns.stop - columns.start)
    square[rows, columns] = adaptive_max_pool2d(torch.from_numpy(kept[None].astype(np.float32)), inner)[0] > 0
    return square


def central(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the central square, which "crop" keeps."""
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return slice(top, top + side), slice(left, left + side)


def _place(height: int, width: int, size: int, fit: Fit) -> tuple[slice, slice]:
    """Rows and columns of the square that the picture fills."""
    if fit != "letterbox":
        return slice(0, size), slice(0, size)
    longest = max(height, width)
    sides = [max(1, round(size * side / longest)) for side in (height, width)]
    starts = [(size - side) // 2 for side in sides]
    rows, columns = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return rows, columns


def check_fit(fit: str) -> None:
    """ValueError for another way than `FITS`."""
    if fit not in FITS:
        raise ValueError(f"fit is {fit!r}, expected one of {', '.join(FITS)}")
