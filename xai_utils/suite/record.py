"""What a run leaves: one ``record.json``, checked whenever it is written or read."""

import functools
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WrapValidator

from xai_utils.data.store import repository_root, resolve
from xai_utils.metrics.statistics import Estimate
from xai_utils.suite import chain, claims, parameters, provenance
from xai_utils.suite.parameters import OWN, Plain
from xai_utils.suite.publish import settle_all
from xai_utils.suite.rules import Verdict
from xai_utils.suite.strict import Strict, checked, said, unique

NAME = r"\w[\w.-]*"  # of a profile, an arm, a figure, …
SCHEMA_VERSION = 2  # 1, still read: `settings` held all that the arm set, and counted before `parameters`


def _estimate(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    if unknown := data.keys() - Estimate.__dataclass_fields__.keys():
        raise ValueError(f"unknown field(s) {', '.join(sorted(unknown))}")
    try:
        return Estimate(**data)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _at_once(data: Any, one_by_one: Callable[[Any], dict[str, Estimate]]) -> dict[str, Estimate]:
    """All metrics of a record, in a third of the time; what is wrong with one is said `one_by_one`."""
    try:
        if all(type(name) is str and type(value) is dict for name, value in data.items()):
            return {name: Estimate(**value) for name, value in data.items()}
    except (AttributeError, TypeError, ValueError):
        pass
    return one_by_one(data)


class DataSource(Strict):
    """A data set that a run used; its name is no path."""

    name: str = Field(pattern=r"^[^/\\]+$")
    sha256: str
    variant: Literal["prepared", "origin", "embedded", "own"]
    # only of a set that was built with other bytes than the prepared one, by another JPEG library
    files_differ: int = Field(default=0, ge=0, exclude_if=lambda value: not value)
    grey_levels: int = Field(default=0, ge=0, exclude_if=lambda value: not value)


def _inside(name: str) -> str:
    if re.search(r"^/|^\w:|\\|\0|(^|/)\.\.?(/|$)|^$", name):
        raise ValueError("expected a relative path below the checkout; a record names no other file")
    return name


class Provenance(Strict):
    """Where the numbers come from; ``modules`` maps relative paths to content hashes."""

    commit: str
    dirty: bool | None
    started: str
    seconds: float
    peak_memory_mib: float
    python: str
    packages: dict[str, str]
    platform: str
    hardware: dict[Literal["cpu", "kernels", "cores", "memory_gib", "gpu"], str | int | float | None]
    threads: int
    device: str
    data: list[DataSource]
    modules: dict[Annotated[str, AfterValidator(_inside)], str]
    # files of weights that a parameter names → sha256; trainings that went on from a checkpoint → how often
    weights: dict[str, str] = Field(default_factory=dict, exclude_if=lambda value: not value)
    resumed: dict[str, int] = Field(default_factory=dict, exclude_if=lambda value: not value)
    # trainings on own images, whose length their number and the minutes decided → epochs
    epochs: dict[str, int] = Field(default_factory=dict, exclude_if=lambda value: not value)


class Record(Strict):
    """What ``record.json`` holds.

    `parameters` are those that the run computed with; `settings`, what its arm sets besides; `overrides`, the
    parameters that the caller passed with other values than profile and arm have (the arm then ends in "+own" or
    "+own-<name>").
    """

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    paper: str
    profile: str
    arm: str
    seed: int
    parameters: dict[str, Plain | list[Plain]]
    overrides: list[str] = Field(default_factory=list)
    settings: dict[str, Plain | list[Plain]] = Field(default_factory=dict)
    metrics: Annotated[dict[str, Annotated[Estimate, BeforeValidator(_estimate)]], WrapValidator(_at_once)]
    claims: dict[str, Verdict]
    figures: list[str]
    arrays: list[str]
    # lines of images.csv, none of older runs; and what makes an image suspicious
    images: int = Field(default=0, ge=0, exclude_if=lambda value: not value)
    suspicion: str = Field(default="", exclude_if=lambda value: not value)
    provenance: Provenance

    @property
    def values(self) -> dict[str, Any]:
        """All that the run computed with: parameters and the arm's settings."""
        return self.parameters | self.settings  # in schema 1 the settings overrode the parameters

    @property
    def subject(self) -> dict[str, Any]:
        """What the rules are told of the run: its parameters, profile, arm and data set, and whether that is own."""
        return subject(self.parameters, self.profile, self.arm, self.provenance.data)


def subject(values: dict[str, Any], profile: str, arm: str, sources: list[DataSource]) -> dict[str, Any]:
    """What the rules are told of a run; an arm with own values is judged as that arm.

    `own` says whether any images are a user's own.
    """
    names = dict.fromkeys(source.name for source in sources)  # where the arm chooses the data, no parameter does
    told = {"profile": profile, "arm": arm.partition(OWN)[0], "own": any(s.variant == "own" for s in sources)}
    return {"dataset": ", ".join(names), **values, **told}


def published(value: Any) -> Any:
    """A parameter as a record holds it: an absolute path tells of the machine, so only what is below the repository.

    Of a path elsewhere its last name is left.
    """
    if isinstance(value, list | tuple):
        return [published(part) for part in value]
    if not isinstance(value, str) or not (path := Path(value).expanduser()).is_absolute():
        return value
    root = repository_root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def results_root() -> Path:
    """Folder of the results: $XAI_RESULTS (a relative one counts from the repository), else ``results/``."""
    return resolve(os.environ.get("XAI_RESULTS") or "results")


def run_folder(profile: str, paper: str, arm: str, seed: int, overrides: bool) -> Path:
    """Where a run's files lie; one that overrides what its profile or arm says never replaces the arm's own.

    That one goes to ``<arm>+own``, or to ``<arm>+own-<name>`` with a name in $XAI_NAME. ValueError if profile, arm or
    name is no name of a folder.
    """
    name = os.environ.get("XAI_NAME", "") if overrides else ""
    for part in (profile, arm, name or arm):
        if not re.fullmatch(NAME, part, re.ASCII):
            raise ValueError(f"{part!r} becomes a folder's name: use letters, digits, '_', '.' and '-'.")
    return results_root() / profile / paper / (arm + OWN * overrides + f"-{name}" * bool(name)) / f"seed_{seed}"


def load_record(path: str | Path) -> Record:
    """Read and check a ``record.json`` (or the one in a run's folder).

    Raises:
        FileNotFoundError: there is none.
        ValueError: half a record, another schema version, or a field that is unknown, missing or mistyped.
    """
    path = Path(path) / "record.json" if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no record at {path}. Run the notebook to its last cell, run.record().")
    stat = path.stat()
    return _load_record(path, stat.st_mtime_ns, stat.st_size, stat.st_ino)


@functools.lru_cache(maxsize=8192)
def _load_record(path: Path, *_which: int) -> Record:
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse, object_pairs_hook=unique)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a whole record ({error}). Delete it and run the notebook again.") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version not in (1, SCHEMA_VERSION):
        raise ValueError(
            f"{path} has schema version {version}, expected 1 or {SCHEMA_VERSION}. Run the notebook again."
        )
    return checked(Record, data, path)


