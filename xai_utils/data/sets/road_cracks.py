"""Crops of Brazilian roads with and without cracks, with masks: paper 5's public stand-in (Passos et al. 2020)."""

import csv
import hashlib
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor

from xai_utils.data import pictures, store
from xai_utils.data.archive import (
    as_jpeg,
    as_png,
    binarised,
    check_size,
    index_of,
    opened_image,
    read_index,
    read_table,
)
from xai_utils.data.crops import CLASSES, Crop, Source, cut, draw_pairs
from xai_utils.data.imageset import SPLITS, ImageSet
from xai_utils.data.voc import read_voc

ARCHIVE = "brazil_road_cracks.zip"
RULE = Path(__file__).with_name("road_cracks.yaml")
COLUMNS = ("id", "split", "class", "height", "brightness", "contrast")  # of data/splits/road_cracks.csv
SHORTCUTS = ("x", "y", "side", "height", "brightness")


def load_road_cracks(*, size: int = 112, grey: bool = True) -> ImageSet:
    """Crops along cracks and, for each, one crop of the same place and size in an image where no crack is there.

    The crops are listed in data/splits/road_cracks.csv, and follow from the archive by the rule in road_cracks.yaml
    (`draw_crops`). A crack crop lies on the annotated box: its side is the box's shorter side and a margin, kept to 64
    … 224 pixels, and a longer box is covered by as many squares side by side as it needs. Its partner is the crop at
    the same x, y and side of another image of the same format and split, with the same mean grey to within 3 of 255,
    that lies on the lane and has no crack or pothole in or near it; images of the same road segment come first. What
    finds no partner is left out. So neither place, size, sharpness (the factor of the resize) nor brightness tell the
    class: see `probe_shortcuts`. A crack crop varies more in grey than its partner; this is left as it is, because the
    crack itself does that.

    Every crop is on the lane for nine tenths and away from the mark "DNIT" in the upper right corner; outside the lane
    cracks are not annotated. No crop shows a pothole. The split is the archive's, by road segment: frames are 5 m apart
    and neighbours look alike.

    A crop is resized to size × size (bilinear with antialiasing), the mask of the cracks as well; a pixel that is more
    than half inside belongs to the crack. Strokes of the masks are about 4 pixels wide in the source image. At 112
    every crack crop keeps some of its mask; far below that thin strokes are lost, so count the mask, and do not take it
    from the class. Not every crack was annotated: a few no-crack crops show a faint one.

    Args:
        size: height and width in pixels, at least 32. At 112 a crop is enlarged by up to 1.75 or reduced by up to 2.
        grey: one channel (the JPEG's own luma); otherwise three.

    Returns:
        images (N, 1 or 3, size, size), masks (empty for no_crack), groups = road segments; ids are
        "<image>/<left>_<top>_<side>". Row 2k is a crack crop and row 2k + 1 its partner; within a split the pairs are
        in an order drawn by hash, so that the first n images hold both classes and all large segments.

    Raises:
        FileNotFoundError: the archive is in none of the places.
        ValueError: size is too small or no int; a damaged archive; an image without its masks; a list of crops that
            does not fit the archive.
    """
    check_size(size)
    paths, provenance = store.locate("road_cracks")
    crops = read_crops()
    pixels = np.empty((len(crops), 1 if grey else 3, size, size), np.uint8)
    masks = np.empty((len(crops), size, size), bool)
    with zipfile.ZipFile(paths[ARCHIVE]) as archive:
        index = _index(archive)
        by_image = sorted(range(len(crops)), key=lambda row: crops[row].image)
        for name, rows in groupby(by_image, key=lambda row: crops[row].image):
            if name not in index:
                raise ValueError(f"{_table()}: image {name!r} is not in {archive.filename}; restore the file")
            picture, cracks = _picture(archive, name, grey), _mask(archive, name, "crack")
            for row in rows:
                _check(crops[row], index[name], picture.size, cracks.size)
                pixels[row] = cut(picture, crops[row], size).reshape(size, size, -1).transpose(2, 0, 1)
                masks[row] = cut(cracks, crops[row], size) > 127
    labels = np.array([crop.label for crop in crops])
    wrong = np.flatnonzero(masks.any((1, 2)) & (labels == 0))
    if len(wrong):
        raise ValueError(
            f"{_table()}: no-crack crop {crops[wrong[0]].id} shows a crack, and {len(wrong) - 1} more; restore the file"
        )
    table_sum = hashlib.sha256(_table().read_bytes()).hexdigest()
    checksums = {ARCHIVE: provenance["sha256"], f"splits/{_table().name}": table_sum}
    return ImageSet(
        name="road_cracks",
        pixels=torch.from_numpy(pixels),
        labels=torch.from_numpy(labels),
        split=np.array([crop.split for crop in crops]),
        ids=np.array([crop.id for crop in crops]),
        class_names=CLASSES,
        provenance=provenance | {"sha256": store.sha256_of_lines(checksums)},
        masks=torch.from_numpy(masks),
        groups=np.array([index[crop.image]["road_segment"] for crop in crops]),
    )


