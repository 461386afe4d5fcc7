"""Which runs of papers × arms × seeds a batch still has to do, and why: the Snakefile's plan and its summary."""

import functools
import itertools
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import Field

from xai_utils.data import store
from xai_utils.suite import chain, parameters
from xai_utils.suite.parameters import Plain
from xai_utils.suite.publish import settle_all
from xai_utils.suite.record import Record, completed, load_record, published, results_root, stale, unreadable
from xai_utils.suite.strict import Strict, checked, load_yaml, said

UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError)


class Job(NamedTuple):
    """One run, and why it has to be done; no reason: its record is there and current.

    `parameters` are passed over those of profile and arm, in JSON; the arm then ends in "+own-" and their name.
    """

    profile: str
    paper: str
    arm: str
    seed: int
    reason: str
    parameters: str = "{}"

    @property
    def key(self) -> str:
        """Folder of the run below the results."""
        return f"{self.profile}/{self.paper}/{self.arm}/seed_{self.seed}"


class OwnImages(Strict):
    """One entry of a file of own images: which papers, and what `notebooks/run` is passed."""

    papers: list[str] | None = Field(default=None, min_length=1)
    arm: str | None = None
    parameters: dict[str, Plain] = Field(min_length=1)


def own_images(path: str | Path, root: Path | None = None) -> dict[str, OwnImages]:
    """The entries of a YAML file of own images, by their names, which become a part of the names of folders.

    Raises:
        ValueError: there is no such file, or it is not valid.
    """
    file = (root or store.repository_root()) / Path(path).expanduser()
    try:
        found = checked(dict[str, OwnImages], load_yaml(file.read_text(encoding="utf-8")), f"OWN: {file}")
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"OWN: {file} cannot be read ({error})") from None
    if wrong := [name for name in found if not re.fullmatch(r"\w+", name, re.ASCII)]:
        raise ValueError(f"OWN: {file}: {wrong[0]!r} becomes a part of a folder's name: use letters, digits and '_'")
    return found


def own_words(path: str, arm: str, root: Path | None = None) -> dict[str, str]:
    """What the command of a run of own images needs: name, plain arm, and papermill's arguments for a shell."""
    plain, _, name = arm.partition(f"{parameters.OWN}-")
    if not name:
        return {"name": "", "arm": arm, "words": ""}
    passed = own_images(path, root)[name].parameters
    return {"name": name, "arm": plain, "words": shlex.join(["-y", json.dumps(passed)])}


def seeds_of(text: str) -> list[int]:
    """Seeds named as "0..2", "0,3" or "0..1,5"; ValueError for anything else."""
    found = []
    for part in _words(text):
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part, re.ASCII)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"SEEDS: {part!r} is no seed or range of seeds; write 0..2 or 0,3")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(found))


