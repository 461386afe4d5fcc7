"""The papers against their reproduction: tables from records, a diff of two results trees, the printed report.

    python -m xai_utils.suite.report [--profile PROFILE] [--check] [--results FOLDER]
    python -m xai_utils.suite.report diff A B | export | records

Without a profile it shows the runs of that of the newest record (with --check: of quick); of a run with own values, its
paper alone.

Exit code: 0; 1 a record is missing (`--check`) or the trees differ (`diff`); 2 a record cannot be used, or there is no
such profile or folder.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from xai_utils.data.store import repository_root, resolve
from xai_utils.progress import print_anywhere
from xai_utils.suite import chain, claims, parameters
from xai_utils.suite.over_seeds import OverSeeds
from xai_utils.suite.pooled import open_to_all, over_seeds
from xai_utils.suite.record import Record, completed, load_record, records_below, results_root, stale, unreadable
from xai_utils.suite.rules import VERDICTS, with_reason
from xai_utils.suite.strict import in_one_line, said

_COLUMNS = (6, 34, 38, 36)  # of the printed suite table: 120 characters with the gaps
Folder = str | Path | None


def scan(results: Folder = None, profile: str | None = None) -> tuple[list[Record], list[str]]:
    """Records of a results tree (default $XAI_RESULTS, else results/), and the problems of those left out.

    Left out, each with its path: what cannot be read (half a record, another schema version), what lies under
    another key than its own, and a seed whose parameters differ from those of its arm's lowest seed.
    """
    root, found = resolve(results or results_root()), []
    paths, problems = records_below(root)
    for path in paths:
        try:
            found.append((path, load_record(path)))
        except (ValueError, OSError) as error:
            problems.append(str(error))
    records: dict[tuple[str, str, str], list[Record]] = {}
    firsts: dict[tuple[str, str, str], dict[str, Any]] = {}  # the values of each arm's lowest seed
    for path, record in sorted(found, key=lambda entry: (entry[1].seed, entry[0])):
        key = (record.profile, record.paper, record.arm)
        own = root.joinpath(*key, f"seed_{record.seed}", "record.json")
        if path != own:
            problems.append(f"{path}: is the record of {'/'.join(own.relative_to(root).parts[:-1])}; move or delete it")
            continue
        if profile and record.profile != profile:
            continue
        first = records.setdefault(key, [record])[0]
        two = completed(record)
        one = firsts.setdefault(key, two)
        if other := sorted(n for n in {*one, *two} - {"seed"} if one.get(n) != two.get(n)):
            problems.append(
                f"{path}: other parameters than seed {first.seed} ({', '.join(other)}); run one of them again"
            )
        elif record is not first:
            records[key].append(record)
    return [record for key in sorted(records) for record in records[key]], problems


def load(results: Folder = None, profile: str | None = None) -> list[Record]:
    """The usable records of a results tree, sorted by profile, paper, arm, seed; warns of each other one."""
    records, problems = scan(results, profile)
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return records


def common(records: Sequence[Record]) -> list[Record]:
    """Records without the seeds that a rule keeps for itself (`rules.Rule`): what means, tables and figures look at."""
    papers = claims.load().papers
    return [r for r in records if r.paper not in papers or open_to_all(papers[r.paper], [r])]


def profile_table(profile: str, results: Folder = None) -> pd.DataFrame:
    """Every run of a profile: paper, arm, seed, data, commit, how it stands, minutes, and a column per verdict.

    `standing` is "as made", "by equivalence" or "stale"; `stale` names what has changed.
    """
    rows = []
    for record in load(results, profile):
        row = {"paper": record.paper, "arm": record.arm, "seed": record.seed}
        row |= {"dataset": record.subject["dataset"], "commit": _commit([record])}
        row |= {"stale": ", ".join(stale(record)), "minutes": record.provenance.seconds / 60}
        row["standing"] = "stale" if row["stale"] else chain.standing(record.provenance.modules)
        verdicts = [verdict.verdict for verdict in record.claims.values()]
        rows.append(row | {name: verdicts.count(name) for name in VERDICTS})
    return pd.DataFrame(rows)


def seeds_table(paper: str, arm: str | None = None, profile: str = "standard", results: Folder = None) -> pd.DataFrame:
    """Metrics of one arm (None: the paper's first) over its seeds: the columns of `over_seeds.aggregate`."""
    arm = arm or parameters.arms(paper)[0]
    own = [r for r in load(results, profile) if (r.paper, r.arm) == (paper, arm)]
    table = over_seeds(claims.load().papers[paper], own, resolve(results or results_root()))
    columns = ["value", "std", "n", "low", "high", "unit"]
    rows = {name: [getattr(found, column) for column in columns] for name, found in table.items()}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return frame.rename(columns={"value": "mean"}).rename_axis("metric")


def newest(results: Folder = None) -> Record | None:
    """The record of a results tree that was written last; None where there is none.

    Files of a fresh clone are all of one time: then its start decides, and after that a standard record comes last.
    """
    root = resolve(results or results_root())
    times = {}
    for record in load(results):
        path = root / record.profile / record.paper / record.arm / f"seed_{record.seed}" / "record.json"
        when = int(path.stat().st_mtime), record.provenance.started, record.profile != "standard"
        times[when] = record
    return times[max(times)] if times else None


def suite_table(profile: str = "quick", results: Folder = None, only: tuple[str, str] | None = None) -> pd.DataFrame:
    """Per claim: the paper | the committed standard result | the runs of `profile`; verdicts are made over seeds.

    `only` is a paper and an arm with own values ("main+own"): its claims alone, against the runs of that arm. Without
    `results`, standard comes from the repository's results/ and `profile` from $XAI_RESULTS if that is set.
    """
    root = repository_root()
    everything = load(results)
    own = results or results_root() == root / "results"
    standard = everything if own else load(root / "results", "standard")
    standard = [record for record in standard if record.profile == "standard"]
    other = [record for record in everything if record.profile == profile]
    groups: dict[tuple[int, str, str], list[Record]] = {}
    for side, records in enumerate((standard, other)):
        for record in records:
            if side and only and (record.paper, record.arm) != only:
                continue
            arm = record.arm.partition(parameters.OWN)[0] if side and only else record.arm
            groups.setdefault((side, record.paper, arm), []).append(record)
    trees = [resolve(results or (results_root() if own else root / "results")), resolve(results or results_root())]
    papers = claims.load().papers
    seeds: dict[tuple[int, str, str], _Seeds] = {}
    for key, records in groups.items():
        twin = seeds.get((0, *key[1:]))  # the same runs, where the profile asked for is standard
        if twin is not None and all(a is b for a, b in zip_longest(twin.records, records)):
            seeds[key] = twin
        elif key[1] in papers:
            seeds[key] = _Seeds(papers[key[1]], records, trees[key[0]])
    fields = ("value", "n", "verdict", "reason", "evidence", "scale", "commit", "stale")
    columns = ["paper", "claim", "arm", "kind", "statement", "reported"]
    columns += [f"{label}_{field}" for label in ("standard", "run") for field in fields]
    rows = []
    for stem, paper in claims.load().papers.items():
        if only and stem != only[0]:
            continue
        if not (root / "notebooks" / f"{stem}.ipynb").is_file():
            rows.append(dict.fromkeys(columns, "") | {"paper": stem, "statement": "no notebook yet"})
            continue
        for claim, entry in paper.judged.items():
            for arm in entry.rule.arms:
                if only and arm != only[1].partition(parameters.OWN)[0]:
                    continue
                row = [stem, claim, arm, entry.kind, entry.statement, _reported(paper, claim)]
                for side in (0, 1):
                    row += _judge(paper, claim, seeds.get((side, stem, arm)))
                rows.append(dict(zip(columns, row)))
    return pd.DataFrame(rows, columns=columns)


class _Seeds:
    """The records of one arm, and what every claim asks of them."""

    def __init__(self, paper: claims.Paper, records: Sequence[Record], results: Path) -> None:
        self.records, self.metrics = records, over_seeds(paper, records, results)
        known: dict[Any, list[str]] = {}  # of `stale`
        self.stale = {id(record): stale(record, known=known) for record in records}
        self.kept: dict[str, list[Record]] = {}  # claim → the runs that are kept for it; "": those of all others
        for record in records:
            self.kept.setdefault(paper.kept_for(record.arm, record.seed), []).append(record)


def _judge(paper: claims.Paper, claim: str, seeds: _Seeds | None) -> list[Any]:
    """One claim over the seeds of one arm: the fields of `suite_table`."""
    records = seeds.kept.get(claim if paper.judged[claim].rule.seeds else "") if seeds else None
    if not records:
        return ["", 0, "no record", "", "", "", "", ""]
    metrics, subject = seeds.metrics, records[0].subject | {"together": True}
    changed = ", ".join(sorted({name for record in records for name in seeds.stale[id(record)]}))
    try:
        judged = paper.judge(claim, metrics, subject)
        told = [judged.verdict, judged.reason, judged.evidence]
    except claims.MissingMetric as error:  # records older than the rule
        told = ["no record", "", f"recorded before this rule: {error}"]
    scale = f"{subject['dataset']}, {len(records)} seed{'s' * (len(records) > 1)}"
    value = _measured(paper.judged[claim].rule, metrics, subject)
    return [value, len(records), *told, scale, _commit(records), changed]


def _commit(records: Sequence[Record]) -> str:
    commits = (record.provenance.commit[:7] + "+changes" * bool(record.provenance.dirty) for record in records)
    return ", ".join(dict.fromkeys(commits))


def _reported(paper: claims.Paper, claim: str) -> str:
    """The paper's numbers for a claim, if it has few; "" otherwise."""
    numbers = [value for value in paper.reported(claim) if not isinstance(value.value, str)]
    if len(numbers) > 3:
        return f"{len(numbers)} numbers"
    return "; ".join(f"{short_name(value.id)} {printed(value)}" for value in numbers)


def printed(value: claims.Value) -> str:
    """A number as the paper prints it."""
    return (
        f"{value.value:g}"
        + (f" ± {value.std:g}" if value.std is not None else "")
        + f" {value.unit}" * bool(value.unit)
    )


def _measured(rule: claims.Rule, metrics: dict[str, OverSeeds], subject: dict[str, Any]) -> str:
    """The number that the rule's first condition reads; of several conditions, how many hold and how many are open."""
    if not rule.judges(subject) or rule.missing(metrics, subject):
        return ""
    entry = metrics[rule.conditions[0].metric]
    text = f"{short_name(rule.conditions[0].metric)} {number(entry.value, entry.std, entry.unit)}"
    states = [condition.check(metrics).holds for condition in rule.conditions if not condition.by_construction]
    held, still = states.count(True), states.count(None)
    counted = f"; {held} of {len(states)} conditions hold" + f", {still} open" * (still > 0)
    return text + counted * (len(states) > 1)


def short_name(metric: str) -> str:
    """A metric's id without its claim: "lrp.iou" of "P5.1.lrp.iou"."""
    return ".".join(metric.split(".")[2:])


def number(value: float | None, std: float | None, unit: str) -> str:
    """A value to the digits that its standard deviation leaves (two of that), to five without one."""
    text = "not defined" if value is None else f"{value:.5g}"
    if std is not None:
        std = std if std > 1e-9 * abs(value) else 0.0  # equal numbers have a standard deviation of 1e-14
        digits = max(1 - math.floor(math.log10(std)), 0) if std else 9
        text = f"{value:.{digits}f} ± {std:.{digits}f}" if digits < 7 else f"{text} ± {std:.2g}"
    return text + f" {unit}" * bool(unit)


def diff(a: str | Path, b: str | Path, rel: float = 1e-6, absolute: float = 1e-9) -> pd.DataFrame:
    """Differences of two results trees: key, what, name, a, b; empty if there are none.

    Compared are which records there are, their parameters, verdicts, and metrics (value, low, high within
    `rel` · max(|a|, |b|) or `absolute`; n and unit exactly). Provenance is not.

    Raises:
        FileNotFoundError: one of the two is no folder.
    """
    for folder in (a, b):
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder} is no folder with results")
    left, right = ({(r.profile, r.paper, r.arm, r.seed): r for r in load(Path(f).resolve())} for f in (a, b))
    rows = []
    for key in sorted({*left, *right}):
        label = "/".join(map(str, key[:3])) + f"/seed_{key[3]}"
        if key not in left or key not in right:
            rows.append((label, "record", "", *("there" if key in side else "missing" for side in (left, right))))
            continue
        one, two = left[key], right[key]
        rows += [(label, "parameter", *row) for row in _changes(one.values, two.values)]
        verdicts = [{name: verdict.verdict for name, verdict in r.claims.items()} for r in (one, two)]
        rows += [(label, "verdict", *row) for row in _changes(*verdicts)]
        for name in sorted({*one.metrics, *two.metrics}):
            found = [vars(r.metrics[name]) if name in r.metrics else {} for r in (one, two)]
            for field in ("value", "low", "high", "n", "unit"):
                x, y = (side.get(field) if side else "missing" for side in found)
                near = (
                    isinstance(x, float) and isinstance(y, float) and math.isclose(x, y, rel_tol=rel, abs_tol=absolute)
                )
                if x != y and not near:
                    rows.append((label, "metric", name if field == "value" else f"{name} {field}", x, y))
                if not all(found):
                    break
    return pd.DataFrame(rows, columns=["key", "what", "name", "a", "b"])


