"""What the drawn data sets share: numbers brought to a range, places in a picture, blurred noise, and the frame."""

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
import torch

from xai_utils.data.imageset import CYCLE, ImageSet


def image_set(
    name: str,
    classes: Sequence[str],
    draw: Callable[[int, int, np.ndarray], np.ndarray],
    batch: int,
    *,
    n: int,
    size: int,
    seed: int,
    least: tuple[int, int],
) -> ImageSet:
    """A set drawn in batches: class and split of image i follow from i, all else from `seed` and i.

    Args:
        name: of the set; ids are "<name>/00000" ….
        classes: image i is of class i mod len(classes); within a class the splits follow `imageset.CYCLE`.
        draw: (seed, number of the batch, masks (batch, size, size) bool to fill in) → grey levels (batch, size, size)
            uint8.
        batch: images drawn at once, a multiple of len(classes) * len(CYCLE).
        n: number of images.
        size: height and width in pixels.
        seed: of all that is drawn.
        least: smallest n and size.

    Returns:
        images (n, 1, size, size) of 256 grey levels, masks.

    Raises:
        ValueError: n or size is too small or no int.
    """
    for what, value, low in (("n", n, least[0]), ("size", size, least[1])):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"{what} is {value!r}, expected an int of at least {low}")
    grey = np.empty((-(-n // batch) * batch, size, size), np.uint8)  # whole batches, of which n images are kept
    masks = np.zeros(grey.shape, bool)
    for start in range(0, len(grey), batch):
        grey[start : start + batch] = draw(seed, start // batch, masks[start : start + batch])
    number = np.arange(n)
    # not the pixels: the last digit of an exponential, and so a grey level, may differ on another processor
    made = json.dumps([n, size, seed]).encode() + np.packbits(masks[:n]).tobytes()
    return ImageSet(
        name=name,
        pixels=torch.from_numpy(grey[:n, None]),
        labels=torch.from_numpy(number % len(classes)),
        split=np.array(CYCLE)[number // len(classes) % len(CYCLE)],
        ids=np.array([f"{name}/{i:05d}" for i in number]),
        class_names=tuple(classes),
        provenance={"name": name, "sha256": hashlib.sha256(made).hexdigest(), "variant": "embedded"},
        masks=torch.from_numpy(masks[:n]),
    )


def between(low: float, high: float, share: np.ndarray) -> np.ndarray:
    """Uniform numbers `share` in [0, 1) brought to [low, high), with two axes added for the pixels."""
    return (low + (high - low) * share)[:, None, None]


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (size, 1) and columns (1, size) of the pixels' centres, as shares of the side."""
    centre = (np.arange(size) + 0.5) / size
    return centre[:, None], centre[None]


def turned(down: np.ndarray, across: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places along a direction and beside it (B, H, W); `angle` (B, 1, 1) in radians, from across towards down."""
    return np.cos(angle) * across + np.sin(angle) * down, np.cos(angle) * down - np.sin(angle) * across


def streaks(noise: np.ndarray, angle: np.ndarray, length: float, width: float) -> np.ndarray:
    """White noise (B, H, W) blurred by a Gaussian along `angle` (B, 1, 1) and across, and brought to deviation 1."""
    size = noise.shape[1]
    down, across = np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)[None]
    along, beside = turned(down, across, angle)
    gain = np.exp(-2 * np.pi**2 * ((length * along) ** 2 + (width * beside) ** 2))
    gain[:, 0, 0] = 0
    return _filtered(noise, gain)


def blurred(noise: np.ndarray, width: float) -> np.ndarray:
    """White noise (B, H, W) blurred by a round Gaussian of `width` sides, and brought to deviation 1."""
    size = noise.shape[1]
    frequency = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)[None])
    gain = np.exp(-2 * np.pi**2 * (width * frequency) ** 2)
    gain[0, 0] = 0
    return _filtered(noise, gain)


def _filtered(noise: np.ndarray, gain: np.ndarray) -> np.ndarray:
    soft = np.fft.irfft2(np.fft.rfft2(noise) * gain, s=noise.shape[1:])
    return soft / soft.std((1, 2), keepdims=True)


def distance_to_line(path: np.ndarray, half: np.ndarray, size: int) -> np.ndarray:
    """Distance (B, size, size) from a line of corners (B, K + 1, 2) and half widths (B, K); negative inside it."""
    near, (down, across) = np.full((len(path), size, size), np.inf), grid(size)
    for k in range(half.shape[1]):
        (y, x), (dy, dx) = path[:, k].T[..., None, None], (path[:, k + 1] - path[:, k]).T[..., None, None]
        foot = (((down - y) * dy + (across - x) * dx) / np.maximum(dy**2 + dx**2, 1e-12)).clip(0, 1)
        near = np.minimum(near, np.hypot(down - y - foot * dy, across - x - foot * dx) - half[:, k, None, None])
    return near
