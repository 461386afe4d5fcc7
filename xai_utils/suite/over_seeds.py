"""Metrics over the seeds of one arm: means, and intervals that stay where the quantity itself stays.

What a metric is, its id says: the last part of `P5.2.id_p` is a p value, that of `P3.4.auroc` an AUROC.
results/README.md, "Over seeds", has the same in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from xai_utils.metrics.statistics import Estimate, mean_std, paired_t
from xai_utils.suite.record import Record

_COUNTS = ("images", "epochs", "classes", "classes, summed over epochs")  # units of what is counted
# words of an id's last part, by the range of the quantity; a difference of two quantities has twice the range
_FROM_0_TO_1 = {"accuracy", "area", "auroc", "deletion", "ece", "insertion", "iou", "majority", "share"}
_DIFFERS_WITHIN_1 = _FROM_0_TO_1 | {"coverage", "energy", "inside", "outside", "pointing", "probability", "realism"}
_NOT_NEGATIVE = {"distance", "error", "mae", "ratio", "spread"}
_ON_ANOTHER_SCALE = {"share_of_r", "auc_difference"}  # R may exceed 1: so may a share of it and the area under it


def is_p_value(metric: str) -> bool:
    """Whether a metric's id (`P5.2.id_p`, `P4.1.distance_p_true`) names a p value: a word of its last part is "p"."""
    return "p" in _words(metric)


def bounds(metric: str, unit: str = "") -> tuple[float, float]:
    """The least and the largest value that a metric of this id and unit can have; infinite where there is none.

    Shares, accuracies, AUROC, IoU, areas, insertion, deletion and the calibration error lie in [0, 1] (in percent:
    [0, 100]), their differences and gains in [−1, 1] ([−100, 100]), Cliff's δ in [−1, 1], an ID score in [−1, 1] (a
    difference of two in [−2, 2]); counts, distances, ratios and errors are not negative, R² is at most 1.
    """
    words, name = _words(metric), metric.rpartition(".")[2]
    scale, compared = 100.0 if unit == "%" else 1.0, bool({"difference", "gain"} & words)
    if name in _ON_ANOTHER_SCALE:
        return -math.inf, math.inf
    if "id" in words and (compared or "score" in words):
        return (-2.0, 2.0) if compared else (-1.0, 1.0)
    if {"effect", "size"} <= words or (compared and words & _DIFFERS_WITHIN_1):
        return -scale, scale
    if compared:
        return -math.inf, math.inf
    if words & _FROM_0_TO_1 or unit == "share":
        return 0.0, scale
    if name == "r2":
        return -math.inf, 1.0
    return (0.0 if unit in _COUNTS or words & _NOT_NEGATIVE else -math.inf), math.inf


def _words(metric: str) -> set[str]:
    return set(metric.rpartition(".")[2].split("_"))


@dataclass(frozen=True)
class OverSeeds(Estimate):
    """A metric over seeds: `value` is the mean of the runs, `n` counts them, `std` is their standard deviation.

    `values` are those of the runs, by seed: a mean may hide that one of them is far off.
    """

    std: float | None = None
    values: tuple[float, ...] = field(default=(), compare=False, repr=False)


def aggregate(records: Sequence[Record]) -> dict[str, OverSeeds]:
    """Metrics over the seeds of one arm, by id.

    A metric undefined in one seed is undefined (value None); one that a seed lacks is left out. The interval is the
    wider of two at each end: the 95 % t interval of the seeds' values (n ≥ 2), which sees training noise, and the
    mean of the runs' own ends, which see the sampling of test images. Neither alone covers both. It ends where the
    quantity does (`bounds`). A p value is not averaged: of several seeds it is undefined here, each record has its own.
    """
    merged: dict[str, OverSeeds] = {}
    for name, first in records[0].metrics.items() if records else ():
        found = [record.metrics[name] for record in records if name in record.metrics]
        if len(found) < len(records):
            continue
        values = [metric.value for metric in found]
        if None in values or (is_p_value(name) and len(values) > 1):
            note = "not defined in every seed" if None in values else "p values are not averaged"
            merged[name] = OverSeeds(None, len(found), unit=first.unit, note=note)
            continue
        over = paired_t(values, [0.0] * len(values)) if len(values) > 1 else None  # against 0: of the mean itself
        least, most = bounds(name, first.unit)
        ends: dict[str, float] = {}
        for end, wider, within, bound in (("low", min, max, least), ("high", max, min, most)):
            own = [getattr(metric, end) for metric in found]
            both = ([] if None in own else [fmean(own)]) + ([getattr(over, end)] if over else [])
            if both:
                ends[end] = float(within(wider(both), bound))
        spread = mean_std(values)
        merged[name] = OverSeeds(spread.mean, len(found), **ends, unit=first.unit, std=spread.std, values=tuple(values))
    return merged