def _changes(one: dict[str, Any], two: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    pairs = [(name, one.get(name, "missing"), two.get(name, "missing")) for name in sorted({*one, *two})]
    return [pair for pair in pairs if pair[1] != pair[2]]


def missing(profile: str = "quick", results: Folder = None) -> list[str]:
    """What is lacking: every notebook needs a usable record of its first arm, of `profile` and of standard."""
    root = repository_root()
    there = [*scan(results)[0], *(scan(root / "results", "standard")[0] if results is None else [])]
    found = {(record.profile, record.paper, record.arm) for record in there}
    return [
        f"{stem} has no {wanted} record: run notebooks/run {stem} {wanted} {arm} 0"
        for stem in claims.load().papers
        if (root / "notebooks" / f"{stem}.ipynb").is_file()
        for wanted in dict.fromkeys((profile, "standard"))
        for arm in parameters.arms(stem)[:1]
        if (wanted, stem, arm) not in found
    ]


def suite_text(table: pd.DataFrame, profile: str = "quick") -> str:
    """The suite table as plain text of at most 120 columns."""
    titles, lines = {stem: paper.title for stem, paper in claims.load().papers.items()}, []
    for stem, rows in table.groupby("paper", sort=False):
        plain = rows["arm"].iloc[0]
        lines += ["", textwrap.shorten(f"{stem} · {titles[stem]}", 120, placeholder=" …")]
        if not rows["claim"].iloc[0]:
            lines.append("       no notebook yet")
            continue
        lines.append(_line(("claim", "the paper", "standard, committed", f"this {profile} run")))
        lines.append(_line(tuple("-" * width for width in _COLUMNS)))
        for _, row in rows.iterrows():
            said = row["reported"] or textwrap.shorten(row["statement"], 90, placeholder=" …")
            cells = [row["claim"], said + (f" (arm {row['arm']})" if row["arm"] != plain else "")]
            for label in ("standard", "run"):
                parts = [with_reason(row[f"{label}_verdict"], row[f"{label}_reason"])]
                if row[f"{label}_n"]:
                    parts += [row[f"{label}_value"], row[f"{label}_scale"]]
                    parts += [f"commit {row[f'{label}_commit']}"] if label == "standard" else []
                    parts += [f"STALE: {row[f'{label}_stale']}"] if row[f"{label}_stale"] else []
                cells.append("; ".join(part for part in parts if part))
            lines.append(_line(cells))
    return "\n".join(lines[1:])


def _line(cells: Sequence[str]) -> str:
    wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, _COLUMNS)]
    height = max(map(len, wrapped))
    padded = [column + [""] * (height - len(column)) for column in wrapped]
    joined = ("  ".join(part.ljust(width) for part, width in zip(row, _COLUMNS)) for row in zip(*padded))
    return "\n".join(row.rstrip() for row in joined)


