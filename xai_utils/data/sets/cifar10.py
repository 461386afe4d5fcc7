"""CIFAR-10, the first 1,017 images of each batch, and boxes around 100 of its cats and dogs (Krizhevsky 2009)."""

import csv
import io
import pickle
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xai_utils.data import store
from xai_utils.data.imageset import ImageSet, read_split

ARCHIVE = "cifar10_lossless_subset.npz"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
EACH = 1017  # images taken of each of the authors' batches
_COLUMNS = ("id", "left", "top", "right", "bottom")


def load_cifar10(*, classes: Sequence[str] = (), boxes: bool = False) -> ImageSet:
    """The 5,085 training images, 500 of them set apart as val by data/splits/cifar10.csv, and the 1,017 test images.

    Of each class the 50 training images first in the order of the sha256 of `0/<id>` (0 is the seed) are val.

    Args:
        classes: names out of `CLASSES`; other images are left out, and label i is `classes[i]`. Empty: all ten.
        boxes: masks from `read_boxes`: True inside the box of the 50 cats and 50 dogs of the test part that have one,
            empty for every other image, whatever it shows. So count the mask; empty does not mean "no object".

    Returns:
        images (N, 3, 32, 32), in the order of the file; ids "train/00000" …, "test/00000" … (part and position in it).

    Raises:
        FileNotFoundError: the file is in none of the places.
        ValueError: unknown or repeated classes; a damaged file, or arrays that do not fit each other, the split file or
            the boxes. TypeError: classes is one string.
    """
    if isinstance(classes, str):
        raise TypeError(f"classes is the string {classes!r}, expected a sequence of names, such as ({classes!r},)")
    kept = tuple(classes) or CLASSES
    if bad := [name for name in kept if name not in CLASSES or kept.count(name) > 1]:
        raise ValueError(f"classes has {bad[0]!r}, expected different ones of {', '.join(CLASSES)}")
    paths, provenance = store.locate("cifar10")
    arrays = _arrays(paths[ARCHIVE])
    pixels, label = (np.concatenate([arrays[f"{axis}_{part}"] for part in ("train", "test")]) for axis in "xy")
    ids = [f"{part}/{number:05d}" for part in ("train", "test") for number in range(len(arrays[f"y_{part}"]))]
    split = read_split("cifar10", ids)
    masks = None
    if boxes:
        masks, number = torch.zeros(len(ids), SIDE, SIDE, dtype=torch.bool), {name: i for i, name in enumerate(ids)}
        found = read_boxes()
        if unknown := [name for name in found if name not in number]:
            raise ValueError(f"{_box_file()} has the id {unknown[0]!r}, which is none of the {len(ids)} images")
        for name, (left, top, right, bottom) in found.items():
            masks[number[name], top:bottom, left:right] = True
    whole = ImageSet(
        name="cifar10",
        pixels=torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()),
        labels=torch.from_numpy(label.astype(np.int64)),
        split=split,
        ids=np.array(ids),
        class_names=CLASSES,
        provenance=provenance,
        masks=masks,
    )
    if kept == CLASSES:
        return whole
    place = np.array([kept.index(name) if name in kept else -1 for name in CLASSES])[label]
    some, rows = whole.take(np.flatnonzero(place >= 0)), place[place >= 0]
    return ImageSet(**{**vars(some), "labels": torch.from_numpy(rows.astype(np.int64)), "class_names": kept})


def read_boxes() -> dict[str, tuple[int, int, int, int]]:
    """Boxes of data/boxes/cifar10_cats_dogs.csv: id → left, top, right, bottom in pixels, right and bottom not in it.

    The first 50 cats and the first 50 dogs of the test part, each in a tight box around all of the animal that can be
    seen; two animals of the class share one box. Drawn by eye by one annotator on enlargements, before any map was
    seen. The animals are large: the boxes take two thirds of the picture at the mean, and two of them all of it.

    Raises:
        ValueError: other columns, no integers, a repeated id, or a box that is empty or leaves the picture.
    """
    path, found = _box_file(), {}
    with path.open(newline="", encoding="ascii") as stream:
        head, *rows = list(csv.reader(stream)) or [[]]
    if tuple(head) != _COLUMNS:
        raise ValueError(f"{path} has the columns {', '.join(head)}; expected {', '.join(_COLUMNS)}")
    for row in rows:
        name, *edges = row
        if len(edges) != 4 or name in found or not all(edge.isdigit() for edge in edges):
            raise ValueError(f"{path}: the line {','.join(row)!r} is not a new id and four whole numbers")
        left, top, right, bottom = box = tuple(map(int, edges))
        if not (left < right <= SIDE and top < bottom <= SIDE):
            raise ValueError(f"{path}: the box of {name}, {box}, is empty or leaves the {SIDE}×{SIDE} picture")
        found[name] = box
    return found


def _box_file() -> Path:
    return store.download_root() / "boxes" / "cifar10_cats_dogs.csv"


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file. ValueError if one is missing, has another form, or could only be unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x_train", "y_train", "x_test", "y_test", "class_names")}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not the expected file of arrays: {error}") from error
    if tuple(arrays["class_names"].tolist()) != CLASSES:
        raise ValueError(f"{path} has the classes {arrays['class_names'].tolist()}, expected {list(CLASSES)}")
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        fits = x.shape == (*y.shape, SIDE, SIDE, 3) and y.ndim == 1 and x.dtype == y.dtype == np.uint8
        if not fits or y.max(initial=0) >= len(CLASSES):
            raise ValueError(
                f"{path}, {part}: images {x.shape} {x.dtype} and labels {y.shape} {y.dtype} do not fit; expected "
                f"(N, {SIDE}, {SIDE}, 3) and (N,) of uint8, labels 0 … {len(CLASSES) - 1}"
            )
    return arrays


# --- recipe


def build_cifar10(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The arrays of the prepared file from the authors' batches: the first 1,017 images and labels of each."""
    parts = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
    for part, names in parts.items():
        batches = [_read_batch(files[name]) for name in names]
        pixels = np.concatenate([batch[b"data"][:EACH] for batch in batches])
        images = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        labels = np.concatenate([np.array(batch[b"labels"][:EACH], np.uint8) for batch in batches])
        yield f"x_{part}.npy", _as_npy(images)
        yield f"y_{part}.npy", _as_npy(labels)
    yield "class_names.npy", _as_npy(np.array(CLASSES))


def _as_npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


class _Plain(pickle.Unpickler):
    """Reads containers, numbers, strings and arrays; refuses everything else that a pickle may call."""

    def find_class(self, module: str, name: str) -> object:
        """The few functions that rebuild a NumPy array."""
        allowed = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module not in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") or name not in allowed:
            raise pickle.UnpicklingError(f"it calls {module}.{name}")
        return allowed[name]


def _read_batch(data: bytes) -> dict[bytes, Any]:
    """A batch of the authors: b"data" (N, 3072) uint8 and b"labels". ValueError if it is something else."""
    try:
        batch = _Plain(io.BytesIO(data), encoding="bytes").load()
        if batch[b"data"].dtype == np.uint8 and batch[b"data"].shape == (len(batch[b"labels"]), 3 * SIDE * SIDE):
            return batch
        fault = f"its data are {batch[b'data'].shape} {batch[b'data'].dtype}"
    except Exception as error:  # a pickle may raise anything
        fault = f"{type(error).__name__}: {error}"
    raise ValueError(f"not a batch of CIFAR-10: {fault}")
