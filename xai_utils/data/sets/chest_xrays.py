"""Chest radiographs of children, normal or with pneumonia: paper 4's motivating example (Kermany et al. 2018)."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import numpy as np
import torch
from PIL import Image

from xai_utils.data import store
from xai_utils.data.archive import (
    as_jpeg,
    check_size,
    check_undivided,
    in_turns,
    index_of,
    opened_image,
    read_image,
    read_index,
    read_table,
    shrunk,
)
from xai_utils.data.imageset import ImageSet, read_split

REGISTERED = "chest_xray"  # in data/registry.yaml
ARCHIVE = "chest_xray_pediatric_subset.zip"
CLASSES = ("NORMAL", "PNEUMONIA")


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
    check_size(size)
    paths, provenance = store.locate(REGISTERED)
    with zipfile.ZipFile(paths[ARCHIVE]) as archive:
        rows = in_turns(archive, read_index(archive, "file", "class", "patient"), "class", CLASSES)
        ids = [f"{row['class']}/{PurePosixPath(row['file']).stem}" for row in rows]
        pixels = np.empty((len(rows), size, size), np.uint8)
        for number, row in enumerate(rows):
            pixels[number] = read_image(archive, row["file"], "L").resize((size, size), Image.Resampling.BILINEAR)
    split, groups = read_split(REGISTERED, ids), np.array([row["patient"] for row in rows])
    check_undivided(REGISTERED, split, groups, "patient")
    return ImageSet(
        name="chest_xrays",
        pixels=torch.from_numpy(pixels[:, None]),
        labels=torch.tensor([CLASSES.index(row["class"]) for row in rows]),
        split=split,
        ids=np.array(ids),
        class_names=CLASSES,
        provenance=provenance,
        groups=groups,
    )


# --- recipe


def build_chest_xray(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The prepared archive's files from the training part of the published set: grey, made smaller, coded again."""
    for row in read_table(REGISTERED):
        image = opened_image(files[f"train/{row['class']}/{PurePosixPath(row['file']).stem}.jpeg"])
        yield row["file"], as_jpeg(shrunk(image.convert("L"), 320), 90)
    yield "index.csv", index_of(REGISTERED)
