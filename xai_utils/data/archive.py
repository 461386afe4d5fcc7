"""Zip archives of images with an index.csv: what their loaders, and the recipes that build them, have in common."""

import csv
import io
import zipfile
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from xai_utils.data import pictures, store
from xai_utils.data.imageset import SPLITS, split_file

_MODES = {"L": "8-bit grey", "RGB": "8-bit colour", "1": "black and white"}


def check_size(size: int) -> None:
    """ValueError unless `size`, the side of the images that a loader returns, is an int of at least 32."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 32:
        raise ValueError(f"size is {size!r}, expected an int of at least 32")


def check_undivided(name: str, split: np.ndarray, groups: np.ndarray, kind: str) -> None:
    """ValueError if data/splits/<name>.csv divides the images of a group (N,), a "patient" say, between splits (N,)."""
    if divided := [group for group in sorted(set(groups)) if len(set(split[groups == group])) > 1]:
        raise ValueError(
            f"{split_file(name)} divides the images of {len(divided)} {kind}s, {', '.join(divided[:3])} among them; "
            f"put each {kind} into one of {', '.join(SPLITS)}"
        )


def read_index(archive: zipfile.ZipFile, *columns: str) -> list[dict[str, str]]:
    """Rows of index.csv. ValueError if it is missing or lacks one of the columns."""
    try:
        table = csv.DictReader(io.StringIO(archive.read("index.csv").decode()))
    except KeyError as error:
        raise ValueError(f"{archive.filename}: index.csv cannot be read: {error}") from error
    if lacking := [name for name in columns if name not in (table.fieldnames or ())]:
        raise ValueError(f"{archive.filename}: index.csv lacks the column {', '.join(lacking)}")
    return list(table)


def in_turns(
    archive: zipfile.ZipFile, rows: list[dict[str, str]], column: str, classes: tuple[str, ...]
) -> list[dict[str, str]]:
    """The rows, the classes in turn, each in its order. ValueError for a class that is none of them."""
    if unknown := sorted({row[column] for row in rows} - set(classes)):
        raise ValueError(f"{archive.filename}: index.csv has the class {unknown[0]!r}, expected {', '.join(classes)}")
    turns = zip_longest(*([row for row in rows if row[column] == name] for name in classes))
    return [row for row in chain.from_iterable(turns) if row]


def read_image(archive: zipfile.ZipFile, member: str, mode: str) -> Image.Image:
    """One image of the archive. ValueError names it if it is missing, damaged or of another mode (Pillow's name)."""
    try:
        image = pictures.opened(archive.read(member))
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{archive.filename}: {member} cannot be read: {error}") from error
    if image.mode != mode:
        raise ValueError(f"{archive.filename}: {member} has mode {image.mode}, expected {_MODES[mode]} ({mode})")
    return image


def check_same_size(archive: zipfile.ZipFile, name: str, image: Image.Image, mask: Image.Image) -> None:
    """ValueError unless an image of the archive and its mask have the same width and height."""
    if image.size != mask.size:
        raise ValueError(
            f"{archive.filename}: {name} has {image.size} pixels, its mask {mask.size}; expected the same size (width, "
            "height)"
        )


# --- recipes


def read_table(name: str) -> list[dict[str, str]]:
    """Rows of data/tables/<name>.csv: what was drawn or chosen when the set was prepared."""
    return list(csv.DictReader(io.StringIO(_table(name).read_text(encoding="utf-8"))))


def index_of(name: str) -> bytes:
    """The index.csv of a set's archive, which is data/tables/<name>.csv."""
    return _table(name).read_text(encoding="utf-8").encode()


def _table(name: str) -> Path:
    return store.download_root() / "tables" / f"{name}.csv"


def opened_image(data: bytes) -> Image.Image:
    """An image of an origin, whose bytes were checked before."""
    return pictures.opened(data)


def as_png(image: Image.Image | np.ndarray) -> bytes:
    """An image, or an array (H, W) of uint8, as the prepared sets store masks: PNG, compressed as far as it goes."""
    return _encoded(image if isinstance(image, Image.Image) else Image.fromarray(image), "PNG", optimize=True)


def as_jpeg(image: Image.Image, quality: int, *, optimize: bool = True) -> bytes:
    """An image as the prepared sets store photographs: JPEG, by default with Huffman tables made for it."""
    return _encoded(image, "JPEG", quality=quality, optimize=optimize)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def binarised(data: bytes) -> np.ndarray:
    """A mask of an origin as (H, W) uint8 of 0 and 255: 255 where its grey level is 128 or more."""
    return np.where(np.asarray(opened_image(data).convert("L")) >= 128, 255, 0).astype(np.uint8)


def shrunk(image: Image.Image, longest: int) -> Image.Image:
    """The image with a longer side of at most `longest` pixels (Lanczos), aspect ratio kept; as it is if smaller."""
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    return image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)
