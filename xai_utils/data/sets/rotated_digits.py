"""Real handwritten digits, rotated by a known angle: a signed regression target on real data (beyond paper 2)."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from xai_utils.data.imageset import ImageSet, load
from xai_utils.seeds import derive

# By how much the digits are shrunk, so that none leaves the image when it turns: then the target could be read off the
# cut at the border. MNIST's lie in the middle 20 of 28 pixels, scikit-learn's fill their image.
SOURCES = {"digits": 1.4, "mnist": 1.0}
_BATCH = 1024  # images rotated at once


def load_rotated_digits(
    *,
    source: str = "digits",
    size: int = 28,
    seed: int = 0,
    max_angle: float = 45.0,
    keep: Mapping[str, int] | None = None,
) -> ImageSet:
    """Rotate each digit of `source` about the image's centre by an angle uniform in [−max_angle, max_angle] degrees.

    A positive angle turns counter-clockwise. Turned and resized in one bilinear step; outside the image is 0 (no ink).
    scikit-learn's digits, which fill their image, are shrunk to its middle 20 of 28 pixels, where MNIST's are: what is
    cut off at the border would tell the angle. The angle of an image follows from `seed` and its id alone, whatever the
    order or number of images.

    What a model can reach is bounded, and the bound is not known. People write with a slant of their own, which the
    target does not know: noise to any model. A round 0 hardly shows an angle. Angles beyond 90° must be told from those
    half a turn away, too: 0, 1 and 8 look alike there, and a 6 is a 9. So an error that stays is not by itself a fault
    of the model; it is best reported for each digit (the ids are the source's, where the digits are known).

    Args:
        source: "digits" (scikit-learn's) or "mnist"; its own split and ids are kept.
        size: height and width of the images; the digits have 28.
        seed: of the angles.
        max_angle: in degrees, above 0 and at most 180.
        keep: take only the first n digits of each split that it names, before they are turned.

    Returns:
        images (N, 1, size, size), labels = targets (N,) float32 = angle / max_angle in [−1, 1], masks = the ink: pixels
        of the rotated image above 0.5 (where interpolated strokes end; no mask is empty).

    Raises:
        ValueError: another source, size or angle. FileNotFoundError: the source is not there.
    """
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}, expected one of {', '.join(SOURCES)}")
    if isinstance(max_angle, bool) or not isinstance(max_angle, int | float) or not 0 < max_angle <= 180:
        raise ValueError(f"max_angle is {max_angle!r}, expected degrees above 0 and at most 180")
    if isinstance(size, bool) or not isinstance(size, int) or size < 8:
        raise ValueError(f"size is {size!r}, expected an int of at least 8")
    digits = load(source, limit=keep)
    drawn = np.array([derive(seed, "rotated_digits", str(name)) for name in digits.ids])
    targets = drawn / 2.0**62 - 1  # of 63 bits
    angles = torch.from_numpy(np.deg2rad(targets * max_angle)).float()
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros(len(digits))
    # where a pixel of the result comes from, in coordinates with y downwards
    origin = SOURCES[source] * torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    images = torch.empty(len(digits), 1, size, size)
    for start in range(0, len(digits), _BATCH):
        some = slice(start, start + _BATCH)
        grid = F.affine_grid(origin[some], list(images[some].shape), align_corners=False)
        images[some] = F.grid_sample(digits.images[some], grid, "bilinear", "zeros", align_corners=False).clamp_(0, 1)
    made = f"{digits.provenance['sha256']} {seed} {max_angle!r} {size}".encode() + targets.astype("<f8").tobytes()
    return ImageSet(
        name="rotated_digits",
        pixels=images,
        labels=torch.from_numpy(targets.astype(np.float32)),
        split=digits.split,
        ids=digits.ids,
        class_names=(),
        provenance={**digits.provenance, "name": f"rotated_{source}", "sha256": hashlib.sha256(made).hexdigest()},
        masks=images[:, 0] > 0.5,
    )
