"""One filled rectangle per image; the target is a sine of its area: the simulated data of paper 2, §4."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from PIL import ImageColor
from torch import Tensor

from xai_utils.data.imageset import CYCLE, ImageSet
from xai_utils.seeds import numpy_rng

LONGEST = 2  # times the shorter side


def load_rectangles(
    *,
    n: int = 6000,
    size: int = 64,
    seed: int = 0,
    colours: Sequence[str] = ("black", "white"),
    area: Sequence[float] = (0.02, 0.5),
    non_negative: bool = False,
) -> ImageSet:
    """Draw n images, each with one axis-aligned rectangle at a random place and of random area (paper 2, §4).

    target = sin(angle), where angle = −π + 2π (a − lo) / (hi − lo) lies in [−π, π): a is the rectangle's share of the
    image and lo ≤ a < hi, so the upper end is never reached. The mask is the rectangle; a is counted in whole pixels,
    so the target is exact. With the defaults it falls from 0 to −1 at a = 0.14, is 0 again at 0.26, and 1 at 0.38.

    The area is uniform: a real number is drawn between the smallest area and hi, and the largest area not above it is
    taken that some width × height has, with sides of at most `size` whose ratio is at most 2. Then the shape is drawn
    from all of that area, then the place from all where it fits. Image i follows from `seed` and i alone, not from n.

    The paper is silent on the image size (VGG16's own is 224), the colours (here white on black: zero padding continues
    the ground), the range of the area, the shapes, and which images its MAE and R² belong to: here 70 / 10 / 20 % are
    train / val / test, in the fixed order of `imageset.CYCLE`, which is fair since all are drawn alike.

    Args:
        n: number of images. They take 12 n size² bytes of memory: 1.5 GB for 30,000 of 64×64, 18 GB of 224×224.
        size: height and width in pixels.
        seed: of all that is drawn.
        colours: of the ground and of the rectangle, as Pillow names them: "black", "#ff8000", "hsl(200, 50%, 50%)".
        area: lo and hi, as shares of the image.
        non_negative: only targets ≥ 0, for claim P2.6: the same images, the angle rescaled to [0, π) instead.

    Returns:
        images (n, 3, size, size), labels = targets (n,) float32 in [−1, 1], masks; ids "rectangles/00000" ….

    Raises:
        ValueError: fewer than 5 images (one split would be empty) or 4 pixels a side; unknown or equal colours; an
            area outside 0 ≤ lo < hi ≤ 1, or a range so narrow that it has fewer than two areas of whole pixels.
    """
    for name, value, least in (("n", n, 5), ("size", size, 4)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}, expected an int of at least {least}")
    paint = _paint(colours)
    if np.shape(area) != (2,) or not 0 <= area[0] < area[1] <= 1:
        raise ValueError(f"area is {area!r}, expected (lo, hi) with 0 <= lo < hi <= 1, as shares of the image")
    low, high = (share * size**2 for share in area)
    boxes = _boxes(numpy_rng(seed, "rectangles").random((n, 4)), size, low, high)
    left, top, width, height = boxes.T
    share = (width * height - low) / (high - low)
    angle = np.pi * share if non_negative else -np.pi + 2 * np.pi * share
    grid = np.arange(size)
    across = torch.from_numpy((grid >= left[:, None]) & (grid < (left + width)[:, None]))
    down = torch.from_numpy((grid >= top[:, None]) & (grid < (top + height)[:, None]))
    masks = down[:, :, None] & across[:, None, :]
    settings = json.dumps([size, seed, *colours, *map(float, area), non_negative])
    return ImageSet(
        name="rectangles",
        pixels=torch.where(masks[:, None], *paint.flip(0)),  # nothing but masks and images is as large as they are
        labels=torch.from_numpy(np.sin(angle).astype(np.float32)),
        split=np.resize(CYCLE, n),
        ids=np.array([f"rectangles/{i:05d}" for i in range(n)]),
        class_names=(),
        provenance={
            "name": "rectangles",
            "sha256": hashlib.sha256(settings.encode() + boxes.astype("<i4").tobytes()).hexdigest(),
            "variant": "embedded",
        },
        masks=masks,
    )


def _paint(colours: Sequence[str]) -> Tensor:
    """Colours (2, 3, 1, 1) in [0, 1] of the ground and the rectangle."""
    if isinstance(colours, str) or len(colours) != 2:
        raise ValueError(f"colours are {colours!r}, expected two: of the ground and of the rectangle")
    try:
        paint = torch.tensor([ImageColor.getrgb(colour)[:3] for colour in colours])
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f'colours are {colours!r}: {error}; expected names as "black" or "#ff8000"') from error
    if torch.equal(*paint):
        raise ValueError(f"colours are {colours!r}: the rectangle could not be seen")
    return (paint / 255)[:, :, None, None]


def _boxes(uniform: np.ndarray, size: int, low: float, high: float) -> np.ndarray:
    """Boxes (n, 4) of left, top, width and height in pixels, from uniform numbers (n, 4) in [0, 1)."""
    width, height = np.divmod(np.arange(size**2), size) + np.array([[1], [1]])
    kept = (np.maximum(width, height) <= LONGEST * np.minimum(width, height)) & (width * height >= low)
    kept &= width * height < high
    shapes = np.stack([width, height], 1)[kept]
    shapes = shapes[np.argsort(shapes.prod(1), kind="stable")]
    areas, first, count = np.unique(shapes.prod(1), return_index=True, return_counts=True)
    if len(areas) < 2:
        raise ValueError(
            f"area: {len(areas)} areas of whole pixels lie in [{low:g}, {high:g}) of {size}×{size}, expected two or "
            "more; widen the range or take larger images"
        )
    chosen = np.searchsorted(areas, areas[0] + (high - areas[0]) * uniform[:, 0], side="right") - 1
    shape = shapes[first[chosen] + (count[chosen] * uniform[:, 1]).astype(int)]
    corner = ((size - shape + 1) * uniform[:, 2:]).astype(int)
    return np.concatenate([corner, shape], 1)
