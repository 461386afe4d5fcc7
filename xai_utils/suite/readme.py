"""The generated blocks of README.md and results/README.md, from the committed records and findings.

    python -m xai_utils.suite.readme

They are written from the repository's own results/, whatever $XAI_RESULTS is: another tree has `report` and its tables.

A block stands between <!-- name:begin --> and <!-- name:end -->: in README.md the finding that surprises, what a reader
would not guess, and a row per paper; in results/README.md, folded, a table per paper, claim by claim.

Exit code: 0; 2 a record cannot be used, a finding is not true of the records, or another tree was asked for.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from xai_utils.data.store import repository_root, resolve
from xai_utils.progress import print_anywhere
from xai_utils.suite import claims, findings, over_seeds, report
from xai_utils.suite.record import Record
from xai_utils.suite.report import Folder
from xai_utils.suite.rules import VERDICTS, with_reason
from xai_utils.suite.strict import in_one_line, said


def papers_table(results: Folder = None) -> str:
    """Markdown: one row per paper, with its state and headline numbers."""
    lines = ["| paper | verdicts | headline numbers (standard profile, mean ± standard deviation) |", "|---|---|---|"]
    table = report.suite_table("standard", results)
    everything = report.load(results or repository_root() / "results", "standard")
    for stem, paper in claims.load().papers.items():
        rows = table[table["paper"] == stem]
        if not rows["claim"].iloc[0]:
            lines.append(f"| {paper.title} | no notebook yet | |")
            continue
        verdicts = dict(zip(zip(rows["claim"], rows["arm"]), rows["standard_verdict"]))
        own = [record for record in everything if record.paper == stem]
        numbers = [_headline(paper, entry, own, verdicts) for entry in paper.headlines]
        state = _state(rows[rows["claim"].str.startswith("P")])
        lines.append(f"| [{paper.title}](notebooks/{stem}.ipynb) | {state} | {'<br>'.join(filter(None, numbers))} |")
    return "\n".join(lines)


def claims_tables(results: Folder = None) -> str:
    """Markdown: a folded table per paper, a row per claim and arm that has records."""
    table = report.suite_table("standard", results)
    written: list[str] = []
    for stem, paper in claims.load().papers.items():
        rows = table[table["paper"] == stem]
        if rows["claim"].iloc[0]:
            written += ["", *_claim_by_claim(paper, rows)]
    return "\n".join(written[1:])


def surprise() -> str:
    """The finding that stands on README.md's first screen."""
    entry = findings.load().surprise
    return findings.joined(findings.tell(entry.paper, entry, entry.paper, "en", findings.Source()), "en")


def not_guessed() -> str:
    """Markdown: what a reader would not guess, a paragraph per paper."""
    source = findings.Source()
    return "\n".join(
        f"- **Paper {stem[1]}.** {findings.summary(stem, 'en', source)}" for stem in findings.load().papers
    )


def blocks(results: Folder = None) -> dict[str, dict[str, str]]:
    """File → name of a block → its text.

    Raises:
        findings.FindingError: a sentence is not true of the records, or cannot be filled.
    """
    return {
        "README.md": {"surprise": surprise(), "findings": not_guessed(), "papers": papers_table(results)},
        "results/README.md": {"claims": claims_tables(results)},
    }


def _headline(
    paper: claims.Paper, entry: claims.Headline, records: Sequence[Record], verdicts: dict[tuple[str, str], str]
) -> str:
    """One headline number, the paper's beside ours; "" if it was not measured."""
    found = report.common([record for record in records if record.arm == entry.arm])
    ours = over_seeds.aggregate(found).get(entry.metric)
    if not ours:
        return ""
    theirs = [f"paper {report.printed(v)}, ours " for v in paper.values if v.id == entry.metric]
    scale = f"{found[0].subject['dataset']}, {len(found)} seed{'s' * (len(found) > 1)}"
    verdict = verdicts.get((".".join(entry.metric.split(".")[:2]), entry.arm))
    if verdict == "not tested" or (theirs and verdict == "not comparable"):
        scale += f"; {verdict}"
    return f"{entry.says}: {''.join(theirs)}{report.number(ours.value, ours.std, ours.unit)} ({scale})"


def _claim_by_claim(paper: claims.Paper, rows: pd.DataFrame) -> list[str]:
    """A folded table of Markdown: a row per claim and arm that has records."""
    lines = [f"<details><summary>{paper.title}: claim by claim</summary>", ""]
    lines += ["| claim | what it says | paper | ours | data | verdict |", "|---|---|---|---|---|---|"]
    said = ""  # a statement stands once, over the rows of all arms
    for row in rows[rows["standard_n"] > 0].itertuples():
        arm = f"{row.arm}: " * (len(paper.judged[row.claim].rule.arms) > 1)
        verdict = with_reason(row.standard_verdict, row.standard_reason) + " (stale)" * bool(row.standard_stale)
        what = ["", ""] if row.claim == said else [row.statement, row.reported]
        cells, said = [row.claim, *what, row.standard_value, arm + row.standard_scale, verdict], row.claim
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return [*lines, "", "</details>"]


def _state(rows: pd.DataFrame) -> str:
    """How many claims have which verdict; "mixed": its arms (other data, fewer images) were tested and disagree."""
    verdicts = {}
    for claim, found in rows.groupby("claim", sort=False)["standard_verdict"]:
        told = {*found} - {"no record", "not tested"}
        alone = told or {"not tested"} & {*found} or {*found}
        verdicts[claim] = alone.pop() if len(alone) == 1 else "mixed"
    counts = pd.Series(verdicts).value_counts()
    order = [name for name in (*VERDICTS, "mixed", "no record") if name in counts]
    return ", ".join(f"{counts[name]} {name}" for name in order)


def update(path: Path, texts: Mapping[str, str]) -> bool:
    """Put each text between the marks of its block in the page at `path`; whether it changed.

    Raises:
        ValueError: a block's marks are missing; nothing is written.
    """
    before = new = path.read_text(encoding="utf-8")
    for name, text in texts.items():
        marks = (f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->\n")
        above, begin, rest = new.partition(marks[0])
        _, end, below = rest.partition(marks[1])
        if not (begin and end):
            raise ValueError(f"{path}: expected the lines {' and '.join(mark.strip() for mark in marks)}")
        new = f"{above}{begin}{text}\n{end}{below}"
    if new != before:
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(new, encoding="utf-8")
        os.replace(draft, path)
    return new != before


@in_one_line
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    print_anywhere()
    parser = argparse.ArgumentParser(prog="python -m xai_utils.suite.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--results", default="results", help="the repository's results/, and no other")
    given = parser.parse_args(argv)
    committed = repository_root() / "results"
    if resolve(given.results) != committed.resolve():
        print(f"the pages show {committed} alone, not {given.results}: for another tree ask report, or report export")
        return 2
    problems = report.scan(committed)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the problems are printed below, once each
        try:
            written = blocks(committed)
        except findings.FindingError as error:
            problems, written = [*problems, str(error)], {}
        for name, texts in written.items():
            changed = update(repository_root() / name, texts)
            print(f"{name}: {', '.join(texts)} " + ("changed" if changed else "up to date"))
    for problem in problems:
        print(f"PROBLEM {said(problem)}", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
