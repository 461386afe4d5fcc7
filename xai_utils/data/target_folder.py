"""Your own regression data: a folder of images and a CSV file with the target of each."""

import csv
import hashlib
import os
from pathlib import Path

import numpy as np
import torch

from xai_utils.data import store
from xai_utils.data.folder import SUFFIXES, image_files, read_image, read_masks
from xai_utils.data.imageset import SPLITS, ImageSet, stratified_split

HEADERS = (["file", "target"], ["file", "target", "split"])


def load_target_folder(
    *,
    folder: str | os.PathLike[str],
    size: int = 64,
    grey: bool = False,
    targets: str = "targets.csv",
    masks: str | None = None,
    seed: int = 0,
) -> ImageSet:
    """Read the images below `folder`, and their targets from the lines file,target or file,target,split of a CSV file.

    Images are read as `folder.load_folder` reads them: upright, cut to the central square, resized. Every image below
    `folder` (masks and hidden files apart) must have one line, and every line an image. Rows are in the file's order.

    A mask marks the true region: an image file of the same path and name below the masks' folder (the suffix may
    differ), of the size of its image, white inside and black outside. It is cut and resized like its image; a pixel
    that is more than half inside belongs to the region.

    Args:
        folder: a relative path counts from the repository's root.
        size: height and width of the images.
        grey: one channel; otherwise three.
        targets: the CSV file, below `folder`; commas, UTF-8; files as paths below `folder`, with "/".
        masks: the masks' folder, below `folder`; None = no masks.
        seed: of the split 70 / 10 / 20, used if the file has no column split (train, val or test).

    Returns:
        images (N, 1 or 3, size, size), labels = targets (N,) float32, as they stand in the file; masks or None; ids are
        the paths below `folder`.

    Raises:
        FileNotFoundError: no such folder, CSV file or masks' folder.
        ValueError: a header, line, target or split that is wrong; an image or line without its partner, or two of them;
            a split without images; a mask that is missing, of another size or not black and white; an unreadable
            image. Each names the file, and the line where there is one.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size is {size!r}, expected an int of at least 1")
    root = store.resolve(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"image folder {root} does not exist, or is not a folder")
    masks_root = None if masks is None else root / masks
    if masks_root and not masks_root.is_dir():
        raise FileNotFoundError(f"masks' folder {masks_root} does not exist, or is not a folder")
    paths = {i: path for i, path in image_files(root).items() if not masks_root or masks_root not in path.parents}
    rows = _rows(root / targets, paths)
    ids = list(rows)
    split = np.array([row[1] for row in rows.values()])
    if not split[0]:
        split = stratified_split([0] * len(ids), ids, seed=seed)
    if lacking := [part for part in SPLITS if part not in split]:
        raise ValueError(
            f"{root}: no images for {' and '.join(lacking)} ({len(ids)} images in all). Give five or more images, or a "
            "column split with train, val and test."
        )
    used = {i: paths[i] for i in ids} | {targets: root / targets}
    regions = None
    if masks_root:
        regions, found = read_masks(masks_root, {i: paths[i] for i in ids}, size)
        used |= {f"{masks}/{path.relative_to(masks_root).as_posix()}": path for path in found}
    checksums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in used.items()}
    return ImageSet(
        name="target_folder",
        pixels=torch.from_numpy(np.stack([read_image(paths[i], size, grey) for i in ids])),
        labels=torch.tensor([row[0] for row in rows.values()], dtype=torch.float32),
        split=split,
        ids=np.array(ids),
        class_names=(),
        provenance={"name": root.name, "sha256": store.sha256_of_lines(checksums), "variant": "own"},
        masks=regions,
    )


def _rows(path: Path, images: dict[str, Path]) -> dict[str, tuple[float, str]]:
    """Target and split ("" without that column) of every image, in the order of the CSV file."""
    if not path.is_file():
        raise FileNotFoundError(f"targets {path} do not exist: write a CSV file with the header file,target")
    try:
        header, *lines = csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
    except (ValueError, csv.Error) as error:  # no line at all, or no UTF-8
        raise ValueError(f"{path} is not a CSV file in UTF-8 with the header file,target: {error}") from error
    if header not in HEADERS:
        raise ValueError(f"{path}: the header is {','.join(header)!r}, expected file,target or file,target,split")
    rows: dict[str, tuple[float, str]] = {}
    for number, line in enumerate(lines, start=2):
        where = f"{path}, line {number}"
        if len(line) != len(header):
            raise ValueError(f"{where}: {len(line)} fields, expected {len(header)}: {','.join(header)}")
        name, text, split = [*line, ""][:3]
        if name not in images:
            raise ValueError(f"{where}: there is no image {name!r} below {path.parent}")
        if name in rows:
            raise ValueError(f"{where}: {name!r} has a target already; give each image one line")
        if len(header) == 3 and split not in SPLITS:
            raise ValueError(f"{where}: the split of {name!r} is {split!r}, expected one of {', '.join(SPLITS)}")
        rows[name] = _target(text, f"{where}: the target of {name!r}"), split
    if missing := [name for name in images if name not in rows]:
        raise ValueError(
            f"{path}: {len(missing)} images have no line, {', '.join(missing[:3])} among them; add their targets, or "
            f"move them out of {path.parent}"
        )
    if not rows:
        raise ValueError(f"{path.parent} holds no images ({', '.join(sorted(SUFFIXES))})")
    return rows


def _target(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{what} is {text!r}, expected a number such as -0.5") from None
    if not abs(value) <= float(np.finfo(np.float32).max):  # true for NaN, too
        raise ValueError(f"{what} is {text!r}, expected a finite number that float32 holds")
    return value
