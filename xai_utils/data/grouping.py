"""Which of your own images belong together, splits that keep them together, and images that are nearly the same."""

import csv
import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from xai_utils.data.imageset import SPLITS

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
ALIKE = 0.97  # correlation of two thumbnails' gradients from which on images count as nearly the same
SIDE = 16  # of the thumbnails
_BLOCK = 1024
RULES = (
    "'prefix:N' (the first N characters of the file's name), a regular expression (what it finds in the path, or its "
    "first group), or a CSV file in the folder with the header file,group"
)


def groups_of(rule: str, ids: Sequence[str], root: Path) -> np.ndarray | None:
    """What each image shares with others (a photograph, a patient, a road), by a rule.

    Args:
        rule: "prefix:8"; a regular expression; "groups.csv"; "" = unknown.
        ids: paths of the images, below `root`.
        root: the folder.

    Returns:
        (N,) str, or None for "".

    Raises:
        ValueError: no such rule; an image that it says nothing about, which is named.
    """
    if not rule:
        return None
    if rule.lower().endswith(".csv"):
        found = _listed(root / rule, ids)
    elif re.fullmatch(r"prefix:[1-9]\d*", rule):
        found = [PurePosixPath(name).name[: int(rule[7:])] for name in ids]
    elif re.fullmatch(r"prefix\W*\d*", rule):
        raise ValueError(f"groups is {rule!r}, expected {RULES}")
    else:
        found = _matched(rule, ids)
    return np.array(found)


def _matched(rule: str, ids: Sequence[str]) -> list[str]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ValueError(f"groups is {rule!r}, no regular expression ({error}); expected {RULES}") from error
    matches = [pattern.search(name) for name in ids]
    if unmatched := [name for name, match in zip(ids, matches, strict=True) if not match]:
        raise ValueError(
            f"groups: {rule!r} finds nothing in {len(unmatched)} of {len(ids)} paths, {unmatched[0]!r} for one: let it "
            "fit all, or list the groups in a CSV file, file,group"
        )
    return [(match[1] if pattern.groups else match[0]) or "" for match in matches if match]


def _listed(path: Path, ids: Sequence[str]) -> list[str]:
    if not path.is_file():
        raise ValueError(f"groups: {path} does not exist; expected {RULES}")
    _, rows = rows_of_csv(path, (["file", "group"],))
    known: dict[str, str] = {}
    there = set(ids)
    for number, (written, group) in rows:
        name = unicodedata.normalize("NFC", written)
        if name not in there:
            raise ValueError(
                f"{path}, line {number}: {name!r} is no image of this set; correct the name, or remove the line"
            )
        if name in known:
            raise ValueError(f"{path}, line {number}: {name!r} has a group already; give each image one line")
        if not group:
            raise ValueError(f"{path}, line {number}: {name!r} has no group; give it one")
        known[name] = group
    if lacking := [name for name in ids if name not in known]:
        raise ValueError(f"{path}: {len(lacking)} images have no group, {lacking[0]!r} among them; add a line for each")
    return [known[name] for name in ids]


def rows_of_csv(path: Path, headers: Sequence[list[str]]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows of a CSV file in UTF-8, each row with the number of its line; blank lines are left out.

    Fields are stripped, and may be divided by commas, semicolons or tabs: the header says which.

    Args:
        path: of the file.
        headers: those that it may have.

    Raises:
        ValueError: no CSV file in UTF-8, another header, a row of more or fewer fields. It names the line.
    """
    expected = " or ".join(map(",".join, headers))
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        first = lines[0][1] if lines else ""
        delimiter = next((mark for mark in ";\t" if mark in first and "," not in first), ",")
        fields = list(csv.reader([line for _, line in lines], delimiter=delimiter))
    except (ValueError, csv.Error) as error:  # no UTF-8
        raise ValueError(
            f"{path} is not a CSV file in UTF-8 with the header {expected}: "
            + (
                f"line {error.object.count(10, 0, error.start) + 1} is not in UTF-8: save it as “CSV UTF-8” from "
                "the spreadsheet, or iconv -f CP1252 -t UTF-8 (SHIFT_JIS for Japanese)"
                if isinstance(error, UnicodeDecodeError)
                else str(error)
            )
        ) from error
    if not fields:
        raise ValueError(f"{path} is not a CSV file in UTF-8 with the header {expected}: it is empty")
    header, *rows = [[field.strip() for field in row] for row in fields]
    if header not in headers:
        raise ValueError(f"{path}: the header is {first!r}, expected {expected}")
    numbered = list(zip([number for number, _ in lines[1:]], rows, strict=True))
    for number, row in numbered:
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {number}: {len(row)} fields, expected {len(header)}: {delimiter.join(header)}"
            )
    if delimiter in ";\t":  # as spreadsheets write it where a comma is the decimal point
        numbered = [
            (number, [re.sub(r"^([-+]?\d+),(\d+)$", r"\1.\2", field) for field in row]) for number, row in numbered
        ]
    return header, numbered


def grouped_split(labels: Sequence[int], groups: Sequence[str], *, seed: int) -> np.ndarray:
    """A split 70 / 10 / 20 that divides no group, by nothing but the groups' names and the seed.

    Class by class (a group counts for its most frequent one, the first of several) the groups come in the order of
    sha256("<seed>/<group>"): the first three go to train, test and val, each further one to where most images are
    lacking.

    Returns:
        (N,) array of "train" / "val" / "test".
    """
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        counts[group][label] += 1
    of_class = defaultdict(list)
    for group in sorted(counts, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()):
        of_class[max(sorted(counts[group]), key=counts[group].__getitem__)].append(group)
    place = {}
    for own in of_class.values():
        total, have = sum(counts[group].total() for group in own), dict.fromkeys(SPLITS, 0)
        for number, group in enumerate(own):
            lacking = {part: SHARES[part] * total - have[part] for part in SPLITS}
            part = ("train", "test", "val")[number] if number < 3 else max(SPLITS, key=lacking.__getitem__)
            place[group], have[part] = part, have[part] + counts[group].total()
    return np.array([place[group] for group in groups])


def divided(split: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Groups with images in more than one split."""
    parts = defaultdict(set)
    for part, group in zip(split, groups, strict=True):
        parts[group].add(part)
    return sorted(group for group, found in parts.items() if len(found) > 1)


# images that are nearly the same --------------------------------------------------------------------------------


def fingerprint(image: Image.Image) -> np.ndarray:
    """What two nearly equal pictures share: the gradients of a thumbnail of 17 × 17 greys, (512,) float32 of norm 1.

    The mean gradient, uneven light, is taken out; a flat picture is all zeros, and like none.
    """
    small = np.asarray(image.convert("L").resize((SIDE + 1, SIDE + 1), Image.Resampling.BOX), dtype=np.float32)
    across, down = np.diff(small, axis=1)[:-1], np.diff(small, axis=0)[:, :-1]
    both = np.concatenate([(across - across.mean()).ravel(), (down - down.mean()).ravel()])
    norm = float(np.linalg.norm(both))
    return both / norm if norm > SIDE else np.zeros_like(both)


def nearly_equal(fingerprints: np.ndarray, alike: float = ALIKE) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of rows (N, D) of `fingerprint` whose correlation is at least `alike`."""
    pairs = []
    for start in range(0, len(fingerprints), _BLOCK):
        found = fingerprints[start : start + _BLOCK] @ fingerprints.T >= alike
        rows, columns = np.nonzero(found)
        pairs += [(int(i) + start, int(j)) for i, j in zip(rows, columns, strict=True) if i + start < j]
    return pairs
