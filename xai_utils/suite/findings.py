"""What the standard runs found, in words (results/findings.yaml): every number is filled in, every sentence checked.

A sentence holds no number of its own. `{P2.4.signed.share_of_r:percent}` is a placeholder: a metric, over the seeds of
the committed standard records, in a form of `wording.FORMS`. `when` lists what must be so for the sentence to be true;
a sentence that is not true, or cannot be filled, is a `FindingError`. docs/findings.md explains the file.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Literal

import yaml
from pydantic import Field, model_validator

from xai_utils.data.store import repository_root
from xai_utils.suite import claims, report, wording
from xai_utils.suite.over_seeds import OverSeeds
from xai_utils.suite.pooled import over_seeds
from xai_utils.suite.record import Record, stale
from xai_utils.suite.strict import Strict, checked

Language = Literal["en", "ja"]
FILE = "results/findings.yaml"
PLACEHOLDER = re.compile(r"\{([^{}:]+)(?::([a-z ]+))?\}")
_TERM = r"[PXV]?[\w.]*[a-z]\w*(?:@\w+)?"
_CONDITION = re.compile(
    rf"(?P<left>{_TERM}) (?:(?P<undefined>undefined)|"
    rf"(?P<test>above|below|spans|>=|<=|>|<|=) (?P<right>{_TERM}|-?\d+(?:\.\d+)?)(?: in (?P<seeds>every|some) seed)?)"
)
_OF_SEEDS = {"least": min, "median": median, "most": max}  # forms that show one seed, where a mean would hide it
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_COMPARE = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
_COMPARE["="] = lambda a, b: abs(a - b) <= 1e-9
_JAPANESE = "[\u3000-\u9fff\uff00-\uffef]"  # no space stands beside these, although YAML folds a line's end into one
# digits that are no measurement: names, equations, papers' own labels
_NAMES = re.compile(
    r"CIFAR-10|[Pp]aper \d|論文\d|ResNet-18|ResNet-50|C1C|R²|[Ee]qs?\. \(\d\)|式\(\d\)|[PX]\d\.\d+|1/Z|α′|Fig\. \d|図\d"
)


class FindingError(ValueError):
    """A sentence of findings.yaml is untrue of the records, or cannot be filled from them."""


class Sentence(Strict):
    """One sentence in both languages, and what must hold for it."""

    when: list[str] = Field(min_length=1)
    en: str = Field(min_length=20)
    ja: str = Field(min_length=10)

    @model_validator(mode="after")
    def _sound(self) -> Sentence:
        for text in self.when:
            if not (found := _CONDITION.fullmatch(text)) or (found["seeds"] and found["test"] not in _COMPARE):
                raise ValueError(f"condition {text!r}: expected such as `auroc above 0.5` or `a > b in every seed`")
        named = {part for text in self.when for part in _CONDITION.fullmatch(text).group("left", "right")}
        shown = {}
        for language, text in (("en", self.en), ("ja", self.ja)):
            plain = PLACEHOLDER.sub("", text)
            if "{" in plain or "}" in plain:
                raise ValueError(f"{language}: a brace is left over in {text!r}")
            if typed := re.search(r"\d", _NAMES.sub("", plain)):
                raise ValueError(f"{language}: {typed[0]!r} is typed in {text!r}; fill every number from the records")
            shown[language] = {metric for metric, form in PLACEHOLDER.findall(text) if form not in ("n", "parameter")}
        if shown["en"] != shown["ja"]:
            raise ValueError(f"the two languages show different numbers: {sorted(shown['en'] ^ shown['ja'])}")
        if loose := {name for name in shown["en"] if not name.endswith("@paper")} - named:
            raise ValueError(f"no condition is about {min(loose)}, which the sentence shows")
        return self


class Picture(Strict):
    """A figure of the committed run of the lowest seed, and what it shows, for those who do not see it."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    alt: str = Field(min_length=40)


class Finding(Strict):
    """What the standard runs say about one claim; the first sentence is the reason for the verdict in one line."""

    arm: str
    data: str = ""  # what the images are, where the data set's name does not say it
    figure: Picture | None = None
    sentences: list[Sentence] = Field(min_length=1)


class Summary(Strict):
    """What a reader would not guess about one paper; metrics are named in full."""

    arm: str
    sentences: list[Sentence] = Field(min_length=1)


class Surprise(Summary):
    """The finding that stands first in the README."""

    paper: str


class Findings(Strict):
    """The whole of findings.yaml: what surprises most, paper → summary, claim → finding."""

    surprise: Surprise
    papers: dict[str, Summary]
    claims: dict[str, Finding]


