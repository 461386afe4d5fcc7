"""Your own images: one folder per class, optionally inside train, val and test folders."""

import hashlib
import os
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from xai_utils.data import store
from xai_utils.data.imageset import SPLITS, ImageSet, stratified_split

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


def load_folder(*, folder: str | os.PathLike[str], size: int = 28, grey: bool = True, seed: int = 0) -> ImageSet:
    """Read <folder>/<class>/*.png … or <folder>/{train,val,test}/<class>/*.png ….

    Files of other types and hidden files are passed over. An image is turned upright (EXIF), laid on white where it is
    transparent, cut to its central square, resized to size × size (bilinear with antialiasing) and scaled to [0, 1].
    Grey is 0.299 R + 0.587 G + 0.114 B; 16-bit grey keeps its depth (divided by 65535). Rows alternate between the
    classes, so that the first n images hold all of them.

    Args:
        folder: a relative path counts from the repository's root.
        size: height and width of the images.
        grey: one channel; otherwise three.
        seed: of the split 70 / 10 / 20, used if there are no split folders.

    Returns:
        images (N, 1 or 3, size, size); ids are the paths below `folder`; classes in alphabetical order.

    Raises:
        FileNotFoundError: no such folder. ValueError: no images, an empty class, a single class, a class without
            training images, an unreadable image; each names the folder or file.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size is {size!r}, expected an int of at least 1")
    root = store.resolve(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"image folder {root} does not exist, or is not a folder")
    given = [part for part in SPLITS if (root / part).is_dir()]
    if given and "train" not in given:
        raise ValueError(f"{root} has {' and '.join(given)} but no train folder")
    tops = given or [""]
    names = sorted({kind.name for top in tops for kind in _folders(root / top) if not (given and top == "")})
    if len(names) < 2:
        raise ValueError(
            f"{root} has {len(names)} class folders ({', '.join(names)}), expected two or more: <class>/*.png"
        )
    files = []  # (split or "", label, path), classes in turn
    for top in tops:
        classes = [[(top, label, path) for path in _images(root / top / name)] for label, name in enumerate(names)]
        for name, found in zip(names, classes):
            if not found and (top in ("", "train") or (root / top / name).is_dir()):
                raise ValueError(f"class folder {root / top / name} holds no images ({', '.join(sorted(SUFFIXES))})")
        files += [item for item in chain.from_iterable(zip_longest(*classes)) if item]
    ids = [path.relative_to(root).as_posix() for _, _, path in files]
    labels = [label for _, label, _ in files]
    split = np.array([top for top, _, _ in files]) if given else stratified_split(labels, ids, seed=seed)
    if lacking := [part for part in SPLITS if part not in split]:
        raise ValueError(
            f"{root}: no images for {' and '.join(lacking)} ({len(files)} images in all). Give every class five "
            "or more images, or make the folders train, val and test yourself."
        )
    checksums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, (_, _, path) in zip(ids, files)}
    return ImageSet(
        name="folder",
        images=torch.from_numpy(np.stack([read_image(path, size, grey) for _, _, path in files])),
        labels=torch.tensor(labels),
        split=split,
        ids=np.array(ids),
        class_names=tuple(names),
        provenance={"name": root.name, "sha256": store.sha256_of_lines(checksums), "variant": "own"},
    )


def read_image(path: Path, size: int, grey: bool) -> np.ndarray:
    """One image file as (1 or 3, size, size) float32 in [0, 1]; see `load_folder`. ValueError names the file."""
    try:
        with Image.open(path) as image:
            image.load()
            pixels = _pixels(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow raises many types for damaged files
        raise ValueError(f"image {path} cannot be read: {error}. Replace or remove it.") from error
    if grey and pixels.shape[2] == 3:
        pixels = pixels @ np.array([[0.299], [0.587], [0.114]], dtype=np.float32)
    if not grey and pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    planes = [
        ImageOps.fit(Image.fromarray(plane), (size, size), Image.Resampling.BILINEAR)
        for plane in np.moveaxis(pixels, 2, 0)
    ]
    return np.clip(np.stack([np.asarray(plane, dtype=np.float32) for plane in planes]), 0, 1)


def _pixels(image: Image.Image) -> np.ndarray:
    """(H, W, 1 or 3) float32 in [0, 1]."""
    if image.mode.startswith("I;16"):
        return np.asarray(image, dtype=np.float32)[..., None] / 65535
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} (32 bit) have no fixed range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        top = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
        return top[..., :3] * top[..., 3:] + (1 - top[..., 3:])
    kept = image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")
    return np.asarray(kept, dtype=np.float32).reshape(image.height, image.width, -1) / 255


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _images(folder: Path) -> list[Path]:
    """Image files of one class, by name."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in found if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())
