"""One notebook run: checked parameters, seeds, device and a locked folder at the start, one record at the end.

A run lives in ``<results>/<profile>/<paper>/<arm>/seed_<k>/``; its files appear there together, in `Run.record`.
"""

import atexit
import difflib
import functools
import io
import json
import math
import operator
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import filelock
import numpy as np
import pandas as pd
import pydantic
import yaml
from pydantic import Field

from xai_utils.data.store import repository_root, resolve
from xai_utils.suite import claims, provenance

if TYPE_CHECKING:  # torch takes two seconds, and what only reads records needs none of it
    import torch
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
UNPUBLISHED = frozenset({"stanford_cars", "crackforest"})  # for research only: numbers and maps, no single picture
SIZE_LIMIT = 3_000_000  # bytes in a run folder: results are committed
Plain = str | int | float | bool | None
_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_LIMITS = {"minimum": ("at least", operator.ge), "above": ("above", operator.gt)}
_LIMITS |= {"maximum": ("at most", operator.le), "below": ("below", operator.lt)}
_ID, _NAME = r"[A-Z]\d+(\.\w+)+", r"\w[\w.-]*"  # of a metric; of a figure, an arm, …
_active: "Run | None" = None  # one run per process: a notebook run again from the top gives the old one up


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Metric(_Strict):
    """A measured number; ``low`` and ``high`` are the ends of its interval, ``n`` the cases behind it."""

    value: float | None
    unit: str = ""
    n: int | None = Field(default=None, ge=0)
    low: float | None = None
    high: float | None = None
    note: str = ""


class DataSource(_Strict):
    """A data set that a run used; its name is no path."""

    name: str = Field(pattern=r"^[^/\\]+$")
    sha256: str
    variant: Literal["prepared", "origin", "embedded", "own"]


class Provenance(_Strict):
    """Where the numbers come from; ``modules`` maps relative paths to content hashes."""

    commit: str
    dirty: bool | None
    started: str
    seconds: float
    peak_memory_mib: float
    python: str
    packages: dict[str, str]
    platform: str
    hardware: dict[Literal["cpu", "cores", "memory_gib", "gpu"], str | int | float | None]
    threads: int
    device: str
    data: list[DataSource]
    modules: dict[str, str]


class Record(_Strict):
    """What ``record.json`` holds."""

    schema_version: Literal[1] = SCHEMA_VERSION
    paper: str
    profile: str
    arm: str
    seed: int
    parameters: dict[str, Plain | list[Plain]]
    settings: dict[str, Plain | list[Plain]] = {}
    metrics: dict[str, Metric]
    claims: dict[str, claims.Verdict]
    figures: list[str]
    arrays: list[str]
    provenance: Provenance

    @property
    def subject(self) -> dict[str, Any]:
        """What the rules are told of the run: its parameters, profile, arm and data set."""
        return _subject(self.parameters, self.profile, self.arm, self.provenance.data)


def _subject(parameters: Mapping[str, Any], profile: str, arm: str, sources: list[DataSource]) -> dict[str, Any]:
    names = dict.fromkeys(source.name for source in sources)  # where the arm chooses the data, no parameter does
    return {"dataset": ", ".join(names), **parameters, "profile": profile, "arm": arm}


class _Parameter(_Strict):
    """One entry of ``notebooks/parameters/<paper>.yaml``."""

    kind: Literal["str", "int", "float", "bool"] = Field(alias="type")
    choices: list[Plain] | None = Field(default=None, min_length=1)
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    nullable: bool = False
    many: bool = Field(default=False, alias="list")
    help: str

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        if any(type(choice) is not _TYPES[self.kind] for choice in self.choices or ()):
            raise ValueError(f"every choice must be of type {self.kind}")
        if self.kind in ("str", "bool") and any(getattr(self, name) is not None for name in _LIMITS):
            raise ValueError(f"type {self.kind} takes no minimum, maximum, above or below")
        return self

    def expected(self) -> str:
        words = ["list of " * self.many + self.kind]
        words += [f"one of {', '.join(map(repr, self.choices))}"] if self.choices else []
        words += [f"{_LIMITS[k][0]} {getattr(self, k):.12g}" for k in _LIMITS if getattr(self, k) is not None]
        return ", ".join(words) + " (or None)" * self.nullable

    def fits(self, value: Any) -> Any:
        limits = [(holds, getattr(self, name)) for name, (_, holds) in _LIMITS.items()]
        if not all(limit is None or holds(value, limit) for holds, limit in limits):
            raise ValueError("out of range")
        if self.choices and value not in self.choices:
            raise ValueError("not a choice")
        return value

    def annotation(self) -> Any:
        one = Annotated[_TYPES[self.kind], pydantic.AfterValidator(self.fits)]
        kind = list[one] if self.many else one
        return kind | None if self.nullable else kind


