"""Whether records agree with themselves: verdicts computed anew from metrics, and metrics from the arrays beside them.

    python -m xai_utils.suite verify [--results FOLDER] [--profile standard]

Exit code: 0; 1 something disagrees; 2 a record or its arrays cannot be used.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from xai_utils.data.store import resolve
from xai_utils.progress import print_anywhere
from xai_utils.suite import claims
from xai_utils.suite.arrays import Arrays, load_arrays
from xai_utils.suite.record import Record, results_root
from xai_utils.suite.report import Folder, scan
from xai_utils.suite.rules import MissingMetric
from xai_utils.suite.strict import in_one_line, said

FROM_ARRAYS: dict[str, dict[str, Callable[[Arrays], float]]] = {}  # paper → metric → its value from "file.array"
CLOSE = 1e-6  # relative: the arrays hold what the metrics were computed from in float32


class Found(NamedTuple):
    """What was computed anew of some records, and what disagrees, in lines."""

    verdicts: int
    metrics: int
    wrong: list[str]


def verify(records: Sequence[Record], results: Folder = None) -> Found:
    """Compute the verdicts and metrics of records anew, with today's rules; `results` is the tree that holds them.

    Raises:
        ValueError: a file of arrays that a record names is missing or cannot be read.
    """
    known, root = claims.load(), resolve(results or results_root())
    verdicts, metrics, wrong = 0, 0, []
    for record in records:
        key = f"{record.profile}/{record.paper}/{record.arm}/seed_{record.seed}"
        paper = known.papers.get(record.paper)
        for name in paper.judged if paper else ():
            verdicts += 1
            if text := _judged_anew(record, name, paper):
                wrong.append(f"{key}: claim {name}: {text}")
        arrays = load_arrays(root / key, record.arrays)
        for name, compute in FROM_ARRAYS.get(record.paper, {}).items():
            if name in record.metrics and (text := _computed_anew(record, name, compute, arrays)) is not None:
                metrics += 1
                wrong += [f"{key}: metric {name}: {text}"] * bool(text)
    return Found(verdicts, metrics, wrong)


def _judged_anew(record: Record, name: str, paper: claims.Paper) -> str:
    """How a recorded verdict differs from today's; "" if it does not."""
    if name not in record.claims:
        return "not recorded, the rule came later"
    try:
        now = paper.judge(name, record.metrics, record.subject)
    except MissingMetric as error:
        return f"cannot be judged, {error}"
    then = record.claims[name]
    if now.verdict != then.verdict:
        return f"recorded as {then.verdict!r}, its metrics give {now.verdict!r} by today's rule"
    held, hold = ([condition.holds for condition in verdict.conditions].count(True) for verdict in (then, now))
    return "" if held == hold else f"recorded with {held} conditions that hold, its metrics give {hold}"


def _computed_anew(record: Record, name: str, compute: Callable[[Arrays], float], arrays: Arrays) -> str | None:
    """How a recorded metric differs from that of the arrays; "" if it does not, None where there is nothing to compare.

    A metric that is recorded as not defined (too few cases, say) is not compared.
    """
    there = record.metrics[name].value
    try:
        value = float(compute(arrays))
    except KeyError:  # an arm or an older notebook without these arrays
        return None
    if there is None:
        return None
    close = math.isclose(there, value, rel_tol=CLOSE, abs_tol=1e-9)
    return "" if close else f"recorded as {there:.7g}, the arrays give {value:.7g}"


# what follows from the arrays --------------------------------------------------------------------------------------


def _mean(values: np.ndarray) -> float:
    """The mean in double precision; NaN of nothing."""
    return float(np.mean(values, dtype=np.float64)) if len(values) else math.nan


