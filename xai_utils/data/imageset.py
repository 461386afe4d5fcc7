"""`ImageSet`, the form in which every data set reaches a model, and `load`, which reads one by name."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from xai_utils.data import store

OWN = ("folder", "target_folder")  # read your own images; they stand beside this file, the other families in sets/
FAMILIES = (*sorted(path.stem for path in Path(__file__).with_name("sets").glob("[!_]*.py")), *OWN)
SPLITS = ("train", "val", "test")
CYCLE = ("train", "train", "test", "train", "val", "train", "train", "test", "train", "train")  # 70 / 10 / 20


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with labels (or regression targets), split and ids; row i of every field belongs to one image."""

    name: str
    pixels: Tensor  # (N, C, H, W): uint8 as the files hold them, a quarter of the memory, or float32 in [0, 1]
    labels: Tensor  # (N,) int64 classes; or float32 targets of a regression, with class_names ()
    split: np.ndarray  # (N,) of "train" / "val" / "test"
    ids: np.ndarray  # (N,) str, unique
    class_names: tuple[str, ...]
    provenance: dict[str, str | int]  # as `store.locate` gives it; variant "embedded" or "own" where it does not
    masks: Tensor | None = None  # (N, H, W) bool: the true region
    groups: np.ndarray | None = None  # (N,) str: what images share (patient, tile, road segment)

    def __post_init__(self) -> None:
        """Refuse what no model should be fed with: wrong shape or type, values outside [0, 1] or non-finite."""
        n = len(self.labels)
        shape, whole = tuple(self.pixels.shape), self.pixels.dtype == torch.uint8
        if len(shape) != 4 or not (whole or self.pixels.dtype == torch.float32) or shape[0] != n:
            raise ValueError(
                f"{self.name}: pixels are {shape} {self.pixels.dtype}, not ({n}, C, H, W) uint8 or float32 in [0, 1]"
            )
        kind = torch.int64 if self.class_names else torch.float32
        if self.labels.dtype != kind or self.labels.ndim != 1 or self.split.shape != (n,) or self.ids.shape != (n,):
            raise ValueError(f"{self.name}: labels must be ({n},) {kind}, split and ids ({n},) strings")
        if n and not whole and not (self.pixels.min() >= 0 and self.pixels.max() <= 1):  # false for NaN, too
            raise ValueError(f"{self.name}: pixel values must be finite and in [0, 1]")
        if n and self.class_names and not (self.labels.min() >= 0 and self.labels.max() < len(self.class_names)):
            raise ValueError(f"{self.name}: labels must be in 0 … {len(self.class_names) - 1}")
        if not torch.isfinite(self.labels).all():
            raise ValueError(f"{self.name}: targets must be finite")
        size = (n, *shape[2:])
        if self.masks is not None and (self.masks.dtype != torch.bool or self.masks.shape != size):
            raise ValueError(f"{self.name}: masks are {tuple(self.masks.shape)} {self.masks.dtype}, not {size} bool")
        if self.groups is not None and self.groups.shape != (n,):
            raise ValueError(f"{self.name}: groups are {self.groups.shape}, not ({n},)")
        if not set(self.split.tolist()) <= set(SPLITS):
            raise ValueError(f"{self.name}: splits are {sorted(set(self.split.tolist()))}, expected {SPLITS}")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """(N, C, H, W) float32 in [0, 1]; made anew from 8-bit pixels each time, so take some images first."""
        return as_float(self.pixels)

    def subset(self, split: str) -> "ImageSet":
        """The images of one split, in their order. ValueError for an unknown split."""
        _known_split(split)
        return self.take(np.flatnonzero(self.split == split))

    def batches(self, change: Callable[[Tensor], Tensor] | None = None) -> "ImageBatches":
        """Images and labels as `training.fit` takes them: a batch of images becomes float32 when it is asked for.

        Args:
            change: what is done to each batch of images (N, C, H, W) float32, image by image: scaling, for one.
        """
        return ImageBatches(self.pixels, self.labels, change)

    def take(self, rows: Sequence[int] | np.ndarray | Tensor) -> "ImageSet":
        """The images of the given row numbers (K,), in that order; K may be 0 or 1."""
        rows = np.asarray(rows, dtype=np.int64)  # numpy would read a tensor of one row as a single number
        index = torch.from_numpy(rows)
        tensors = {"pixels": self.pixels, "labels": self.labels, "masks": self.masks}
        arrays = {"split": self.split, "ids": self.ids, "groups": self.groups}
        picked = {name: value[index] for name, value in tensors.items() if value is not None}
        picked |= {name: value[rows] for name, value in arrays.items() if value is not None}
        return replace(self, **picked)