def _checked(kind: Any, data: Any, what: object) -> Any:
    """`data` as `kind`, or one ValueError that lists every problem of `what`."""
    try:
        return pydantic.TypeAdapter(kind).validate_python(data)
    except pydantic.ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r:.60})" for e in error.errors()]
        raise ValueError("\n  ".join([f"{what} is not valid; correct it:", *lines])) from None


def _schema(root: Path, paper: str) -> tuple[dict[str, _Parameter], dict[str, dict[str, Any]]]:
    """The paper's parameters, and the settings of its arms (entry `arms`, which makes `arm` a parameter)."""
    known = {path.stem: path for path in sorted((root / "notebooks" / "parameters").glob("*.yaml"))}
    if paper not in known:
        raise FileNotFoundError(
            f"no parameters for paper {paper!r}: expected notebooks/parameters/<paper>.yaml. "
            f"Papers that have one: {', '.join(known) or 'none'}."
        )
    try:
        content = yaml.safe_load(known[paper].read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{known[paper]} is not valid YAML: {error}") from error
    arms = {}
    if isinstance(content, dict) and "arms" in content:
        arms = _checked(dict[str, dict[str, Plain | list[Plain]]], content.pop("arms"), f"arms of {known[paper]}")
        content["arm"] = {"type": "str", "choices": list(arms), "help": "what is compared; one run is one arm"}
    schema = _checked(dict[str, _Parameter], content, known[paper])
    if missing := {"profile", "seed"} - schema.keys():
        raise ValueError(f"{known[paper]} lacks {', '.join(sorted(missing))}: every paper has profile and seed.")
    return schema, arms


def _is_plain(value: Any) -> bool:
    parts = value if isinstance(value, list | tuple) else [value]
    return all(part is None or isinstance(part, str | int | float | bool) for part in parts)


def _validated(paper: str, schema: dict[str, _Parameter], names: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook's parameters among `names`; one error for all that is unknown, missing or wrong."""
    given = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in names.items()
        if name in schema or (_is_plain(value) and name[0] != "_" and name not in ("In", "Out"))
    }
    fields = {name: (entry.annotation(), ...) for name, entry in schema.items()}
    try:
        model = pydantic.create_model("Parameters", __config__=_Strict.model_config, **fields).model_validate(given)
        return {name: tuple(value) if isinstance(value, list) else value for name, value in model}
    except pydantic.ValidationError as error:
        kinds = {str(e["loc"][0]): e["type"] for e in error.errors()}
    problems = []
    for name, kind in kinds.items():
        if kind == "missing":
            what = f"missing; expected {schema[name].expected()}. Set it in the cell tagged parameters."
            problems.append(f"{name}: {what}")
            continue
        shown = f"{name} = {given[name]!r:.80} ({type(given[name]).__name__})"
        if kind == "extra_forbidden":
            closest = difflib.get_close_matches(name, schema, 1, 0.0)[0]
            problems.append(f"{shown}: no such parameter; the closest is {closest!r}. Rename it or leave it out.")
            continue
        problems.append(f"{shown}: expected {schema[name].expected()}. Change it.")
        text = re.fullmatch(r"([-+]?\d+)(\.\d*)?e([-+]?\d+)", str(given[name]), re.IGNORECASE)
        if schema[name].kind == "float" and isinstance(given[name], str) and text:
            written = f"{text[1]}{text[2] or '.0'}e{int(text[3]):+d}"
            problems[-1] += f" (YAML reads {text[0]} as text: write {written}.)"
    place = f"notebooks/parameters/{paper}.yaml"
    raise ValueError("\n  ".join([f"{len(problems)} wrong parameter(s); {place} describes all:", *problems]))


def _device(name: str) -> "torch.device":
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name != "auto" and name not in present:
        raise ValueError(f"device = {name!r}: expected auto, cpu, cuda or mps.")
    if name != "auto" and not present[name]:
        raise RuntimeError(f"device = {name!r}: PyTorch finds no such device here. Set device to 'auto' or 'cpu'.")
    return torch.device(next(kind for kind in present if present[kind]) if name == "auto" else name)


def arms(paper: str, root: Path | None = None) -> list[str]:
    """The arms of a paper in the order of its parameter schema; the first is the one that a plain run takes.

    `root` is the checkout, by default the repository.
    """
    return list(_schema(root or repository_root(), paper)[1]) or ["main"]


def results_root() -> Path:
    """Folder of the results: $XAI_RESULTS (a relative one counts from the repository), else ``results/``."""
    return resolve(os.environ.get("XAI_RESULTS") or "results")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RuntimeError(
            f"cannot write the results folder {folder}: {error.strerror or error}. Free some space, make it a writable "
            "folder or point XAI_RESULTS to another one, and try again. Nothing was left half-written; an older record "
            "there is as it was."
        ) from error


def _grey(fig: "Figure", why: str) -> None:
    """Take the pictures (of three channels, or drawn in shades of grey) out of a figure, and say why."""
    drawn = [image for axes in fig.axes for image in axes.images]
    for image in (pictures := [i for i in drawn if i.get_array().ndim == 3 or i.get_cmap().name == "gray"]):
        image.set_data(np.full((*image.get_array().shape[:2], 3), 0.85))
    if pictures:
        fig.text(0.005, 0.005, why, fontsize=6)


def _check_size(folder: Path, files: dict[str, bytes]) -> None:
    sizes = {name: len(content) for name, content in files.items()}
    for path in folder.iterdir():  # what stays there: the executed notebook, say
        left = path.match("notebook.running-*") or path.name == "notebook.failed.ipynb"  # by runs that did not end
        if path.is_file() and not left and path.suffix not in (".png", ".npz") and path.name not in (".lock", *files):
            sizes[path.name] = path.stat().st_size
    if (total := sum(sizes.values())) > SIZE_LIMIT:
        largest = ", ".join(f"{k} {sizes[k] / 1e6:.2f} MB" for k in sorted(sizes, key=sizes.get)[:-4:-1])
        raise ValueError(
            f"{folder} would hold {total / 1e6:.2f} MB, more than {SIZE_LIMIT / 1e6:g} MB ({largest}, …). "
            "Keep fewer or smaller figures and arrays. Nothing was written."
        )


def _publish(folder: Path, files: dict[str, bytes]) -> None:
    """Put a record and its files in place of the older ones; `files` ends with record.json.

    Everything is written beside the folder first, so a full disk changes nothing. Then, one rename each: the old
    record.json goes, its PNG and NPZ files go, the new ones come, the new record.json comes last. So no
    record.json ever stands beside files that are not its own. An error undoes the renames in reverse order; after
    a kill the folder holds a whole record or none.
    """
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.record-", dir=folder.parent))
    moved: list[tuple[Path, Path]] = []
    try:
        (stage / "new").mkdir()
        (stage / "old").mkdir()
        for name, content in files.items():
            (stage / "new" / name).write_bytes(content)
        old = [path for kind in ("record.json", "*.png", "*.npz") for path in folder.glob(kind)]
        moves = [(path, stage / "old" / path.name) for path in old]
        for source, target in moves + [(stage / "new" / name, folder / name) for name in files]:
            os.replace(source, target)
            moved.append((source, target))
    except BaseException:
        for source, target in reversed(moved):
            os.replace(target, source)
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _number(what: str, value: Any) -> float:
    try:
        if isinstance(value, bool | np.bool_ | str):
            raise TypeError
        number = float(value)  # a NumPy scalar and a tensor with one element, too
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{what} = {value!r} ({type(value).__name__}): expected one number.") from None
    if not math.isfinite(number):
        raise ValueError(f"{what} = {number}: not finite. If it is undefined, pass None and a note that says why.")
    return number


def _brief(values: list[claims.Value]) -> str:
    """The paper's own numbers for one claim, the first three of them."""
    shown = []
    for value in values[:3]:
        name = value.id.split(".", 2)[2] + " " if len(values) > 1 else ""
        spread = f" ± {value.std}" if value.std is not None else ""
        shown.append(f"{name}{value.value}{spread} {value.unit}".strip())
    return "; ".join(shown) + f"; … ({len(values)} in all)" * (len(values) > 3) or "—"


class Run:
    """A started run, made by `start`: it collects what is measured, and `record` writes it once.

    Read-only by convention: paper, profile, arm, seed, parameters (a mapping), settings (a mapping, what the arm
    sets in notebooks/parameters/<paper>.yaml), device (torch.device), folder.
    """

    def __init__(self, paper: str, names: Mapping[str, Any]) -> None:
        root = repository_root()
        schema, arms = _schema(root, paper)
        parameters = _validated(paper, schema, names)
        self.paper, self.parameters = paper, MappingProxyType(parameters)
        self.profile, self.seed, self.arm = parameters["profile"], parameters["seed"], parameters.get("arm", "main")
        self.settings = MappingProxyType(arms.get(self.arm, {}))
        for part in (self.profile, self.arm):
            if not re.fullmatch(_NAME, part, re.ASCII):
                raise ValueError(f"{part!r} becomes a folder's name: use letters, digits, '_', '.' and '-'.")
        self.device = _device(parameters.get("device", "auto"))
        self.folder = results_root() / self.profile / paper / self.arm / f"seed_{self.seed}"
        self._reported = claims.load()
        if paper not in self._reported.papers:
            raise ValueError(f"results/reported.yaml has no paper {paper!r}: add its values and claims first.")
        self._started, self._clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        self._git = provenance.git_state(root)
        self._modules = provenance.module_hashes(root, paper, self.profile)  # as loaded, whatever changes later
        self._metrics: dict[str, Metric] = {}
        self._sources: list[DataSource] = []
        self._figures: dict[str, bytes] = {}
        self._arrays: dict[str, bytes] = {}
        self._closed = ""
        self._lock = filelock.FileLock(self.folder / ".lock", timeout=0, thread_local=False)

    def __repr__(self) -> str:
        return f"Run({self.paper}, {self.profile}, {self.arm}, seed {self.seed}, {self.device})"

    def _open(self) -> None:
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._acquire(float(os.environ.get("XAI_WAIT") or 0))
            except filelock.Timeout:
                raise RuntimeError(
                    f"another run is writing into {self.folder}. Wait until it has ended (a notebook's kernel holds "
                    "on until it records or restarts), or choose another seed, arm, profile or XAI_RESULTS."
                ) from None
            for leftover in self.folder.parent.glob(f".{self.folder.name}.record-*"):
                shutil.rmtree(leftover)  # of a run that was killed while it recorded

    def _acquire(self, seconds: float) -> None:
        """Take the folder's lock, at once or within some seconds: a batch waits for a run that another left behind."""
        try:
            self._lock.acquire()
        except filelock.Timeout:
            if seconds > 0:
                waits = f"another run is writing into {self.folder}; waiting for its end, {seconds:g} s at most"
                print(waits, file=sys.__stderr__, flush=True)  # to the batch's log, not into the notebook
                self._lock.acquire(timeout=seconds)
                return
            raise

    def _close(self, reason: str) -> None:
        if not self._closed:
            self._closed = reason
            (self.folder / ".lock").unlink(missing_ok=True)  # while it is held; filelock knows of that
            self._lock.release()

    def _admit(self, kind: str, name: str, pattern: str = _NAME, taken: Mapping[str, Any] | None = None) -> None:
        if self._closed:
            raise RuntimeError(f"this run {self._closed}. Begin a new one with experiment.start.")
        if not re.fullmatch(pattern, name, re.ASCII):
            example = "P1.1.accuracy" if pattern is _ID else "fig2_morph"
            raise ValueError(f"{kind} {name!r}: expected a name such as {example!r}.")
        if name in (taken or ()):
            raise ValueError(f"{kind} {name!r} was given before in this run: use another name, or start again.")

    def checkpoint(self, name: str) -> Path:
        """File for a training's checkpoint. It survives a kill; a successful `record` deletes it."""
        self._admit("checkpoint", name)
        with _writing(self.folder):
            (self.folder / "checkpoints").mkdir(exist_ok=True)
        return self.folder / "checkpoints" / f"{name}.pt"

    def measure(
        self,
        id: str,
        value: float | None,
        unit: str = "",
        n: int | None = None,
        low: float | None = None,
        high: float | None = None,
        note: str = "",
    ) -> float:
        """Add a metric, named as the rules in reported.yaml name it (``P1.1.accuracy``), and hand its value back.

        `low` and `high` are the ends of its interval, `n` is the number of cases behind it. None means "not
        defined": then `note` must say why, and NaN comes back.
        """
        self._admit("metric", id, _ID, self._metrics)
        if value is None and (not note or low is not None or high is not None):
            raise ValueError(f"{id} = None: an undefined value needs a note that says why, and has no interval.")
        numbers = {"value": value, "low": low, "high": high}
        numbers = {k: None if v is None else _number(f"{id}, {k}", v) for k, v in numbers.items()}
        if low is not None and high is not None and numbers["low"] > numbers["high"]:
            raise ValueError(f"{id}: its interval runs from {low} to {high}; low must not exceed high.")
        n = int(n) if isinstance(n, np.integer) else n
        self._metrics[id] = _checked(Metric, {**numbers, "unit": unit, "n": n, "note": note}, f"metric {id}")
        return math.nan if value is None else numbers["value"]

    def table(self, *prefixes: str) -> pd.DataFrame:
        """The metrics measured so far whose ids begin with one of `prefixes` (none: all), one row each."""
        chosen = {name: m for name, m in self._metrics.items() if name.startswith(prefixes or "")}
        rows = {name: metric.model_dump(include={"value", "low", "high", "n"}) for name, metric in chosen.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "n"]).rename_axis("metric")

    def uses(self, provenance: Mapping[str, str]) -> None:
        """Note a data set (``ImageSet.provenance``: name, sha256, variant)."""
        self._admit("data set", "data")
        source = _checked(DataSource, dict(provenance), "the provenance of a data set")
        if source not in self._sources:
            self._sources.append(source)

    def figure(self, name: str, fig: "Figure") -> "Figure":
        """Keep `fig` as it is now (PNG, 110 dpi; the same picture gives the same bytes) and hand it back.

        Pictures of a data set of `UNPUBLISHED` that the run `uses` are greyed in it; maps and curves stay.
        """
        self._admit("figure", name, taken=self._figures)
        if not hasattr(fig, "savefig"):
            raise TypeError(f"figure {name!r}: expected a matplotlib Figure, got {type(fig).__name__}.")
        if held := sorted({source.name for source in self._sources} & UNPUBLISHED):
            _grey(fig, f"pictures of {', '.join(held)} are not republished")
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        self._figures[name] = buffer.getvalue()
        return fig

    def arrays(self, name: str, **arrays: Any) -> None:
        """Keep arrays or tensors of numbers, booleans or text for ``<name>.npz``."""
        self._admit("arrays", name, taken=self._arrays)
        whole = {k: v.detach().cpu().numpy() if hasattr(v, "detach") else np.asarray(v) for k, v in arrays.items()}
        if bad := [key for key, array in whole.items() if array.dtype.hasobject]:
            raise TypeError(f"arrays {name!r}: {', '.join(bad)} holds Python objects; expected numbers or text.")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **whole)
        self._arrays[name] = buffer.getvalue()

    def record(self) -> pd.DataFrame:
        """Judge the claims and write the run's folder; then drop its checkpoints and its lock.

        If it fails, the folder is as it was and the run stays open: measure what was missing, or free the disk,
        and call it again.

        Returns:
            One row per claim: claim, kind, statement, paper (its numbers), this run (evidence), verdict.

        Raises:
            claims.MissingMetric: a rule names a metric that was not measured.
            ValueError: the folder would exceed 3 MB.
            RuntimeError: recorded before, or the folder cannot be written.
        """
        self._admit("record", "record")
        place = {"profile": self.profile, "arm": self.arm}
        subject = _subject(self.parameters, self.profile, self.arm, self._sources)
        verdicts = claims.evaluate(self._reported, self.paper, self._metrics, subject)
        known = provenance.module_hashes(repository_root(), self.paper, self.profile) | self._modules
        record = Record(
            **place,
            paper=self.paper,
            seed=self.seed,
            parameters={k: list(v) if isinstance(v, tuple) else v for k, v in self.parameters.items()},
            settings=dict(self.settings),
            metrics=self._metrics,
            claims=verdicts,
            figures=list(self._figures),
            arrays=list(self._arrays),
            provenance=Provenance(
                commit=self._git[0],
                dirty=self._git[1],
                started=self._started,
                seconds=round(time.monotonic() - self._clock, 1),
                device=self.device.type,
                data=self._sources,
                modules=dict(sorted(known.items())),
                **provenance.environment(),
            ),
        )
        files = {f"{name}.png": content for name, content in self._figures.items()}
        files |= {f"{name}.npz": content for name, content in self._arrays.items()}
        text = json.dumps(record.model_dump(mode="json"), allow_nan=False, indent=1, ensure_ascii=False)
        files["record.json"] = f"{text}\n".encode()
        _check_size(self.folder, files)
        with _writing(self.folder):
            _publish(self.folder, files)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        self._close("has been recorded")
        rows = []
        for name, claim in (paper := self._reported.papers[self.paper]).judged.items():
            brief, verdict = _brief(paper.reported(name)), verdicts[name]
            rows.append((name, claim.kind, claim.statement, brief, verdict.evidence, verdict.verdict))
        return pd.DataFrame(rows, columns=["claim", "kind", "statement", "paper", "this run", "verdict"])


