"""Magnetic tiles photographed for surface defects, with masks: paper 3's public stand-in (Huang, Qiu, Yuan 2020)."""

import zipfile
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from PIL import Image

from xai_utils.data import store
from xai_utils.data.archive import (
    as_png,
    binarised,
    check_same_size,
    check_size,
    check_undivided,
    in_turns,
    index_of,
    read_image,
    read_index,
    read_table,
)
from xai_utils.data.imageset import ImageSet, read_split

ARCHIVE = "magnetic_tile_defects.zip"
CLASSES = ("MT_Blowhole", "MT_Break", "MT_Crack", "MT_Fray", "MT_Free", "MT_Uneven")  # MT_Free: no defect


def load_magnetic_tiles(*, size: int = 128) -> ImageSet:
    """The 1,344 images and masks, split 60 / 20 / 20 by tile group in data/splits/magnetic_tiles.csv.

    The images are 103 to 632 pixels wide and 222 to 403 high. Each is scaled until its longer side has `size` pixels
    (bilinear with antialiasing), so its aspect ratio is kept, and laid in the middle of a square of its own mean grey:
    black or repeated borders would put edges and streaks there that look like defects. The width of the margin still
    tells the shape of the tile, and the class can be guessed from it: a random forest that sees nothing but width /
    height has a balanced accuracy of 0.37 on the test images (chance 0.17), and 0.47 with width and height.

    A mask goes the same way; a pixel that is more than half inside belongs to the defect. All masks of MT_Free are
    empty, four of MT_Uneven are, and two more of MT_Uneven mark so few pixels that nothing is left of them. Below 128
    pixels other thin defects are lost, too: 3 of the 57 cracks at 96, and 17 at 64. So count the mask, and do not take
    it from the class.

    `groups` holds what must stay together: photographs of one tile, under up to six exposures, have close frame numbers
    (the number at the end of an id), and a group is a run of frame numbers with gaps of at most 60.

    Args:
        size: height and width in pixels, at least 32.

    Returns:
        images (1344, 1, size, size), masks, groups; ids "MT_Blowhole/exp1_num_108719" …; the classes take turns in the
        order of the archive, so that the first n images hold all of them.

    Raises:
        FileNotFoundError: the archive is in none of the places.
        ValueError: size is too small or no int; a damaged archive; an image without its mask, of another size than its
            mask, or not grey; a split file that does not name every image once, or that divides a group.
    """
    check_size(size)
    paths, provenance = store.locate("magnetic_tiles")
    with zipfile.ZipFile(paths[ARCHIVE]) as archive:
        rows = in_turns(archive, read_index(archive, "class", "id", "group"), "class", CLASSES)
        ids = [f"{row['class']}/{row['id']}" for row in rows]
        pixels = np.empty((len(ids), size, size), np.uint8)
        masks = np.empty(pixels.shape, bool)
        for row, name in enumerate(ids):
            image = read_image(archive, f"images/{name}.jpg", "L")
            mask = read_image(archive, f"masks/{name}.png", "L")
            check_same_size(archive, name, image, mask)
            pixels[row] = _squared(image, size, round(float(np.asarray(image).mean())))
            masks[row] = np.asarray(_squared(mask, size, 0)) > 127
    split, groups = read_split("magnetic_tiles", ids), np.array([row["group"] for row in rows])
    check_undivided("magnetic_tiles", split, groups, "tile group")
    return ImageSet(
        name="magnetic_tiles",
        pixels=torch.from_numpy(pixels[:, None]),
        labels=torch.tensor([CLASSES.index(row["class"]) for row in rows]),
        split=split,
        ids=np.array(ids),
        class_names=CLASSES,
        provenance=provenance,
        masks=torch.from_numpy(masks),
        groups=groups,
    )


def _squared(image: Image.Image, size: int, grey: int) -> Image.Image:
    """The image scaled to a longer side of `size`, in the middle of a square of one grey value."""
    width, height = (max(1, round(size * side / max(image.size))) for side in image.size)
    square = Image.new("L", (size, size), grey)
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    square.paste(scaled, ((size - width) // 2, (size - height) // 2))
    return square


# --- recipe


def build_magnetic_tiles(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The prepared archive's files from those of the authors' repository: photographs as they are, masks binarised."""
    for row in read_table("magnetic_tiles"):
        name, origin = f"{row['class']}/{row['id']}", f"{row['class']}/Imgs/{row['id']}"
        yield f"images/{name}.jpg", files[f"{origin}.jpg"]
        yield f"masks/{name}.png", as_png(binarised(files[f"{origin}.png"]))
    yield "index.csv", index_of("magnetic_tiles")