def records_below(root: Path) -> tuple[list[Path], list[str]]:
    """Every record.json below a folder, sorted, and the problems on the way there.

    Links are followed; one that leads nowhere or back to where it stands is a problem. Hidden folders are left out:
    there runs keep what is not in place yet. The record of a run that was killed is put in place first.
    """
    found, problems = [], []
    for place, folders, files in os.walk(root, followlinks=True):
        here = Path(place)
        if any(name.startswith(".seed_") for name in folders):
            problems += [f"{left}: a record is not in place yet; wait for its run" for left in settle_all(here)]
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in [name for name in folders if (here / name).is_symlink()]:
            if here.resolve().is_relative_to((here / name).resolve()):
                problems.append(f"{here / name}: a link that leads back to a folder above it; remove it")
                folders.remove(name)
        lost = [name for name in files if "." not in name and not (here / name).exists()]
        problems += [f"{here / name}: a link that leads nowhere; mend or remove it" for name in lost]
        found += [here / name for name in files if name == "record.json"]
    return sorted(found), problems


def unreadable(names: Iterable[str], root: Path | None = None) -> list[str]:
    """What is wrong with today's files of these names: they cannot be compared with what records were made with."""
    wrong = []
    for name in sorted(set(names)):
        path = (root or (provenance.SOURCES if name.startswith("xai_utils/") else repository_root())) / name
        try:
            if name.startswith("notebooks/parameters/"):
                parameters.schema(path.stem, root)
            elif path.is_file():
                provenance.hash_file(path)
        except FileNotFoundError:
            continue
        except (ValueError, OSError) as error:
            wrong.append(said(error))
    return wrong


def completed(record: Record, root: Path | None = None) -> dict[str, Any]:
    """A record's values; a parameter that came after it has today's default there."""
    try:
        later = _published(json.dumps(parameters.defaults(parameters.schema(record.paper, root))), repository_root())
    except (FileNotFoundError, ValueError):  # what is wrong there is said elsewhere
        later = {}
    return later | record.values


@functools.lru_cache(maxsize=64)
def _published(values: str, _root: Path) -> dict[str, Any]:
    """`published` of each of these values, which are given as JSON."""
    return {name: published(value) for name, value in json.loads(values).items()}


