"""Your own images: one folder per class, optionally inside train, val and test folders."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain, zip_longest
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from xai_utils.data import store
from xai_utils.data.imageset import SPLITS, ImageSet, stratified_split

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


def load_folder(
    *,
    folder: str | os.PathLike[str],
    size: int = 28,
    grey: bool = True,
    masks: str | None = None,
    seed: int = 0,
) -> ImageSet:
    """Read <folder>/<class>/*.png … or <folder>/{train,val,test}/<class>/*.png ….

    Files of other types and hidden files are passed over. An image is turned upright (EXIF), laid on white where it is
    transparent, cut to its central square, resized to size × size (bilinear with antialiasing) and scaled to [0, 1].
    Grey is 0.299 R + 0.587 G + 0.114 B; 16-bit grey keeps its depth (divided by 65535). Rows alternate between the
    classes, so that the first n images hold all of them. A class may lack in val or test, if these are folders of your
    own: it keeps its name and number, and that split has no image of it.

    A mask marks the true region: an image file of the same path and name below the masks' folder (the suffix may
    differ), <folder>/<masks>/<class>/*.png or <folder>/<masks>/{train,val,test}/<class>/*.png, of the size of its
    image, white inside and black outside. It is cut and resized like its image; a pixel that is more than half inside
    belongs to the region. A class without a folder there is one without defects: all its masks are empty. In a class
    that has a folder there (in any split), every image needs its mask.

    Args:
        folder: a relative path counts from the repository's root.
        size: height and width of the images.
        grey: one channel; otherwise three.
        masks: the name of the masks' folder, directly below `folder`; it is no class. None = no masks.
        seed: of the split 70 / 10 / 20, used if there are no split folders.

    Returns:
        images (N, 1 or 3, size, size), masks (N, size, size) or None; ids are the paths below `folder`; classes in
        alphabetical order.

    Raises:
        FileNotFoundError: no such folder, or masks' folder.
        ValueError: no images, an empty class, a single class, a class without training images, an unreadable image; no
            masks at all, a mask that is missing, there twice, of another size or not black and white, a mask or masks'
            folder without its images. Each names the folder or file.
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
    masks_root = None if masks is None else root / masks
    if masks_root and not (masks_root in root.iterdir() and masks_root.is_dir()):
        raise FileNotFoundError(f"masks' folder {masks_root} does not exist, or is not a folder directly below {root}")
    if masks_root and masks_root.name in SPLITS:
        raise ValueError(f"masks is {masks!r}, the name of a folder of images; expected another name")
    names = sorted({kind.name for top in tops for kind in _folders(root / top) if kind != masks_root})
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
    used = {name: path for name, (_, _, path) in zip(ids, files)}
    regions = None
    if masks_root:
        _no_orphans(masks_root, used)
        defects = {label for top, label, _ in files if (masks_root / top / names[label]).is_dir()}
        marked = {name: used[name] for name, label in zip(ids, labels) if label in defects}
        regions = torch.zeros(len(ids), size, size, dtype=torch.bool)
        regions[[name in marked for name in ids]], found = read_masks(masks_root, marked, size)
        used |= {path.relative_to(root).as_posix(): path for path in found}
    checksums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in used.items()}
    return ImageSet(
        name="folder",
        pixels=torch.from_numpy(np.stack([read_image(path, size, grey) for _, _, path in files])),
        labels=torch.tensor(labels),
        split=split,
        ids=np.array(ids),
        class_names=tuple(names),
        provenance={"name": root.name, "sha256": store.sha256_of_lines(checksums), "variant": "own"},
        masks=regions,
    )


def read_image(path: Path, size: int, grey: bool) -> np.ndarray:
    """One image file as (1 or 3, size, size) float32 in [0, 1]; see `load_folder`. ValueError names the file."""
    try:
        with Image.open(path) as image:
            image.load()
            pixels = _pixels(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow raises many types for damaged files
        raise ValueError(f"image {path} cannot be read: {error}. Replace or remove it.") from error
    if grey:
        pixels = _grey(pixels)
    elif pixels.shape[2] == 1:
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


def _grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 1 or 3) as (H, W, 1)."""
    return pixels if pixels.shape[2] == 1 else pixels @ np.array([[0.299], [0.587], [0.114]], dtype=np.float32)


def read_masks(root: Path, images: Mapping[str, Path], size: int) -> tuple[Tensor, list[Path]]:
    """The masks of some images, and their files.

    Args:
        root: the masks' folder.
        images: image files by their path; the mask's path below `root` is the same, but for the suffix.
        size: height and width of the masks, cut and resized like the images.

    Returns:
        (N, size, size) bool, and N files, in the order of the images.

    Raises:
        ValueError: an image has no mask or several; a mask is of another size than its image or not black and white;
            one of the two is unreadable. Each names the file.
    """
    found = image_files(root)
    stems = Counter(_stem(name) for name in found)
    by_stem = {_stem(name): path for name, path in found.items()}
    files = []
    for name, path in images.items():
        stem = _stem(name)
        if stems[stem] != 1:
            raise ValueError(f"image {name!r} has {stems[stem]} masks {stem}.* below {root}, expected one")
        file = by_stem[stem]
        try:
            with Image.open(path) as image, Image.open(file) as mask:
                expected, upright = ImageOps.exif_transpose(image).size, ImageOps.exif_transpose(mask)
                values = np.unique(np.rint(255 * _grey(_pixels(upright)))).astype(int).tolist()
        except Exception as error:  # Pillow raises many types for damaged files
            raise ValueError(f"image {path} or its mask cannot be read: {error}. Replace or remove it.") from error
        if upright.size != expected:
            raise ValueError(
                f"mask {file} has {upright.size} pixels (width, height), its image {name!r} {expected}; "
                "expected the same"
            )
        if not set(values) <= {0, 255}:
            raise ValueError(
                f"mask {file} holds the grey values {values[:5]}, expected 0 (outside) and 255 (inside) only"
            )
        if upright.has_transparency_data and upright.convert("RGBA").getextrema()[3][0] < 255:
            raise ValueError(f"mask {file} is transparent in part, expected black (outside) and white (inside) only")
        files.append(file)
    return torch.from_numpy(np.stack([read_image(file, size, True)[0] > 0.5 for file in files])), files


def _no_orphans(root: Path, images: Iterable[str]) -> None:
    """Refuse a masks' folder `root` with no mask, or with a folder or mask that belongs to none of the images."""
    found = image_files(root)
    if not found:
        raise ValueError(f"masks' folder {root} holds no masks ({', '.join(sorted(SUFFIXES))})")
    places = {parent.as_posix() for name in images for parent in PurePosixPath(name).parents}
    for name, path in _below(root).items():
        if path.is_dir() and name not in places:
            raise ValueError(
                f"masks' folder {path} belongs to no images, expected some in {root.parent / name}; rename or remove it"
            )
    stems = {_stem(name) for name in images}
    for name, path in found.items():
        if _stem(name) not in stems:
            raise ValueError(
                f"mask {path} belongs to no image, expected one {root.parent / _stem(name)}.*; rename or remove it"
            )


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def image_files(root: Path) -> dict[str, Path]:
    """Image files below `root` by their path there, hidden ones and those in hidden folders left out."""
    return {n: path for n, path in _below(root).items() if path.suffix.lower() in SUFFIXES and path.is_file()}


def _below(root: Path) -> dict[str, Path]:
    """Files and folders below `root` by their path there, in order, without hidden ones and what is in them."""
    found = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*"))}
    return {name: path for name, path in found.items() if not any(part.startswith(".") for part in name.split("/"))}


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _images(folder: Path) -> list[Path]:
    """Image files of one class, by name."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in found if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())
