"""What files a folder of your own holds: links followed, names in one form, and what is passed over is told."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xai_utils.data.pictures import SUFFIXES, name_of

NORMAL = (  # usual names of a class without a defect, in small letters; the first three are those of surface_defects
    "normal", "normal_scratch", "normal_dirt", "good", "ok", "fine", "healthy", "intact", "sound", "none", "no_defect",
    "no_defects", "defect_free", "non_defective", "no_crack", "uncracked", "negative",
)  # fmt: skip
NOBODYS = {"__macosx", "@eadir", "thumbs.db", "desktop.ini"}  # systems leave them behind
SETTINGS = {".csv", ".txt", ".md", ".yaml", ".yml", ".json", ".xml"}  # lists and notes: nobody takes them for images


@dataclass
class Listing:
    """Files below a folder by their path there ("/", NFC), in order; hidden ones are left out.

    Attributes:
        images: files whose suffix is a picture's.
        folders: the folders.
        others: all other files.
        twice: names that two files have in one form of Unicode.
    """

    root: Path
    images: dict[str, Path] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    others: dict[str, Path] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)

    def below(self, folder: str) -> dict[str, Path]:
        """The images below one folder, by their path from the root."""
        return {name: path for name, path in self.images.items() if name.startswith(f"{folder}/")}

    def passed_over(self) -> str:
        """What was no picture, counted by suffix: "5 files passed over: .heic 3, .pdf 2"; "" for lists and notes."""
        kinds = Counter(path.suffix.lower() or "(no suffix)" for path in self.others.values())
        told = {kind: n for kind, n in sorted(kinds.items()) if kind not in SETTINGS}
        if not told:
            return ""
        return f"{sum(told.values())} files passed over: " + ", ".join(f"{kind} {n}" for kind, n in told.items())


def listing(root: Path) -> Listing:
    """All that is below a folder. Links are followed, but none that leads back to where one came from.

    Raises:
        ValueError: two files whose names are the same but for the form of their accents (é as one character or two).
    """
    found = Listing(root)
    _walk(root, found, (os.path.realpath(root),))
    found.images, found.folders, found.others = (
        dict(sorted(part.items())) for part in (found.images, found.folders, found.others)
    )
    if found.twice:
        raise ValueError(f"{root} holds two files called {found.twice[0]!r}, written differently; rename one of them")
    return found


def _walk(folder: Path, found: Listing, above: tuple[str, ...]) -> None:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in NOBODYS:
            continue
        name = name_of(path, found.root)
        if path.is_dir():
            found.folders[name] = path
            if (real := os.path.realpath(path)) not in above:
                _walk(path, found, (*above, real))
            continue
        part = found.images if path.suffix.lower() in SUFFIXES and path.is_file() else found.others
        if name in part:
            found.twice.append(name)
        part[name] = path


def short(names: Iterable[str] | Mapping[str, object], most: int = 3) -> str:
    """The first few of some names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
