"""The verdict bench: every claim with its rule and each seed's numbers, as data for bench.js.

bench.js is the rule (`xai_utils.suite.rules`) and the merging of seeds (`over_seeds.aggregate`) once more, in the page,
so that a bound can be moved and a seed left out. tests/site compares both.
"""

from __future__ import annotations

import json
import math
from typing import Any

from scipy.special import stdtrit
from words import Site, number_of

from xai_utils.metrics.statistics import Estimate
from xai_utils.suite import claims, report
from xai_utils.suite.findings import Source
from xai_utils.suite.over_seeds import OverSeeds, aggregate, bounds, is_p_value
from xai_utils.suite.pooled import over_seeds
from xai_utils.suite.record import Record
from xai_utils.suite.rules import Competence

MOST_SEEDS = 30


def cases(site: Site) -> list[dict[str, Any]]:
    """One entry for each claim and arm that has records: rule, gates, and the metrics that they read, seed by seed."""
    found = []
    for stem, paper in site.source.reported.papers.items():
        for claim, entry in paper.judged.items():
            for arm in entry.rule.arms:
                records = site.source.records(stem, arm, claim)
                if records and not paper.missing(claim, site.source.metrics(stem, arm), subject(records)):
                    found.append(_case(site, stem, paper, claim, arm, records))
    return found


def subject(records: list[Record]) -> dict[str, Any]:
    """What a rule is told of the runs that it judges together."""
    return records[0].subject | {"together": True}


def gates_of(paper: claims.Paper, claim: str, told: dict[str, Any]) -> list[Competence]:
    """What the networks of committed runs must have reached for a claim (none of them is on own images)."""
    return [gate for gate in paper.competence if claim in gate.claims and gate.applies(told)]


def merged(source: Source, stem: str, arm: str, claim: str, left_out: int | None = None) -> dict[str, OverSeeds]:
    """The metrics over the seeds of a case, without one of them (its place in the list) or with all."""
    known = merged.__dict__.setdefault(id(source), {})
    own = source.records(stem, arm, claim)
    others = [record for record in source.records(stem, arm) if record not in own]
    key = (stem, arm, own[0].seed, left_out)
    if key not in known:
        kept = [record for place, record in enumerate(own) if place != left_out]
        known[key] = over_seeds(source.reported.papers[stem], [*others, *kept], source.root / "results")
    return known[key]


def _case(site: Site, stem: str, paper: claims.Paper, claim: str, arm: str, records: list[Record]) -> dict[str, Any]:
    entry, told = paper.judged[claim], subject(records)
    rule, metrics = entry.rule, site.source.metrics(stem, arm)
    gates = gates_of(paper, claim, told)
    names = dict.fromkeys([*rule.metrics(), *(gate.metric for gate in gates)])
    elsewhere = any(
        told.get(name, "main" if name == "arm" else None) not in allowed for name, allowed in rule.comparable.items()
    )
    verdict = paper.judge(claim, metrics, told)
    left_out = [None, *range(len(records) if len(records) > 1 else 0)]  # a seed without its arrays may be the one
    alone = [aggregate([one for place, one in enumerate(records) if place != out]) for out in left_out]
    whole = [merged(site.source, stem, arm, claim, out) for out in left_out]
    pooled = [
        name
        for name in names
        if name in metrics and any(one.get(name) != every[name] for one, every in zip(alone, whole))
    ]
    return {
        "id": claim,
        "key": claim if len(rule.arms) == 1 else f"{claim}@{arm}",
        "paper": number_of(stem),
        "arm": arm,
        "arms": len(rule.arms),
        "kind": entry.kind,
        "words": site.say(entry.words),
        "statement": entry.statement,
        "reported": "; ".join(
            f"{report.short_name(v.id)} {report.printed(v)}"
            for v in paper.reported(claim)[:4]
            if not isinstance(v.value, str)
        ),
        "data": told["dataset"].replace("_", " "),
        "verdict": verdict.verdict,
        "never": rule.never,
        "inapplicable": rule.not_applicable(told),
        "because": site.say(rule.because or ""),
        "elsewhere": elsewhere,
        "enough": rule.enough if rule.conditions else 0,
        "partly_at": rule.partly_at,
        "at_most": rule.at_most,
        "needs": [{"metric": need.metric, "at_least": need.at_least} for need in rule.needs],
        "gates": [{"metric": gate.metric, "at_least": gate.at_least} for gate in gates],
        "conditions": [condition.model_dump(exclude_none=True) for condition in rule.conditions],
        "seeds": [record.seed for record in records],
        "metrics": {name: _metric(name, records, metrics[name].unit) for name in names if name in metrics},
        "pooled": {name: _together(site.source, stem, arm, claim, name, len(records)) for name in pooled},
    }


def _together(source: Source, stem: str, arm: str, claim: str, name: str, n: int) -> list[dict[str, float | None]]:
    """A metric that is computed from all seeds at once: without the first, the second, …, and last with all of them."""
    found = [merged(source, stem, arm, claim, left_out)[name] for left_out in [*range(n if n > 1 else 0), None]]
    return [{end: getattr(one, end) for end in ("value", "low", "high")} for one in found]


def _metric(name: str, records: list[Record], unit: str) -> dict[str, Any]:
    """A metric of every seed: value, low, high; and the range that its mean's interval must keep to."""
    found = [record.metrics.get(name, Estimate(None, note="of all seeds at once")) for record in records]
    least, most = bounds(name, unit)
    return {
        "unit": unit,
        "p": is_p_value(name),
        "least": None if math.isinf(least) else least,
        "most": None if math.isinf(most) else most,
        "values": [m.value for m in found],
        "lows": [m.low for m in found],
        "highs": [m.high for m in found],
    }


def script(site: Site) -> str:
    """bench_data.js: the cases, the words, and the quantiles of the t distribution."""
    t = [None, *(float(stdtrit(n, 0.975)) for n in range(1, MOST_SEEDS))]
    data = {"cases": cases(site), "t": t, "words": _words(site), "language": site.language}
    return f"window.BENCH = {json.dumps(data, ensure_ascii=False, allow_nan=False)};\n"


WORDS = (
    "predict first", "reveal", "your prediction", "it was", "right", "not so", "seeds", "bound", "reset", "now",
    "committed", "holds", "fails", "open", "by construction", "necessary", "does not count", "what would flip it",
    "nothing within reach", "without seed", "if the bound were below", "if the bound were above", "not defined",
    "too few cases", "the network has not learned it", "this claim is not judged", "claims predicted",
    "forget my predictions", "seed by seed",
)  # fmt: skip


def _words(site: Site) -> dict[str, str]:
    verdicts = ("reproduced", "partly", "undecided", "not reproduced", "not comparable", "not tested")
    told = {name: site.verdict(name) for name in verdicts}
    return {**{word: site.say(word) for word in WORDS}, **{f"verdict {name}": html for name, html in told.items()}}