def same_result(a: Record, b: Record) -> list[str]:
    """What differs between two records, provenance (and with it timings) apart; empty if they are equal."""

    def differences(x: Any, y: Any, name: str) -> list[str]:
        if isinstance(x, dict) and isinstance(y, dict):
            keys = sorted(x.keys() | y.keys())
            return [d for k in keys for d in differences(x.get(k, "absent"), y.get(k, "absent"), f"{name}.{k}")]
        return [] if x == y else [f"{name[1:]}: {x!r} against {y!r}"]

    return differences(*(record.model_dump(exclude={"provenance"}) for record in (a, b)), "")


def stale(record: Record, root: Path | None = None, known: dict[Any, list[str]] | None = None) -> list[str]:
    """Names of the modules, notebook, profile and settings of the arm that have changed or gone since `record`.

    What results/equivalent.yaml leads to today's files has not changed. A rule that needs a metric which the record
    lacks makes it stale, too.

    Args:
        record: from `load_record`.
        root: the checkout to compare with; default: this package and the repository.
        known: answers so far, of records that are compared at one moment: thousands of seeds differ in nothing that
            counts here, and are looked at once.
    """
    if known is None:
        return _stale(record, root)
    values = {name: value for name, value in record.parameters.items() if name != "seed"}
    key = (record.paper, record.profile, record.arm, record.schema_version, tuple(record.overrides))
    key += (json.dumps([values, record.settings], sort_keys=True), frozenset(record.metrics))
    key += (frozenset(record.provenance.modules.items()), root)
    if key not in known:
        known[key] = _stale(record, root)
    return known[key]


def _stale(record: Record, root: Path | None) -> list[str]:
    changed = chain.changed(record.provenance.modules, root)
    root = root or repository_root()
    changed += [f"results/reported.yaml ({text})" for text in _lacking(record, root)]
    place = f"notebooks/parameters/{record.paper}.yaml"
    arm = record.arm.partition(OWN)[0]
    try:
        schema = parameters.schema(record.paper, root)
    except FileNotFoundError:
        return changed + [place] * bool(record.settings)
    except ValueError:
        return [*changed, f"{place} (not valid)"]
    if record.schema_version == 1:  # all that the arm set stood in `settings`
        same = record.settings == schema.arms.get(arm, {})
    else:
        same = record.settings == schema.settings(arm) and (not schema.arms or arm in schema.arms)
        if f"notebooks/profiles/{record.profile}/{record.paper}.yaml" not in changed:  # else it is named already
            named = [name for name in record.overrides if name in schema.parameters]
            free = {*record.overrides, *(other for name in named for other in schema.parameters[name].chooses)}
            made_with = {name: value for name, value in record.parameters.items() if name not in free}
            same = same and not _differs(record.paper, record.profile, arm, made_with, root)
    return changed + [f"{place} (arm {arm})"] * (not same)


def _differs(paper: str, profile: str, arm: str, made_with: dict[str, Any], root: Path) -> bool:
    """Whether default, profile and arm now give other values than those that a record was made with."""
    folder = root / "notebooks"
    files = [folder / "parameters" / f"{paper}.yaml", folder / "profiles" / profile / f"{paper}.yaml"]
    times = tuple(path.stat().st_mtime_ns if path.is_file() else 0 for path in files)
    values = {name: value for name, value in made_with.items() if name not in parameters.WHICH}
    return _differs_at(paper, profile, arm, json.dumps(values, sort_keys=True), root, times)


@functools.lru_cache(maxsize=1024)
def _differs_at(paper: str, profile: str, arm: str, values: str, root: Path, _times: tuple[int, ...]) -> bool:
    made_with = json.loads(values)
    if not (other := parameters.differing(paper, profile, arm, made_with, root)):
        return False
    now = parameters.planned(paper, profile, arm, root)
    return any(published(now[name]) != made_with[name] for name in other)


def _lacking(record: Record, root: Path) -> list[str]:
    """What today's rules need of the record and do not find."""
    path = root / "results" / "reported.yaml"
    rules = _rules(path, path.stat().st_mtime_ns).papers.get(record.paper) if path.is_file() else None
    judged = rules.judged if rules else {}
    absent = {name: rules.missing(name, record.metrics, record.subject) for name in judged}
    return [f"{name} needs {', '.join(ids)}" for name, ids in absent.items() if ids]


@functools.lru_cache(maxsize=8)
def _rules(path: Path, _modified_ns: int) -> claims.Reported:
    return claims.load(path)


def _refuse(constant: str) -> float:
    raise ValueError(f"it holds {constant}; expected numbers and null")
