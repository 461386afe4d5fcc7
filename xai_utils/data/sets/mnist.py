"""MNIST from the four published .gz files, with the repository's train / val / test split."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from xai_utils.data import store
from xai_utils.data.imageset import ImageSet, read_split

MAGIC = {1: 0x00000801, 3: 0x00000803}  # idx files: unsigned bytes, 1 axis (labels) or 3 axes (images)
FILES = {"train": "train", "test": "t10k"}


def read_idx(path: Path, axes: int) -> np.ndarray:
    """Read a gzipped idx file of unsigned bytes.

    Args:
        path: the .gz file.
        axes: 1 for labels, 3 for images.

    Returns:
        uint8 array (N,) or (N, rows, columns), read-only.

    Raises:
        ValueError: not gzip, cut off, another magic number, or more or fewer bytes than the header says.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not an intact gzip file: {error}") from error
    header = np.frombuffer(raw[: 4 * (axes + 1)], dtype=">u4") if len(raw) >= 4 * (axes + 1) else np.zeros(1)
    if header[0] != MAGIC[axes]:
        raise ValueError(f"{path} starts with {raw[:4].hex()!r}, expected the idx magic number {MAGIC[axes]:08x}")
    shape, found = tuple(int(n) for n in header[1:]), len(raw) - 4 * (axes + 1)
    if found != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path}: the header says {shape}, but {found} bytes follow")
    return np.frombuffer(raw, dtype=np.uint8, offset=4 * (axes + 1)).reshape(shape)


def load_mnist() -> ImageSet:
    """The 60,000 training images, split 9:1 into train and val by data/splits/mnist.csv, and the 10,000 test images.

    Returns:
        images (70000, 1, 28, 28), in the order of the files; ids "train/00000" …, "test/00000" ….

    Raises:
        FileNotFoundError: the files are in none of the places.
        ValueError: a damaged file, or counts that do not fit each other or the split file.
    """
    paths, provenance = store.locate("mnist")
    images, labels, ids = [], [], []
    for part, stem in FILES.items():
        images.append(read_idx(paths[f"MNIST/raw/{stem}-images-idx3-ubyte.gz"], 3))
        labels.append(read_idx(paths[f"MNIST/raw/{stem}-labels-idx1-ubyte.gz"], 1))
        if len(images[-1]) != len(labels[-1]) or images[-1].shape[1:] != (28, 28) or labels[-1].max(initial=0) > 9:
            raise ValueError(
                f"MNIST {part}: images {images[-1].shape} and labels {labels[-1].shape} (largest label "
                f"{labels[-1].max(initial=0)}) do not fit; expected (N, 28, 28), (N,) and labels 0 … 9"
            )
        ids += [f"{part}/{i:05d}" for i in range(len(labels[-1]))]
    return ImageSet(
        name="mnist",
        pixels=torch.from_numpy(np.concatenate(images)[:, None]),
        labels=torch.from_numpy(np.concatenate(labels).astype(np.int64)),
        split=read_split("mnist", ids),
        ids=np.array(ids),
        class_names=tuple("0123456789"),
        provenance=provenance,
    )
