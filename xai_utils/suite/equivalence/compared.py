"""Old and new code side by side: the same runs of two commits, and whether their numbers are equal to the bit."""

import hashlib
import json
import math
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from xai_utils.suite import provenance
from xai_utils.suite.equivalence import replay
from xai_utils.suite.equivalence.history import History

NUMBERS = ("value", "low", "high", "n")
SECONDS = frozenset({"s", "ms", "min", "second", "seconds", "minutes"})
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
QUIET = {"XAI_PROGRESS": "0", "MPLBACKEND": "Agg", "NUMBA_DISABLE_JIT": "1", "PYTHONHASHSEED": "0"}
Say = Callable[[str], None]
WAY = 2  # of making checkouts small and doing runs: one more with each change of it, so that no older run is used
KEPT = 4  # results of one run that are kept, for as many states of the code


class Job(NamedTuple):
    """One run to compare; `whole`: at its profile's own sizes, otherwise at those of notebooks/smoke.yaml."""

    profile: str
    paper: str
    arm: str
    seed: int = 0
    whole: bool = False

    def __str__(self) -> str:
        size = "" if self.profile == "quick" else ", whole" if self.whole else ", smoke"
        return f"{self.profile}/{self.paper}/{self.arm}/seed_{self.seed}{size}"

    @property
    def is_real(self) -> bool:
        """Whether it counts as evidence: on the data of the records."""
        return self.profile != "quick"


@dataclass(frozen=True)
class Result:
    """What a run left in its folder."""

    folder: Path

    @cached_property
    def _content(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text(encoding="utf-8"))

    @property
    def record(self) -> dict[str, Any]:
        """The record as the run wrote it."""
        return self._content["record"]

    @property
    def loaded(self) -> list[str]:
        """Python files of the checkout that the run loaded."""
        return self._content["loaded"]

    @property
    def seconds(self) -> float:
        """How long the run took."""
        return self._content["seconds"]

    @cached_property
    def hits(self) -> dict[str, frozenset[replay.Mark]]:
        """What it executed, by file."""
        return {path: frozenset(map(tuple, marks)) for path, marks in self._content["hits"].items()}

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Every array, by file and name."""
        found = {}
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path, allow_pickle=False) as stored:
                found |= {f"{path.name}: {name}": stored[name] for name in stored.files}
        return found


class Comparison(NamedTuple):
    """What differs between two runs, in words; how many metrics and arrays are equal; what else is worth a word."""

    differences: list[str]
    metrics: int
    arrays: int
    notes: list[str]


def compare(old: Result, new: Result) -> Comparison:
    """Every old metric, array, parameter and data set in the new run, to the bit; what is new besides is welcome."""
    before, after = old.record["metrics"], new.record["metrics"]
    differences, equal = [], 0
    times = [name for name, metric in before.items() if metric.get("unit") in SECONDS]
    for name, metric in before.items():
        if name in times:
            continue
        if name not in after:
            differences.append(f"metric {name} is gone")
            continue
        numbers = [(key, metric.get(key), after[name].get(key)) for key in NUMBERS]
        if wrong := [f"{key} {was!r} → {now!r}" for key, was, now in numbers if not same_number(was, now)]:
            differences.append(f"metric {name}: {', '.join(wrong)}")
        equal += not wrong
    arrays = 0
    for name, array in old.arrays.items():
        other = new.arrays.get(name)
        if other is None:
            differences.append(f"array {name} is gone")
        elif text := unequal(array, other):
            differences.append(f"array {name}: {text}")
        else:
            arrays += 1
    was, now = (dict(r.record["parameters"]) | dict(r.record.get("settings") or {}) for r in (old, new))
    other = [name for name in was if name in now and json.dumps(was[name]) != json.dumps(now[name])]
    differences += [f"parameter {name}: {was[name]!r} → {now[name]!r}" for name in other]
    notes = [f"metric {name} is a time and not compared" for name in times]
    sources = [{(s["name"], s["variant"]): s["sha256"] for s in r.record["provenance"]["data"]} for r in (old, new)]
    if list(sources[0]) != list(sources[1]):
        told = [", ".join(" ".join(source) for source in side) or "none" for side in sources]
        differences.append(f"data sets: {told[0]} → {told[1]}")
    else:  # both read the same files; what a checksum takes in may change
        other = [name for (name, _), checksum in sources[0].items() if checksum != sources[1][name, _]]
        notes += [f"data set {name} is recorded with another checksum" for name in other]
    return Comparison(differences, equal, arrays, notes)


def same_number(one: float | None, other: float | None) -> bool:
    """Equal to the bit; NaN equals NaN."""
    if not isinstance(one, int | float) or not isinstance(other, int | float):
        return one is other
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return struct.pack("d", one) == struct.pack("d", other)


def unequal(one: np.ndarray, other: np.ndarray) -> str:
    """What differs between two arrays, in words; "" if they are equal to the bit, NaN equal to NaN."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return f"{one.dtype} {one.shape} → {other.dtype} {other.shape}"
    if one.tobytes() == other.tobytes():
        return ""
    size = one.dtype.itemsize
    bits = [np.ascontiguousarray(a).reshape(-1).view(np.uint8).reshape(-1, size) for a in (one, other)]
    wrong = (bits[0] != bits[1]).any(1)
    if one.dtype.kind in "fc":
        wrong &= ~(np.isnan(one) & np.isnan(other)).reshape(-1)
    return f"{int(wrong.sum())} of {wrong.size} values differ" if wrong.any() else ""


