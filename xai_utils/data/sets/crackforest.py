"""CrackForest (CFD): close-ups of pavement with masks, a foreign test set for road cracks (Shi et al. 2016).

The authors allow non-commercial research only. So numbers may be published; no image, crop or map made of these pixels
is committed or shown in a published notebook.
"""

import io
import zipfile
from collections.abc import Iterator, Mapping
from itertools import groupby

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from scipy.io import loadmat

from xai_utils.data import store
from xai_utils.data.archive import as_png, check_same_size, check_size, index_of, read_image, read_index, read_table
from xai_utils.data.crops import CLASSES, Source, cut, draw_pairs
from xai_utils.data.imageset import ImageSet

ARCHIVE = "crackforest_cfd.zip"
RULE = {  # as in road_cracks.yaml; fixed before any model saw the set
    "seed": 0,
    "side": (64, 160),
    "margin": 0.1,
    "crack_share": 0.005,
    "road_share": 1.0,
    "guard": 8,
    "watermark": (0, 0, 0, 0),
    "overlap": 0.3,
    "per_image": 12,
    "brightness": 12.0,
}


def load_crackforest(*, size: int = 112, grey: bool = True) -> ImageSet:
    """Crack and no-crack crops of the 118 images with masks, all of them in the split "test".

    Crops are chosen and paired as those of `road_cracks.load_road_cracks`, by the rule above: squares of 64 … 160
    pixels along the connected parts of the mask, each with a partner of the same place and size in another image,
    without crack pixels, of the same mean grey to within 12 of 255 (exposure differs more here than on the Brazilian
    roads). No road segments are known: `groups` are the images.

    The authors mark further things in 22 images and do not say what they are: a crop with such a pixel is left out.
    The 37 images that have no mask are not used.

    Args:
        size: height and width in pixels, at least 32.
        grey: one channel; otherwise three.

    Returns:
        images (N, 1 or 3, size, size), masks (empty for no_crack), groups; ids "<image>/<left>_<top>_<side>"; row 2k
        is a crack crop and row 2k + 1 its partner.

    Raises:
        FileNotFoundError: the archive is in none of the places.
        ValueError: size is too small or no int; a damaged archive; an image without its mask, or of another size.
    """
    check_size(size)
    paths, provenance = store.locate("crackforest")
    with zipfile.ZipFile(paths[ARCHIVE]) as archive:
        rows = read_index(archive, "id", "has_mask")
        pictures = {row["id"]: _pictures(archive, row["id"]) for row in rows if row["has_mask"] == "1"}
    crops = draw_pairs([_source(name, *both) for name, both in pictures.items()], RULE)
    pixels = np.empty((len(crops), 1 if grey else 3, size, size), np.uint8)
    masks = np.empty((len(crops), size, size), bool)
    by_image = sorted(range(len(crops)), key=lambda row: crops[row].image)
    for name, same in groupby(by_image, key=lambda row: crops[row].image):
        picture = pictures[name][0].convert("L" if grey else "RGB")
        for row in same:
            pixels[row] = cut(picture, crops[row], size).reshape(size, size, -1).transpose(2, 0, 1)
            masks[row] = cut(pictures[name][1], crops[row], size) > 127
    return ImageSet(
        name="crackforest",
        pixels=torch.from_numpy(pixels),
        labels=torch.tensor([crop.label for crop in crops]),
        split=np.array(["test"] * len(crops)),
        ids=np.array([crop.id for crop in crops]),
        class_names=CLASSES,
        provenance=provenance,
        masks=torch.from_numpy(masks),
        groups=np.array([crop.image for crop in crops]),
    )


def _pictures(archive: zipfile.ZipFile, name: str) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Image (RGB), crack mask and mask of what is not explained (both L; the last is empty where there is none)."""
    image, mask = read_image(archive, f"images/{name}.jpg", "RGB"), read_image(archive, f"masks/{name}.png", "L")
    other = Image.new("L", image.size)
    if (member := f"masks_other/{name}.png") in archive.namelist():
        other = read_image(archive, member, "L")
    check_same_size(archive, f"image {name}", image, mask)
    check_same_size(archive, f"image {name}", image, other)
    return image, mask, other


def _source(name: str, image: Image.Image, mask: Image.Image, other: Image.Image) -> Source:
    crack = np.asarray(mask) > 127
    maps = {"crack": crack, "other": np.asarray(other) > 0, "road": np.ones_like(crack)}

    def boxes() -> list[tuple[int, int, int, int]]:
        parts = ndimage.find_objects(ndimage.label(crack, np.ones((3, 3)))[0])
        return [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in parts]

    return Source(name, "test", name, image.height, boxes, maps.__getitem__, lambda: np.asarray(image.convert("L")))


# --- recipe


def build_crackforest(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The prepared archive's files from the authors' repository: photographs as they are, masks from MATLAB's files.

    In the field Segmentation 2 is a crack; 3 and 4, which the authors do not explain, go to masks of their own.
    """
    for row in read_table("crackforest"):
        name, photograph = row["id"], files[f"image/{row['id']}.jpg"]
        if row["has_mask"] != "1":
            yield f"images_unlabelled/{name}.jpg", photograph
            continue
        yield f"images/{name}.jpg", photograph
        marks = loadmat(io.BytesIO(files[f"groundTruth/{name}.mat"]))["groundTruth"]["Segmentation"][0, 0]
        yield f"masks/{name}.png", as_png(np.where(marks == 2, 255, 0).astype(np.uint8))
        if (marks > 2).any():
            other = 128 * (marks == 3) + 255 * (marks == 4)
            yield f"masks_other/{name}.png", as_png(other.astype(np.uint8))
    yield "index.csv", index_of("crackforest")