def plan(
    profile: str, papers: str = "", arms: str = "", seeds: str = "0", root: Path | None = None, own: str = ""
) -> list[Job]:
    """All runs that are asked for, in the order of papers, arms and seeds, those that are current too.

    A record is current if it is whole, stands in its own folder, was made with the parameters of its profile, and the
    notebook, the profile, the arm's settings, the modules and the data sets that it names are what they were. Contents
    are compared, not times: in a fresh clone a committed record is as current as where it was made.

    Args:
        profile: folder of notebooks/profiles.
        papers: notebook stems, separated by blanks or commas; none: every notebook.
        arms: of every paper; none: the first arm of each; "all": all arms of each.
        seeds: as `seeds_of` reads them.
        root: the checkout; default: the repository.
        own: a YAML file of own images (`own_images`): their runs alone, each entry of its papers.

    Raises:
        ValueError: an unknown paper, profile or arm, seeds that are none; it says which there are.
    """
    root, jobs = root or store.repository_root(), []
    there = sorted(path.stem for path in (root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if unknown := [paper for paper in _words(papers) if paper not in there]:
        raise ValueError(f"PAPERS: no notebook {', '.join(unknown)}; there are: {', '.join(there) or 'none'}")
    if not there:
        raise ValueError(f"no notebook such as 01_id_cvae_morphing.ipynb in {root / 'notebooks'}")
    wanted, mine = seeds_of(seeds) or [0], own_images(own, root) if own else {}
    if unknown := [paper for entry in mine.values() for paper in entry.papers or () if paper not in there]:
        raise ValueError(f"OWN: {own}: no notebook {', '.join(unknown)}; there are: {', '.join(there)}")
    for paper in dict.fromkeys(_words(papers) or there):
        profiles = sorted(path.parent.name for path in (root / "notebooks/profiles").glob(f"*/{paper}.yaml"))
        if profile not in profiles:
            raise ValueError(f"PROFILE: {paper} has no profile {profile!r}; it has: {', '.join(profiles) or 'none'}")
        try:
            known = parameters.arms(paper, root)
        except UNREADABLE:
            known = list(dict.fromkeys(_words(arms))) or ["main"]
        chosen = known if _words(arms) == ["all"] else list(dict.fromkeys(_words(arms))) or known[:1]
        if unknown := [arm for arm in chosen if arm not in known]:
            raise ValueError(f"ARMS: {paper} has no arm {', '.join(unknown)}; it has: {', '.join(known)}, or say all")
        runs = [(arm, "{}") for arm in chosen] if not mine else []
        for name, entry in mine.items():
            if paper in (entry.papers or there):
                picked = chosen if _words(arms) or entry.arm is None else [entry.arm]
                runs += [(f"{arm}{parameters.OWN}-{name}", json.dumps(entry.parameters)) for arm in picked]
        for arm, passed in runs:
            settle_all(results_root() / profile / paper / arm)
            with chain.one_moment():
                jobs += _all_reasoned([Job(profile, paper, arm, seed, "", passed) for seed in wanted], root)
    return jobs


def reasoned(job: Job, root: Path | None = None) -> Job:
    """The job with the reason that it has now to be done; "" if its record is current.

    A notebook, profile or parameter schema that cannot be read is a reason too: the run will say more.
    """
    return _all_reasoned([job], root or store.repository_root())[0]


def _all_reasoned(jobs: Sequence[Job], root: Path) -> list[Job]:
    """`reasoned` for the seeds of one arm, whose parameters are read once."""
    found: list[Job] = []
    first = functools.cache(lambda: lowest((results_root() / jobs[0].key).parent))
    known: dict[Any, list[str]] = {}
    try:
        expected = parameters.planned(jobs[0].paper, jobs[0].profile, jobs[0].arm.partition(parameters.OWN)[0], root)
        if mine := json.loads(jobs[0].parameters):
            entries = parameters.schema(jobs[0].paper, root).parameters
            for name in entries.keys() & mine.keys():  # the values that these choose of others
                expected |= {other: allowed[0] for other, allowed in entries[name].chooses.items()}
            expected |= mine
    except UNREADABLE as error:
        return [job._replace(reason=_cannot_be_read(error)) for job in jobs]
    for job in jobs:
        try:
            found.append(job._replace(reason=_reason(job, expected, root, first, known)))
        except UNREADABLE as error:
            found.append(job._replace(reason=_cannot_be_read(error)))
    return found


def _cannot_be_read(error: Exception) -> str:
    return f"its notebook, profile or parameters cannot be read ({said(error)})"


def _words(text: str) -> list[str]:
    return re.findall(r"[^\s,]+", text)


def _reason(
    run: Job, expected: Mapping[str, Any], root: Path, first: Callable[[], Path | None], known: dict[Any, list[str]]
) -> str:
    """Why the run has to be done; "" if its record is current. `known`: of `stale`, and of `_other_data`."""
    path = results_root() / run.key / "record.json"
    if (path.parent / "notebook.failed.ipynb").is_file():
        return "its last run failed"
    try:
        record = load_record(path)
    except FileNotFoundError:
        return "no record"
    except ValueError as error:
        return f"unusable record: {str(error).partition(': ')[0].removeprefix(str(path)).strip(' :')}"
    if (record.profile, record.paper, record.arm, record.seed) != run[:4]:
        return f"the record of {record.profile}/{record.paper}/{record.arm}/seed_{record.seed} lies in its place"
    wanted = dict(expected) | {"seed": run.seed, "device": record.parameters.get("device")}
    made_with = completed(record, root)
    if other := sorted(n for n in wanted if not _equal(made_with.get(n), published(wanted[n]))):
        return f"made with other parameters: {', '.join(other)}"
    if changed := stale(record, root, known) + _other_data(record, root, known):
        if wrong := unreadable(record.provenance.modules.keys() & {*changed}, root):
            raise ValueError("; ".join(wrong))
        return f"changed since: {', '.join(changed)}"
    recorded = path.stat().st_mtime_ns
    if any(running.stat().st_mtime_ns >= recorded for running in path.parent.glob("notebook.running-*.ipynb")):
        return "its last run was broken off"  # after it had recorded, or a later one before
    if not (path.parent / "notebook.ipynb").is_file() and (run.profile == "quick" or path.parent == first()):
        return "no executed notebook beside the record"
    return ""


def lowest(arm: Path) -> Path | None:
    """The folder of an arm's lowest seed that has a record, in the arm's folder; None: no seed has one.

    Except at the quick profile it alone keeps its executed notebook and figures; `notebooks/run` thins the others out.
    """
    found = [path.parent for path in arm.glob("seed_*/record.json") if re.fullmatch(r"seed_\d+", path.parent.name)]
    return min(found, key=lambda folder: int(folder.name.removeprefix("seed_")), default=None)


def _equal(one: Any, two: Any) -> bool:
    one, two = (list(value) if isinstance(value, tuple) else value for value in (one, two))
    return one == two


def _other_data(record: Record, root: Path, known: dict[Any, list[str]]) -> list[str]:
    """Data sets of the registry that had another checksum when the record was made; own folders are not compared."""
    used = tuple((source.name, source.sha256) for source in record.provenance.data if source.variant != "own")
    if used not in known:
        known[used] = [f"data set {name}" for name, sha256 in used if not store.same_content(name, sha256, root)]
    return known[used]


def summary(jobs: Sequence[Job], logs: Path) -> str:
    """What a batch did: a line for each run that failed or was not reached, with where its error stands.

    Args:
        jobs: that the batch had to do, as they are now: a `reason` says that there is no current record.
        logs: folder with "<profile>.<paper>.<arm>.seed_<k>.log" of each run that was begun.
    """
    lines, root = [f"batch: {sum(not job.reason for job in jobs)} of {len(jobs)} runs done"], results_root()
    for job in jobs:
        if not job.reason:
            continue
        log, failed = logs / f"{job.key.replace('/', '.')}.log", root / job.key / "notebook.failed.ipynb"
        if not log.is_file():
            lines.append(f"NOT RUN  {job.key}")
            continue
        said = [line.rstrip() for line in log.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
        errors = [k for k, line in enumerate(said) if re.match(r"(\w+\.)*\w*(Error|Exception)\b", line)]
        told = said[errors[-1] :] if errors else said[-1:]
        told = told or ["ended without a word: killed, out of time, out of memory?"]
        more = itertools.takewhile(lambda line: line.startswith("  "), told[1:])  # an error of several lines
        lines += [f"FAILED   {job.key}: {job.reason}", *[f"         {line}" for line in (told[0], *more)]]
        lines += [f"         {log}", *[f"         {failed}"] * failed.is_file()]
    return "\n".join(lines)