def start(paper: str, parameters: Mapping[str, Any]) -> Run:
    """Begin a run: check the parameters, lock its folder, seed everything.

    A run of this process that was never recorded is given up first, so a notebook can be run again from its top.
    Nothing global is set but the seeds and what `seeds.seed_everything` says; the number of threads is only noted.

    Args:
        paper: notebook stem, such as ``01_id_cvae_morphing``.
        parameters: the notebook's ``globals()``. Its public names of plain type (str, int, float, bool, None, lists
            and tuples of them) must be exactly those of ``notebooks/parameters/<paper>.yaml``.

    Raises:
        ValueError: unknown, missing, mistyped or out-of-range parameters, all in one message; a schema or
            reported.yaml that is not valid.
        FileNotFoundError: the paper has no parameter schema.
        RuntimeError: the device is absent, another run holds the folder, or the folder cannot be written.
    """
    from xai_utils import seeds

    global _active
    run = Run(paper, parameters)
    if _active:
        _active._close("was given up for a later one")
    run._open()
    _active = run
    seeds.seed_everything(run.seed)
    return run


@atexit.register
def _give_up() -> None:
    """A process that ends without a record, such as a failed notebook's kernel, leaves no lock file behind."""
    if _active:
        _active._close("has ended with its process")


def versions() -> pd.Series:
    """Versions of Python and of the packages that a record names."""
    here = provenance.environment()
    return pd.Series({"python": here["python"], **here["packages"]}, name="version")


