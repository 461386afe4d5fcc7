"""Rules and verdicts: which metrics, against which bounds, and what follows from their intervals.

A rule is data, written in results/reported.yaml. `Rule.evaluate` turns it and a set of metrics into a verdict;
nothing else in the suite makes one. results/README.md explains the vocabulary.
"""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field, model_validator

from xai_utils.metrics.statistics import Estimate
from xai_utils.suite.strict import Strict

_Verdicts = Literal["reproduced", "partly", "undecided", "not reproduced", "not comparable", "not tested"]
VERDICTS = get_args(_Verdicts)
_TESTS = {
    "at_least": ("≥", operator.ge),
    "at_most": ("≤", operator.le),
    "above": (">", operator.gt),
    "below": ("<", operator.lt),
    "within": ("=", None),
}
_STATES = {True: "holds", False: "fails", None: "open"}
_METRIC = r"^[PX]\d\.\d+(\.[a-z][a-z0-9_]*)+$"
_ANY_METRIC = r"^[PVX]\d\.[a-z0-9_.]+$"


class MissingMetric(KeyError):
    """A rule names a metric that the run has not measured."""

    def __str__(self) -> str:
        return self.args[0]  # KeyError would quote the sentence


class Outcome(Strict):
    """One condition, as a sentence with its numbers.

    `holds` is None where it is open: the interval reaches across the bound, or (`defined` is False) there is no number.
    """

    text: str
    holds: bool | None
    defined: bool = True


class Verdict(Strict):
    """The verdict on a claim, in brief why (`reason`: what is open, or why it is not tested), and its sentences."""

    verdict: _Verdicts
    evidence: str
    conditions: list[Outcome] = Field(default_factory=list)
    reason: str = ""


def with_reason(verdict: str, reason: str) -> str:
    """A verdict with its reason in brackets, if it has one."""
    return f"{verdict} ({reason})" if reason else verdict


class Need(Strict):
    """What must be there before a claim is tested at all: enough cases."""

    metric: str = Field(pattern=_METRIC)
    at_least: float


class Condition(Strict):
    """`metric` against a bound, or the difference `metric` − `other` against `margin`: by the whole interval.

    `difference` names the metric that is this difference, measured pair by pair; its interval is then the one that
    counts. `necessary`: without it there is no pass. `by_construction`: nearly true whatever the model does, so it is
    shown and never counts. `by_seed`: over seeds it holds if it holds in every seed and fails if it fails in the median
    one, so that one large value cannot hide a small one in the mean.
    """

    metric: str = Field(pattern=_METRIC)
    test: Literal["at_least", "at_most", "above", "below", "within"]
    bound: float | None = None
    other: str | None = Field(default=None, pattern=_METRIC)
    difference: str | None = Field(default=None, pattern=_METRIC)
    margin: float = 0.0
    tolerance: float | None = Field(default=None, gt=0)
    necessary: bool = False
    by_construction: bool = False
    by_seed: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Condition:
        if (self.bound is None) == (self.other is None):
            raise ValueError(f"{self.metric}: a condition needs either `bound` or `other`, and not both")
        if (self.margin or self.difference) and self.other is None:
            raise ValueError(f"{self.metric}: `margin` and `difference` go with `other` alone")
        if (self.tolerance is None) == (self.test == "within"):
            raise ValueError(f"{self.metric}: `tolerance` goes with `test: within` alone")
        if self.necessary and self.by_construction:
            raise ValueError(f"{self.metric}: what holds by construction is no necessary condition")
        if self.by_seed and (self.bound is None or self.test == "within"):
            raise ValueError(f"{self.metric}: `by_seed` goes with one `bound` and an order, such as at_least")
        return self

    def metrics(self) -> list[str]:
        """The metric ids that the condition reads."""
        return [name for name in (self.metric, self.other, self.difference) if name]

    def check(self, metrics: Mapping[str, Estimate]) -> Outcome:
        """Holds if the whole interval is on the right side, fails if it is on the wrong one, else open.

        `within` fails if the interval has nothing in common with the tolerated one. Without an interval the value
        decides. Undefined (a value is None) is open.
        """
        if undefined := [name for name in self.metrics() if metrics[name].value is None]:
            return Outcome(text=f"{undefined[0]} is not defined: open", holds=None, defined=False)
        values = getattr(metrics[self.metric], "values", ())
        if self.by_seed and values:
            return self._each(values)
        name, right = self.metric, self.bound
        value, low, high = _span(metrics[self.metric])
        if self.difference:
            value, low, high = _span(metrics[self.difference])
        elif self.other:
            value, low, high = _minus((value, low, high), _span(metrics[self.other]))
        if self.other:
            right = self.margin
            name += f" − {self.other}" + (f" ({self.difference})" if self.difference else "")
        least = value if low is high is None else -math.inf if low is None else low
        most = value if low is high is None else math.inf if high is None else high
        holds = self._state(least, most, right)
        sign, _ = _TESTS[self.test]
        shown, bound = _printed(value, low, high, right)
        spread = f" ± {self.tolerance:g}" if self.test == "within" else ""
        aside = " (by construction)" if self.by_construction else ""
        return Outcome(text=f"{name} {shown} {sign} {bound}{spread}: {_STATES[holds]}{aside}", holds=holds)

    def _each(self, values: Sequence[float]) -> Outcome:
        """The condition seed by seed: all of them hold, or the median one fails, or neither."""
        sign, compare = _TESTS[self.test]
        worst = (min if self.test in ("at_least", "above") else max)(values)
        middle = statistics.median(values)
        holds = True if compare(worst, self.bound) else None if compare(middle, self.bound) else False
        shown = f"{middle:.6g} in the median seed, {worst:.6g} in the worst"
        return Outcome(text=f"{self.metric} {shown} {sign} {self.bound:g}: {_STATES[holds]}", holds=holds)

    def _state(self, least: float, most: float, right: float) -> bool | None:
        _, compare = _TESTS[self.test]
        if compare:
            first, last = compare(least, right), compare(most, right)
            return first if first is last else None
        reach = self.tolerance * (1 + 1e-9)  # 98.4 is within 98.13 ± 0.27, although 98.4 − 98.13 is 0.27000000000001
        if max(abs(least - right), abs(most - right)) <= reach:
            return True
        return False if max(least - right, right - most) > reach else None


