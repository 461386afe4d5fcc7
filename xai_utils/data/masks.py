"""Masks of your own images: two values a file, whatever they are; whose mask is which; what they mark."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from xai_utils.data import pictures

HOW = (
    "expected two: 0 outside, one other value inside. To make such masks: "
    "Image.fromarray(np.where({}, 255, 0).astype(np.uint8))"
)
GREYS = HOW.format("np.isin(np.asarray(Image.open(FILE)), [VALUES INSIDE])")
COLOURS = HOW.format('(np.asarray(Image.open(FILE).convert("RGB")) == [R, G, B]).all(2)')
OVER_HALF = HOW.format('np.asarray(Image.open(FILE).convert("L")) > 127')
FEW = 16  # values, as many as a mask may hold; a photograph holds more in any 64 × 64 of its pixels
_MEANT = r"masks?|gt|labels?|lbl|segm?|segmentation|ground_?truth|annotations?|roi"
_BEHIND = re.compile(rf"(.+?)[-_. ]?(?:{_MEANT})(?:[-_. ]?\d+)?", re.IGNORECASE)
_BEFORE = re.compile(rf"(?:{_MEANT})[-_. ](.+)", re.IGNORECASE)
OPAQUE = HOW.format('np.asarray(Image.open(FILE).convert("RGBA"))[..., 3] > 0')


def read_mask(path: Path, image: Path) -> np.ndarray:
    """A mask as (H, W) bool, in the place of its image as that is seen.

    A mask that has the size of the image's stored pixels, and not that of the turned ones, was drawn on the stored
    ones: it is turned as its image is.

    Args:
        path: the mask's file; its numbers are taken as they are stored, with 1, 8, 16 or 32 bits, grey, colour or
            palette. 0 (black) is outside, and one other value is inside.
        image: the image's file.

    Raises:
        ValueError: more than two values, transparency, another size than the image, an unreadable file. It names the
            mask.
    """
    try:
        stored = pictures.opened(path.read_bytes())
    except OSError as error:
        raise ValueError(f"mask {path} cannot be read: {error}. Replace or remove it.") from error
    width, height = pictures.upright_size(image)
    upright = pictures.turn(stored, pictures.orientation(stored))
    if upright.size != (width, height) and stored.size == (height, width):
        turned = pictures.turn(stored, stored_orientation(image))
        upright = turned if turned.size == (width, height) else upright
    if upright.size != (width, height):
        raise ValueError(
            f"mask {path} has {upright.size} pixels (width, height), its image {image} {(width, height)}; "
            "expected the same"
        )
    if upright.has_transparency_data and upright.convert("RGBA").getextrema()[3][0] < 255:
        raise ValueError(f"mask {path} is transparent in part, {OPAQUE}")
    values, inside, how = _values(upright)
    others = [value for value in values if value != "0"]
    if len(others) > 1:
        shown = ", ".join(values[:5]) + (f" … ({len(values)} in all)" if len(values) > 5 else "")
        jpeg = "; a JPEG's are blurred, save masks as PNG" if stored.format == "JPEG" else ""
        how = OVER_HALF if len(values) > FEW else how
        raise ValueError(f"mask {path} holds the values {shown}, {how}{jpeg}")
    return inside


def stored_orientation(image: Path) -> int:
    """How the stored pixels of an image are to be turned (EXIF, 1 … 8); 1 where its file has no such tag."""
    with pictures.head(image) as opened:
        return pictures.orientation(opened)


def _values(mask: Image.Image) -> tuple[list[str], np.ndarray, str]:
    """The values of a mask in words, "0" for outside; where it is not 0 (H, W); how to make a mask of such values."""
    black = mask.mode == "P" and (mask.getpalette() or [0, 0, 0])[:3] == [0, 0, 0]
    if black or mask.mode in ("1", "L", "I", "F") or mask.mode.startswith("I;16"):
        numbers = np.asarray(mask)
        found = np.unique(numbers)
        return [f"{value:g}" for value in found.astype(float).tolist()], numbers != 0, GREYS
    numbers = np.asarray(mask.convert("RGB"))
    found = np.unique(numbers.reshape(-1, numbers.shape[2]), axis=0)
    grey = (found == found[:, :1]).all()
    return [f"{c[0]}" if grey or not any(c) else str(tuple(c)) for c in found.tolist()], numbers.any(2), COLOURS


def masks_of(root: Path, files: Mapping[str, Path], images: Iterable[str]) -> dict[str, Path]:
    """The mask of each image.

    Args:
        root: the masks' folder.
        files: image files below it, by their path there.
        images: paths of images; the mask's path is the same but for the suffix, or its name is, in a folder without
            folders.

    Returns:
        image → its mask.

    Raises:
        ValueError: an image has no mask or several. It names the image.
    """
    flat = is_flat(files)
    stems = Counter(map(stem, files))
    by_stem = {stem(name): path for name, path in files.items()}
    found = {}
    for name in images:
        wanted = PurePosixPath(stem(name)).name if flat else stem(name)
        if stems[wanted] != 1:
            what = (
                "make one, all black if nothing is marked; or remove its folder there, if no image of the class has one"
            )
            what = "join them into one" if stems[wanted] else what
            raise ValueError(f"image {name!r} has {stems[wanted]} masks {wanted}.* below {root}, expected one: {what}")
        found[name] = by_stem[wanted]
    return found


def is_flat(files: Iterable[str]) -> bool:
    """Whether a masks' folder has files and no folders: then the names alone say whose masks they are."""
    names = list(files)
    return bool(names) and not any("/" in name for name in names)


