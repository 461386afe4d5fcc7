"""What the names in a folder of your own images tell: splits called otherwise, masks where images are expected."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from xai_utils.data.listing import Listing
from xai_utils.data.masks import image_of, look_like_masks, stem

MASKS = re.compile(r"mask|label|annot|seg|ground_?truth|(^|_)gt(_|$)", re.IGNORECASE)  # in the names of masks' folders
SPLITS_MEANT = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
                "test": "test", "testing": "test"}  # fmt: skip


def misnamed_splits(found: Listing, masks: str | None) -> None:
    """ValueError for folders that are splits in all but their names: they would be classes, or left out."""
    tops = [name for name in found.folders if "/" not in name and name != masks]
    meant = {name: part for name in tops if (part := _split_meant(name))}
    wrong = [f"{name} → {part}" for name, part in meant.items() if name != part and part not in tops]
    classes_inside = any(name.partition("/")[0] in meant for name in found.folders if "/" in name)
    if wrong and "train" in meant.values() and ((classes_inside and len(meant) > 1) or len(meant) == len(tops)):
        raise ValueError(
            f"{found.root}: folders are splits by their names, and would be taken for classes or left out; rename "
            f"them: {', '.join(sorted(wrong))}"
        )


def _split_meant(name: str) -> str:
    """train, val or test for Training, seg_train, train2017, valid …; "" for all else."""
    words = re.findall("[a-z]+", name.lower())
    known = [SPLITS_MEANT[word] for word in words if word in SPLITS_MEANT]
    known += [part for word in words for part in ("train", "test") if word.startswith(part)]
    return known[0] if known else ""


def mirrors(files: Listing, folder: str, others: Iterable[str]) -> int | None:
    """Whether a folder right below the root looks like one of masks: its images are named as those of the others.

    At least half of the paths below it are those of an image beside it (masks/crack/1.png and crack/1.jpg, or, where
    the folder is called as such folders usually are, images/crack/1.jpg); or it is flat, is called so, and at most one
    in ten, or one, is no name of an image. An ending such as _mask does not count. And they hold few values.

    Args:
        files: all of them.
        folder: the one in question; it may lie below one of a split.
        others: names of the images beside it, from where the folder lies.

    Returns:
        How many of its images belong to no other; None = it does not look so.
    """
    below = files.below(folder)
    inner = [name[len(folder) + 1 :] for name in below]
    known = {stem(name) for name in others}
    nested, usual = any("/" in name for name in inner), bool(MASKS.search(folder.rpartition("/")[2]))
    if not nested:
        known = {name.rpartition("/")[2] for name in known} if usual else set()
    elif usual:
        known |= {name.partition("/")[2] for name in known}
    lone = sum(stem(name) not in known and image_of(name) not in known for name in inner)
    enough = lone < len(inner) and lone <= (len(inner) / 2 if nested else max(1, len(inner) / 10))
    return lone if enough and look_like_masks(list(below.values())) else None


def masks_among(folder: str, images: Mapping[str, Path]) -> list[str]:
    """Images in the folder of a class that are masks by their names, and hold few values.

    They lie in a folder which is called as masks' folders are and at least half of whose names are those of images
    elsewhere in the class; or beside an image, and are called as it is, with _mask or the like behind or before.

    Args:
        folder: of the class, below the root.
        images: name → file of all images below it, with `folder`.
    """
    inner, known = defaultdict(list), set(map(stem, images))
    for name in images:
        parts = name[len(folder) + 1 :].split("/")[:-1]
        if depth := next((i for i, part in enumerate(parts, 1) if MASKS.search(part)), 0):
            inner["/".join(parts[:depth])].append(name)
    rest = {_last(stem(name)) for name in set(images).difference(*inner.values())}
    groups = [some for some in inner.values()
              if sum(_last(stem(n)) in rest or _last(image_of(n)) in rest for n in some) >= len(some) / 2]  # fmt: skip
    inside = set().union(*groups)
    groups.append([n for n in images if n not in inside and image_of(n) != stem(n) and image_of(n) in known])
    return sorted(name for some in groups if look_like_masks([images[n] for n in some]) for name in some)


def folders_alike(found: Listing, tops: Iterable[str]) -> list[str]:
    """Two or more names of folders that every one of some folders holds, as folds and sessions do; [] for none."""
    held = [{name.split("/")[1] for name in found.folders if name.startswith(f"{top}/")} for top in tops]
    same = set.intersection(*held) if held else set()
    return sorted(same) if len(held) > 1 and len(same) > 1 and all(one == same for one in held) else []


def of_one_name(names: Iterable[str]) -> list[list[str]]:
    """The names, those together that differ in nothing but the suffix."""
    same = defaultdict(list)
    for name in names:
        same[stem(name)].append(name)
    return list(same.values())


def _last(path: str) -> str:
    return path.rpartition("/")[2]
