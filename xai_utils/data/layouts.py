"""What the names in a folder of your own images tell: splits called otherwise, masks where images are expected."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from xai_utils.data.listing import Listing
from xai_utils.data.masks import stem

MASKS = ("masks", "mask", "ground_truth", "gt", "labels", "annotations")  # usual names of a folder of masks
SPLITS_MEANT = {  # words for each split, in small letters
    "train": "train", "training": "train", "trainset": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "testset": "test",
}  # fmt: skip
_OF_AN_IMAGE = re.compile(r"(.+)[-_. ](masks?|gt|labels?|seg|segmentation|ground_?truth)", re.IGNORECASE)


def misnamed_splits(found: Listing, masks: str | None) -> None:
    """ValueError for folders that are splits in all but their names: they would be classes, or left out."""
    tops = [name for name in found.folders if "/" not in name and name != masks]
    meant = {name: SPLITS_MEANT[name.lower()] for name in tops if name.lower() in SPLITS_MEANT}
    wrong = [f"{name} → {part}" for name, part in meant.items() if name != part]
    classes_inside = any(name.partition("/")[0] in meant for name in found.folders if "/" in name)
    if wrong and "train" in meant.values() and (classes_inside or len(meant) == len(tops)):
        raise ValueError(
            f"{found.root}: folders are splits by their names, and would be taken for classes or left out; rename "
            f"them: {', '.join(sorted(wrong))}"
        )


def mirrors(files: Listing, folder: str, others: Iterable[str]) -> int | None:
    """Whether a folder right below the root looks like one of masks: its images are named as those of the others.

    At least half of the paths below it are those of an image beside it (masks/crack/1.png and crack/1.jpg, or, where
    the folder is called as such folders usually are, images/crack/1.jpg); or it is flat, is called so, and at least
    half of the names in it are names of an image.

    Returns:
        How many of its images belong to no other; None = it does not look so.
    """
    inner = [stem(name[len(folder) + 1 :]) for name in files.below(folder)]
    known = {stem(name) for name in others}
    if not any("/" in name for name in inner):
        known = {name.rpartition("/")[2] for name in known} if folder.lower() in MASKS else set()
    elif folder.lower() in MASKS:
        known |= {name.partition("/")[2] for name in known}
    lone = sum(name not in known for name in inner)
    return lone if inner and lone <= len(inner) / 2 else None


def masks_among(folder: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Images in the folder of a class that are masks by their names.

    They lie in a folder which is called as masks' folders are and at least half of whose names are those of images
    elsewhere in the class; or beside an image, and are called as it is, with _mask or the like behind.

    Args:
        folder: of the class, below the root.
        names: of all images below it, with `folder`.

    Returns:
        The folder where they lie → them.
    """
    inner, known = defaultdict(list), set(map(stem, names))
    for name in names:
        parts = name[len(folder) + 1 :].split("/")[:-1]
        if depth := next((i for i, part in enumerate(parts, 1) if part.lower() in MASKS), 0):
            inner["/".join((folder, *parts[:depth]))].append(name)
    rest = {_last(name) for name in set(names).difference(*inner.values())}
    found = {place: some for place, some in inner.items() if sum(_last(n) in rest for n in some) >= len(some) / 2}
    for name in sorted(set(names).difference(*found.values())):
        if (match := _OF_AN_IMAGE.fullmatch(stem(name))) and match[1] in known:
            found.setdefault(name.rpartition("/")[0], []).append(name)
    return found


def of_one_name(names: Iterable[str]) -> list[list[str]]:
    """The names, those together that differ in nothing but the suffix."""
    same = defaultdict(list)
    for name in names:
        same[stem(name)].append(name)
    return list(same.values())


def _last(name: str) -> str:
    return stem(name).rpartition("/")[2]
