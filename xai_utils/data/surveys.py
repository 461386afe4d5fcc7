"""Your own folder before anything is decoded: classes or targets, whose mask is which, what is no image of it."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path, PurePosixPath

import numpy as np

from xai_utils.data.grouping import divided, grouped_split, groups_of, rows_of_csv
from xai_utils.data.imageset import SPLITS, stratified_split
from xai_utils.data.layouts import folders_alike, masks_among, mirrors, misnamed_splits, of_one_name
from xai_utils.data.listing import SETTINGS, Listing, listing, short
from xai_utils.data.masks import is_flat, masks_of, named_as_images, stem
from xai_utils.data.pictures import SUFFIXES, name_of

HEADERS = (["file", "target"], ["file", "target", "split"])
LEAST = 5  # images, or groups, of a class, of which each split gets one


@dataclass
class Survey:
    """The images of a folder; entry i of every list belongs to one image.

    Attributes:
        ids: paths below the folder ("/", NFC).
        paths: the files.
        labels: numbers of classes, or targets.
        given: the split that the folder or its list gives, or "".
        class_names: in alphabetical order; () for targets.
        masks: image → its mask, for the images that have one.
        lists: files that count for the checksum besides, by their path below the folder.
        aside: what is no image of the set, in sentences.
        doubts: what looks as if it were meant otherwise.
    """

    root: Path
    found: Listing
    ids: list[str] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    class_names: tuple[str, ...] = ()
    masks_root: Path | None = None
    masks: dict[str, Path] = field(default_factory=dict)
    lists: dict[str, Path] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def files(self) -> dict[str, Path]:
        """All files that the images come from, by their path below the folder, for the checksum."""
        used = dict(zip(self.ids, self.paths, strict=True)) | self.lists
        return used | {name: path for name, path in self.found.images.items() if path in set(self.masks.values())}


def survey_classes(root: Path, masks: str | None) -> Survey:
    """A folder with a folder per class, or with train, val and test which have them; see `folder.load_folder`."""
    found = listing(root)
    misnamed_splits(found, masks)
    given = _given_splits(found, masks)
    survey = Survey(root, found, masks_root=_masks_root(root, found, masks, direct=True))
    if survey.masks_root and survey.masks_root.name in SPLITS:
        raise ValueError(f"masks is {masks!r}, the name of a folder of images; expected another name")
    tops = given or [""]
    names = _class_names(survey, tops)
    rows = []  # (split or "", label, name), classes in turn
    for top in tops:
        classes = [
            [(top, label, n) for n in _of_class(survey, f"{top}/{name}" if top else name)] for label, name in names
        ]
        for (_, name), own in zip(names, classes, strict=True):
            if own:
                continue
            if "/".join(filter(None, (top, name))) in found.folders:
                lacks = f"; {found.passed_over()}" * bool(found.passed_over())
                raise ValueError(
                    f"class folder {root / top / name} holds no images ({', '.join(sorted(SUFFIXES))}); "
                    f"put some there, or remove the folder{lacks}"
                )
            if top == "train":
                raise ValueError(
                    f"class {name!r} has no folder in {root / top}: a network cannot learn a class that it is shown no "
                    f"images of. Put some there, or give the classes without the folders {' and '.join(tops)}, as "
                    "<class>/*.png, and the suite splits them"
                )
        rows += [row for row in chain.from_iterable(zip_longest(*classes)) if row]
    survey.given, survey.labels, survey.ids = (list(column) for column in zip(*rows, strict=True))
    survey.paths = [found.images[name] for name in survey.ids]
    survey.class_names = tuple(name for _, name in names)
    if survey.masks_root:
        _take_masks(survey)
    return survey


def _given_splits(found: Listing, masks: str | None) -> list[str]:
    """train, val and test, those that are there with folders in them; a class may be called so, too."""
    tops = {name for name in found.folders if "/" not in name and name != masks}
    given = [part for part in SPLITS if any(name.startswith(f"{part}/") for name in found.folders)]
    if not given and "train" in tops and tops <= set(SPLITS):
        raise ValueError(
            f"{found.root}: {' and '.join(sorted(tops))} hold images and no class folders; expected one folder for "
            "each class in each: train/<class>/*.png"
        )
    if given and "train" not in given:
        raise ValueError(f"{found.root} has {' and '.join(given)} but no train folder with classes in it; add it")
    return given


def _of_class(survey: Survey, folder: str) -> list[str]:
    """The images below the folder of a class; masks among them, by their names, are left out aloud, or asked about."""
    names = list(images := survey.found.below(folder))
    if masks := masks_among(folder, images):
        survey.aside.append(
            f"{len(masks)} files below {folder}/ are masks by their names and values ({short(masks, 1)}), and no "
            "images of the class; to use them: move each to <masks>/<path of its image>, and pass -p masks <masks>"
        )
    names = sorted(set(names).difference(masks))
    if twins := [group for group in of_one_name(names) if len(group) > 1]:
        text = f"pairs of images of one name, {' and '.join(n.rpartition('/')[2] for n in twins[0][:2])} for one"
        if len(twins) > len(names) / 4:
            raise ValueError(
                f"class folder {survey.root / folder} holds {len(twins)} {text}. If one of each is the other's mask, "
                "move it to <masks>/<path of its image>, and pass -p masks <masks>; if both show one picture, remove "
                "one; if not, rename one"
            )
        survey.aside.append(f"{folder}/ holds {len(twins)} {text}: is one the other's mask?")
    return names


def _class_names(survey: Survey, tops: list[str]) -> list[tuple[int, str]]:
    """Numbers and names of the classes; other folders, and images in none, are passed over aloud."""
    root, found = survey.root, survey.found
    masks = survey.masks_root.name if survey.masks_root else ""
    top_folders = {name for name in found.folders if "/" not in name and name != masks}
    if tops == [""]:
        names = sorted(top_folders - set(_no_classes(survey, top_folders)))
    else:
        folders = {name for name in found.folders if name.count("/") == 1 and name.partition("/")[0] in tops}
        names = sorted({name.partition("/")[2] for name in folders - set(_no_classes(survey, folders))})
        if beside := sorted(top_folders - set(SPLITS)):
            survey.aside.append(f"folders beside {' and '.join(tops)} are not read: {short(beside)}")
    if len(names) < 2:
        inner = sum(name.count("/") == 1 and name.partition("/")[0] in names for name in found.folders)
        shown = f" ({', '.join(names)})" * bool(names)
        meant = f"; did you mean {root / names[0]}, masks' folders moved into it?" if names and inner > 1 else ""
        raise ValueError(
            f"{root} has {len(names)} class folders{shown}, expected two or more, one folder "
            f"for each class: <class>/*.png{meant}" + "".join(f"; {text}" for text in survey.aside)
        )
    if loose := [name for name in found.images if name.rpartition("/")[0] in tops]:
        survey.aside.append(f"{len(loose)} images lie in no class folder: {short(loose)}")
    if tops == [""] and (same := folders_alike(found, names)):
        survey.doubts.append(
            f"the classes {short(names)} all hold the folders {short(same)}: if these are the classes, join the "
            "folders of one name, and say by -p group_by which images lay together"
        )
    return list(enumerate(names))


def _no_classes(survey: Survey, folders: set[str]) -> Iterator[str]:
    """Folders of masks that nobody named, and of lists alone."""
    found = survey.found
    for name in sorted(folders):
        top = name.rpartition("/")[0]
        others = [image.removeprefix(f"{top}/") for image in (found.below(top) if top else found.images)
                  if not image.startswith(f"{name}/")]  # fmt: skip
        lists = [path for other, path in found.others.items() if other.startswith(f"{name}/")]
        if text := _mask_folder(found, name, others):
            text = text.replace(";", " and is no class (if it is one, rename it);", 1)
        elif not found.below(name) and lists and {path.suffix.lower() for path in lists} <= SETTINGS:
            text = f"folder {name}/ holds no images, only {short(path.name for path in lists)}"
        else:
            continue
        survey.aside.append(text)
        yield name


def _mask_folder(found: Listing, name: str, others: Iterable[str]) -> str:
    """What to say of a folder that holds masks by its names; "" of another."""
    lone = mirrors(found, name, others)
    if lone is None:
        return ""
    more = f" ({lone} of its {len(found.below(name))} files belong to no image)" * bool(lone)
    top, _, last = name.rpartition("/")
    way = f"move it to {last}/{top}/ beside {top}, and pass -p masks {last}" if top else f"-p masks {name}"
    return f"folder {name}/ holds masks by its names and values{more}; to use them: {way}"


def two_classes(survey: Survey, needs: str) -> None:
    """ValueError unless the classes are `needs` and one other."""
    names = survey.class_names
    if needs not in names or len(names) != 2:
        raise ValueError(
            f"{survey.root} has {len(names)} classes ({', '.join(names)}), expected two: {needs}/ and one other. "
            f"Rename the folder of images to be found to {needs}, and join the others into one folder, or move them out"
        )


def _masks_root(root: Path, found: Listing, masks: str | None, *, direct: bool) -> Path | None:
    if masks is None:
        return None
    path = found.folders.get(unicodedata.normalize("NFC", masks.removeprefix("./").rstrip("/")), root / masks)
    there = path.is_dir() and (not direct or path in root.iterdir())
    if not there:
        usual = ", ".join(name for name in found.folders if "/" not in name) or "none"
        raise FileNotFoundError(
            f"masks' folder {path} does not exist, or is not a folder{' directly' * direct} below {root}; "
            f"folders there: {usual}"
        )
    return path


def _take_masks(survey: Survey) -> None:
    """Give every image of a class that has masks its own; refuse masks and folders that belong to no image."""
    root, masks_root = survey.root, survey.masks_root
    place = name_of(masks_root, root)
    below = {n[len(place) + 1 :]: p for n, p in survey.found.below(place).items()}
    if not below:
        raise ValueError(f"masks' folder {masks_root} holds no masks ({', '.join(sorted(SUFFIXES))})")
    below = named_as_images(below, survey.ids)
    if is_flat(below):
        names = {PurePosixPath(stem(name)).name for name in survey.ids}
        marked = {label for label, name in zip(survey.labels, survey.ids, strict=True)
                  if PurePosixPath(stem(name)).name in set(map(stem, below))}  # fmt: skip
        _unique(survey, marked)
    else:
        _no_lone_folders(survey)
        names = {stem(name) for name in survey.ids}
        tops = {(part, label) for part, label in zip(survey.given, survey.labels, strict=True)}
        folder = {
            (part, label): "/".join(filter(None, (place, part, survey.class_names[label]))) for part, label in tops
        }
        marked = {label for (_, label), name in folder.items() if name in survey.found.folders}
    for name, path in below.items():
        if stem(name) not in names:
            raise ValueError(
                f"mask {path} belongs to no image, expected one {root / stem(name)}.*; rename or remove it (of several "
                "masks of one image make one)"
            )
    wanted = [name for name, label in zip(survey.ids, survey.labels, strict=True) if label in marked]
    survey.masks = masks_of(masks_root, below, wanted)


def _unique(survey: Survey, marked: set[float]) -> None:
    """Refuse masks without folders where two images of one name would share one."""
    seen: dict[str, str] = {}
    for name, label in zip(survey.ids, survey.labels, strict=True):
        if label in marked and seen.setdefault(PurePosixPath(stem(name)).name, name) != name:
            other = seen[PurePosixPath(stem(name)).name]
            raise ValueError(
                f"masks' folder {survey.masks_root} has no folders, and images {other!r} and {name!r} have one name: "
                "put each mask into the folder of its class, <masks>/<class>/<name>.png"
            )


def _no_lone_folders(survey: Survey) -> None:
    places = {parent.as_posix() for name in survey.ids for parent in PurePosixPath(name).parents}
    start = f"{name_of(survey.masks_root, survey.root)}/"
    for name, path in survey.found.folders.items():
        if name.startswith(start) and name[len(start) :] not in places:
            raise ValueError(
                f"masks' folder {path} belongs to no images, expected some in {survey.root / name[len(start) :]}; "
                "rename or remove it"
            )


# --- a regression -----------------------------------------------------------------------------------------------


def survey_targets(root: Path, targets: str, masks: str | None) -> Survey:
    """A folder of images with a list of their targets; see `target_folder.load_target_folder`."""
    found = listing(root)
    survey = Survey(root, found, masks_root=_masks_root(root, found, masks, direct=False))
    start = (
        "" if survey.masks_root is None else survey.masks_root.resolve().relative_to(root.resolve()).as_posix() + "/"
    )
    images = {name: path for name, path in found.images.items() if not (start and name.startswith(start))}
    rows = _target_rows(survey, root / targets, images)
    survey.ids, survey.paths = list(rows), [images[name] for name in rows]
    survey.labels, survey.given = (list(column) for column in zip(*rows.values(), strict=True))
    survey.lists = {targets: root / targets}
    if survey.masks_root:
        below = named_as_images(
            {n[len(start) :]: p for n, p in found.images.items() if n.startswith(start)}, survey.ids
        )
        marked = [name for name in survey.ids if (start + name.rpartition("/")[0]).rstrip("/") in found.folders]
        survey.masks = masks_of(survey.masks_root, below, survey.ids if is_flat(below) else marked)
    return survey


def _target_rows(survey: Survey, path: Path, images: dict[str, Path]) -> dict[str, tuple[float, str]]:
    """Target and split ("" without that column) of every image, in the order of the CSV file."""
    if not path.is_file():
        raise FileNotFoundError(f"targets {path} do not exist: write a CSV file with the header file,target")
    header, lines = rows_of_csv(path, HEADERS)
    rows: dict[str, tuple[float, str]] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        name, text, split = [*line, ""][:3]
        name = unicodedata.normalize("NFC", name)
        if name not in images:
            raise ValueError(f"{where}: there is no image {name!r} below {path.parent}")
        if name in rows:
            raise ValueError(f"{where}: {name!r} has a target already; give each image one line")
        if len(header) == 3 and split not in SPLITS:
            raise ValueError(f"{where}: the split of {name!r} is {split!r}, expected one of {', '.join(SPLITS)}")
        rows[name] = _target(text, f"{where}: the target of {name!r}"), split
    missing = [name for name in images if name not in rows]
    for folder in sorted({name.partition("/")[0] for name in missing if "/" in name}):
        inside = survey.found.below(folder)
        if set(inside) <= set(missing) and (text := _mask_folder(survey.found, folder, rows)):
            missing = [name for name in missing if name not in inside]
            survey.aside.append(text)
    if missing:
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


# --- splits -----------------------------------------------------------------------------------------------------


def split_of(survey: Survey, groups: str, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Split and group of every image: as given, or 70 / 10 / 20 by class with no group in two splits.

    Args:
        survey: of the folder.
        groups: a rule of `grouping.groups_of`; "" = unknown.
        seed: of a split that is not given.

    Raises:
        ValueError: a rule that does not fit, a given split that divides a group, too few images or groups for three
            splits.
    """
    owners = groups_of(groups, survey.ids, survey.root)
    labels = [int(label) if survey.class_names else 0 for label in survey.labels]
    if survey.given[0]:
        split = np.array(survey.given)
        if owners is not None and (torn := divided(split.tolist(), owners.tolist())):
            raise ValueError(
                f"{survey.root}: {len(torn)} of {len(set(owners))} groups have images in more than one of train, val "
                f"and test ({short(torn)}): a network would be tested on what it was trained on. Move the images of "
                "each group into one of them, or give the classes without these folders"
            )
    elif owners is not None:
        split = grouped_split(labels, owners.tolist(), seed=seed)
    else:
        split = stratified_split(labels, survey.ids, seed=seed)
    if not survey.given[0]:
        _enough(survey, labels, owners)
    if lacking := [part for part in SPLITS if part not in split]:
        raise ValueError(
            f"{survey.root}: no images for {' and '.join(lacking)} ({len(survey.ids)} images in all). "
            + _remedy(survey, lacking)
        )
    return split, owners


def _remedy(survey: Survey, lacking: Sequence[str]) -> str:
    """What to do about splits without images."""
    if survey.given[0]:
        what = "folder" if survey.class_names else "split"
        more = ", or join your folders: without them the suite splits the images" if survey.class_names else ""
        return f"Make the {what} {' and '.join(lacking)} of some of train's images{more}."
    if survey.class_names:
        return "Give every class five or more images, or make the folders train, val and test yourself."
    return "Give five or more images, or a column split with train, val and test."


def _enough(survey: Survey, labels: list[int], owners: np.ndarray | None) -> None:
    """Refuse a class of which a drawn split could not put an image into each part."""
    units = survey.ids if owners is None else owners.tolist()
    least, word = (LEAST, "images") if owners is None else (3, "groups of images")
    for label, name in enumerate(survey.class_names):
        own = len({unit for unit, each in zip(units, labels, strict=True) if each == label})
        if own < least:
            raise ValueError(
                f"{survey.root}: no images for each of train, val and test in class {name!r}: it has {own} {word} "
                f"({len(survey.ids)} images in all). Give every class {'five' if least == LEAST else 'three'} or more, "
                "take the class out, or make the folders train, val and test yourself."
            )
