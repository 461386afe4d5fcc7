"""Which verdicts of the committed records are others than at an earlier commit, and why: results/verdict_changes.md.

    python -m xai_utils.suite.changes COMMIT [--results FOLDER]

The old verdicts are those of results/tables/suite.csv at that commit, the new ones are computed from today's records
and rules. Nothing in the file is typed. Exit code: 0; 2 there is no such commit or no table in it.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from xai_utils.data.store import repository_root, resolve
from xai_utils.progress import print_anywhere
from xai_utils.suite import report
from xai_utils.suite.equivalence.history import History, NotPossible
from xai_utils.suite.report import Folder
from xai_utils.suite.rules import with_reason

FILE = "verdict_changes.md"
_KEY = ["paper", "claim", "arm"]
_STATES = {"reproduced": ("holds",), "partly": ("open", "fails"), "undecided": ("open",), "not reproduced": ("fails",)}


def suite_at(commit: str, root: Path | None = None) -> pd.DataFrame:
    """The suite's table as committed at `commit`.

    Raises:
        NotPossible: no git history, or no such commit or table in it.
    """
    text = History(root or repository_root()).git("show", f"{commit}:results/tables/suite.csv")
    return pd.read_csv(io.StringIO(text), keep_default_na=False)


def changed(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Claim, arm, old and new verdict, and why, of every verdict that is another one; the order of `new`.

    Why: a gate's or a need's sentence, or the conditions that decide, with their numbers; other runs are said first.
    """
    both = new.merge(old, on=_KEY, how="left", suffixes=("", "_old"))
    rows = []
    for row in both[both["standard_verdict"] != both["standard_verdict_old"]].to_dict("records"):
        known = isinstance(row["standard_verdict_old"], str)
        was = row["standard_verdict_old"] if known else "no such claim"
        runs = ["other runs"] if known and row["standard_commit"] != row["standard_commit_old"] else []
        why = "; ".join(runs + _deciding(row["standard_verdict"], row["standard_reason"], row["standard_evidence"]))
        brief = "" if row["standard_verdict"] == "not tested" else row["standard_reason"]  # `why` says it at length
        rows.append([row["claim"], row["arm"], was, with_reason(row["standard_verdict"], brief), why])
    return pd.DataFrame(rows, columns=["claim", "arm", "old", "new", "why"])


def _deciding(verdict: str, reason: str, evidence: str) -> list[str]:
    """The sentences of the evidence that a verdict rests on."""
    sentences = evidence.split("; ")
    if verdict == "not tested" and reason in sentences:
        return [reason]
    ends = tuple(f": {state}" for state in _STATES.get(verdict, ()))
    told = [sentence for sentence in sentences if ends and sentence.endswith(ends)]
    return told or sentences


def page(commit: str, table: pd.DataFrame) -> str:
    """The Markdown of the file."""
    lines = [
        "# Verdicts that changed",
        "",
        f"Over seeds, of the committed standard records: at commit {commit}, and by today's rules.",
        f"Written by `python -m xai_utils.suite.changes {commit}` from both versions. Every changed *rule*, old and",
        "new, stands with its reason under Deviations in the notebook of its paper.",
        "",
        "| claim | arm | old | new | why |",
        "|---|---|---|---|---|",
    ]
    cells = ([str(cell).replace("|", r"\|") for cell in row] for row in table.itertuples(index=False))
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)]) + "\n"


def commit_of(path: Path) -> str:
    """The commit that the file at `path` compares with; ValueError: it names none."""
    found = re.search(r"suite\.changes ([0-9a-f]{7,40})`", path.read_text(encoding="utf-8"))
    if not found:
        raise ValueError(f"{path} names no commit: write it again with python -m xai_utils.suite.changes COMMIT")
    return found[1]


def write(commit: str, results: Folder = None) -> Path:
    """Write the file into a results tree (default: the repository's)."""
    folder = resolve(results or repository_root() / "results")
    draft = folder / f"{FILE}.{os.getpid()}.tmp"
    table = changed(suite_at(commit), report.suite_table("standard", folder))
    draft.write_text(page(commit, table), encoding="utf-8")
    os.replace(draft, folder / FILE)
    return folder / FILE


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    print_anywhere()
    parser = argparse.ArgumentParser(prog="python -m xai_utils.suite.changes", description=__doc__.splitlines()[0])
    parser.add_argument("commit", nargs="?", help="the earlier commit (default: the one that the file names)")
    parser.add_argument("--results", help="results tree (default: the repository's results/)")
    given = parser.parse_args(argv)
    folder = resolve(given.results or repository_root() / "results")
    try:
        print(write(given.commit or commit_of(folder / FILE), folder))
    except (NotPossible, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
