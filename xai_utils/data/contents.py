"""What a prepared set holds, file by file (data/contents/<name>.csv), and how an archive built here differs from it."""

import csv
import hashlib
import io
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

BUILT = b"built by xai_utils from its public origin"  # comment of an archive: it is no copy of the prepared one
HEADER = ["path", "sha256", "pixels"]
POINTS = 8  # a picture is compared at POINTS x POINTS pixels
TOLERANCE = 2.0  # mean difference in grey levels up to which a picture coded by another library is the same one
_compared: dict[tuple[str, int, int, str, int], "Comparison"] = {}  # for this process only


class Listed(NamedTuple):
    """What data/contents says of one file."""

    sha256: str
    pixels: str  # "", or `digest_of_pixels` of a mask, or `greys` of a photograph that was coded again


@dataclass
class Comparison:
    """How an archive differs from the list."""

    archive: Path
    listed: int
    checksums: dict[str, str] = field(default_factory=dict)  # sha256 of each file, as found
    wrong: dict[str, str] = field(default_factory=dict)  # file → what is wrong with it
    differ: int = 0  # files of other bytes that show the same picture
    grey_levels: int = 0  # largest difference among them, 0 … 255

    @property
    def identical(self) -> int:
        """Number of files that are equal to the prepared ones byte for byte."""
        return self.listed - self.differ - sum(text != "is not listed" for text in self.wrong.values())

    def summary(self) -> str:
        """One line: how many files are identical, and what is wrong or different."""
        text = f"{self.identical} of {self.listed} files identical"
        if self.differ:
            text += (
                f", {self.differ} with other bytes and the same picture (largest difference at {POINTS**2} pixels of "
                f"each: {self.grey_levels} of 255 grey levels)"
            )
        if self.wrong:
            some = [f"{path} {what}" for path, what in list(self.wrong.items())[:3]]
            text += f", {len(self.wrong)} wrong: {'; '.join(some)}" + (" …" if len(self.wrong) > 3 else "")
        return text


def read(path: Path) -> dict[str, Listed]:
    """The files of a set by their path in its archive, in the archive's order.

    FileNotFoundError if the list is missing, ValueError if it has other columns.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it lists the set's files and belongs here; restore it")
    head, *rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines())) or [[]]
    if head != HEADER or any(len(row) != len(HEADER) for row in rows):
        raise ValueError(f"{path} must have the columns {','.join(HEADER)}; restore the file")
    return {name: Listed(sha256, pixels) for name, sha256, pixels in rows}


def is_built(path: Path) -> bool:
    """Whether the file is an archive that was built here (and is not a copy of the prepared one)."""
    try:
        with path.open("rb") as stream:
            stream.seek(-len(BUILT), io.SEEK_END)
            return stream.read() == BUILT
    except OSError:
        return False


def compare(archive: Path, list_file: Path) -> Comparison:
    """Compare every file in an archive with the list; done once per process while both files stay the same."""
    state, listed_state = archive.stat(), list_file.stat()
    key = (str(archive), state.st_size, state.st_mtime_ns, str(list_file), listed_state.st_mtime_ns)
    if key not in _compared:
        _compared[key] = _compare(archive, read(list_file))
    return _compared[key]


def _compare(archive: Path, listed: dict[str, Listed]) -> Comparison:
    found = Comparison(archive, len(listed))
    try:
        with zipfile.ZipFile(archive) as source:
            there = source.namelist()
            found.wrong |= {name: "is missing" for name in listed if name not in set(there)}
            for name in there:
                if name not in listed:
                    found.wrong[name] = "is not listed"
                else:
                    _compare_file(found, name, _bytes(source, name), listed[name])
    except zipfile.BadZipFile as error:
        found.wrong = dict.fromkeys(listed, f"cannot be read ({error})")
    return found


def _bytes(source: zipfile.ZipFile, name: str) -> bytes | None:
    try:
        return source.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return None


def _compare_file(found: Comparison, name: str, data: bytes | None, listed: Listed) -> None:
    if data is None:
        found.wrong[name] = "cannot be read"
        return
    found.checksums[name] = actual = hashlib.sha256(data).hexdigest()
    if actual == listed.sha256:
        return
    levels = _grey_levels(data, listed.pixels)
    if levels is None:
        found.wrong[name] = f"has the sha256 {actual[:16]}…, expected {listed.sha256[:16]}…"
    else:
        found.differ += 1
        found.grey_levels = max(found.grey_levels, levels)


def _grey_levels(data: bytes, pixels: str) -> int | None:
    """Largest difference from the listed pixels, or None if it is not the same picture."""
    try:
        if len(pixels) == 2 * POINTS**2:
            pairs = list(zip(bytes.fromhex(greys(data)), bytes.fromhex(pixels)))
            apart = [abs(one - two) for one, two in pairs]
            return max(apart) if sum(apart) <= TOLERANCE * len(apart) else None
        return 0 if pixels and digest_of_pixels(data) == pixels else None
    except (OSError, ValueError):  # no picture
        return None


def digest_of_pixels(data: bytes) -> str:
    """16 hex digits that are equal for equal pixels, whatever library compressed them."""
    from PIL import Image  # not wanted where files are identical

    with Image.open(io.BytesIO(data)) as image:
        return hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).hexdigest()[:16]


def greys(data: bytes) -> str:
    """The grey levels of an evenly spaced grid of POINTS x POINTS pixels of an image, as hex digits."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        grey = image.convert("L")
    places = [(2 * i + 1) / (2 * POINTS) for i in range(POINTS)]
    return bytes(grey.getpixel((int(x * grey.width), int(y * grey.height))) for y in places for x in places).hex()


def listing(archive: Path, coded_again: str) -> str:
    """The text of data/contents/<name>.csv for a prepared archive.

    Args:
        archive: a zip or npz file.
        coded_again: regular expression for the photographs that are no byte copies of their origin.
    """
    lines = [",".join(HEADER)]
    with zipfile.ZipFile(archive) as source:
        for name in source.namelist():
            data = source.read(name)
            kind = digest_of_pixels if name.endswith(".png") else greys if re.fullmatch(coded_again, name) else None
            lines.append(f"{name},{hashlib.sha256(data).hexdigest()},{kind(data) if kind else ''}")
    return "\n".join(lines) + "\n"