def probe_shortcuts(columns: Sequence[str] = SHORTCUTS, *, seed: int = 0) -> float:
    """How well the class is guessed from what should not tell it: balanced accuracy on the test segments.

    A random forest of 300 trees, fitted on the training crops of data/splits/road_cracks.csv, that sees none of the
    pixels. 0.5 is chance. Mean grey counts as a shortcut (light, and how dark the road is), the standard deviation
    ("contrast") as content.

    Args:
        columns: of x, y (centre), side, height (of the source image), brightness, contrast.
        seed: of the forest.

    Raises:
        ValueError: an unknown column. FileNotFoundError: the list of crops is missing.
    """
    known = (*SHORTCUTS, "contrast")
    if not columns or set(columns) - set(known):
        raise ValueError(f"columns are {tuple(columns)}, expected one or more of {', '.join(known)}")
    crops = read_crops()
    values = {name: np.array([getattr(crop, name) for crop in crops], dtype=float) for name in known}
    for name in ("x", "y"):
        values[name] += values["side"] / 2
    features = np.stack([values[name] for name in columns], 1)
    labels, split = np.array([crop.label for crop in crops]), np.array([crop.split for crop in crops])
    forest = RandomForestClassifier(300, min_samples_leaf=5, random_state=seed)
    forest.fit(features[split == "train"], labels[split == "train"])
    return float(balanced_accuracy_score(labels[split == "test"], forest.predict(features[split == "test"])))


def crack_counts(masks: Tensor, *, gap: float = 0.1, least: int = 8) -> Tensor:
    """Number of separate cracks in each mask.

    Args:
        masks: (N, H, W) bool.
        gap: pieces no further apart than this share of the width are one crack: the masks of a crack are broken.
        least: pixels of a crack that counts.

    Returns:
        (N,) int64. ValueError for a gap that is negative or not finite, or `least` below 1.
    """
    if not 0 <= gap < np.inf or least < 1:
        raise ValueError(f"gap is {gap!r} and least {least!r}, expected a share of at least 0 and a number from 1 on")
    reach, counts = gap * masks.shape[-1] / 2, []
    for mask in masks.numpy():
        joined = mask | (ndimage.distance_transform_edt(~mask) <= reach) if mask.any() else mask
        pieces, _ = ndimage.label(joined, np.ones((3, 3)))
        counts.append(int((np.bincount(pieces[mask], minlength=1)[1:] >= least).sum()))
    return torch.tensor(counts, dtype=torch.int64)


# --- the list of crops


def read_crops() -> list[Crop]:
    """The rows of data/splits/road_cracks.csv. FileNotFoundError, or ValueError that names the line."""
    path, crops = _table(), []
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it lists the crops and belongs to the repository; restore it")
    with path.open(encoding="ascii", newline="") as stream:
        reader = csv.reader(stream)
        if (head := tuple(next(reader, ()))) != COLUMNS:
            raise ValueError(f"{path} has the columns {', '.join(head)}, expected {', '.join(COLUMNS)}")
        for line, row in enumerate(reader, 2):
            try:
                name, split, kind, height, brightness, contrast = row
                image, square = name.split("/")
                x, y, side = map(int, square.split("_"))
                label = CLASSES.index(kind)
                crop = Crop(image, x, y, side, split, label, int(height), float(brightness), float(contrast))
            except ValueError as error:
                raise ValueError(f"{path}, line {line}: {','.join(row)!r} is no crop: {error}") from error
            crops.append(crop)
    if len({crop.id for crop in crops}) != len(crops):
        raise ValueError(f"{path} lists a crop twice")
    return crops


def crops_as_csv(crops: Sequence[Crop]) -> str:
    """The text of data/splits/road_cracks.csv."""
    lines = [
        f"{crop.id},{crop.split},{CLASSES[crop.label]},{crop.height},{crop.brightness:.2f},{crop.contrast:.2f}\n"
        for crop in crops
    ]
    return "".join([",".join(COLUMNS) + "\n", *lines])


