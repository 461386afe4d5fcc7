"""`make equivalent`: what today's code computes is what the records' code computed, shown run by run, or refused.

For every record that is not current the commit is found at which it last was. Its code and HEAD's do the same runs: the
first arm of each paper concerned at the quick profile, and every arm concerned on the records' own data, few steps.
If all numbers are equal to the bit and the runs executed whatever has changed, results/equivalent.yaml gets an entry.
"""

import argparse
import csv
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from xai_utils.data import store
from xai_utils.suite import chain, provenance
from xai_utils.suite.equivalence.compared import Checkout, Comparison, Job, Result, Runs, Say, compare, smoke
from xai_utils.suite.equivalence.definitions import Tree
from xai_utils.suite.equivalence.evidence import Walk
from xai_utils.suite.equivalence.executed import Finding, Hits, Side
from xai_utils.suite.equivalence.history import History, NotPossible

FINDS_FILES = "xai_utils/data/store.py"  # finds and checks data; their checksums are compared


@dataclass
class Group:
    """Records of one map that are not current: where the chain leaves them, and what shows that nothing has moved."""

    modules: chain.Modules
    records: list[tuple[str, str, str, int]]  # profile, paper, arm, seed
    hints: list[str]
    sources: set[str] = field(default_factory=set)
    commit: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def places(self) -> list[tuple[str, str, str]]:
        """Profile, paper and arm of the records, each once."""
        return sorted({record[:3] for record in self.records})

    def __str__(self) -> str:
        papers = ", ".join(sorted({paper for _, paper, _ in self.places}))
        arms = ", ".join(sorted({arm for *_, arm in self.places}))
        return f"{len(self.records)} records of {papers} ({arms if len(arms) < 60 else f'{len(self.places)} arms'})"


def committed(history: History) -> list[dict[str, Any]]:
    """The records that git tracks, as they are in the files."""
    paths = [p for p in history.git("ls-files", "-z", "results").split("\0") if p.endswith("/record.json")]
    return [json.loads((history.root / path).read_text(encoding="utf-8")) for path in paths]


def groups_of(records: Sequence[Mapping[str, Any]], root: Path, papers: Sequence[str]) -> list[Group]:
    """The records that are not current, by the last map that their chain leads to."""
    known, today, found = chain.read(root), chain.todays(root), {}
    for record in records:
        if papers and record["paper"] not in papers:
            continue
        trail = known.trail(record["provenance"]["modules"])
        if any(not chain.differences(modules, today) for modules in trail):
            continue
        group = found.setdefault(chain.digest(trail[-1]), Group(trail[-1], [], []))
        group.records.append((record["profile"], record["paper"], record["arm"], record["seed"]))
        group.hints.append(record["provenance"]["commit"])
        group.sources |= {source["name"] for source in record["provenance"]["data"]}
    return list(found.values())


def _absent(sources: Iterable[str], root: Path, data: Path) -> list[str]:
    """The data sets of the registry that are not here."""
    path = root / "data" / "registry.yaml"
    known = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}
    files = {name: [file["path"] for file in known[name].get("files", ())] for name in sources if name in known}
    places = data, root / "data"
    return sorted(name for name, own in files.items() if not all(any((p / f).is_file() for p in places) for f in own))