class ImageBatches(Dataset):
    """The pictures and labels of an `ImageSet`, one row or several at a time: float32 images, labels.

    Args:
        pixels: (N, C, H, W) uint8, or float32 in [0, 1].
        labels: (N,).
        change: see `ImageSet.batches`.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, change: Callable[[Tensor], Tensor] | None = None) -> None:
        self.pixels, self.labels, self.change = pixels, labels, change

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels (B,) of the rows (B,)."""
        images = as_float(self.pixels[rows])
        return (images if self.change is None else self.change(images)), self.labels[rows]


def as_float(pixels: Tensor) -> Tensor:
    """Pixels as float32 in [0, 1]: 8-bit ones divided by 255."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def load(
    name: str, *, split: str | None = None, limit: int | Mapping[str, int] | None = None, **options: object
) -> ImageSet:
    """Read a data set. Never downloads: `python -m xai_utils.data fetch NAME` does.

    Args:
        name: one of `xai_utils.data.FAMILIES`; "folder" and "target_folder" read your own images.
        split: only this split.
        limit: keep the first n images of each split (int), or of the splits named in a mapping.
        **options: of the set's own loader, `load_<name>` of the module of that name.

    Raises:
        ValueError: unknown name, split or limit; a damaged file. TypeError: unknown option.
        FileNotFoundError: the set is not there; the text names every place and how to get it.
    """
    if name not in FAMILIES:
        known = store.registry()
        if name not in known:
            raise store.unknown_name(name, {*known, *FAMILIES})
        raise ValueError(f"data set {name!r} has no loader yet: it comes with the paper that uses the set")
    room = "xai_utils.data" if name in OWN else "xai_utils.data.sets"
    loader = getattr(import_module(f"{room}.{name}"), f"load_{name}")
    if wrong := sorted(set(options) - set(inspect.signature(loader).parameters)):
        allowed = ", ".join(["split", "limit", *inspect.signature(loader).parameters])
        raise TypeError(f"data set {name!r} has no option {', '.join(map(repr, wrong))}; its options: {allowed}")
    limits = _limits(limit)
    if split is not None:
        _known_split(split)
    images = loader(**options)
    wanted = (split,) if split else SPLITS
    if split or limits:
        rows = [np.flatnonzero(images.split == part)[: limits.get(part)] for part in wanted]
        images = images.take(np.sort(np.concatenate(rows)))
    return images


def _known_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}, expected one of {', '.join(SPLITS)}")


def _limits(limit: int | Mapping[str, int] | None) -> dict[str, int]:
    """`limit` as a mapping split → number of images."""
    limits = dict(limit) if isinstance(limit, Mapping) else {} if limit is None else dict.fromkeys(SPLITS, limit)
    for split, n in limits.items():
        _known_split(split)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"limit for {split} is {n!r}, expected an int of at least 1")
    return limits


def stratified_split(
    labels: Sequence[int], ids: Sequence[str], *, seed: int, cycle: Sequence[str] = CYCLE
) -> np.ndarray:
    """Split every class in the same proportions, by nothing but ids and seed.

    Within a class the ids are ordered by sha256("<seed>/<id>"), and the i-th gets cycle[i mod len(cycle)]. No random
    generator is involved, so the split is the same with every version and does not depend on the order of the rows.

    Returns:
        (N,) array of "train" / "val" / "test".
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed is {seed!r}, expected an int of at least 0")
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(f"{seed}/{ids[i]}".encode()).digest())
    place, out = dict.fromkeys(labels, 0), [""] * len(ids)
    for i in order:
        out[i] = cycle[place[labels[i]] % len(cycle)]
        place[labels[i]] += 1
    return np.array(out)


def split_file(name: str) -> Path:
    """The list data/splits/<name>.csv of the repository."""
    return store.download_root() / "splits" / f"{name}.csv"


def read_split(name: str, ids: Sequence[str]) -> np.ndarray:
    """Split of every id, from the lines id,split of data/splits/<name>.csv.

    Returns:
        (N,) array of "train" / "val" / "test", in the order of the ids.

    Raises:
        ValueError: the file does not name exactly these ids, once each.
    """
    path = split_file(name)
    head, *rows = path.read_text(encoding="ascii").splitlines()
    split = dict(row.split(",", 1) for row in rows)
    if head != "id,split" or len(rows) != len(split) or split.keys() != set(ids):
        odd = sorted(split.keys() ^ set(ids))[:3]
        raise ValueError(
            f"{path} must name each of the {len(ids)} images once (id,split); it has {len(rows)} rows; {odd=}"
        )
    return np.array([split[i] for i in ids])
