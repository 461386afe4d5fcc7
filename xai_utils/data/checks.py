"""What is wrong, or worth a look, in a folder of your own images, before anything is trained on it."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image

from xai_utils.data import pictures
from xai_utils.data.fitting import Fit, central, fitted_mask
from xai_utils.data.grouping import fingerprint, nearly_equal
from xai_utils.data.listing import short
from xai_utils.data.masks import looks_like_one, read_mask, stored_orientation
from xai_utils.data.surveys import Survey

DRAFT = 64  # side for which a JPEG is decoded where only its looks are asked for
FEW = 30  # images of a class in all, below which figures are hardly more than anecdotes
SPECK = 4  # pixels that an image has on each side, at least
NEAR_ONE = (0.05, 5.0)  # where the largest absolute target should lie: networks start from about 1
BITS = (8, 10, 12, 14, 16)  # of the cameras whose pixels come in 16-bit files
SHAPES = 0.9  # share of the images that the aspect ratio alone would tell the class of
Level = Literal["refused", "look", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that the check found: how bad it is, what, and what to do about it."""

    level: Level
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return self.what + (f" → {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Look:
    """One image file at a glance."""

    sha256: str
    width: int
    height: int
    deepest: int  # the largest value of 16-bit grey; 0 for other depths
    orientation: int  # EXIF's, 1 … 8
    gradients: np.ndarray  # `grouping.fingerprint`
    few_values: bool  # `masks.looks_like_one`


@dataclass(frozen=True)
class Mark:
    """One mask at a glance: shares of the image's area."""

    inside: float
    central: float  # of what is inside, the share that the central square keeps; 1 where nothing is inside
    shown: float  # inside, at the size and fit of the run; margins do not count


@dataclass
class Check:
    """The outcome: a table of classes, findings, and what a loader needs besides."""

    table: pd.DataFrame | None
    findings: list[Finding] = field(default_factory=list)
    looks: dict[str, Look] = field(default_factory=dict)

    @property
    def refused(self) -> list[Finding]:
        """What a run would stop at."""
        return [finding for finding in self.findings if finding.level == "refused"]

    @property
    def deepest(self) -> int:
        """The value of 16-bit grey that is white: the largest of the smallest usual depth that holds all images."""
        largest = max((look.deepest for look in self.looks.values()), default=0)
        return next(2**bits - 1 for bits in BITS if largest < 2**bits) if largest else pictures.DEEPEST

    def __str__(self) -> str:
        lines = [] if self.table is None else [self.table.to_string()]
        for level, title in {"refused": "Refused", "look": "Look at", "note": "Note"}.items():
            lines += [f"{title}: {finding}" for finding in self.findings if finding.level == level]
        return "\n".join(lines)


def check(
    survey: Survey, split: Sequence[str], groups: np.ndarray | None, *, size: int = 64, fit: Fit = "letterbox"
) -> Check:
    """Look at every file of a folder; nothing is raised for what is in them, it is told.

    Args:
        survey: of the folder.
        split: of each image.
        groups: of each image; None = unknown, and images that are nearly the same are looked for.
        size: side of the images of the run, for what becomes of the masks.
        fit: how they become squares.

    Returns:
        The check; 2,000 images take less than ten seconds.
    """
    findings = [Finding("note", text) for text in survey.aside] + [Finding("look", text) for text in survey.doubts]
    if text := survey.found.passed_over():
        findings.append(Finding("look", text, f"save them as one of {', '.join(sorted(pictures.SUFFIXES))}"))
    looks = dict(_all(survey.ids, survey.paths, _look, findings))
    marks = dict(_all(survey.masks, zip(survey.masks.values(), _paths_of(survey)),
                      lambda pair: _mark(*pair, size, fit), findings))  # fmt: skip
    findings += _duplicates(survey, split, looks)
    if groups is None or len(set(groups)) == len(groups):  # a rule that joins none
        findings += _near_duplicates(survey, split, looks)
    if groups is not None:
        findings.append(_groups(survey, groups))
    findings += (
        _few_values(looks) + _specks(looks) + _depths(looks) + _turned(survey, looks) + _masks(survey, marks, size, fit)
    )
    findings += _counts(survey, split) + _shapes(survey, looks)
    return Check(_table(survey, split, looks, marks), findings, looks)


def _paths_of(survey: Survey) -> list[Path]:
    of = dict(zip(survey.ids, survey.paths, strict=True))
    return [of[name] for name in survey.masks]


def _all(names: Iterable[str], values: Iterable, look: Callable, findings: list[Finding]) -> list[tuple[str, object]]:
    """`look` at every value, several at once; what cannot be read is a finding each, the first five of them."""

    def one(value: object) -> object:
        try:
            return look(value)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = list(zip(names, pool.map(one, values)))
    faults = [value for _, value in found if isinstance(value, ValueError)]
    findings += [Finding("refused", str(error)) for error in faults[:5]]
    if len(faults) > 5:
        findings.append(Finding("refused", f"{len(faults) - 5} more files with faults of this kind"))
    return [(name, value) for name, value in found if not isinstance(value, ValueError)]


def _look(path: Path) -> Look:
    data = path.read_bytes()
    picture = pictures.read_picture(path, DRAFT)
    deepest = int(np.asarray(picture).max()) if picture.mode == "I;16" else 0
    if deepest:
        scaled = np.asarray(picture, dtype=np.float64) * (255 / deepest)
        picture = Image.fromarray(scaled.round().astype(np.uint8))
    width, height = pictures.upright_size(path)
    gradients = fingerprint(pictures.as_8_bit(picture, "L"))
    few = looks_like_one(picture, path.suffix.lower().startswith(".jp"))
    return Look(hashlib.sha256(data).hexdigest(), width, height, deepest, stored_orientation(path), gradients, few)


def _mark(mask: Path, image: Path, size: int, fit: Fit) -> Mark:
    inside = read_mask(mask, image)
    total = int(inside.sum())
    kept = int(inside[central(*inside.shape)].sum())
    area = fitted_mask(np.ones_like(inside), size, fit).sum()
    shown = fitted_mask(inside, size, fit).sum() / area
    return Mark(total / inside.size, kept / total if total else 1.0, float(shown))


# what is found --------------------------------------------------------------------------------------------------


def _duplicates(survey: Survey, split: Sequence[str], looks: dict[str, Look]) -> list[Finding]:
    """Images with the same bytes."""
    same = defaultdict(list)
    for row, name in enumerate(survey.ids):
        if name in looks:
            same[looks[name].sha256].append(row)
    twice = [rows for rows in same.values() if len(rows) > 1]
    if not twice:
        return []
    across = [rows for rows in twice if len({split[row] for row in rows}) > 1]
    other = [rows for rows in twice if len({survey.labels[row] for row in rows}) > 1]
    text = f"{sum(map(len, twice))} images are exact copies, {_pairs(survey, twice)}"
    if across:
        text += f"; copies in more than one of train, val and test: {len(across)} times"
    kind = "class" if survey.class_names else "target"
    if other:
        text += f"; copies with more than one {kind}: {_pairs(survey, other)}"
    return [Finding("look", text, "keep one of each, or give groups")]


def _near_duplicates(survey: Survey, split: Sequence[str], looks: dict[str, Look]) -> list[Finding]:
    """Images that are nearly the same, and on both sides of a split."""
    rows = [row for row, name in enumerate(survey.ids) if name in looks]
    if len(rows) < 2:
        return []
    of = [looks[survey.ids[row]] for row in rows]
    pairs = nearly_equal(np.stack([look.gradients for look in of]))
    near = [(rows[i], rows[j]) for i, j in pairs if of[i].sha256 != of[j].sha256]
    across = [pair for pair in near if split[pair[0]] != split[pair[1]]]
    leaked = {row for pair in across for row in pair if split[row] == "test"}
    if near:
        alike = {row for pair in near for row in pair}
        text = f"{len(alike)} images look nearly like another, {_pairs(survey, near, '≈')}"
        text += f"; {len(leaked)} test images look nearly like one of train or val" if leaked else ""
        remedy = "say which belong together, such as -p group_by prefix:8, so that they stay in one split"
        return [Finding("look", text, remedy)]
    text = "no groups are given and no two images look nearly alike; whether images show one thing (a part, a patient, "
    text += "a road) from two sides is not known here, and intervals count each image for itself"
    return [Finding("note", text, "if they do: -p group_by prefix:8, a regular expression, or groups.csv")]


def _pairs(survey: Survey, pairs: Sequence[Sequence[int]], sign: str = "=") -> str:
    return short([f" {sign} ".join(survey.ids[row] for row in rows[:2]) for rows in pairs], 2)


def _groups(survey: Survey, groups: np.ndarray) -> Finding:
    number = len(set(groups))
    if number == len(survey.ids):
        return Finding("look", "each image is a group of its own by the rule, which joins none", "another rule?")
    classes = defaultdict(set)
    for group, label in zip(groups, survey.labels, strict=True):
        classes[group].add(label)
    several = survey.class_names and all(len(own) > 1 for own in classes.values())
    more = "; each holds images of several classes" * bool(several)
    return Finding("note", f"{number} groups of images, none in two of train, val and test{more}")


def _few_values(looks: dict[str, Look]) -> list[Finding]:
    """Images that may be masks among photographs; where nearly all are so, they are drawings."""
    few = [name for name, look in looks.items() if look.few_values]
    if not 2 < len(few) < 0.9 * len(looks):
        return []
    text = f"{len(few)} images hold a few values only, as masks do: {short(few)}"
    return [Finding("look", text, "if they are masks: move each to <masks>/<path of its image>, and -p masks <masks>")]


def _specks(looks: dict[str, Look]) -> list[Finding]:
    small = [name for name, look in looks.items() if min(look.width, look.height) < SPECK]
    text = f"{len(small)} images have fewer than {SPECK} pixels on a side: {short(small)}"
    return [Finding("refused", text, "remove them")] if small else []


def _depths(looks: dict[str, Look]) -> list[Finding]:
    deep = {name: look.deepest for name, look in looks.items() if look.deepest}
    if not deep:
        return []
    white = Check(None, looks=looks).deepest
    text = f"{len(deep)} images have 16 bits, values up to {max(deep.values())}: {white} is taken for white"
    dark = [name for name, value in deep.items() if value < white / 8]
    if not dark:
        return [Finding("note", text)]
    text += f"; {len(dark)} of them stay below an eighth of it and are nearly black: {short(dark)}"
    return [Finding("look", text, "save them with the same range as the others")]


def _turned(survey: Survey, looks: dict[str, Look]) -> list[Finding]:
    turned = [name for name, look in looks.items() if look.orientation > 1]
    if not turned:
        return []
    found = [Finding("note", f"{len(turned)} images are turned by their EXIF tag, as they are seen: {short(turned)}")]
    doubtful = [
        n for n in turned if n in survey.masks and (looks[n].orientation < 5 or looks[n].width == looks[n].height)
    ]
    if doubtful:
        text = f"{len(doubtful)} of them have masks of which the size does not say whether they were drawn on the "
        text += f"turned image; that is assumed: {short(doubtful)}"
        found.append(Finding("look", text, "look at the mask beside its image in the notebook"))
    return found


def _masks(survey: Survey, marks: dict[str, Mark], size: int, fit: Fit) -> list[Finding]:
    if not marks:
        return []
    found = []
    empty, full = ([n for n, m in marks.items() if m.inside == share] for share in (0.0, 1.0))
    if empty:
        found.append(
            Finding("look", f"{len(empty)} masks mark nothing: {short(empty)}", "such images count as unmarked")
        )
    if full:
        found.append(Finding("look", f"{len(full)} masks mark the whole image: {short(full)}", "are these masks?"))
    inside = float(np.median([mark.inside for mark in marks.values()]))
    if inside > 0.5:
        text = f"half of the masks mark more than {inside:.0%} of their image"
        found.append(Finding("look", text, "0 is outside, another value inside: is it the other way round?"))
    marked = [mark for mark in marks.values() if mark.inside]
    if fit == "crop" and marked:
        kept = sum(mark.inside * mark.central for mark in marked) / sum(mark.inside for mark in marked)
        gone = [name for name, mark in marks.items() if mark.inside and not mark.central]
        text = f"the central square cuts {1 - kept:.0%} of the marked area off"
        text += f", and all of it in {len(gone)} images: {short(gone)}" if gone else ""
        found.append(Finding("look" if kept < 1 else "note", text, "-p square letterbox keeps all" if kept < 1 else ""))
    elif marked:
        before, after = (float(np.mean(values)) for values in ([m.inside for m in marked], [m.shown for m in marked]))
        text = f"nothing marked is cut off; at {size} px masks cover {after:.1%} of the picture, {before:.1%} as they "
        found.append(Finding("note", text + "are: a pixel counts as inside where any part of it is"))
    return found


def _counts(survey: Survey, split: Sequence[str]) -> list[Finding]:
    if not survey.class_names:
        targets = np.array(survey.labels)
        found = []
        if len(targets) < FEW:
            found.append(Finding("look", f"{len(targets)} images in all: too few for figures that mean much"))
        if not (targets < 0).any() or not (targets > 0).any():
            sign = "negative" if not (targets < 0).any() else "positive"
            found.append(Finding("note", f"no target is {sign}: what is said of {sign} targets will be not defined"))
        found += _far_targets(targets)
        if len(np.unique(targets)) == 1:
            found.append(Finding("refused", f"all targets are {targets[0]:g}: there is nothing to learn"))
        return found
    counts = Counter(int(label) for label in survey.labels)
    few = [f"{name} {counts[i]}" for i, name in enumerate(survey.class_names) if counts[i] < FEW]
    found = [Finding("look", f"classes with fewer than {FEW} images, too few for figures that mean much: {short(few)}")]
    lacking = [
        f"{name} in {part}"
        for i, name in enumerate(survey.class_names)
        for part in ("val", "test")
        if not any(s == part and label == i for s, label in zip(split, survey.labels, strict=True))
    ]
    return found * bool(few) + [Finding("look", f"classes without images: {short(lacking)}")] * bool(lacking)


def _far_targets(targets: np.ndarray) -> list[Finding]:
    """Targets that networks, which start from about −1 to 1, would first have to find."""
    usual, alone = float(np.median(np.abs(targets))), targets[np.abs(targets).argmax()]
    if usual and abs(alone) > 100 * usual:
        text = f"the target {alone:g} stands alone: most are near {usual:g}"
        return [Finding("look", text, "if it marks a missing value, take the image out")]
    spread, middle = float(np.ptp(targets)), float(targets.mean())
    off = middle if spread < float(np.abs(targets).max()) / 4 else 0.0  # all lie far from 0, on one side
    largest = float(np.abs(targets - off).max())
    if not spread or (not off and NEAR_ONE[0] <= largest <= NEAR_ONE[1]):
        return []
    text = f"targets lie from {targets.min():g} to {targets.max():g}, and networks start from about −1 to 1"
    return [
        Finding("look", text, f"take {off:g} off them in the list, then " * bool(off) + f"divide them by {largest:g}")
    ]


def _shapes(survey: Survey, looks: dict[str, Look]) -> list[Finding]:
    """Whether the class could be told from the image's shape, which letterbox shows and stretch nearly hides."""
    shapes: dict[float, Counter] = defaultdict(Counter)
    for name, label in zip(survey.ids, survey.labels, strict=True):
        if name in looks:
            shapes[round(looks[name].width / looks[name].height, 2)][label] += 1
    total = sum(map(Counter.total, shapes.values()))
    most = max(Counter(survey.labels).values())
    if not survey.class_names or len(shapes) < 2 or not total or len(shapes) > total / 4:
        return []
    told = sum(counts.most_common(1)[0][1] for counts in shapes.values()) / total
    if told < SHAPES or told <= most / len(survey.labels) + 0.05:
        return []
    text = f"the shape of an image (width / height) tells its class {told:.0%} of the time"
    return [Finding("look", text, "a network may learn that: cut the images alike, or -p square crop")]


def _table(survey: Survey, split: Sequence[str], looks: dict[str, Look], marks: dict[str, Mark]) -> pd.DataFrame:
    """A row a class: images by split, masks and how many of them are empty, sizes."""
    labels = [survey.class_names[int(label)] if survey.class_names else "images" for label in survey.labels]
    rows = {}
    for name in survey.class_names or ("images",):
        own = [i for i, label in enumerate(labels) if label == name]
        row: dict[str, object] = {part: sum(split[i] == part for i in own) for part in ("train", "val", "test")}
        row["all"] = len(own)
        mine = [marks[survey.ids[i]] for i in own if survey.ids[i] in marks]
        if survey.masks:
            row |= {"masks": len(mine), "empty": sum(not mark.inside for mark in mine)}
        sizes = Counter(
            (looks[survey.ids[i]].width, looks[survey.ids[i]].height) for i in own if survey.ids[i] in looks
        )
        row["width × height"] = short([f"{w}×{h} ({n})" for (w, h), n in sizes.most_common()], 2)
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("class" if survey.class_names else "")