def equivalent(
    root: Path,
    data: Path,
    cache: Path,
    say: Say = print,
    papers: Sequence[str] = (),
    whole: bool = False,
    processes: int = 2,
) -> int:
    """Compare, and write an entry for each map that HEAD is shown to be equal to. Returns how many were refused.

    Args:
        root: the checkout.
        data: the prepared data.
        cache: folder of runs done before.
        say: takes the report, line by line.
        papers: notebook stems; none: all.
        whole: one run of each paper at its records' own size besides.
        processes: runs at a time.

    Raises:
        NotPossible: a dirty tree, no git history, no data.
    """
    began, history = time.monotonic(), History(root)
    if dirty := history.dirty():
        more = f" and {len(dirty) - 5} more" if len(dirty) > 5 else ""
        raise NotPossible(f"not committed: {', '.join(dirty[:5])}{more}. An entry names a commit: commit them first.")
    if not data.is_dir():
        raise NotPossible(f"no data: {data} is no folder. Set XAI_DATA to the prepared data.")
    records = committed(history)
    groups = groups_of(records, root, papers)
    say(f"{len(records)} records, {sum(len(g.records) for g in groups)} of them not current, {len(groups)} maps")
    if not groups:
        return 0
    if absent := _absent({source for group in groups for source in group.sources}, root, data):
        raise NotPossible(f"no data: {', '.join(absent)} of the records neither in {data} nor in data/. Set XAI_DATA.")
    commits = [entry.new_commit for entry in reversed(chain.read(root).entries)]
    hints = [hint for group in groups for hint in group.hints]
    for group, commit in zip(
        groups, history.last_current([g.modules for g in groups], [*commits, *hints]), strict=True
    ):
        group.commit = commit
        if commit is None:
            group.problems.append(
                "no commit of the history holds these files as they were"
                + ("; the clone is shallow: git fetch --unshallow" if history.shallow() else "")
            )
    steps: list[tuple[chain.Entry, chain.Modules, chain.Modules]] = []
    runs = Runs(cache, data, processes, say)
    for commit in dict.fromkeys(group.commit for group in groups if group.commit):
        with tempfile.TemporaryDirectory(prefix="xai-equivalent-") as folder:
            concerned = [group for group in groups if group.commit == commit]
            steps += _Step(history, commit, concerned, Path(folder), runs, whole, say).entries()
    known = chain.read(root)
    for step, old, new in steps:
        known = known.extended(step, old, new)
    if steps:
        chain.write(known, root)
    refused = [group for group in groups if group.problems]
    for group in groups:
        say(f"{'REFUSED' if group.problems else 'equal'}: {group}")
        for problem in group.problems:
            say(f"    {problem}")
    minutes = (time.monotonic() - began) / 60
    say(f"{len(steps)} entries written, {len(refused)} refused; {runs.done} runs, {minutes:.1f} minutes")
    return len(refused)


