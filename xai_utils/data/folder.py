"""Your own images: one folder per class, optionally inside train, val and test folders."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xai_utils.data import pictures, store
from xai_utils.data.checks import Check, check
from xai_utils.data.fitting import Fit, check_fit, fitted, fitted_mask
from xai_utils.data.imageset import ImageSet
from xai_utils.data.masks import read_mask
from xai_utils.data.surveys import Survey, split_of, survey_classes, two_classes


def load_folder(
    *,
    folder: str | os.PathLike[str],
    size: int = 28,
    grey: bool = True,
    masks: str | None = None,
    seed: int = 0,
    groups: str = "",
    fit: Fit = "letterbox",
    needs: str | None = None,
) -> ImageSet:
    """Read <folder>/<class>/*.png … or <folder>/{train,val,test}/<class>/*.png ….

    A class's images may lie in folders inside its own; links are followed, hidden files are not read. What is passed
    over is told: `checks.check` looks at every file first, and its table is printed. A folder that holds masks by its
    names (masks/crack/1.png for crack/1.jpg) is no class, even if `masks` does not name it.

    An image is turned upright (EXIF), laid on white where it is transparent, made a square of size × size
    (`fitting.fitted`) and scaled to [0, 1]. Grey is 0.299 R + 0.587 G + 0.114 B. 16-bit grey keeps its depth; white is
    the largest value of the camera's bits (8, 10, 12, 14 or 16, the fewest that hold all images). Rows alternate
    between the classes, so that the first n images hold all of them. A class may lack in val or test, if these are
    folders of your own: it keeps its name and number, and that split has no image of it.

    A mask marks the true region: an image file of the same path and name below the masks' folder (the suffix may
    differ), <folder>/<masks>/<class>/*.png or <folder>/<masks>/{train,val,test}/<class>/*.png, or of the same name in
    a masks' folder without folders. It has the size of its image; 0 is outside and one other value inside. It shrinks
    by maximum: a pixel belongs to the region if any part of it does. A class without masks is one without defects: all
    its masks are empty. In a class that has some (in any split), every image needs its mask.

    Args:
        folder: a relative path counts from the repository's root.
        size: height and width of the images.
        grey: one channel; otherwise three.
        masks: the name of the masks' folder, directly below `folder`; it is no class. None = no masks.
        seed: of the split 70 / 10 / 20, used if there are no split folders.
        groups: what images share, a rule of `grouping.groups_of`: "prefix:8", a regular expression, "groups.csv". No
            group is divided between splits. "" = unknown.
        fit: how an image becomes a square.
        needs: a class that must be there, beside one other; None = any classes.

    Returns:
        images (N, 1 or 3, size, size), masks (N, size, size) or None, groups or None; ids are the paths below
        `folder`; classes in alphabetical order.

    Raises:
        FileNotFoundError: no such folder, or masks' folder.
        ValueError: no folder named, no images, an empty class, a single class, a class without training images or with
            too few to split, other classes than `needs` asks for, a group in two splits of yours, an unreadable image;
            no masks at all, a mask that is missing, there twice, of another size or of more than two values, a mask or
            masks' folder without its images. Each names the folder or file.
    """
    check_options(size, fit)
    survey = survey_classes(store.root_of(folder), masks)
    if needs is not None:
        two_classes(survey, needs)
    return image_set("folder", survey, size, grey, seed, groups, fit)


def check_options(size: int, fit: str) -> None:
    """ValueError for a size or a fit that is none."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size is {size!r}, expected an int of at least 1")
    check_fit(fit)


def image_set(name: str, survey: Survey, size: int, grey: bool, seed: int, groups: str, fit: Fit) -> ImageSet:
    """The images of a survey as a set, checked first; the check's table is printed.

    Raises:
        ValueError: what the check refuses, all of it.
    """
    split, owners = split_of(survey, groups, seed)
    found = check(survey, split.tolist(), owners, size=size, fit=fit)
    if found.refused:
        raise ValueError("\n".join(map(str, found.refused)))
    print(found)
    checksums = {path_name: hashlib.sha256(path.read_bytes()).hexdigest() for path_name, path in survey.files().items()}
    classes = survey.class_names
    return ImageSet(
        name=name,
        pixels=torch.from_numpy(read_images(survey.paths, size, grey, fit, found)),
        labels=torch.tensor(survey.labels, dtype=torch.int64 if classes else torch.float32),
        split=split,
        ids=np.array(survey.ids),
        class_names=classes,
        provenance={"name": survey.root.name, "sha256": store.sha256_of_lines(checksums), "variant": "own"},
        masks=_regions(survey, size, fit) if survey.masks_root else None,
        groups=owners,
    )


def read_images(paths: Sequence[Path], size: int, grey: bool, fit: Fit, found: Check) -> np.ndarray:
    """Image files as (N, 1 or 3, size, size) float32 in [0, 1], 16-bit grey as deep as the check has found it."""
    return np.stack([read_image(path, size, grey, fit, found.deepest) for path in paths])


def read_image(
    path: Path, size: int, grey: bool, fit: Fit = "letterbox", deepest: int = pictures.DEEPEST
) -> np.ndarray:
    """One image file as (1 or 3, size, size) float32 in [0, 1]; see `load_folder`. ValueError names the file."""
    pixels = pictures.as_float(pictures.read_picture(path), deepest)
    if grey:
        pixels = pictures.grey(pixels)
    elif pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    return fitted(pixels, size, fit)


def _regions(survey: Survey, size: int, fit: Fit) -> Tensor:
    """The masks (N, size, size) bool; empty for images of classes without masks."""
    regions = torch.zeros(len(survey.ids), size, size, dtype=torch.bool)
    for row, (name, path) in enumerate(zip(survey.ids, survey.paths, strict=True)):
        if name in survey.masks:
            regions[row] = torch.from_numpy(fitted_mask(read_mask(survey.masks[name], path), size, fit))
    return regions
