"""The papers' numbers and claims (results/reported.yaml): what stands in the file, and whether it is consistent.

`Paper.judge` has the rule of a claim (`rules.Rule`) and the gates before it judge one run (`Run.record`), or the
metrics over seeds (`report`). results/README.md explains the vocabulary.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from xai_utils.data.store import repository_root
from xai_utils.metrics.statistics import Estimate
from xai_utils.suite.paired import Paired, Reversal
from xai_utils.suite.parameters import OWN
from xai_utils.suite.rules import Competence, Learned, MissingMetric, Rule, Verdict
from xai_utils.suite.strict import Strict

_VALUE = r"^P\d\.(\d+|setting)(\.[a-z][a-z0-9_]*)+$"


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
    competence: list[Competence] = Field(default_factory=list)
    pooled: list[Paired | Reversal] = Field(default_factory=list)
    values: list[Value]
    claims: dict[str, Claim]
    extensions: dict[str, Claim] = Field(default_factory=dict)

    @property
    def judged(self) -> dict[str, Claim]:
        """Claims, then extensions."""
        return {**self.claims, **self.extensions}

    def kept_for(self, arm: str, seed: int) -> str:
        """The claim whose rule keeps the run of this arm and seed for itself; "" for a run that everything looks at."""
        arm = arm.partition(OWN)[0]
        return next((name for name, entry in self.judged.items() if entry.rule.keeps(arm, seed)), "")

    def reported(self, claim: str) -> list[Value]:
        """The paper's own numbers for a claim, in the file's order."""
        return [value for value in self.values if value.id.startswith(claim + ".")]

    def _gates(self, claim: str, metrics: Mapping[str, Estimate], parameters: Mapping[str, Any]) -> list[Competence]:
        """What the network that `claim` is about must have reached in a run of these parameters, whose arm counts.

        On own images every claim but a value stands behind gates, in every arm: those that name it, else all networks'.
        """
        named = [gate for gate in self.competence if claim in gate.claims]
        if not parameters.get("own"):
            return [gate for gate in named if gate.applies(parameters)]
        if self.judged[claim].kind == "value" and not named:
            return []  # a number on other images is not comparable, whatever was learned
        return _one_each(named, parameters) or self._of_all_networks(metrics, parameters)

    def _of_all_networks(self, metrics: Mapping[str, Estimate], parameters: Mapping[str, Any]) -> list[Competence]:
        """The gates of the networks that a run on own images has trained, and at least the first."""
        found = _one_each(self.competence, parameters)
        return [gate for gate in found if gate is found[0] or gate.metric in metrics]

    def missing(self, claim: str, metrics: Mapping[str, Estimate], parameters: Mapping[str, Any]) -> list[str]:
        """The metrics that `claim` needs of a run of these parameters and lacks; arguments as for `evaluate`."""
        rule = self.judged[claim].rule
        read = [*rule.metrics(), *(gate.read(metrics, parameters) for gate in self._gates(claim, metrics, parameters))]
        return [name for name in dict.fromkeys(read) if name not in metrics] if rule.judges(parameters) else []

    def judge(self, claim: str, metrics: Mapping[str, Estimate], parameters: Mapping[str, Any]) -> Verdict:
        """The verdict on one claim. Arguments as for `evaluate`; MissingMetric: a metric is not there."""
        entry = self.judged[claim]
        return entry.rule.evaluate(entry.kind, metrics, parameters, self._gates(claim, metrics, parameters))

    def competent(self, claim: str, metrics: Mapping[str, Estimate], parameters: Mapping[str, Any]) -> Learned:
        """Whether the network that `claim` is about has learned its task; True where no gate stands before it.

        Arguments as for `evaluate`; the rule itself need not judge such a run. Of several gates the first that is not
        passed counts, then one that cannot be told.

        Raises:
            ValueError: the paper has no such claim.
            MissingMetric: what a gate reads was not measured yet.
        """
        if claim not in self.judged:
            raise ValueError(f"no claim {claim!r}; there are {', '.join(self.judged)}")
        found = [gate.check(metrics, parameters) for gate in self._gates(claim, metrics, parameters)]
        order = {False: 0, None: 1, True: 2}
        return min(found, key=lambda entry: order[entry.learned], default=Learned(True, "no bound is set"))

    def warning(self, metrics: Mapping[str, Estimate], parameters: Mapping[str, Any]) -> str:
        """What is said of a run on own images one of whose networks has not learned its task; "" of all others."""
        gates = self._of_all_networks(metrics, parameters) if parameters.get("own") else []
        return next(filter(None, (gate.check(metrics, parameters).warning for gate in gates)), "")


def _one_each(gates: Sequence[Competence], parameters: Mapping[str, Any]) -> list[Competence]:
    """Gates for own images, one a metric: those of the run's arm; of an arm that has none, all."""
    chosen = [gate for gate in gates if gate.applies(parameters)] or gates
    return list({gate.metric: gate for gate in chosen}.values())


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
            for gate in paper.competence:
                if gate.metric[1] != digit:
                    raise ValueError(f"competence: {gate.metric} is no metric of {stem}")
                if unknown := [name for name in gate.claims if name not in paper.judged]:
                    raise ValueError(f"competence: {unknown[0]} is no claim of {stem}")
            owners = {*paper.claims, f"P{digit}.setting"}
            if stray := [name for name in values if ".".join(name.split(".")[:2]) not in owners]:
                raise ValueError(f"value {stray[0]} begins with no claim id of {stem} nor P{digit}.setting")
            for claim, entry in paper.judged.items():
                owned = [".".join(metric.split(".")[:2]) for metric in entry.rule.metrics()]
                if unknown := set(owned) - set(paper.judged):
                    raise ValueError(f"claim {claim}: a metric of {min(unknown)}, which is no claim of {stem}")
                if owned and claim not in owned and claim in paper.claims:  # ours may read a paper's metric anew
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


def _own_file() -> Path:
    try:
        return repository_root() / "results" / "reported.yaml"
    except FileNotFoundError:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            for file in importlib.metadata.files("xai-utils") or []:
                if file.name == "reported.yaml":
                    return Path(str(file.locate()))
        raise


def load(path: str | Path | None = None) -> Reported:
    """Read and check reported.yaml (default: the repository's, else the one that came with the installed wheel).

    Raises:
        FileNotFoundError: there is neither.
        ValueError: naming the file and every entry that is unknown, mistyped, doubled or inconsistent.
    """
    path = Path(path) if path is not None else _own_file()
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
        parameters: of the run (`arm`, by default "main", `profile`, `dataset`, `own`: whether the images are a user's
            own, …).

    Raises:
        ValueError: if the paper is unknown.
        MissingMetric: naming every claim whose rule asks for something that was not measured.
    """
    if paper not in reported.papers:
        raise ValueError(f"no paper {paper!r} in reported.yaml; there are {', '.join(reported.papers)}")
    entry = reported.papers[paper]
    absent = {claim: entry.missing(claim, metrics, parameters) for claim in entry.judged}
    if wanted := [f"claim {claim} needs {', '.join(ids)}" for claim, ids in absent.items() if ids]:
        raise MissingMetric(f"{'; '.join(wanted)}: add run.measure(id, estimate) for each of them")
    return {claim: entry.judge(claim, metrics, parameters) for claim in entry.judged}