class _Step:
    """From one old commit to HEAD, for the groups that were last current there."""

    def __init__(
        self, history: History, commit: str, groups: Sequence[Group], folder: Path, runs: Runs, whole: bool, say: Say
    ) -> None:
        self.history, self.commit, self.groups, self.folder = history, commit, groups, folder
        self.runs, self.say = runs, say
        self.jobs = sorted({Job(*place) for group in groups for place in group.places if place[0] != "quick"})
        self.papers = sorted({paper for group in groups for _, paper, _ in group.places})
        self.whole = [job for group in groups for job in self._whole_of(group)] if whole else []
        self.results: dict[tuple[str, Job], Result | str] = {}
        self.compared: dict[Job, Comparison] = {}
        self.trees: dict[str, tuple[Tree, dict[Any, Any]]] = {}

    @staticmethod
    def _whole_of(group: Group) -> list[Job]:
        """One of a group's records, at its own size: the lowest seed of its first arm."""
        records = [record for record in group.records if record[0] != "quick"]
        return [Job(*min(records, key=lambda record: (record[3], record)), whole=True)] if records else []

    def entries(self) -> list[tuple[chain.Entry, chain.Modules, chain.Modules]]:
        """An entry, with both maps, for each group that nothing speaks against."""
        self._run()
        findings = {paper: self._findings(paper) for paper in self.papers}
        found = []
        for group in self.groups:
            new = self._judge(group, findings)
            if not group.problems:
                jobs = self._jobs_of(group)
                step = chain.Entry(
                    old=chain.digest(group.modules),
                    new=chain.digest(new),
                    old_commit=self.commit,
                    new_commit=self.history.head,
                    date=datetime.now(UTC).date(),
                    runs=[str(job) for job in jobs],
                    metrics=sum(self.compared[job].metrics for job in jobs),
                    arrays=sum(self.compared[job].arrays for job in jobs),
                )
                found.append((step, group.modules, new))
        return found

    def _run(self) -> None:
        """All runs of both commits, compared."""
        commits = {"old": self.commit, "new": self.history.head}
        small = smoke(self.history.root)
        sides = {name: Checkout(self.history, c, self.folder / name, small) for name, c in commits.items()}
        self.trees = {name: (Tree.of_folder(checkout.folder), {}) for name, checkout in sides.items()}
        quick = [Job("quick", paper, sides["new"].arms(paper)[0]) for paper in self.papers]
        wanted = {}
        for name, checkout in sides.items():
            checkout.shrink(self.jobs)
            wanted[name] = checkout, [*self.jobs, *quick]
        self.say(f"{self.commit[:10]} → {self.history.head[:10]}: {len(self.jobs)} short runs, {len(quick)} quick ones")
        self.results = self.runs.results(wanted)
        if self.whole:  # in checkouts whose arms are as they were
            sides = {n: Checkout(self.history, c, self.folder / f"whole-{n}", {}) for n, c in commits.items()}
            self.results |= self.runs.results({name: (checkout, self.whole) for name, checkout in sides.items()})
        for job in (*quick, *self.jobs, *self.whole):
            old, new = self.results["old", job], self.results["new", job]
            if isinstance(old, str) or isinstance(new, str):
                side, text = ("old", old) if isinstance(old, str) else ("new", new)
                self.compared[job] = Comparison([f"the {side} code did not run: {text}"], 0, 0, [])
            else:
                self.compared[job] = compare(old, new)
        for note in sorted({note for found in self.compared.values() for note in found.notes}):
            self.say(note)

    def _jobs_of(self, group: Group) -> list[Job]:
        """The runs that speak for a group: its arms', a whole one, and its papers' quick ones."""
        papers, whole = {paper for _, paper, _ in group.places}, self._whole_of(group)
        own = [job for job in self.compared if (job.profile, job.paper, job.arm) in group.places and not job.whole]
        own += [job for job in self.compared if job in whole]
        return own + [job for job in self.compared if job.paper in papers and not job.is_real]

    def _side(self, name: str, paper: str) -> Side:
        """Old or new code as the runs whose numbers are equal show it."""
        shown = [job for job, found in self.compared.items() if job.is_real and not found.differences]
        results = {job: self.results[name, job] for job in shown}
        loaded = {path for result in results.values() for path in result.loaded}
        named = {path for result in results.values() for path in result.record["provenance"]["modules"]}
        writers = {path for path in loaded if path.startswith(provenance.WRITERS)} | {FINDS_FILES}
        writers |= {path for path in loaded - named if not path.endswith("/__init__.py")}  # of older commits
        hits = _joined([result.hits for result in results.values()])
        own = [result for job, result in results.items() if job.paper == paper]
        files = {path for result in own for path in result.loaded}
        tree, written = self.trees[name]
        entered = _joined([result.hits for result in own])
        page = f"notebooks/{paper}.ipynb"
        return Side(name, tree, page, hits, entered, files, lambda path: path in writers, written)

    def _findings(self, paper: str) -> list[Finding]:
        """What has changed and was not shown; nothing where the runs already speak against it."""
        if not any(job.paper == paper and job.is_real and not c.differences for job, c in self.compared.items()):
            return []
        return Walk(self._side("old", paper), self._side("new", paper)).findings()

    def _judge(self, group: Group, findings: Mapping[str, Sequence[Finding]]) -> chain.Modules:
        """Note what speaks against a group; the map that its records lead to."""
        jobs = self._jobs_of(group)
        for job in jobs:
            differences = self.compared[job].differences
            group.problems += [f"{job}: {text}" for text in differences[:5]]
            group.problems += [f"{job}: and {len(differences) - 5} more"] * (len(differences) > 5)
        new = [self.results["new", job] for job in jobs if job.is_real]
        names = {
            name for result in new if isinstance(result, Result) for name in result.record["provenance"]["modules"]
        }
        modules = {n: h for n, h in sorted(self.history.hashes(self.history.head, names).items()) if h}
        group.problems += self._content(group.modules, modules)
        if any(self.compared[job].differences for job in jobs):
            return modules
        here = {"old": group.modules, "new": modules}
        found = [f for _, paper, _ in group.places for f in findings[paper] if f.path in here[f.side]]
        if self.whole:  # what a run of a record's own size does not execute has not made the record
            found = [finding for finding in found if finding.lost]
        group.problems += [str(finding) for finding in dict.fromkeys(found)]
        if group.problems:
            advice = "a run that does (sizes: notebooks/smoke.yaml), whole runs (STANDARD=1), or the records made anew"
            group.problems.append(f"what would show it: {advice}")
        elif chain.digest(modules) == chain.digest(group.modules):
            group.problems.append("the map of the new runs is that of the records, but the files are not; report this")
        return modules

    def _content(self, old: chain.Modules, new: chain.Modules) -> list[str]:
        """Lists and profiles whose content, as parsed, is another."""
        found = []
        for path in sorted(name for name in {*old, *new} if not name.endswith((".py", ".ipynb"))):
            texts = [self.history.text(commit, path) for commit in (self.commit, self.history.head)]
            if texts[0] is None and path not in old:
                found.append(f"{path} is new: no run can show that the records were made with its content")
            elif texts[1] is None:
                twins = [p for p in new if p not in old and Path(p).name == Path(path).name]
                other = self.history.text(self.history.head, twins[0]) if twins else None
                if other is None or parsed(other, path) != parsed(texts[0], path):
                    found.append(f"{path} is gone, and nothing with its content is in its place")
            elif texts[0] is not None and parsed(texts[0], path) != parsed(texts[1], path):
                found.append(f"{path} has another content")
        return found


def parsed(text: str, path: str) -> Any:
    """A CSV or YAML file's content."""
    return list(csv.reader(io.StringIO(text))) if path.endswith(".csv") else yaml.safe_load(text)


