"""What a notebook shows of the standard runs: a finding with its figure and verdict, and the table at its end."""

from __future__ import annotations

import base64
import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xai_utils.metrics.statistics import Estimate
from xai_utils.suite import claims, findings, pictures, report, wording
from xai_utils.suite.findings import Language, Source
from xai_utils.suite.over_seeds import OverSeeds
from xai_utils.suite.record import Record

WIDEST, HEAVIEST = 900, 110_000  # pixels and bytes of a standard figure in a notebook
ROWS = 8  # of the closing table in the text; the others are folded
_SAYS = {"en": "The standard runs say", "ja": "標準実行の結果"}
_SEEDS = {"en": "{} seeds", "ja": "{}シード"}
VERDICTS_JA = {
    "reproduced": "再現された",
    "partly": "部分的に再現された",
    "not reproduced": "再現されなかった",
    "not comparable": "比較できない",
    "not tested": "検証していない",
    "undecided": "どちらとも言えない",
}
_COLUMNS = ("claim", "the paper", "this run", "standard", "verdict", "why")


@dataclass(frozen=True)
class Told:
    """One or several findings, as Jupyter shows them: paragraphs, and below them the standard figure."""

    paragraphs: tuple[tuple[str, str, str], ...]  # claim, what it rests on, text
    language: Language = "en"
    picture: bytes = b""
    alt: str = ""

    def __repr__(self) -> str:
        text = [f"{claim} ({rests})\n{textwrap.fill(said, 100)}" for claim, rests, said in self.paragraphs]
        return "\n\n".join([_SAYS[self.language], *text])

    def _repr_html_(self) -> str:
        rows = [
            f"<p><b>{_SAYS[self.language]}</b> ({html.escape(claim)}; {html.escape(rests)}): {html.escape(said)}</p>"
            for claim, rests, said in self.paragraphs
        ]
        return f'<div lang="{self.language}">{"".join(rows)}</div>'

    def outputs(self) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """What is published in a notebook: (data by MIME type, metadata), the text first, then the figure."""
        made: list[tuple[dict[str, str], dict[str, Any]]] = [
            ({"text/html": self._repr_html_(), "text/plain": repr(self)}, {})
        ]
        if self.picture:
            data = {"image/png": base64.b64encode(self.picture).decode(), "text/plain": f"[{self.alt}]"}
            made.append((data, {"image/png": {"alt": self.alt}}))
        return made

    def _ipython_display_(self) -> None:
        from IPython.display import publish_display_data

        for data, metadata in self.outputs():
            publish_display_data(data, metadata)


@dataclass(frozen=True)
class Line:
    """One line in place of a finding that cannot be shown."""

    text: str

    def __repr__(self) -> str:
        return self.text


def finding(
    wanted: Sequence[str], language: Language = "en", figure: bool = True, source: Source | None = None
) -> Told | Line:
    """The findings about some claims, from the committed standard records; the figure of the first that has one.

    Args:
        wanted: claims, such as P2.4.
        language: "en" or "ja".
        figure: whether the standard figure is shown, too.
        source: the records; default: the repository's.

    Returns:
        `Told`; where a record is not current, a `Line` that says so.

    Raises:
        findings.FindingError: an unknown claim, or a sentence that the records do not bear out.
        ValueError: an unknown language.
    """
    if language not in _SAYS:
        raise ValueError(f"language {language!r}: expected en or ja")
    source = source or Source()
    known = findings.load(source.root / findings.FILE).claims
    paragraphs, picture, alt = [], b"", ""
    for claim in wanted:
        paper = source.paper_of(claim)
        if claim not in known:
            raise findings.FindingError(f"{findings.FILE} has no finding about {claim}: write one")
        entry = known[claim]
        if stale := findings.not_current(claim, entry, paper, source):
            return Line(f"No standard result to show ({stale[0]}); `make batch PROFILE=standard` makes it anew.")
        said = findings.joined(findings.tell(claim, entry, paper, language, source), language)
        paragraphs.append((claim, _rests_on(claim, entry, paper, language, source), said))
        if figure and entry.figure and not picture:
            picture, alt = _picture(entry, paper, source), entry.figure.alt
    return Told(tuple(paragraphs), language, picture, alt)


def _rests_on(claim: str, entry: findings.Finding, paper: str, language: Language, source: Source) -> str:
    records = source.records(paper, entry.arm, claim)
    verdict = _standard_verdict(claim, entry.arm, paper, source)
    told = VERDICTS_JA.get(verdict, verdict) if language == "ja" else verdict
    return ", ".join([_data(entry, records), _SEEDS[language].format(len(records)), told])