def export(results: Folder = None) -> list[Path]:
    """Write tables/*.csv of a results tree: metrics per paper and arm over seeds, and the suite; quick is left out."""
    root, written = resolve(results or results_root()), []
    (root / "tables").mkdir(exist_ok=True)
    kept = [record for record in load(root) if record.profile != "quick"]
    tables = {"suite": suite_table("standard", root).filter(regex="^(?!run_)")}
    for paper in dict.fromkeys(record.paper for record in kept):
        arms = dict.fromkeys((record.profile, record.arm) for record in kept if record.paper == paper)
        parts = {arm: seeds_table(paper, arm[1], arm[0], root) for arm in arms}
        tables[paper] = pd.concat(parts, names=["profile", "arm"]).reset_index()
    for name, table in tables.items():
        written.append(root / "tables" / f"{name}.csv")
        draft = written[-1].with_suffix(f".{os.getpid()}.tmp")
        try:
            table.to_csv(draft, index=False, lineterminator="\n")
            os.replace(draft, written[-1])
        finally:
            draft.unlink(missing_ok=True)
    return written


def _unknown(profile: str | None, folders: Sequence[Folder]) -> str:
    """What is wrong with a profile and folders that were asked for; "" if they are there."""
    profiles = sorted({path.parent.name for path in (repository_root() / "notebooks/profiles").glob("*/*.yaml")})
    if profile and profile not in profiles:
        return f"no profile {profile!r}; there are: {', '.join(profiles)}"
    lost = [str(folder) for folder in folders if folder and not resolve(folder).is_dir()]
    return f"no folder {lost[0]}" if lost else ""


