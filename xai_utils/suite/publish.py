"""A record and its files put in place of older ones, so that a kill at any moment leaves one whole record or the other.

Everything is written beside the folder first. Then the moves, one rename each, are noted in the staging folder, and
made in order: the old record.json goes, its PNG, NPZ and CSV files go, the new ones come, the new record.json comes
last. So no record.json ever stands beside files that are not its own. Where that was broken off, `settle` finishes the
noted moves; the staging folder alone says which of them were made.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import filelock

NOTE = "moves.json"
OWNED = ("record.json", "*.png", "*.npz", "*.csv")  # what a record brings, and takes with it


class _Move(NamedTuple):
    """A file that leaves the folder for the staging folder ("old"), or comes from there ("new")."""

    kind: Literal["old", "new"]
    name: str

    def ends(self, stage: Path, folder: Path) -> tuple[Path, Path]:
        staged, placed = stage / self.kind / self.name, folder / self.name
        return (placed, staged) if self.kind == "old" else (staged, placed)

    def is_made(self, stage: Path) -> bool:
        return (stage / self.kind / self.name).exists() == (self.kind == "old")


def publish(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put a record and its files in place of the older ones; `files` ends with record.json.

    An error or interrupt undoes the moves in reverse order: the folder is as it was. A kill leaves the noted moves to
    `settle`. Call it, as `settle`, while no other process writes into the folder.

    Raises:
        OSError: a file could not be written or moved.
    """
    settle(folder)
    stage = Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder.parent))
    try:
        for kind in ("new", "old"):
            (stage / kind).mkdir()
        for name, content in files.items():
            _write(stage / "new" / name, content)
        present = [path.name for kind in OWNED for path in sorted(folder.glob(kind))]
        moves = [_Move("old", name) for name in present] + [_Move("new", name) for name in files]
        _sync(stage / "new", stage / "old")
        _write(stage / NOTE, json.dumps(moves).encode())
        _sync(stage, folder.parent)
        _make(moves, stage, folder)
    except BaseException:
        _undo(stage, folder)
        raise


def settle(folder: Path) -> None:
    """Finish what a process that was killed while it put a record into `folder` had noted; clear away the rest.

    Raises:
        OSError: a file could not be moved; what was noted stays for the next call.
    """
    for stage in _leftovers(folder):
        if moves := _noted(stage):
            _make(moves, stage, folder)
        else:
            shutil.rmtree(stage)


def settle_all(arm: Path) -> list[Path]:
    """`settle` by a process that holds no run: every seed of an arm's folder in which no other one is at work.

    Returns:
        The seeds' folders where something is left: a run is recording there, or nothing can be written.
    """
    left = []
    for name in sorted({path.name[1:].partition(".record-")[0] for path in arm.glob(".seed_*.record-*")}):
        folder = arm / name
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        try:
            with lock:
                settle(folder)
                (folder / ".lock").unlink(missing_ok=True)  # while it is held
        except (OSError, filelock.Timeout):
            left.append(folder)
    return left


def _leftovers(folder: Path) -> list[Path]:
    """Staging folders of a run's folder: of processes that were killed, or of the one at work."""
    return sorted(folder.parent.glob(f"{_prefix(folder)}*"))


def _prefix(folder: Path) -> str:
    return f".{folder.name}.record-"


def _make(moves: Iterable[_Move], stage: Path, folder: Path) -> None:
    for move in moves:
        if not move.is_made(stage):
            os.replace(*move.ends(stage, folder))
    _done(stage, folder)


def _undo(stage: Path, folder: Path) -> None:
    for move in reversed(_noted(stage)):  # none: nothing was moved yet, or all is done
        if move.is_made(stage):
            os.replace(*reversed(move.ends(stage, folder)))
    _done(stage, folder)


def _done(stage: Path, folder: Path) -> None:
    """The moves are made, or undone, for good: without its note the staging folder is rubbish."""
    _sync(folder)
    (stage / NOTE).unlink(missing_ok=True)
    shutil.rmtree(stage, ignore_errors=True)


def _noted(stage: Path) -> list[_Move]:
    """The moves as they were noted; none before all of them were."""
    try:
        moves = [_Move(*entry) for entry in json.loads((stage / NOTE).read_text(encoding="utf-8"))]
    except (FileNotFoundError, TypeError, ValueError):
        return []
    return moves if all(m.kind in ("old", "new") and re.fullmatch(r"\w[\w.-]*", m.name) for m in moves) else []


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(*folders: Path) -> None:
    """Bring the names in folders to the disk, where the system can: some file systems refuse it."""
    for folder in folders:
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
