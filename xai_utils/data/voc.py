"""Pascal VOC: images with boxes in XML files beside them."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from defusedxml import DefusedXmlException, ElementTree

from xai_utils.data.listing import listing
from xai_utils.data.pictures import SUFFIXES, upright_size

Box = tuple[str, int, int, int, int]  # class, left, top, right, bottom in pixels; right and bottom are outside


def read_voc(text: bytes, name: str) -> list[Box]:
    """The boxes of one Pascal VOC file. Entities and external references are refused, not followed.

    Args:
        text: the XML.
        name: of the file, for errors.

    Raises:
        ValueError: no XML, or one with entities; a box without class or with a side that is no number.
    """
    try:
        tree, boxes = ElementTree.fromstring(text), []
    except (ElementTree.ParseError, DefusedXmlException) as error:
        raise ValueError(f"{name} is no Pascal VOC file: {str(error) or type(error).__name__}") from error
    for number, item in enumerate(tree.iter("object"), 1):
        texts = [item.findtext("name")] + [item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        try:
            boxes.append((texts[0].strip(), *(round(float(side)) for side in texts[1:])))
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{name}: object {number} has the name, xmin, ymin, xmax and ymax {texts}, expected a name and numbers"
            ) from error
    return boxes


def annotated_files(root: Path) -> dict[str, tuple[Path, Path]]:
    """The images below a folder that have a box file.

    Args:
        root: holds folders `images`, each with a folder annotations/xmls (or annotations) beside it. Links are
            followed.

    Returns:
        name without suffix → image and box file.

    Raises:
        ValueError: no such folders; an image without its box file or the other way round; a name that occurs twice.
    """
    within = listing(root).folders.values()
    folders = [path for path in within if path.name == "images" and (path.parent / "annotations").is_dir()]
    if not folders:
        raise ValueError(
            f"{root} holds no folder `images` with a folder `annotations` beside it; expected RDD2022 as unpacked "
            "(<country>/train/images, <country>/train/annotations/xmls), or images and annotations/xmls of your own"
        )
    pairs = {}
    for images in folders:
        notes = images.parent / "annotations"
        notes = notes / "xmls" if (notes / "xmls").is_dir() else notes
        found = [path for path in sorted(images.iterdir()) if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
        boxes = {path.stem: path for path in sorted(notes.glob("[!.]*.xml"))}
        times = Counter(path.stem for path in found)
        if twice := [stem for stem, count in times.items() if count > 1 or stem in pairs]:
            raise ValueError(f"{images}: image {twice[0]!r} is there twice; remove or rename one of the two")
        if lone := sorted(times.keys() - boxes.keys()):
            raise ValueError(
                f"image {images / lone[0]}.* has no box file {notes / lone[0]}.xml, and {len(lone) - 1} more; an image "
                "without damage needs one without objects"
            )
        if lone := sorted(boxes.keys() - times.keys()):
            raise ValueError(f"box file {boxes[lone[0]]} has no image {images / lone[0]}.*, and {len(lone) - 1} more")
        pairs |= {path.stem: (path, boxes[path.stem]) for path in found}
    return pairs


@dataclass(frozen=True)
class Photograph:
    """Size in pixels and boxes of an annotated image, as it is seen (turned by its EXIF tag)."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    left_out: tuple[str, ...] = ()  # boxes that could not be used, in sentences


def read_photograph(
    image: Path, xml: Path, bad_boxes: Literal["error", "skip"], categories: Collection[str] | None = None
) -> Photograph:
    """The size of an image, not its pixels, and its boxes.

    Args:
        image: its file.
        xml: its box file.
        bad_boxes: what to do with a box without area or outside of its image: an error, or leave it out.
        categories: classes whose boxes are used; a bad one of another class is always left out. None = all.

    Raises:
        ValueError: a damaged file; a bad box, unless `bad_boxes` is "skip".
    """
    width, height = upright_size(image)
    boxes, left_out = [], []
    for box in read_voc(xml.read_bytes(), str(xml)):
        kind, left, top, right, bottom = box
        if 0 <= left < right <= width and 0 <= top < bottom <= height:
            boxes.append(box)
            continue
        fault = "has no area" if right <= left or bottom <= top else f"is not inside its image ({width}×{height})"
        text = f"{xml}: box {kind} (xmin {left}, ymin {top}, xmax {right}, ymax {bottom}) {fault}"
        if bad_boxes == "error" and (categories is None or kind in categories):
            raise ValueError(f"{text}; correct the file, or leave such boxes out with bad_boxes='skip'")
        left_out.append(text)
    return Photograph(width, height, tuple(boxes), tuple(left_out))
