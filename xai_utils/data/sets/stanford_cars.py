"""Twenty models of the Stanford Cars, cropped to the car: one of the sets paper 4 tried (Krause et al. 2013)."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import numpy as np
import torch
from PIL import Image
from scipy.io import loadmat

from xai_utils.data import store
from xai_utils.data.archive import (
    as_jpeg,
    check_size,
    in_turns,
    index_of,
    opened_image,
    read_image,
    read_index,
    read_table,
    shrunk,
)
from xai_utils.data.imageset import ImageSet, read_split

REGISTERED = "stanford_cars"
ARCHIVE = "stanford_cars_subset.zip"
CLASSES = (
    "AM General Hummer SUV 2000",
    "Audi A5 Coupe 2012",
    "Audi S6 Sedan 2011",
    "BMW 3 Series Wagon 2012",
    "BMW Z4 Convertible 2012",
    "Cadillac SRX SUV 2012",
    "Chevrolet Sonic Sedan 2012",
    "Chevrolet Silverado 1500 Extended Cab 2012",
    "Daewoo Nubira Wagon 2002",
    "Dodge Dakota Crew Cab 2010",
    "Ferrari FF Coupe 2012",
    "Ford Expedition EL SUV 2009",
    "GMC Terrain SUV 2012",
    "Honda Odyssey Minivan 2012",
    "Hyundai Genesis Sedan 2012",
    "Jeep Liberty SUV 2012",
    "McLaren MP4-12C Coupe 2012",
    "Nissan Leaf Hatchback 2012",
    "Spyker C8 Convertible 2009",
    "Toyota 4Runner SUV 2012",
)


def load_stanford_cars(*, size: int = 96) -> ImageSet:
    """The 862 pictures of 20 models, split in data/splits/stanford_cars.csv.

    The test part is the archive's own, 10 pictures a model. Of the archive's 31 to 36 training pictures a model, the
    six first in the order of the sha256 of `0/<id>` (0 is the seed) are val; so 542 are left to train on.

    Every picture is cropped to the car, 78 to 320 pixels wide and 44 to 316 high, from 0.9 to 3.6 times as wide as
    high: seen from the front or from the side. It is stretched to a square (bilinear with antialiasing), so that the
    car fills it and all share one composition. Inside a margin nearly half of the square would be empty at the median
    ratio of 1.8, and the margin's edge would be the sharpest line in it. Little is lost: the ratio tells the direction
    of the view, not the model (a random forest that sees it alone has an accuracy of 0.05 on the test pictures, which
    is chance; 0.10 with width and height).

    The archive's colours have red and blue exchanged (rear lights are blue, skies orange), in all pictures; they are
    exchanged back here.

    Args:
        size: height and width in pixels, at least 32.

    Returns:
        images (862, 3, size, size), no masks, no groups; ids "00/00163" …, which are class and original file name; the
        classes take turns in the order of the archive.

    Raises:
        FileNotFoundError: the archive is in none of the places.
        ValueError: size is too small or no int; a damaged archive; an image that cannot be read, or is no 8-bit colour;
            a split file that does not name every image once.
    """
    check_size(size)
    paths, provenance = store.locate(REGISTERED)
    with zipfile.ZipFile(paths[ARCHIVE]) as archive:
        rows = in_turns(archive, read_index(archive, "file", "class_name"), "class_name", CLASSES)
        pixels = np.empty((len(rows), size, size, 3), np.uint8)
        for number, row in enumerate(rows):
            pixels[number] = read_image(archive, row["file"], "RGB").resize((size, size), Image.Resampling.BILINEAR)
    labels = [CLASSES.index(row["class_name"]) for row in rows]
    ids = [f"{label:02d}/{PurePosixPath(row['file']).stem}" for label, row in zip(labels, rows)]
    red_first = pixels[..., ::-1].transpose(0, 3, 1, 2).copy()
    return ImageSet(
        name="stanford_cars",
        pixels=torch.from_numpy(red_first),
        labels=torch.tensor(labels),
        split=read_split(REGISTERED, ids),
        ids=np.array(ids),
        class_names=CLASSES,
        provenance=provenance,
    )


# --- recipe


def build_stanford_cars(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The prepared archive's files from a cropped copy of the training images: made smaller, coded again.

    ValueError if the authors' devkit gives a picture another class than data/tables/stanford_cars.csv.
    """
    names, devkit = _devkit(files)
    for row in read_table(REGISTERED):
        class_id = devkit[row["orig_file"]]
        if row["class_id_original"] != str(class_id) or row["class_name"] != names[class_id - 1]:
            raise ValueError(f"{row['orig_file']} is of class {class_id} in the devkit, not {row['class_id_original']}")
        yield row["file"], as_jpeg(shrunk(opened_image(files[f"cars_train/{row['orig_file']}"]), 320), 88)
    yield "index.csv", index_of(REGISTERED)


def _devkit(files: Mapping[str, bytes]) -> tuple[list[str], dict[str, int]]:
    """Names of the 196 classes, and the number (from 1) of each training image's class."""
    meta, annotations = (loadmat(io.BytesIO(files[f"devkit/cars_{part}.mat"])) for part in ("meta", "train_annos"))
    names = [str(name[0]) for name in meta["class_names"][0]]
    return names, {str(row["fname"][0]): int(row["class"][0, 0]) for row in annotations["annotations"][0]}
