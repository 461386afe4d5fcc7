"""The papers' numbers and claims (results/reported.yaml) and the one place that judges them.

A rule is data: which metrics, against which bounds. `Rule.evaluate` turns it and a set of metrics into a
verdict, for one run (`Run.record`) and over seeds (`report`). results/README.md explains the vocabulary.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from xai_utils.data.store import repository_root
from xai_utils.metrics.statistics import Estimate
from xai_utils.suite.strict import Strict

_Verdicts = Literal["reproduced", "partly", "not reproduced", "not comparable", "not tested"]
VERDICTS = get_args(_Verdicts)
_TESTS = {
    "at_least": ("≥", operator.ge),
    "at_most": ("≤", operator.le),
    "above": (">", operator.gt),
    "below": ("<", operator.lt),
    "within": ("=", None),
}
_HOLDS = {True: "holds", False: "does not hold", None: "not defined, so it does not hold"}
_METRIC = r"^[PX]\d\.\d+(\.[a-z][a-z0-9_]*)+$"
_VALUE = r"^P\d\.(\d+|setting)(\.[a-z][a-z0-9_]*)+$"
_END = {"value": "", "low": " (low end)", "high": " (high end)"}


class MissingMetric(KeyError):
    """A rule names a metric, or an end of its interval, that the run has not measured."""

    def __str__(self) -> str:
        return self.args[0]  # KeyError would quote the sentence


class Outcome(Strict):
    """One condition, as a sentence with its numbers; `holds` is None where the metric is not defined."""

    text: str
    holds: bool | None


class Verdict(Strict):
    """The verdict on a claim, and the sentences that it rests on."""

    verdict: _Verdicts
    evidence: str
    conditions: list[Outcome] = Field(default_factory=list)


class Need(Strict):
    """What must be there before a claim is tested at all: enough cases."""

    metric: str = Field(pattern=_METRIC)
    at_least: float


class Condition(Strict):
    """`metric` (or an end of its interval) against a bound, or against `other` + `margin`."""

    metric: str = Field(pattern=_METRIC)
    test: Literal["at_least", "at_most", "above", "below", "within"]
    bound: float | None = None
    other: str | None = Field(default=None, pattern=_METRIC)
    margin: float = 0.0
    tolerance: float | None = Field(default=None, gt=0)
    use: Literal["value", "low", "high"] = "value"

    @model_validator(mode="after")
    def _complete(self) -> Condition:
        if (self.bound is None) == (self.other is None):
            raise ValueError(f"{self.metric}: a condition needs either `bound` or `other`, and not both")
        if self.margin and self.other is None:
            raise ValueError(f"{self.metric}: `margin` goes with `other` alone")
        if (self.tolerance is None) == (self.test == "within"):
            raise ValueError(f"{self.metric}: `tolerance` goes with `test: within` alone")
        return self

    def check(self, metrics: Mapping[str, Estimate]) -> Outcome:
        """Compare; a metric (or `other`) whose value is None makes the condition undefined."""
        left, right = _read(metrics, self.metric, self.use), self.bound
        if self.other is not None and (right := _read(metrics, self.other, "value")) is not None:
            right += self.margin
        if left is None or right is None:
            return Outcome(text=f"{self.metric if left is None else self.other} is {_HOLDS[None]}", holds=None)
        sign, compare = _TESTS[self.test]
        holds = compare(left, right) if compare else abs(left - right) <= self.tolerance
        shown = [f"{number:.6g}" for number in (left, right)]
        if shown[0] == shown[1] and left != right:  # never "97.86 ≥ 97.86: does not hold"
            shown = [repr(left), repr(right)]
        source = f" ({self.other}{f' {self.margin:+g}' if self.margin else ''})" if self.other else ""
        spread = f" ± {self.tolerance:g}" if self.test == "within" else ""
        name = self.metric + _END[self.use]
        text = f"{name} {shown[0]} {sign} {shown[1]}{source}{spread}: {_HOLDS[holds]}"
        return Outcome(text=text, holds=holds)


class Rule(Strict):
    """When a claim counts as reproduced. Either `never`, or `conditions`."""

    arms: list[str] = Field(default=["main"], min_length=1)
    data: list[str] | None = Field(default=None, min_length=1)
    needs: list[Need] = Field(default_factory=list)
    comparable: dict[str, list[str | int | float | bool]] = Field(default_factory=dict)
    conditions: list[Condition] = Field(default_factory=list)
    partly_at: int = Field(default=1, ge=1)
    at_most: Literal["partly"] | None = None
    never: Literal["not tested", "not comparable"] | None = None
    because: str | None = Field(default=None, min_length=10)

    @model_validator(mode="after")
    def _complete(self) -> Rule:
        if (self.never is None) == (not self.conditions):
            raise ValueError("a rule has either `conditions` or `never`, and not both")
        if self.never and not self.model_fields_set <= {"never", "because", "arms", "data"}:
            raise ValueError("a rule with `never` takes `because`, `arms` and `data` only")
        if bool(self.never or self.at_most) != bool(self.because):
            raise ValueError("`because` gives the reason for `never` or `at_most`: it goes with them, always")
        if self.conditions and self.partly_at > len(self.conditions):
            raise ValueError(f"partly_at {self.partly_at} exceeds the {len(self.conditions)} conditions")
        return self

    def metrics(self) -> list[tuple[str, str]]:
        """Every (metric id, end of the interval) that the rule reads."""
        read = [(need.metric, "value") for need in self.needs]
        for condition in self.conditions:
            read.append((condition.metric, condition.use))
            read += [(condition.other, "value")] if condition.other else []
        return read

    def not_applicable(self, parameters: Mapping[str, Any]) -> str:
        """Why this rule does not judge a run of these parameters at all, in words; empty if it does."""
        arm = parameters.get("arm", "main")
        if arm not in self.arms:
            return f"belongs to arm {' or '.join(self.arms)}, not {arm}"
        if self.data and parameters.get("dataset") not in self.data:
            return f"is about {' or '.join(self.data)}, not {parameters.get('dataset')}"
        return ""

    def missing(self, metrics: Mapping[str, Estimate], parameters: Mapping[str, Any]) -> list[str]:
        """What this rule needs of a run of these parameters and does not find, in words."""
        if self.never or self.not_applicable(parameters):
            return []
        absent = []
        for name, use in dict.fromkeys(self.metrics()):
            if name not in metrics:
                absent.append(name)
            elif _read(metrics, name, "value") is not None and _read(metrics, name, use) is None:
                absent.append(f"the {use} end of {name}")
        return absent

    def evaluate(self, kind: str, metrics: Mapping[str, Estimate], parameters: Mapping[str, Any]) -> Verdict:
        """The verdict on a claim of `kind`. Nothing else in the suite makes one. Arguments as for `evaluate`."""
        if self.never:
            return Verdict(verdict=self.never, evidence=self.because)
        if reason := self.not_applicable(parameters):
            return Verdict(verdict="not tested", evidence=reason)
        if absent := self.missing(metrics, parameters):
            raise MissingMetric(f"not measured: {', '.join(absent)}; add run.measure(id, value, low=…, high=…)")
        short = []
        for need in self.needs:
            count = _read(metrics, need.metric, "value")
            if count is None or count < need.at_least:
                number = "not defined" if count is None else f"{count:g}"
                short.append(f"{need.metric} is {number}, the rule needs {need.at_least:g}")
        elsewhere = [
            f"{name} is {parameters.get(name, 'not recorded')}, not {' or '.join(map(str, allowed))}"
            for name, allowed in self.comparable.items()
            if parameters.get(name, "main" if name == "arm" else None) not in allowed
        ]
        outcomes = [condition.check(metrics) for condition in self.conditions]
        held = sum(outcome.holds is True for outcome in outcomes)
        notes = short + elsewhere + [outcome.text for outcome in outcomes]
        if short or all(outcome.holds is None for outcome in outcomes):
            verdict = "not tested"
        elif kind == "value" and elsewhere:
            verdict = "not comparable"
        elif held == len(outcomes):
            verdict = self.at_most or "reproduced"
            notes += [f"at most {self.at_most}, because {self.because}"] if self.at_most else []
        else:
            verdict = "partly" if held >= self.partly_at else "not reproduced"
        if "dataset" in parameters:
            notes.append(f"measured on {parameters['dataset']}")
        return Verdict(verdict=verdict, evidence="; ".join(notes), conditions=outcomes)


class Value(Strict):
    """One number (or named setting) that a paper reports, with its place in the paper."""

    id: str = Field(pattern=_VALUE)
    value: float | int | str
    unit: str = ""
    place: str = Field(min_length=1)
    std: float | None = Field(default=None, ge=0)
    n: int | None = Field(default=None, ge=1)
    note: str = ""

    @model_validator(mode="after")
    def _number(self) -> Value:
        if isinstance(self.value, str) and re.fullmatch(r"[-+\d.,]+(e[-+]?\d+)?", self.value, re.IGNORECASE):
            raise ValueError(f"{self.id}: {self.value!r} is text; write a plain number such as 1.0e-4")
        return self


class Headline(Strict):
    """A number that the README's table of papers shows: a metric of one arm, in a reader's words."""

    metric: str = Field(pattern=r"^[PX]\d\.")
    says: str = Field(min_length=1)
    arm: str = "main"


class Claim(Strict):
    """A statement of a paper (or of ours, under `extensions`) and the rule that judges it.

    `words` and `shown` are for the table that ends a notebook: the claim in ten words, and the number that tells it.
    """

    kind: Literal["value", "relation", "judgement", "observation", "question"]
    statement: str = Field(min_length=10)
    place: str = Field(min_length=1)
    rule: Rule
    words: str = ""
    shown: Headline | None = None

    @model_validator(mode="after")
    def _comparable(self) -> Claim:
        if (self.kind == "value") != bool(self.rule.comparable) and not self.rule.never:
            raise ValueError("`comparable` (where a value may be compared) goes with `kind: value`, always")
        return self


class Paper(Strict):
    """One paper: what it reports, what it claims, and what the suite adds."""

    title: str
    citation: str
    headlines: list[Headline] = Field(default_factory=list)
    values: list[Value]
    claims: dict[str, Claim]
    extensions: dict[str, Claim] = Field(default_factory=dict)

    @property
    def judged(self) -> dict[str, Claim]:
        """Claims, then extensions."""
        return {**self.claims, **self.extensions}

    def reported(self, claim: str) -> list[Value]:
        """The paper's own numbers for a claim, in the file's order."""
        return [value for value in self.values if value.id.startswith(claim + ".")]


class Reported(Strict):
    """The whole of reported.yaml: notebook stem → paper."""

    papers: dict[str, Paper]

    @model_validator(mode="after")
    def _consistent(self) -> Reported:
        for stem, paper in self.papers.items():
            if not re.match(r"0[1-9]_[a-z0-9_]+$", stem):
                raise ValueError(f"{stem} is no notebook name such as 01_id_cvae_morphing")
            digit, values = stem[1], [value.id for value in paper.values]
            for name in [name for name in values if values.count(name) > 1]:
                raise ValueError(f"value {name} stands twice")
            for letter, names in (("P", paper.claims), ("X", paper.extensions)):
                if wrong := [name for name in names if not re.fullmatch(rf"{letter}{digit}\.\d+", name)]:
                    raise ValueError(f"{stem}: claim ids look like {letter}{digit}.1, not {wrong[0]}")
            if other := [entry.metric for entry in paper.headlines if entry.metric[1] != digit]:
                raise ValueError(f"headline {other[0]} is no metric of {stem}")
            owners = {*paper.claims, f"P{digit}.setting"}
            if stray := [name for name in values if ".".join(name.split(".")[:2]) not in owners]:
                raise ValueError(f"value {stray[0]} begins with no claim id of {stem} nor P{digit}.setting")
            for claim, entry in paper.judged.items():
                owned = [".".join(metric.split(".")[:2]) for metric, _ in entry.rule.metrics()]
                if unknown := set(owned) - set(paper.judged):
                    raise ValueError(f"claim {claim}: a metric of {min(unknown)}, which is no claim of {stem}")
                if owned and claim not in owned:
                    raise ValueError(f"claim {claim}: none of its metrics begins with {claim}.")
        return self


class _UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """SafeLoader that refuses a key given twice, which YAML would let the later one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ValueError(f"{key!r} stands twice, again in line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep)


def load(path: str | Path | None = None) -> Reported:
    """Read and check reported.yaml (default: the repository's).

    Raises:
        ValueError: naming the file and every entry that is unknown, mistyped, doubled or inconsistent.
    """
    path = Path(path) if path is not None else repository_root() / "results" / "reported.yaml"
    try:
        return Reported.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys))
    except ValidationError as error:
        places = [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors()]
        raise ValueError(f"{path} is not valid:\n  " + "\n  ".join(places)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not valid: {error}") from None


def evaluate(
    reported: Reported, paper: str, metrics: Mapping[str, Estimate], parameters: Mapping[str, Any]
) -> dict[str, Verdict]:
    """Judge every claim and extension of `paper`: claim id → verdict, in the file's order.

    Args:
        reported: from `load`.
        paper: notebook stem.
        metrics: id → mapping or object with value, low, high.
        parameters: of the run (`arm`, by default "main", `profile`, `dataset`, …).

    Raises:
        ValueError: if the paper is unknown.
        MissingMetric: naming every claim whose rule asks for something that was not measured.
    """
    if paper not in reported.papers:
        raise ValueError(f"no paper {paper!r} in reported.yaml; there are {', '.join(reported.papers)}")
    judged = reported.papers[paper].judged
    absent = {claim: c.rule.missing(metrics, parameters) for claim, c in judged.items()}
    if wanted := [f"claim {claim} needs {', '.join(ids)}" for claim, ids in absent.items() if ids]:
        raise MissingMetric(f"{'; '.join(wanted)}: add run.measure(id, value, low=…, high=…) for each of them")
    return {claim: c.rule.evaluate(c.kind, metrics, parameters) for claim, c in judged.items()}


def _read(metrics: Mapping[str, Estimate], name: str, use: str) -> float | None:
    return getattr(metrics[name], use)