def smoke(root: Path) -> dict[str, dict[str, Any]]:
    """notebooks/smoke.yaml: paper → the values that make its runs short."""
    path = root / "notebooks" / "smoke.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def sizes_of(known: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """The values that make a run short."""
    return {} if job.whole or job.profile == "quick" else known.get(job.paper, {})


class Checkout:
    """One commit's files in a folder of their own, in which arms and profiles are as small as wanted."""

    def __init__(self, history: History, commit: str, folder: Path, small: Mapping[str, Any]) -> None:
        self.commit, self.folder, self.blobs = commit, folder, history.blobs(commit)
        folder.mkdir(parents=True)
        history.unpack(commit, folder)
        self.small = small

    def arms(self, paper: str) -> list[str]:
        """The arms of a paper, the first first."""
        return list(self._schema(paper).get("arms", {})) or ["main"]

    def _schema(self, paper: str) -> dict[str, Any]:
        path = self.folder / "notebooks" / "parameters" / f"{paper}.yaml"
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def shrink(self, jobs: Iterable[Job]) -> None:
        """Write the small sizes over the profiles' values and the arms' own.

        A notebook that is run by hand takes what differs from both its profile and its defaults for a wish, and in
        older commits an arm's value beats every wish. So what is put in is what stands in the files.
        """
        for job in jobs:
            sizes, schema = self._sizes(job), self._schema(job.paper)
            arm = schema.get("arms", {}).get(job.arm) or {}
            if sizes.keys() & arm.keys():
                arm |= {name: value for name, value in sizes.items() if name in arm}
                _write(self.folder / "notebooks" / "parameters" / f"{job.paper}.yaml", schema)
            if sizes:
                _write(self._profile(job), self._values(job) | sizes)

    def _sizes(self, job: Job) -> dict[str, Any]:
        known = self._schema(job.paper)
        return {name: value for name, value in sizes_of(self.small, job).items() if name in known}

    def _profile(self, job: Job) -> Path:
        return self.folder / "notebooks" / "profiles" / job.profile / f"{job.paper}.yaml"

    def _values(self, job: Job) -> dict[str, Any]:
        path = self._profile(job)
        return (yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None) or {}

    def parameters(self, job: Job) -> dict[str, Any]:
        """What papermill would put in: the profile's values, as they stand now, and the run's place."""
        return self._values(job) | {"profile": job.profile, "arm": job.arm, "seed": job.seed}

    def read(self, job: Job, loaded: Iterable[str]) -> dict[str, str]:
        """Every file that decides what the run does: path → name of its content."""
        own = {f"notebooks/{job.paper}.ipynb", f"notebooks/parameters/{job.paper}.yaml"}
        own |= {f"notebooks/profiles/{job.profile}/{job.paper}.yaml", *loaded}
        lists = {p for p in self.blobs if p.startswith(("xai_utils/", "data/")) and not p.endswith((".py", ".md"))}
        rules = {p for p in self.blobs if p.startswith("results/") and p.count("/") == 1 and p.endswith(".yaml")}
        chain = {"results/equivalent.yaml"}  # no run reads it
        return {path: self.blobs[path] for path in sorted((own | lists | rules) - chain) if path in self.blobs}