def _joined(parts: Sequence[Hits]) -> dict[str, frozenset[Any]]:
    found: dict[str, set[Any]] = {}
    for part in parts:
        for path, marks in part.items():
            found.setdefault(path, set()).update(marks)
    return {path: frozenset(marks) for path, marks in found.items()}


def cache_folder() -> Path:
    """Where runs done before are kept: below $XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xai-equivalent"


def check(root: Path, say: Say = print) -> int:
    """Whether the chain is sound, leads every committed record to today's files, and names ancestors of HEAD."""
    history, wrong = History(root), 0
    known, stale = chain.read(root), []
    for record in committed(history):
        if changed := chain.changed(record["provenance"]["modules"], root):
            stale.append(f"{record['paper']}/{record['arm']}/seed_{record['seed']}: {', '.join(changed[:3])}")
    if stale:
        wrong += 1
        say(f"{len(stale)} records are neither current nor led to today's files; run `make equivalent`:")
        for line in stale[:5]:
            say(f"    {line}")
    commits = dict.fromkeys(c for entry in known.entries for c in (entry.old_commit, entry.new_commit))
    if history.shallow():
        say("this clone is shallow: that the commits named are ancestors is not checked")
    elif strange := [commit for commit in commits if not history.is_ancestor(commit)]:
        wrong += 1
        say(f"{chain.FILE} names commits that are no ancestors of HEAD: {', '.join(strange)}")
    say(f"{chain.FILE}: {len(known.entries)} entries, {len(known.maps)} maps, {'NOT sound' if wrong else 'sound'}")
    return wrong


def repeat(root: Path, data: Path, cache: Path, say: Say = print, processes: int = 2) -> int:
    """Compare the newest entry's two commits once more, by the short runs of one paper."""
    history, known = History(root), chain.read(root)
    if not known.entries:
        say("nothing to repeat: there is no entry")
        return 0
    entry = known.entries[-1]
    if missing := [c for c in (entry.old_commit, entry.new_commit) if not history.is_ancestor(c)]:
        if history.shallow():
            say("this clone is shallow: the newest entry is not repeated")
            return 0
        raise NotPossible(f"{chain.FILE} names {missing[0]}, which is no ancestor of HEAD")
    profile, paper, arm, _ = entry.runs[0].partition(",")[0].split("/")
    if not data.is_dir():
        say(f"no data ({data}): the newest entry is not repeated")
        return 0
    with tempfile.TemporaryDirectory(prefix="xai-equivalent-") as name:
        job, sides = Job(profile, paper, arm), {}
        for side, commit in (("old", entry.old_commit), ("new", entry.new_commit)):
            checkout = Checkout(history, commit, Path(name) / side, smoke(root))
            checkout.shrink([job])
            sides[side] = checkout, [job]
        results = Runs(cache, data, processes, say).results(sides)
    old, new = results["old", job], results["new", job]
    if isinstance(old, str) or isinstance(new, str):
        raise NotPossible(f"{job} does not run: {old if isinstance(old, str) else new}")
    found = compare(old, new)
    commits = f"{entry.old_commit[:10]} and {entry.new_commit[:10]}"
    say(f"{job}, {commits}: {found.metrics} metrics and {found.arrays} arrays are equal")
    for line in found.differences:
        say(f"    {line}")
    return len(found.differences)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 if every record leads to today's files, 1 if something was refused, 2 if it cannot be compared."""
    parser = argparse.ArgumentParser(prog="python -m xai_utils.suite.equivalence", description=__doc__)
    parser.add_argument("--papers", default="", help="notebook stems, separated by blanks; default: all")
    parser.add_argument("--whole", action="store_true", help="one run of each paper at its records' size besides")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--check", action="store_true", help="only check the chain")
    parser.add_argument(
        "--repeat", action="store_true", help="only repeat the newest entry for one paper, from scratch"
    )
    parser.add_argument("--fresh", action="store_true", help="throw away the runs done before")
    given = parser.parse_args(arguments)
    root = store.repository_root()
    try:
        data = store.prepared_root() or root / "data"
        if given.check:
            return int(check(root) > 0)
        if given.fresh:
            shutil.rmtree(cache_folder(), ignore_errors=True)
        if given.repeat:
            with tempfile.TemporaryDirectory(prefix="xai-equivalent-") as cache:
                return int(repeat(root, data, Path(cache), processes=given.jobs) > 0)
        told = {"papers": given.papers.split(), "whole": given.whole, "processes": given.jobs}
        return int(equivalent(root, data, cache_folder(), **told) > 0)
    except (NotPossible, FileNotFoundError, ValueError) as error:
        print(f"not compared, and nothing was written: {error}", file=sys.stderr)
        return 2