def load_record(path: str | Path) -> Record:
    """Read and check a ``record.json`` (or the one in a run's folder).

    Raises:
        FileNotFoundError: there is none.
        ValueError: half a record, another schema version, or a field that is unknown, missing or mistyped.
    """
    path = Path(path) / "record.json" if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no record at {path}. Run the notebook to its last cell, run.record().")
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: _number("value", name))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a whole record ({error}). Delete it and run the notebook again.") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"{path} has schema version {version}, expected {SCHEMA_VERSION}. Run the notebook again.")
    return _checked(Record, data, path)


def same_result(a: Record, b: Record) -> list[str]:
    """What differs between two records, provenance (and with it timings) apart; empty if they are equal."""

    def differences(x: Any, y: Any, name: str) -> list[str]:
        if isinstance(x, dict) and isinstance(y, dict):
            keys = sorted(x.keys() | y.keys())
            return [d for k in keys for d in differences(x.get(k, "absent"), y.get(k, "absent"), f"{name}.{k}")]
        return [] if x == y else [f"{name[1:]}: {x!r} against {y!r}"]

    return differences(*(record.model_dump(exclude={"provenance"}) for record in (a, b)), "")


def stale(record: Record, root: Path | None = None) -> list[str]:
    """Names of the modules, notebook, profile and settings of the arm that have changed or gone since `record`.

    Args:
        record: from `load_record`.
        root: the checkout to compare with; default: this package and the repository.
    """
    changed = []
    for name, known in record.provenance.modules.items():
        path = (root or (provenance.SOURCES if name.startswith("xai_utils/") else repository_root())) / name
        if not path.is_file() or provenance.hash_file(path) != known:
            changed.append(name)
    schema = f"notebooks/parameters/{record.paper}.yaml"
    there = (root or repository_root()) / schema
    settings = {}
    if there.is_file():
        settings = _arms(root or repository_root(), record.paper, there.stat().st_mtime_ns).get(record.arm, {})
    return changed + [f"{schema} (arm {record.arm})"] * (settings != record.settings)


@functools.lru_cache(maxsize=64)
def _arms(root: Path, paper: str, _modified_ns: int) -> dict[str, dict[str, Any]]:
    return _schema(root, paper)[1]