class Runs:
    """Does runs of checkouts, or finds them among those done before.

    Args:
        cache: folder of the runs done before.
        data: the prepared data, as `$XAI_DATA`.
        processes: how many at a time, one thread each.
        say: is told of each run that ended.
    """

    def __init__(self, cache: Path, data: Path, processes: int, say: Say = print) -> None:
        self.cache, self.data, self.processes, self.say = cache, data, processes, say
        self.done = 0

    def results(self, wanted: Mapping[str, tuple[Checkout, Sequence[Job]]]) -> dict[tuple[str, Job], Result | str]:
        """The result of every job on every side, or why there is none."""
        found: dict[tuple[str, Job], Result | str] = {}
        missing: dict[str, list[Job]] = {}
        for side, (checkout, jobs) in wanted.items():
            for job in jobs:
                known = self._known(checkout, job)
                if known:
                    found[side, job] = known
                else:
                    missing.setdefault(side, []).append(job)
        share = max(1, self.processes // max(1, len(missing)))
        with ThreadPoolExecutor(max_workers=1 if self.processes == 1 else len(missing) or 1) as pool:
            tasks = {side: pool.submit(self._do, wanted[side][0], jobs, share) for side, jobs in missing.items()}
            for side, task in tasks.items():
                found |= {(side, job): result for job, result in task.result().items()}
        return found

    def _base(self, checkout: Checkout, job: Job) -> Path:
        told = {
            "job": list(job),
            "sizes": sizes_of(checkout.small, job),
            "way": WAY,
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in provenance.PACKAGES},
            "machine": [platform.machine(), provenance.cpu_name()],
            "data": sorted([p.name, p.stat().st_size] for p in self.data.iterdir()) if self.data.is_dir() else [],
            "replay": hashlib.sha256(Path(replay.__file__).read_bytes()).hexdigest(),
        }
        name = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
        return self.cache / f"{job.paper}.{job.profile}.{job.arm}.{name}"

    def _known(self, checkout: Checkout, job: Job) -> Result | None:
        for path in sorted(self._base(checkout, job).glob("*/files.json"), reverse=True):
            files = json.loads(path.read_text(encoding="utf-8"))
            if all(checkout.blobs.get(name) == blob for name, blob in files.items()):
                os.utime(path)
                return Result(path.parent)
        return None

    def _do(self, checkout: Checkout, jobs: Sequence[Job], processes: int) -> dict[Job, Result | str]:
        work = Path(tempfile.mkdtemp(prefix="xai-equivalent-"))
        try:
            return self._replayed(checkout, jobs, processes, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _replayed(self, checkout: Checkout, jobs: Sequence[Job], processes: int, work: Path) -> dict[Job, Result | str]:
        runs, folders = [], {}
        for number, job in enumerate(jobs):
            folders[job] = work / str(number)
            folders[job].mkdir()
            runs.append({"run": number, "paper": job.paper, "parameters": checkout.parameters(job)})
            runs[-1]["folder"] = str(folders[job])
        spec, heavy = work / "spec.json", list(replay.HEAVY)
        told = {"root": str(checkout.folder), "jobs": processes, "heavy": heavy, "runs": runs}
        spec.write_text(json.dumps(told), encoding="utf-8")
        own = ("XAI_", "PYTHON", "PYTEST", "JUPYTER", "COVERAGE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        environment = kept | ONE_THREAD | QUIET | {"XAI_DATA": str(self.data), "PYTHONPATH": str(checkout.folder)}
        command = [sys.executable, "-P", replay.__file__, str(spec)]
        found: dict[Job, Result | str] = {}
        with (
            (work / "errors.txt").open("w", encoding="utf-8") as errors,
            subprocess.Popen(
                command, env=environment, cwd=work, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as done,
        ):
            for line in done.stdout or ():
                ended = json.loads(line)
                job = jobs[ended["run"]]
                if ended["ok"]:
                    found[job] = self._kept(checkout, job, folders[job])
                else:
                    found[job] = _said(folders[job] / "error.txt") or "it was killed"
                self.done += 1
                self.say(f"  {checkout.commit[:10]} {job}" + (": failed" if isinstance(found[job], str) else ""))
        lost = _said(work / "errors.txt") or "it was killed"
        return {job: found.get(job, lost) for job in jobs}

    def _kept(self, checkout: Checkout, job: Job, folder: Path) -> Result:
        base = self._base(checkout, job)
        base.mkdir(parents=True, exist_ok=True)
        files = checkout.read(job, Result(folder).loaded)
        (folder / "files.json").write_text(json.dumps(files), encoding="utf-8")
        older = sorted(base.glob("*/files.json"), key=lambda path: path.stat().st_mtime_ns)  # when last of use
        place, part = base / f"{time.time_ns():020d}", Path(tempfile.mkdtemp(prefix=".part-", dir=self.cache))
        shutil.move(folder, part / "run")  # from another disk it is copied, file by file
        os.replace(part / "run", place)
        part.rmdir()
        for path in older[: max(0, len(older) + 1 - KEPT)]:
            shutil.rmtree(path.parent, ignore_errors=True)  # the other side's thread may be at it, too
        return Result(place)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _said(path: Path) -> str:
    """The error that a traceback ends with, its first line; "" if there is none."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt|Exit|Metric)\b", line)]
    return next(reversed(errors or [line for line in lines if line.strip()]), "")