def _span(metric: Estimate) -> tuple[float, float | None, float | None]:
    return metric.value, metric.low, metric.high


def _minus(
    one: tuple[float, float | None, float | None], other: tuple[float, float | None, float | None]
) -> tuple[float, float | None, float | None]:
    """A difference that was not measured pair by pair: its interval reaches from end to opposite end."""
    value = one[0] - other[0]
    if {*one[1:], *other[1:]} == {None}:
        return value, None, None
    (_, low, high), (_, least, most) = ([span[0] if end is None else end for end in span] for span in (one, other))
    return value, low - most, high - least


def _printed(value: float, low: float | None, high: float | None, right: float) -> tuple[str, str]:
    """Value with its interval, and the bound; never "97.86 ≥ 97.86: fails"."""
    ends = [end for end in (value, low, high) if end is not None]
    alike = any(f"{end:.6g}" == f"{right:.6g}" and end != right for end in ends)
    digits = repr if alike else "{:.6g}".format
    if low is high is None:
        return f"{digits(value)} (no interval)", digits(right)
    told = ["…" if end is None else digits(end) for end in (low, high)]
    return f"{digits(value)} [{told[0]}, {told[1]}]", digits(right)


class Learned(NamedTuple):
    """Whether a network has learned its task (None: that cannot be told), and the sentence with the number."""

    learned: bool | None
    text: str

    @property
    def warning(self) -> str:
        """What stands over the maps of a network that has not learned its task; "" over all others."""
        return f"This network has not learned its task ({self.text}): its maps say little." * (self.learned is False)


