"""What the names in a folder of your own images tell: splits called otherwise, masks where images are expected."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from xai_utils.data.listing import Listing
from xai_utils.data.masks import image_of, stem

MASKS = ("masks", "mask", "ground_truth", "gt", "labels", "annotations")  # usual names of a folder of masks
SPLITS_MEANT = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
                "test": "test", "testing": "test"}  # fmt: skip


def misnamed_splits(found: Listing, masks: str | None) -> None:
    """ValueError for folders that are splits in all but their names: they would be classes, or left out."""
    tops = [name for name in found.folders if "/" not in name and name != masks]
    words = {name: re.sub(r"[-_. ]?(set|data|images)$", "", name.lower()) for name in tops}
    meant = {name: SPLITS_MEANT[word] for name, word in words.items() if word in SPLITS_MEANT}
    wrong = [f"{name} → {part}" for name, part in meant.items() if name != part and part not in tops]
    classes_inside = any(name.partition("/")[0] in meant for name in found.folders if "/" in name)
    if wrong and "train" in meant.values() and ((classes_inside and len(meant) > 1) or len(meant) == len(tops)):
        raise ValueError(
            f"{found.root}: folders are splits by their names, and would be taken for classes or left out; rename "
            f"them: {', '.join(sorted(wrong))}"
        )


def mirrors(files: Listing, folder: str, others: Iterable[str]) -> int | None:
    """Whether a folder right below the root looks like one of masks: its images are named as those of the others.

    At least half of the paths below it are those of an image beside it (masks/crack/1.png and crack/1.jpg, or, where
    the folder is called as such folders usually are, images/crack/1.jpg); or it is flat, is called so, and at most one
    in ten, or one, is no name of an image. An ending such as _mask does not count.

    Returns:
        How many of its images belong to no other; None = it does not look so.
    """
    inner = [name[len(folder) + 1 :] for name in files.below(folder)]
    known = {stem(name) for name in others}
    nested, usual = any("/" in name for name in inner), folder.lower() in MASKS
    if not nested:
        known = {name.rpartition("/")[2] for name in known} if usual else set()
    elif usual:
        known |= {name.partition("/")[2] for name in known}
    lone = sum(stem(name) not in known and image_of(name) not in known for name in inner)
    return lone if lone < len(inner) and lone <= (len(inner) / 2 if nested else max(1, len(inner) / 10)) else None


def masks_among(folder: str, names: Sequence[str]) -> list[str]:
    """Images in the folder of a class that are masks by their names.

    They lie in a folder which is called as masks' folders are and at least half of whose names are those of images
    elsewhere in the class; or beside an image, and are called as it is, with _mask or the like behind.

    Args:
        folder: of the class, below the root.
        names: of all images below it, with `folder`.
    """
    inner, known = defaultdict(list), set(map(stem, names))
    for name in names:
        parts = name[len(folder) + 1 :].split("/")[:-1]
        if depth := next((i for i, part in enumerate(parts, 1) if part.lower() in MASKS), 0):
            inner["/".join(parts[:depth])].append(name)
    rest = {_last(stem(name)) for name in set(names).difference(*inner.values())}
    found = []
    for some in inner.values():
        if sum(_last(stem(n)) in rest or _last(image_of(n)) in rest for n in some) >= len(some) / 2:
            found += some
    beside = [n for n in names if n not in set(found) and image_of(n) != stem(n) and image_of(n) in known]
    return sorted(found + beside)


def of_one_name(names: Iterable[str]) -> list[list[str]]:
    """The names, those together that differ in nothing but the suffix."""
    same = defaultdict(list)
    for name in names:
        same[stem(name)].append(name)
    return list(same.values())


def _last(path: str) -> str:
    return path.rpartition("/")[2]