@in_one_line
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    print_anywhere()
    parser = argparse.ArgumentParser(prog="python -m xai_utils.suite.report", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", help="the runs beside the standard ones (default: those of the newest record)")
    parser.add_argument("--results", help="results tree (default: $XAI_RESULTS, else results/)")
    parser.add_argument("--check", action="store_true", help="exit 1 if a notebook lacks a record")
    commands = parser.add_subparsers(dest="command", metavar="diff | export | records")
    commands.add_parser("records", help="each standard record: current as made, by equivalence, or stale, and why")
    compare = commands.add_parser("diff", help="compare two results trees; exit 1 if they differ")
    compare.add_argument("a")
    compare.add_argument("b")
    compare.add_argument("--rel", type=float, default=1e-6)
    compare.add_argument("--abs", type=float, default=1e-9)
    commands.add_parser("export", help="write results/tables/*.csv")
    given = parser.parse_args(argv)
    folders = (
        [Path(given.a), Path(given.b)] if given.command == "diff" else [given.results or os.environ.get("XAI_RESULTS")]
    )
    if unknown := _unknown(given.profile, folders):
        print(unknown, file=sys.stderr)
        return 2
    status = 0
    with warnings.catch_warnings(), chain.one_moment():
        warnings.simplefilter("ignore")  # the problems are printed below, once each
        if given.command == "diff":
            found = diff(given.a, given.b, given.rel, given.abs)
            print(found.to_string(index=False) if len(found) else "no difference")
            status = int(len(found) > 0)
        elif given.command == "records":
            table = profile_table("standard", given.results)
            print(table[["paper", "arm", "seed", "commit", "standing", "stale"]].to_string(index=False))
        elif given.command == "export":
            print("\n".join(map(str, export(given.results))))
        else:
            last = None if given.profile or given.check else newest(given.results)
            profile = given.profile or (last.profile if last else "quick")
            only = (last.paper, last.arm) if last and parameters.OWN in last.arm else None
            if only:
                print(f"The newest record is of own values, {profile}/{'/'.join(only)}:")
            print(suite_text(suite_table(profile, given.results, only), profile))
            for line in missing(profile, given.results) if given.check else []:
                print(f"MISSING {line}", file=sys.stderr)
                status = 1
    found = [scan(folder) for folder in folders]
    problems = [problem for _, problems in found for problem in problems]
    records = [record for records, _ in found for record in records]
    named = {f"notebooks/parameters/{record.paper}.yaml" for record in records}
    for problem in [*problems, *unreadable(named.union(*(record.provenance.modules for record in records)))]:
        print(f"PROBLEM {said(problem)}", file=sys.stderr)
        status = 2
    return status


if __name__ == "__main__":
    sys.exit(main())
