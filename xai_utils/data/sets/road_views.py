"""Views through a windscreen of Brazilian roads with and without a pothole, with masks (Passos et al. 2020)."""

import zipfile

import numpy as np
import torch
from PIL import Image

from xai_utils.data import store
from xai_utils.data.archive import check_same_size, check_size, check_undivided, in_turns, read_image, read_index
from xai_utils.data.imageset import ImageSet, read_split

REGISTERED = "road_cracks"  # in data/registry.yaml
ARCHIVE = "brazil_road_cracks.zip"
CLASSES = ("no pothole", "pothole")
WATERMARK = (864, 12, 1012, 60)  # left, top, right, bottom of the letters "DNIT", in pixels of the published images


def load_road_views(*, size: int = 128, watermark: bool = False) -> ImageSet:
    """The 838 views, 252 of them with a pothole, split by road segment in data/splits/road_views.csv.

    All share one composition, the lane narrowing to the horizon at the upper edge. All show a crack, too, so the two
    classes differ by the pothole alone: a picture is "pothole" if its pothole mask has a pixel. The mask is that
    pothole, empty for "no pothole".

    The pictures are 1024 pixels wide and 640 or 630 high. The whole picture is stretched to a square (bilinear with
    antialiasing), and its mask with it; a pixel more than half inside belongs to the pothole. Potholes are small, 0.3 %
    of the picture at the median; at 96 pixels a side a part of every one is left, at 64 two masks become empty.

    The letters "DNIT" are printed through the upper right corner of every picture, always at the same place, over the
    verge. As they are everywhere they do not tell the classes apart, but they are the same sharp feature in all
    pictures, on which attention may settle: unless `watermark`, their rectangle is painted in its own mean colour.

    `groups` holds the 22 road segments; frames are 5 m apart, so neighbours look alike, and no segment is divided
    between splits. The splits differ: see data/README.md, also for what gives the class away besides the pothole.

    Args:
        size: height and width in pixels, at least 32.
        watermark: leave the letters as they are.

    Returns:
        images (838, 3, size, size), masks, groups; ids "1008367_RS_386_386RS289112_32760" …; the classes take turns in
        the order of the archive, until there are no more potholes.

    Raises:
        FileNotFoundError: the archive is in none of the places.
        ValueError: size is too small or no int; a damaged archive; an image or mask that is missing, cannot be read, or
            is not of the other's size; a split file that does not name every image once, or that divides a segment.
    """
    check_size(size)
    paths, provenance = store.locate(REGISTERED)
    with zipfile.ZipFile(paths[ARCHIVE]) as archive:
        rows = read_index(archive, "id", "road_segment")
        whole = {row["id"]: read_image(archive, f"masks/pothole/{row['id']}.png", "1") for row in rows}
        for row in rows:
            row["class"] = CLASSES[whole[row["id"]].getbbox() is not None]
        rows = in_turns(archive, rows, "class", CLASSES)
        pixels = np.empty((len(rows), size, size, 3), np.uint8)
        masks = np.empty(pixels.shape[:3], bool)
        for number, row in enumerate(rows):
            image, mask = read_image(archive, f"images/{row['id']}.jpg", "RGB"), whole[row["id"]]
            check_same_size(archive, row["id"], image, mask)
            if not watermark:
                _blank(image)
            pixels[number] = image.resize((size, size), Image.Resampling.BILINEAR)
            masks[number] = np.asarray(mask.convert("L").resize((size, size), Image.Resampling.BILINEAR)) > 127
    ids, groups = [row["id"] for row in rows], np.array([row["road_segment"] for row in rows])
    split = read_split("road_views", ids)
    check_undivided("road_views", split, groups, "road segment")
    return ImageSet(
        name="road_views",
        pixels=torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()),
        labels=torch.tensor([CLASSES.index(row["class"]) for row in rows]),
        split=split,
        ids=np.array(ids),
        class_names=CLASSES,
        provenance=provenance,
        masks=torch.from_numpy(masks),
        groups=groups,
    )


def _blank(image: Image.Image) -> None:
    """Paint the letters' rectangle in its own mean colour."""
    colour = np.asarray(image.crop(WATERMARK)).mean((0, 1))
    image.paste(tuple(int(level) for level in colour.round()), WATERMARK)
