"""Chest radiographs of children, normal or with pneumonia: paper 4's motivating example (Kermany et al. 2018)."""

import csv
import io
import zipfile
from itertools import chain, zip_longest
from pathlib import PurePosixPath

import numpy as np
import torch
from PIL import Image

from xai_utils.data import store
from xai_utils.data.imageset import SPLITS, ImageSet
from xai_utils.data.mnist import _read_split

REGISTERED = "chest_xray"  # in data/registry.yaml
ARCHIVE = "chest_xray_pediatric_subset.zip"
CLASSES = ("NORMAL", "PNEUMONIA")
_MODES = {"L": "8-bit grey", "RGB": "8-bit colour", "1": "black and white"}


def load_chest_xrays(*, size: int = 64) -> ImageSet:
    """The 800 frontal radiographs, 400 a class, split by patient in data/splits/chest_xray.csv.

    The test part is the archive's own, 100 images a class; it shares no patient with the rest. Of the archive's
    training images 60 a class are set apart as val: per class, patients in the order of the sha256 of `0/<patient>` (0
    is the seed), each with all images, as long as there are not more than 60. So 480 images are left to train on.

    The images are 267 to 320 pixels wide and 101 to 320 high, nearly all wider than high, and those with pneumonia
    wider (width / height 1.51, normal ones 1.21; medians). The whole image is stretched to a square (bilinear with
    antialiasing), so its aspect ratio is lost: a margin would tell the class by its width, and the central square cuts
    the lungs of the widest images. The ratio itself still shows in the shape of the body. See data/README.md for what
    gives the class away besides the lungs.

    `groups` holds the patients (677 of them; at most 3 images each). PNEUMONIA is bacterial or viral; both occur among
    the images of 37 patients, and they are one class here.

    Args:
        size: height and width in pixels, at least 32.

    Returns:
        images (800, 1, size, size), groups, no masks; ids "NORMAL/IM-0117-0001" …; the classes take turns in the order
        of the archive.

    Raises:
        FileNotFoundError: the archive is in none of the places.
        ValueError: size is too small or no int; a damaged archive; an image that cannot be read, or that is not grey; a
            split file that does not name every image once, or that divides a patient's images.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 32:
        raise ValueError(f"size is {size!r}, expected an int of at least 32")
    paths, provenance = store.locate(REGISTERED)
    with zipfile.ZipFile(paths[ARCHIVE]) as archive:
        rows = _in_turns(archive, _index(archive, "file", "class", "patient"), "class", CLASSES)
        ids = [f"{row['class']}/{PurePosixPath(row['file']).stem}" for row in rows]
        pixels = np.empty((len(rows), size, size), np.uint8)
        for number, row in enumerate(rows):
            pixels[number] = _image(archive, row["file"], "L").resize((size, size), Image.Resampling.BILINEAR)
    split_file = store.download_root() / "splits" / f"{REGISTERED}.csv"
    split, groups = _read_split(split_file, ids), np.array([row["patient"] for row in rows])
    if divided := [patient for patient in sorted(set(groups)) if len(set(split[groups == patient])) > 1]:
        raise ValueError(
            f"{split_file} divides the images of {len(divided)} patients, {', '.join(divided[:3])} among them; put "
            f"each patient into one of {', '.join(SPLITS)}"
        )
    return ImageSet(
        name="chest_xrays",
        images=torch.from_numpy(pixels[:, None]).float().div_(255),
        labels=torch.tensor([CLASSES.index(row["class"]) for row in rows]),
        split=split,
        ids=np.array(ids),
        class_names=CLASSES,
        provenance=provenance,
        groups=groups,
    )


def _index(archive: zipfile.ZipFile, *columns: str) -> list[dict[str, str]]:
    """Rows of index.csv. ValueError if it is missing or lacks one of the columns."""
    try:
        table = csv.DictReader(io.StringIO(archive.read("index.csv").decode()))
    except KeyError as error:
        raise ValueError(f"{archive.filename}: index.csv cannot be read: {error}") from error
    if lacking := [name for name in columns if name not in (table.fieldnames or ())]:
        raise ValueError(f"{archive.filename}: index.csv lacks the column {', '.join(lacking)}")
    return list(table)


def _in_turns(
    archive: zipfile.ZipFile, rows: list[dict[str, str]], column: str, classes: tuple[str, ...]
) -> list[dict[str, str]]:
    """The rows, the classes in turn, each in its order. ValueError for a class that is none of them."""
    if unknown := sorted({row[column] for row in rows} - set(classes)):
        raise ValueError(f"{archive.filename}: index.csv has the class {unknown[0]!r}, expected {', '.join(classes)}")
    turns = zip_longest(*([row for row in rows if row[column] == name] for name in classes))
    return [row for row in chain.from_iterable(turns) if row]


def _image(archive: zipfile.ZipFile, member: str, mode: str) -> Image.Image:
    """One image of the archive. ValueError names it if it is missing, damaged or of another mode (Pillow's name)."""
    try:
        image = Image.open(io.BytesIO(archive.read(member)))
        image.load()
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{archive.filename}: {member} cannot be read: {error}") from error
    if image.mode != mode:
        raise ValueError(f"{archive.filename}: {member} has mode {image.mode}, expected {_MODES[mode]} ({mode})")
    return image