class Competence(Strict):
    """What a network must reach before a claim about what it looks at is tested.

    `at_least` is the bound on the paper's data and the drawn ones. On a user's own images the task is unknown: there
    the lower end of the interval must be above `chance`, a number or a metric of the run. `own` names the metric that
    has this interval, where `metric` has none; `says` tells in words what it measures.
    """

    metric: str = Field(pattern=_ANY_METRIC)
    own: str | None = Field(default=None, pattern=_ANY_METRIC)
    at_least: float
    images: Literal["validation", "test"]
    chance: float | str
    says: str = ""
    claims: list[str] = Field(min_length=1)
    arms: list[str] | None = Field(default=None, min_length=1)

    def applies(self, parameters: Mapping[str, Any]) -> bool:
        """Whether it is about runs of these parameters (their arm)."""
        return self.arms is None or parameters.get("arm", "main") in self.arms

    def read(self, metrics: Mapping[str, Estimate], parameters: Mapping[str, Any]) -> str:
        """The metric that counts in such a run: on own images `own`, if the run has measured it."""
        return self.own if parameters.get("own") and self.own in metrics else self.metric

    def check(self, metrics: Mapping[str, Estimate], parameters: Mapping[str, Any]) -> Learned:
        """Compare. `parameters["own"]` says whether the images are a user's own.

        Raises:
            MissingMetric: the run has not measured `metric`.
        """
        name = self.read(metrics, parameters)
        if name not in metrics:
            raise MissingMetric(f"not measured: {name}, which says whether the network has learned its task")
        value, low, high = _span(metrics[name])
        if value is None:
            return Learned(False, f"{name} is not defined")
        ends = "" if low is high is None else f" [{', '.join('…' if e is None else f'{e:.3g}' for e in (low, high))}]"
        told = f"{name} is {value:.3g}{ends}" + f" on {self.images} images" * (name == self.metric)
        if not parameters.get("own"):
            return Learned(value >= self.at_least, f"{told}, it needs {self.at_least:g}")
        chance = self.chance
        if isinstance(chance, str):
            measured = metrics.get(chance)
            if measured is None or measured.value is None:
                return Learned(None, f"{told}, and {chance} was not measured")
            chance = measured.value
        by = "its low end must be" if low is not None else "it must be"
        return Learned((value if low is None else low) > chance, f"{told}, {by} above {chance:.3g}, as guessing gives")