def _data(entry: findings.Finding, records: Sequence[Record]) -> str:
    return entry.data or records[0].subject["dataset"].replace("_", " ")


def _standard_verdict(claim: str, arm: str, paper: str, source: Source) -> str:
    subject = source.records(paper, arm, claim)[0].subject | {"together": True}
    return source.reported.papers[paper].judge(claim, source.metrics(paper, arm), subject).verdict


def figure_path(entry: findings.Finding, paper: str, source: Source) -> Path:
    """Where the figure of a finding lies: in the committed run of its arm's lowest seed."""
    seed = min(record.seed for record in source.records(paper, entry.arm))
    return source.root / "results" / "standard" / paper / entry.arm / f"seed_{seed}" / f"{entry.figure.name}.png"


def _picture(entry: findings.Finding, paper: str, source: Source) -> bytes:
    path = figure_path(entry, paper, source)
    if not path.is_file():
        raise findings.FindingError(f"{findings.FILE} names the figure {entry.figure.name}, and there is no {path}")
    return pictures.narrow(path, WIDEST, HEAVIEST)


# the table at the end of a notebook ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ClosingTable:
    """Claim in words, the paper, this run, standard, verdict, why: eight rows, and the rest folded."""

    rows: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        return "\n\n".join(
            "\n".join(
                textwrap.fill(f"{name}: {cell}", 100, subsequent_indent="    ", initial_indent="" if not i else "  ")
                for i, (name, cell) in enumerate(zip(_COLUMNS, row))
            )
            for row in self.rows
        )

    def _repr_html_(self) -> str:
        text, more = self.rows[:ROWS], self.rows[ROWS:]
        appendix = f"<details><summary>{len(more)} more claims</summary>{_html_table(more)}</details>" if more else ""
        return _html_table(text) + appendix


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    style = 'style="text-align: left; white-space: normal; vertical-align: top"'
    head = "".join(f"<th {style}>{name}</th>" for name in _COLUMNS)
    body = "".join("<tr>" + "".join(f"<td {style}>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def closing_table(
    paper: str, metrics: Mapping[str, Estimate], verdicts: Mapping[str, claims.Verdict], source: Source | None = None
) -> ClosingTable:
    """The paper's claims against a run and against the committed standard records.

    Args:
        paper: notebook stem.
        metrics: what the run measured.
        verdicts: on the run, from `claims.evaluate`.
        source: the records; default: the repository's. The verdict shown is that over the standard seeds; where the
            run's own differs, it stands behind it.
    """
    source = source or Source()
    known = findings.load(source.root / findings.FILE).claims
    judged = source.reported.papers[paper].judged
    return ClosingTable(
        tuple(
            _row(name, claim, paper, metrics, verdicts[name].verdict, known.get(name), source)
            for name, claim in judged.items()
        )
    )


def _row(
    name: str,
    claim: claims.Claim,
    paper: str,
    metrics: Mapping[str, Estimate],
    verdict: str,
    entry: findings.Finding | None,
    source: Source,
) -> tuple[str, ...]:
    reported = source.reported.papers[paper]
    number = claim.shown
    theirs = [report.printed(value) for value in reported.reported(name) if number and value.id == number.metric]
    ours = metrics.get(number.metric) if number else None
    this_run = _measured(number, ours)
    words, paper_says = claim.words or claim.statement, theirs[0] if theirs else "no number"
    if entry is None or findings.not_current(name, entry, paper, source):
        return (words, paper_says, this_run, "no current record", verdict, "—")
    over = source.metrics(paper, entry.arm).get(number.metric) if number else None
    records = source.records(paper, entry.arm, name)
    rests = f"({_data(entry, records)}, {len(records)} seeds)"
    standard = wording.minus(report.number(over.value, over.std, over.unit)) if over else "—"
    told = _standard_verdict(name, entry.arm, paper, source)
    why = findings.tell(name, entry, paper, "en", source)[0]
    told += f" (this run: {verdict})" * (verdict != told)
    return (words, paper_says, this_run, f"{standard} {rests}", told, why)


def _measured(number: claims.Headline | None, found: Estimate | None) -> str:
    if number is None or found is None:
        return "not measured"
    if found.value is None:
        return f"{number.says}: not defined"
    one = OverSeeds(found.value, 1, found.low, found.high, found.unit)
    ends = found.low is not None and found.high is not None
    return f"{number.says}: {wording.shown(one, 'interval' if ends else 'spread')}"