def _less(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one.astype(np.float64) - other


def _balanced(true: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes of the share that is predicted rightly."""
    return _mean(np.array([_mean(predicted[true == one] == one) for one in np.unique(true)]))


def _apart(values: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Mean where `one` (N,) bool, less that where `other`; NaN where one of them is nowhere."""
    return _mean(values[one]) - _mean(values[other])


def _auroc(score: np.ndarray, wrong: np.ndarray) -> float:
    """Probability that a wrong case has a higher score than a right one; ties count half."""
    above = score[wrong][:, None] - score[~wrong][None, :]
    return _mean(((above > 0) + 0.5 * (above == 0)).ravel())


def _curves(reading: str) -> dict[str, Callable[[Arrays], float]]:
    def area(a: Arrays, *names: str) -> float:
        values = a[f"curves.{reading}_{names[0]}"] - (a[f"curves.{reading}_{names[1]}"] if names[1:] else 0)
        return float(np.trapezoid(values, a["curves.r"].astype(np.float64)))

    return {
        f"P2.4.{reading}.ram_area": lambda a: area(a, "ram"),
        f"P2.4.{reading}.moram_area": lambda a: area(a, "moram"),
        f"P2.4.{reading}.auc_difference": lambda a: area(a, "moram", "ram"),
        f"P2.4.{reading}.share_of_r": lambda a: _mean(a[f"curves.{reading}_moram"] >= a[f"curves.{reading}_ram"]),
    }


def _misled(name: str) -> dict[str, Callable[[Arrays], float]]:
    inside = f"images.inside_{name}"
    return {
        f"P2.2.{name}.inside_difference": lambda a: _mean(a[inside][a["images.target"] < 0]),
        f"P2.7.{name}.misled_share_negative": lambda a: _mean(a[inside][a["images.prediction"] < 0] < 0),
        f"P2.7.{name}.misled_share_positive": lambda a: _mean(a[inside][a["images.prediction"] > 0] < 0),
    }


def _r2(true: np.ndarray, predicted: np.ndarray) -> float:
    true = true.astype(np.float64)
    return 1 - float(((true - predicted) ** 2).sum() / ((true - true.mean()) ** 2).sum())


def _wrong(a: Arrays) -> np.ndarray:
    return a["judged.labels"] != a["judged.before"]


def _cases(a: Arrays, kind: str) -> np.ndarray:
    return a["defects.outcome"] == kind


FROM_ARRAYS["01_id_cvae_morphing"] = {
    "P1.3.misclassified": lambda a: len(a["misclassified.true"]),
    "P1.3.a.distance_difference": lambda a: _mean(
        _less(a["misclassified.distance_true"], a["misclassified.distance_predicted"])
    ),
    "P1.3.b.realism_difference_blend": lambda a: _mean(
        _less(a["misclassified.realism_blend"], a["misclassified.realism_morph"])
    ),
    "P1.4.odd_share": lambda a: _mean(a["misclassified.odd_frames"] > 0),
} | {
    f"P1.3.b.probability_difference_{short}": lambda a, label=label: _mean(
        _less(a["misclassified.probability_morph"], a[f"misclassified.probability_{label}"])
    )
    for short, label in (("true", "true_label"), ("runner_up", "runner_up"))
}
FROM_ARRAYS["02_moram_regression"] = {
    "P2.1.mae": lambda a: _mean(abs(_less(a["images.target"], a["images.prediction"]))),
    "P2.1.r2": lambda a: _r2(a["images.target"], a["images.prediction"]),
    "P2.2.negative_targets": lambda a: (a["images.target"] < 0).sum(),
    "P2.3.positive_targets": lambda a: (a["images.target"] > 0).sum(),
    "P2.7.negative_predictions": lambda a: (a["images.prediction"] < 0).sum(),
    "P2.7.positive_predictions": lambda a: (a["images.prediction"] > 0).sum(),
    **_misled("ram"),
    **_misled("moram"),
    **_curves("signed"),
    **_curves("clip"),
    **_curves("shift"),
}
FROM_ARRAYS["03_gradcam_defects"] = {
    "P3.accuracy": lambda a: _mean(a["test.true"] == a["test.predicted"]),
    "P3.balanced_accuracy": lambda a: _balanced(a["test.true"], a["test.predicted"]),
    "P3.3.misclassified": lambda a: (a["test.true"] != a["test.predicted"]).sum(),
    "X3.1.auroc_confidence": lambda a: _auroc(1 - a["test.confidence"], a["test.true"] != a["test.predicted"]),
    "P3.1.correct": lambda a: _cases(a, "correct").sum(),
    "P3.2.missed": lambda a: _cases(a, "missed").sum(),
    "P3.1.energy_difference_uniform": lambda a: _mean((a["defects.energy"] - a["defects.area"])[_cases(a, "correct")]),
    "P3.1.pointing_difference_uniform": lambda a: _mean(
        (a["defects.pointing"] - a["defects.area"])[_cases(a, "correct")]
    ),
    **{
        f"P3.outcomes.{name.replace(' ', '_')}": lambda a, name=name: (a["test.outcome"] == name).sum()
        for name in ("correct", "missed", "wrong defect", "false alarm", "wrong normal", "correct normal")
    },
}
FROM_ARRAYS["04_cam_consistency"] = {
    "P4.2.before.balanced_accuracy": lambda a: _balanced(a["judged.labels"], a["judged.before"]),
    "P4.2.after.balanced_accuracy": lambda a: _balanced(a["judged.labels"], a["judged.after"]),
    "P4.1.wrong": lambda a: _wrong(a).sum(),
    "P4.1.correct": lambda a: (~_wrong(a)).sum(),
    "P4.1.distance_difference_true": lambda a: _apart(a["judged.distance_before"], _wrong(a), ~_wrong(a)),
    "P4.1.distance_difference_predicted": lambda a: _apart(a["judged.distance_predicted"], _wrong(a), ~_wrong(a)),
    "P4.2.before.distance": lambda a: _mean(a["judged.distance_before"]),
    "P4.2.after.distance": lambda a: _mean(a["judged.distance_after"]),
    "P4.2.consistency_difference": lambda a: _mean(_less(a["judged.distance_before"], a["judged.distance_after"])),
    "P4.5.auroc": lambda a: _auroc(a["judged.distance_predicted"], _wrong(a)),
    "P4.5.auroc_confidence": lambda a: _auroc(a["judged.doubt"], _wrong(a)),
}
FROM_ARRAYS["05_lrp_bn"] = {
    f"P5.1.{name}.id_score": lambda a, array=array: _mean(a[f"curves.id_{array}"])
    for name, array in (
        ("rise", "rise"),
        ("gradcam", "grad_cam"),
        ("lrp", "lrp"),
        ("abn", "abn"),
        ("lrp_bn", "lrp_bn"),
    )
}


@in_one_line
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    print_anywhere()
    parser = argparse.ArgumentParser(prog="python -m xai_utils.suite", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("verify", help="compute verdicts and metrics anew; exit 1 if one differs")
    check.add_argument("--results", help="results tree (default: $XAI_RESULTS, else results/)")
    check.add_argument("--profile", help="only the records of one profile")
    given = parser.parse_args(argv)
    records, problems = scan(given.results, given.profile)
    verdicts, metrics, wrong = 0, 0, []
    for record in records:
        try:
            found = verify([record], given.results)
        except ValueError as error:
            problems.append(str(error))
            continue
        verdicts, metrics, wrong = verdicts + found.verdicts, metrics + found.metrics, wrong + found.wrong
    for line in wrong:
        print(said(line))
    print(f"{len(records)} records: {verdicts} verdicts and {metrics} metrics computed anew, {len(wrong)} disagree")
    for problem in problems:
        print(f"PROBLEM {said(problem)}", file=sys.stderr)
    return 2 if problems else int(bool(wrong))
