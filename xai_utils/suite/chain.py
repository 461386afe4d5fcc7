"""results/equivalent.yaml: which map of content hashes leads to which later one without moving a number.

A record holds the hashes of everything that computed it, a *map*: relative path → hash. An entry says that the code of
one map computes the same, bit for bit, as that of another; only `make equivalent` writes entries. A record is current
if its own map, or a map that its chain of entries leads to, is that of today's files.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Self

import pydantic
import yaml
from pydantic import Field

from xai_utils.data.store import repository_root
from xai_utils.suite import provenance

Modules = Mapping[str, str]
FILE = "results/equivalent.yaml"
TITLE = "# Written by `make equivalent` alone: results/README.md says what an entry stands for.\n"
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Entry(_Strict):
    """One step: the maps and commits that it joins, and what was compared to show it."""

    old: _Hash = Field(alias="from")
    new: _Hash = Field(alias="to")
    old_commit: _Commit = Field(alias="from_commit")
    new_commit: _Commit = Field(alias="to_commit")
    date: date
    runs: list[str] = Field(min_length=1)
    metrics: int = Field(ge=1)
    arrays: int = Field(ge=0)


class Chain(_Strict):
    """The file: maps by their digest, and the entries, oldest first."""

    maps: dict[_Hash, dict[str, _Hash]] = {}
    entries: list[Entry] = []

    @pydantic.model_validator(mode="after")
    def _sound(self) -> Self:
        for name, modules in self.maps.items():
            if (found := digest(modules)) != name:
                raise ValueError(
                    f"map {name} has the digest {found}: it was edited by hand; run `make equivalent` anew"
                )
        nexts: dict[str, str] = {}
        for entry in self.entries:
            if missing := [name for name in (entry.old, entry.new) if name not in self.maps]:
                raise ValueError(f"entry {entry.old} → {entry.new}: there is no map {missing[0]}")
            if entry.old in nexts:
                raise ValueError(f"two entries lead from map {entry.old}: keep the one that was shown")
            nexts[entry.old] = entry.new
        for start in nexts:
            seen, name = {start}, start
            while (name := nexts.get(name, "")) and name:
                if name in seen:
                    raise ValueError(f"the entries lead in a circle through map {name}")
                seen.add(name)
        if unused := set(self.maps) - {name for entry in self.entries for name in (entry.old, entry.new)}:
            raise ValueError(f"map {min(unused)} belongs to no entry")
        return self

    def trail(self, modules: Modules) -> list[Modules]:
        """The map and those that it leads to, in order."""
        nexts, maps, name = {entry.old: entry.new for entry in self.entries}, [modules], digest(modules)
        while name in nexts:
            name = nexts[name]
            maps.append(self.maps[name])
        return maps

    def extended(self, step: Entry, old: Modules, new: Modules) -> "Chain":
        """The chain with one entry more. What led from the new map is dropped if the chain would close there."""
        maps = dict(self.maps) | {step.old: dict(old), step.new: dict(new)}
        entries = [entry for entry in self.entries if entry.old != step.old]
        if any(digest(known) == step.old for known in self.trail(new)[1:]):  # a change was taken back
            entries = [entry for entry in entries if entry.old != step.new]
        entries.append(step)
        used = {name for entry in entries for name in (entry.old, entry.new)}
        return Chain(maps={name: modules for name, modules in maps.items() if name in used}, entries=entries)


def digest(modules: Modules) -> str:
    """Hash of a whole map, 16 hex digits."""
    return hashlib.sha256(json.dumps(dict(modules), sort_keys=True).encode()).hexdigest()[:16]


def read(root: Path | None = None) -> Chain:
    """The chain of a checkout (default: the repository); empty where there is none.

    Raises:
        ValueError: naming every entry that is unknown, mistyped, doubled, circular or edited.
    """
    path = (root or repository_root()) / FILE
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else Chain()


@functools.lru_cache(maxsize=8)
def _read(path: Path, _modified_ns: int) -> Chain:
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return Chain.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=loader) or {})
    except pydantic.ValidationError as error:
        places = [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors()]
        raise ValueError("\n  ".join([f"{path} is not valid:", *places])) from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None


def write(chain: Chain, root: Path) -> None:
    """Put the chain in place of the checkout's, whole or not at all."""
    content = chain.model_dump(by_alias=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    draft = (root / FILE).with_suffix(f".{os.getpid()}.tmp")
    try:
        draft.write_text(TITLE + text, encoding="utf-8")
        os.replace(draft, root / FILE)
    finally:
        draft.unlink(missing_ok=True)


def differences(modules: Modules, hash_of: Callable[[str], str | None]) -> list[str]:
    """The files whose hash is not that of the map; `hash_of` gives today's, None where a file is gone."""
    return [name for name, known in modules.items() if hash_of(name) != known]


def todays(root: Path | None = None) -> Callable[[str], str | None]:
    """Today's hash of a file by its relative path: of this package and the repository, or of a checkout.

    None: it is gone, or cannot be read (`record.unreadable` says why).
    """
    checkout = str(root or repository_root())
    package = checkout if root else str(provenance.SOURCES)

    @functools.cache  # one moment's answer: a record's maps name the same files
    def hash_of(name: str) -> str | None:
        try:
            return provenance.hash_file(f"{package if name.startswith('xai_utils/') else checkout}/{name}")
        except (ValueError, OSError):
            return None

    return hash_of


_moment: dict[Path | None, Callable[[str], str | None]] | None = None


@contextmanager
def one_moment() -> Iterator[None]:
    """Within it, `changed` asks for each file's hash once: for whoever compares many records with the same files."""
    global _moment
    before, _moment = _moment, {}
    try:
        yield
    finally:
        _moment = before


def changed(modules: Modules, root: Path | None = None) -> list[str]:
    """The files that have changed since a record of this map, after the chain was followed; none: it is current."""
    known = {} if _moment is None else _moment
    if root not in known:
        known[root] = todays(root)
    maps, hash_of = read(root).trail(modules), known[root]
    found = [differences(known, hash_of) for known in maps]
    return [] if [] in found else found[-1]


def standing(modules: Modules, root: Path | None = None) -> str:
    """How a record of this map stands: "as made", "by equivalence" or "stale"."""
    if not differences(modules, todays(root)):
        return "as made"
    return "stale" if changed(modules, root) else "by equivalence"
