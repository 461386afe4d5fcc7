"""The 1,797 real handwritten digits shipped inside scikit-learn: the quick profile's data, no download."""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F

from xai_utils.data.imageset import ImageSet, stratified_split


def load_digits(*, seed: int = 0) -> ImageSet:
    """UCI optical digits, brought from 8×8 to 28×28.

    A pixel counts the ink of a 4×4 block of the scan, 0 … 16; it is divided by 16. The enlargement is bilinear between
    pixel centres (in float64, then rounded to float32), so the pictures are blurred digits, not MNIST.

    Args:
        seed: of the split train / val / test, 70 / 10 / 20 within every class.

    Returns:
        images (1797, 1, 28, 28).
    """
    from sklearn.datasets import load_digits as sklearn_digits  # half a second, wanted here only

    source = sklearn_digits()
    pixels, labels = source.images.astype(np.uint8), source.target.astype(np.uint8)
    ids = np.array([f"digits/{i:04d}" for i in range(len(labels))])
    small = torch.from_numpy(pixels / 16.0)[:, None]
    return ImageSet(
        name="digits",
        pixels=F.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False).float(),
        labels=torch.from_numpy(labels.astype(np.int64)),
        split=stratified_split(labels.tolist(), ids.tolist(), seed=seed),
        ids=ids,
        class_names=tuple("0123456789"),
        provenance={
            "name": "digits",
            "sha256": hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest(),
            "variant": "embedded",
        },
    )