class Rule(Strict):
    """When a claim counts as reproduced. Either `never`, or `conditions`.

    `seeds`, the first and the last one, are kept for this rule: it judges these runs together, by metrics that are
    computed from all of them (`pooled`), and no other rule, table or figure looks at them.
    """

    arms: list[str] = Field(default=["main"], min_length=1)
    data: list[str] | None = Field(default=None, min_length=1)
    seeds: list[int] | None = Field(default=None, min_length=2, max_length=2)
    needs: list[Need] = Field(default_factory=list)
    comparable: dict[str, list[str | int | float | bool]] = Field(default_factory=dict)
    conditions: list[Condition] = Field(default_factory=list)
    reproduced_at: int | None = Field(default=None, ge=1)
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
        if self.seeds and not 0 <= self.seeds[0] <= self.seeds[1]:
            raise ValueError(f"seeds {self.seeds}: expected the first and the last one, such as [100, 119]")
        if bool(self.never or self.at_most) != bool(self.because):
            raise ValueError("`because` gives the reason for `never` or `at_most`: it goes with them, always")
        if self.conditions and not self.partly_at <= self.enough <= len(self._counted):
            raise ValueError(
                f"partly_at {self.partly_at}, reproduced_at {self.enough}: expected at most the "
                f"{len(self._counted)} conditions that count, the second not below the first"
            )
        return self

    @property
    def _counted(self) -> list[Condition]:
        return [condition for condition in self.conditions if not condition.by_construction]

    @property
    def enough(self) -> int:
        """How many conditions must hold: `reproduced_at`, by default all that count."""
        return len(self._counted) if self.reproduced_at is None else self.reproduced_at

    def metrics(self) -> list[str]:
        """Every metric id that the rule reads, once."""
        read = [need.metric for need in self.needs]
        read += [name for condition in self.conditions for name in condition.metrics()]
        return list(dict.fromkeys(read))

    def keeps(self, arm: str, seed: int) -> bool:
        """Whether a run of this arm and seed is kept for this rule."""
        return bool(self.seeds) and arm in self.arms and self.seeds[0] <= seed <= self.seeds[1]

    def not_applicable(self, parameters: Mapping[str, Any]) -> str:
        """Why this rule does not judge a run of these parameters at all, in words; empty if it does."""
        arm = parameters.get("arm", "main")
        if arm not in self.arms:
            return f"belongs to arm {' or '.join(self.arms)}, not {arm}"
        if self.data and parameters.get("dataset") not in self.data:
            return f"is about {' or '.join(self.data)}, not {parameters.get('dataset')}"
        if self.seeds and not parameters.get("together"):
            return f"is judged over the seeds {self.seeds[0]} to {self.seeds[1]} together, not by one run"
        return ""

    def judges(self, parameters: Mapping[str, Any]) -> bool:
        """Whether a run of these parameters has to have what the rule reads."""
        return not self.never and not self.not_applicable(parameters)

    def missing(self, metrics: Mapping[str, Estimate], parameters: Mapping[str, Any]) -> list[str]:
        """The metrics that this rule needs of a run of these parameters and does not find."""
        return [name for name in self.metrics() if name not in metrics] if self.judges(parameters) else []

    def evaluate(
        self,
        kind: str,
        metrics: Mapping[str, Estimate],
        parameters: Mapping[str, Any],
        gates: Sequence[Competence] = (),
    ) -> Verdict:
        """The verdict on a claim of `kind`. Nothing else in the suite makes one.

        Args:
            kind: of the claim; a `value` is compared only where `comparable` allows it.
            metrics: id → estimate.
            parameters: of the run (`arm`, by default "main", `profile`, `dataset`, `own`, …; `together`: the metrics
                are of several seeds).
            gates: what the network of such a run must have reached, for a claim about what it looks at.

        Raises:
            MissingMetric: the rule, or a gate, names a metric that is not there.
        """
        if self.never:
            return Verdict(verdict=self.never, evidence=self.because)
        if reason := self.not_applicable(parameters):
            return Verdict(verdict="not tested", evidence=reason)
        if absent := self.missing(metrics, parameters):
            raise MissingMetric(f"not measured: {', '.join(absent)}; add run.measure(id, estimate) for each of them")
        checked = [gate.check(metrics, parameters) for gate in gates]
        unlearned = [f"the network has not learned it: {found.text}" for found in checked if found.learned is False]
        unsure = [f"not checked whether the network has learned it: {c.text}" for c in checked if c.learned is None]
        short = [text for need in self.needs if (text := _short(need, metrics[need.metric].value))]
        elsewhere = [
            f"{name} is {parameters.get(name, 'not recorded')}, not {' or '.join(map(str, allowed))}"
            for name, allowed in self.comparable.items()
            if parameters.get(name, "main" if name == "arm" else None) not in allowed
        ]
        outcomes = [condition.check(metrics) for condition in self.conditions]
        undefined = not any(o.defined for c, o in zip(self.conditions, outcomes) if not c.by_construction)
        notes = [*unlearned, *unsure, *short, *elsewhere, *(outcome.text for outcome in outcomes)]
        if unlearned or short or undefined:
            verdict, reason = "not tested", (*unlearned, *["too few cases"] * bool(short), "not defined")[0]
        elif kind == "value" and elsewhere:
            verdict, reason = "not comparable", ""
        else:
            verdict, reason = self._decided(outcomes)
            if verdict == "reproduced" and self.at_most:
                verdict, reason = self.at_most, f"at most {self.at_most}: {self.because}"
                notes.append(f"at most {self.at_most}, because {self.because}")
        if "dataset" in parameters:
            notes.append(f"measured on {parameters['dataset']}")
        return Verdict(verdict=verdict, evidence="; ".join(notes), conditions=outcomes, reason=reason)

    def _decided(self, outcomes: Sequence[Outcome]) -> tuple[str, str]:
        """The verdict by the conditions alone, and which of them are open."""
        states = [(c, o.holds) for c, o in zip(self.conditions, outcomes) if not c.by_construction]
        needed = [holds for condition, holds in states if condition.necessary]
        held = sum(holds is True for _, holds in states)
        possible = sum(holds is not False for _, holds in states)  # all that may still hold
        names = [condition.metric.split(".", 2)[2] for condition, holds in states if holds is None]
        still = f"open: {', '.join(dict.fromkeys(names))}" if names else ""
        if held >= self.enough and all(needed):
            return "reproduced", ""
        if False in needed or possible < self.partly_at:
            return "not reproduced", ""
        if held >= self.partly_at and None not in needed:
            return "partly", still
        return "undecided", still


def _short(need: Need, count: float | None) -> str:
    """What is lacking of the cases that a claim needs, in words; "" if there are enough."""
    if count is not None and count >= need.at_least:
        return ""
    number = "not defined" if count is None else f"{count:g}"
    return f"{need.metric} is {number}, the rule needs {need.at_least:g}"