def load(path: str | Path | None = None) -> Findings:
    """Read and check findings.yaml (default: the repository's).

    Raises:
        ValueError: naming the file and every entry that is unknown, mistyped or doubled, a typed number, a shown
            metric without condition.
    """
    path = Path(path) if path is not None else repository_root() / FILE
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=claims._UniqueKeys)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not valid: {error}") from None
    return checked(Findings, content, path)


@dataclass
class Source:
    """The committed standard records of a checkout, whatever $XAI_RESULTS says; read once."""

    root: Path = field(default_factory=repository_root)
    _over_seeds: dict[tuple[str, str], dict[str, OverSeeds]] = field(default_factory=dict)

    @cached_property
    def _groups(self) -> dict[str, list[Record]]:
        groups: dict[str, list[Record]] = {}
        for record in report.load(self.root / "results", "standard"):
            groups.setdefault(f"{record.paper}@{record.arm}", []).append(record)
        return groups

    @cached_property
    def reported(self) -> claims.Reported:
        """results/reported.yaml of the same checkout."""
        return claims.load(self.root / "results" / "reported.yaml")

    def records(self, paper: str, arm: str, claim: str = "") -> list[Record]:
        """The records of one arm, by seed; none: an empty list.

        Without those that a rule keeps for itself; if `claim` is the one that it judges, these alone.
        """
        known, group = self.reported.papers[paper], self._groups.get(f"{paper}@{arm}", [])
        entry = known.judged.get(claim)
        kept = claim if entry and entry.rule.seeds else ""
        return [record for record in group if known.kept_for(record.arm, record.seed) == kept]

    def metrics(self, paper: str, arm: str) -> dict[str, OverSeeds]:
        """The metrics of one arm over its seeds."""
        if (paper, arm) not in self._over_seeds:
            everything = self._groups.get(f"{paper}@{arm}", [])
            self._over_seeds[paper, arm] = over_seeds(self.reported.papers[paper], everything, self.root / "results")
        return self._over_seeds[paper, arm]

    def paper_of(self, claim: str) -> str:
        """The notebook's stem of a claim.

        Raises:
            FindingError: no paper has such a claim.
        """
        for stem, paper in self.reported.papers.items():
            if claim in paper.judged:
                return stem
        known = [name for paper in self.reported.papers.values() for name in paper.judged]
        raise FindingError(f"no claim {claim!r} in results/reported.yaml; there are {', '.join(known)}")


def tell(where: str, entry: Finding | Summary, paper: str, language: Language, source: Source) -> list[str]:
    """The sentences of a finding or a summary, filled and checked.

    Args:
        where: the claim (P2.4), which short metric names belong to; for a summary the paper.
        entry: from `load`.
        paper: notebook stem.
        language: "en" or "ja".
        source: the records.

    Raises:
        FindingError: naming the claim, the metric, and the values that contradict the sentence or are missing.
    """
    return [_Told(where, entry.arm, paper, source).fill(sentence, language) for sentence in entry.sentences]


def not_current(where: str, entry: Finding | Summary, paper: str, source: Source) -> list[str]:
    """Why the records that a finding rests on do not count as current, a line for each arm; empty if they do."""
    arms = dict.fromkeys(
        [entry.arm, *re.findall(r"@(\w+)", " ".join(t for s in entry.sentences for t in (*s.when, s.en)))]
    )
    lines = []
    for arm in arms:
        records = source.records(paper, arm, where)
        if arm != "paper" and not records:
            lines.append(f"there is no standard record of arm {arm}")
        elif changed := sorted({name for record in records for name in stale(record, source.root)}):
            lines.append(f"since the records of arm {arm}, {', '.join(changed[:2])}{' …' * (len(changed) > 2)} changed")
    return [f"{where}: {line}" for line in lines]


def summary(paper: str, language: Language, source: Source | None = None) -> str:
    """What a reader would not guess about a paper, as one paragraph.

    Raises:
        FindingError: as `tell`; or findings.yaml has none of this paper.
    """
    source = source or Source()
    known = load(source.root / FILE).papers
    if paper not in known:
        raise FindingError(f"{FILE} has no paper {paper!r}; there are {', '.join(known)}")
    return joined(tell(paper, known[paper], paper, language, source), language)


def joined(sentences: Sequence[str], language: Language) -> str:
    """Sentences as a paragraph: Japanese has no space between them."""
    return ("" if language == "ja" else " ").join(sentences)


def _holds(left: OverSeeds, test: str, right: OverSeeds) -> bool:
    """Whether a comparison of means, or of the left one's interval with the right mean, holds."""
    if left.value is None or right.value is None:
        return False
    if test in _COMPARE:
        return _COMPARE[test](left.value, right.value)
    if left.low is None or left.high is None:
        return False
    if test == "spans":
        return left.low <= right.value <= left.high
    return left.low > right.value if test == "above" else left.high < right.value