def stem(name: str) -> str:
    """A path without its suffix."""
    return name.rpartition(".")[0]


def image_of(mask: str) -> str:
    """The stem of the image that a mask is called after: a/1 of a/1_mask.png, a/mask_1.png, a/1-gt_2.png, a/1.png."""
    folder, slash, name = stem(mask).rpartition("/")
    match = _BEHIND.fullmatch(name) or _BEFORE.fullmatch(name)
    return folder + slash + (match[1] if match else name)


def looks_like_one(picture: Image.Image, blurred: bool = False) -> bool:
    """Whether a picture holds a few values only, as masks do; of a blurred one (JPEG) nearly all is black or white."""
    step = max(1, min(picture.size) // 64)
    plain = picture.mode in ("P", "1", "L", "I", "F") or picture.mode.startswith("I;16")
    numbers = np.asarray(picture if plain else picture.convert("RGB"))[::step, ::step]
    if blurred:
        grey = np.asarray(picture.convert("L"))[::step, ::step]
        return bool(((grey < 32) | (grey > 223)).mean() > 0.9)
    return len(np.unique(numbers.reshape(-1, 1 if plain else 3), axis=0)) <= FEW


def look_like_masks(paths: Sequence[Path]) -> bool:
    """Whether files look like masks, by at most five of them; one that cannot be read does not."""
    some = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, 5).astype(int))] if paths else []

    def one(path: Path) -> bool:
        try:
            return looks_like_one(pictures.opened(path.read_bytes()), path.suffix.lower().startswith(".jp"))
        except OSError:
            return False

    return bool(some) and sum(map(one, some)) > len(some) / 2


def named_as_images(masks: Mapping[str, Path], images: Iterable[str]) -> dict[str, Path]:
    """Masks by the names of their images: an ending such as _mask is taken off where it makes an image's name."""
    known = set(map(stem, images))
    known |= {name.rpartition("/")[2] for name in known} if is_flat(masks) else set()
    found: dict[str, Path] = {}
    for name, path in masks.items():
        short = f"{image_of(name)}.{name.rpartition('.')[2]}"
        ours = stem(name) not in known and stem(short) in known and short not in masks and short not in found
        found[short if ours else name] = path
    return found