def draw_crops(archive: zipfile.ZipFile, *, splits: Sequence[str] = SPLITS) -> list[Crop]:
    """Choose the crops by the rule in road_cracks.yaml; `load_road_cracks` says what it does.

    No random generator is involved: where an order matters, crops are ordered by the sha256 of "<seed>/<id>". Greys are
    those of this machine's JPEG decoder; another one may choose another partner where two are equally near.

    Args:
        archive: brazil_road_cracks.zip.
        splits: only these.

    Returns:
        crack crop, partner, crack crop, partner …, one split after the other.
    """
    rule, index = yaml.safe_load(RULE.read_text(encoding="utf-8")), _index(archive)
    return [
        crop
        for part in splits
        for crop in draw_pairs([_source(archive, row) for row in index.values() if row["split"] == part], rule)
    ]


# --- the archive


def _table() -> Path:
    return store.download_root() / "splits" / "road_cracks.csv"


def _index(archive: zipfile.ZipFile) -> dict[str, dict[str, str]]:
    """Rows of index.csv (id, road_segment, split, width, height, …) by id."""
    return {row["id"]: row for row in read_index(archive, "id", "road_segment", "split")}


def _source(archive: zipfile.ZipFile, row: Mapping[str, str]) -> Source:
    name, kinds = row["id"], {"crack": "crack", "other": "pothole", "road": "lane"}
    notes = f"annotations/{name}.xml"
    return Source(
        name,
        row["split"],
        row["road_segment"],
        int(row["height"]),
        boxes=lambda: [box for kind, *box in read_voc(archive.read(notes), notes) if kind == "crack"],
        mask=lambda kind: np.asarray(_mask(archive, name, kinds[kind])) > 127,
        grey=lambda: np.asarray(_picture(archive, name, grey=True)),
    )


def _check(crop: Crop, row: Mapping[str, str], size: tuple[int, int], mask_size: tuple[int, int]) -> None:
    """ValueError if a crop does not fit the archive."""
    if size != mask_size:
        raise ValueError(f"{crop.image} has {size} pixels (width, height), its crack mask {mask_size}; expected equal")
    inside = 0 <= crop.x <= size[0] - crop.side and 0 <= crop.y <= size[1] - crop.side and crop.side > 0
    if not inside or crop.split != row["split"] or crop.height != size[1]:
        raise ValueError(
            f"{_table()}: crop {crop.id} ({crop.split}, image height {crop.height}) does not fit the archive, where "
            f"that image has {size} pixels (width, height) and is of {row['split']}; restore the file"
        )


def _opened(archive: zipfile.ZipFile, member: str) -> Image.Image:
    try:
        return pictures.head(archive.read(member))
    except (KeyError, OSError) as error:
        raise ValueError(f"{archive.filename}: {member} cannot be read: {error}") from error


def _picture(archive: zipfile.ZipFile, name: str, grey: bool) -> Image.Image:
    """A source image of mode L or RGB. ValueError names it."""
    image = _opened(archive, f"images/{name}.jpg")
    try:
        if grey:
            image.draft("L", image.size)  # the decoder leaves out the colours
        return image.convert("L" if grey else "RGB")
    except OSError as error:
        raise ValueError(f"{archive.filename}: images/{name}.jpg cannot be read: {error}") from error


def _mask(archive: zipfile.ZipFile, name: str, kind: str) -> Image.Image:
    """A mask of mode L, 0 and 255. ValueError names it."""
    try:
        return _opened(archive, f"masks/{kind}/{name}.png").convert("L")
    except OSError as error:
        raise ValueError(f"{archive.filename}: masks/{kind}/{name}.png cannot be read: {error}") from error


# --- recipe


def build_road_cracks(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The prepared archive's files from the authors' repository: photographs coded again, masks of one bit, boxes.

    The boxes were derived from the masks when the set was prepared; data/tables/road_cracks_boxes.csv lists them.
    """
    boxes = defaultdict(list)
    for row in read_table("road_cracks_boxes"):
        boxes[row["id"]].append(row)
    for row in read_table("road_cracks"):
        name, origin = row["id"], f"Dataset/{row['id']}/{row['id']}_"
        yield f"images/{name}.jpg", as_jpeg(opened_image(files[f"{origin}RAW.jpg"]), 77, optimize=False)
        for kind in ("crack", "pothole", "lane"):
            mask = Image.fromarray(binarised(files[f"{origin}{kind.upper()}.png"])).convert("1")
            yield f"masks/{kind}/{name}.png", as_png(mask)
        objects = "".join(_OBJECT.format_map(box) for box in boxes[name])
        yield f"annotations/{name}.xml", _ANNOTATION.format_map(row | {"objects": objects}).encode()
    yield "index.csv", index_of("road_cracks")


_ANNOTATION = (
    "<annotation><folder>images</folder><filename>{id}.jpg</filename><size><width>{width}</width>"
    "<height>{height}</height><depth>3</depth></size><segmented>0</segmented>{objects}</annotation>\n"
)
_OBJECT = (
    "<object><name>{class}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
    "<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
)