@dataclass
class _Told:
    """One finding against the records."""

    where: str
    arm: str
    paper: str
    source: Source

    def fill(self, sentence: Sentence, language: Language) -> str:
        """The sentence in one language; FindingError if a condition fails or a placeholder cannot be filled."""
        for condition in sentence.when:
            self._check(condition, sentence)
        text = getattr(sentence, language)
        if language == "ja":
            text = re.sub(rf"(?<={_JAPANESE}) | (?={_JAPANESE})", "", text)
        return PLACEHOLDER.sub(lambda found: self._shown(found[1], found[2] or "spread"), text)

    def _check(self, condition: str, sentence: Sentence) -> None:
        part = _CONDITION.fullmatch(condition).groupdict()
        names = [part["left"]] + [part["right"]] * bool(part["right"] and not _NUMBER.fullmatch(part["right"]))
        left = self._metric(part["left"])
        if part["undefined"]:
            holds = left.value is None
        elif part["seeds"]:
            seeds = self._by_seed(part["left"])
            others = self._by_seed(part["right"]) if len(names) > 1 else [float(part["right"])] * len(seeds)
            pairs = zip(seeds, others, strict=True)
            holding = [None not in pair and _COMPARE[part["test"]](*pair) for pair in pairs]
            holds = all(holding) if part["seeds"] == "every" else any(holding)
        else:
            holds = _holds(left, part["test"], self._metric(part["right"]))
        if not holds:
            raise self._untrue(condition, names, sentence)

    def _untrue(self, condition: str, compared: Sequence[str], sentence: Sentence) -> FindingError:
        found = "; ".join(self._described(name) for name in compared)
        return FindingError(
            f"{self.where}: `{condition}` does not hold, so this sentence is not true: {sentence.en!r}. {found}. "
            f"Write in {FILE} what the records say."
        )

    def _described(self, name: str) -> str:
        entry = self._metric(name)
        if entry.value is None:
            return f"{self._full(name)} is not defined ({entry.note})"
        ends = "" if entry.low is None or entry.high is None else f" [{entry.low:.6g}, {entry.high:.6g}]"
        return f"{self._full(name)} is {entry.value:.6g}{ends}"

    def _full(self, name: str) -> str:
        metric, _, arm = name.partition("@")
        metric = metric if re.match(r"[PXV]\d\.|V\d", metric) else f"{self.where}.{metric}"
        return f"{metric}@{arm or self.arm}"

    def _metric(self, name: str) -> OverSeeds:
        if _NUMBER.fullmatch(name):
            return OverSeeds(float(name))
        metric, _, arm = self._full(name).partition("@")
        if arm == "paper":
            values = [v for v in self.source.reported.papers[self.paper].values if v.id == metric]
            if not values or isinstance(values[0].value, str):
                raise FindingError(f"{self.where}: results/reported.yaml has no number {metric}")
            return OverSeeds(float(values[0].value), values[0].n, unit=values[0].unit, std=values[0].std)
        if not self.source.records(self.paper, arm):
            raise FindingError(f"{self.where}: there is no standard record of {self.paper}, arm {arm}")
        metrics = self.source.metrics(self.paper, arm)
        if metric not in metrics:
            near = [known for known in metrics if known.startswith(self.where + ".")][:8]
            raise FindingError(f"{self.where}: the records of arm {arm} have no metric {metric}; {', '.join(near)}, …")
        return metrics[metric]

    def _by_seed(self, name: str) -> list[float | None]:
        self._metric(name)  # says what is missing
        metric, _, arm = self._full(name).partition("@")
        return [record.metrics[metric].value for record in self.source.records(self.paper, arm)]

    def _shown(self, name: str, form: str) -> str:
        if form == "parameter":
            parameter, _, arm = name.partition("@")
            records = self.source.records(self.paper, arm or self.arm)
            if not records or parameter not in records[0].values:
                raise FindingError(f"{self.where}: the records of arm {arm or self.arm} have no parameter {parameter}")
            return f"{records[0].values[parameter]}"
        if name.endswith("@paper"):
            entry = self._metric(name)
            return wording.minus(f"{entry.value:g}" + (" %" if entry.unit == "%" else ""))
        if form in _OF_SEEDS:
            seeds = [number for number in self._by_seed(name) if number is not None]
            if not seeds:
                raise FindingError(f"{self.where}: {self._full(name)} is defined in no seed")
            return wording.minus(f"{_OF_SEEDS[form](seeds):.2g}")
        try:
            return wording.shown(self._metric(name), form)
        except ValueError as error:
            raise FindingError(f"{self.where}: {self._full(name)}: {error}") from None
