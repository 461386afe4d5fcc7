"""Means, differences, balanced accuracy and AUROC over groups of images, with their 95 % intervals.

A group (a tile, a patient, a road segment; `clusters`, None = every image is one) is resampled as a whole. Where there
is too little to say anything, the estimate is undefined (None), and its note says why.
"""

import math

import numpy as np
from torch import Tensor

from xai_utils.metrics import statistics
from xai_utils.metrics.statistics import Estimate
from xai_utils.seeds import numpy_rng

LEAST = 3  # independent units that each side needs: with fewer, too many resamples lack one side


def mean(values: np.ndarray | Tensor, clusters: np.ndarray | None, seed: int) -> Estimate:
    """Mean of values (N,) with its bootstrap interval over clusters.

    Fewer than two independent units make it undefined.
    """
    values = np.asarray(values, dtype=float)
    units = len(values) if clusters is None else len(set(clusters))
    if units < 2:
        return Estimate(None, len(values), note=f"{len(values)} images of {units} groups: fewer than two")
    return statistics.bootstrap(values, clusters=clusters, seed=seed)


def too_few(one: np.ndarray, clusters: np.ndarray | None) -> str:
    """Why the two sides of `one` (N,) bool cannot be compared, or ""."""
    names = np.arange(len(one)) if clusters is None else np.asarray(clusters)
    units = [len(set(names[one == side])) for side in (True, False)]
    if min(units) >= LEAST:
        return ""
    return f"{one.sum()} of {len(one)} images, of {units[0]} groups ({units[1]} the others): fewer than {LEAST}"


def difference(values: np.ndarray | Tensor, one: np.ndarray, clusters: np.ndarray | None, seed: int) -> Estimate:
    """Mean of values (N,) where `one` (N,) holds minus the mean elsewhere, as `mean` gives it."""
    values, ones = np.asarray(values, dtype=float), np.asarray(one, dtype=float)
    if reason := too_few(ones > 0, clusters):
        return Estimate(None, len(values), note=reason)

    def statistic(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample without one of the groups is left out
            return weights @ (x * ones) / (weights @ ones) - weights @ (x * (1 - ones)) / (weights @ (1 - ones))

    return statistics.bootstrap(values, statistic, clusters, seed=seed)


def permuted(
    values: np.ndarray, one: np.ndarray, clusters: np.ndarray | None, seed: int, n_permutations: int = 10000
) -> tuple[float, float]:
    """Two-sided p of `difference`, and Cliff's δ, by relabelling images so that clusters stay what they are.

    Images of a tile are alike. So a cluster that lies in one group as a whole changes places with other such clusters
    only as a whole, and in a cluster that lies in both groups the labels change places within it. NaN, NaN where
    `difference` is not defined.
    """
    values, one = np.asarray(values, dtype=float), np.asarray(one, dtype=bool)
    if too_few(one, clusters):
        return math.nan, math.nan
    unit = np.unique(np.arange(len(values)) if clusters is None else clusters, return_inverse=True)[1]
    size, ones = np.bincount(unit), np.bincount(unit, weights=one)
    whole = (ones == 0) | (ones == size)
    rng, labels = numpy_rng(seed, "permuted"), np.empty((n_permutations, len(values)), dtype=bool)
    drawn = rng.permuted(np.tile(ones[whole] > 0, (n_permutations, 1)), axis=1)
    place = np.cumsum(whole) - 1
    pure = whole[unit]
    labels[:, pure] = drawn[:, place[unit[pure]]]
    for mixed in np.flatnonzero(~whole):
        rows = np.flatnonzero(unit == mixed)
        labels[:, rows] = rng.permuted(np.tile(one[rows], (n_permutations, 1)), axis=1)
    count = labels.sum(1)
    found = labels @ values / count - (~labels) @ values / (len(values) - count)
    observed = values[one].mean() - values[~one].mean()
    hits = (np.abs(found) >= abs(observed) - 1e-12 * np.abs(values).max()).sum()
    return float((1 + hits) / (1 + len(found))), statistics.effect_size(values[one], values[~one])


def defined(value: float, n: int) -> Estimate:
    """A value of n cases; NaN is one that too few cases left undefined."""
    return Estimate(value, n) if math.isfinite(value) else Estimate(None, n, note="too few images")


def balanced_accuracy(correct: np.ndarray, labels: np.ndarray, clusters: np.ndarray | None, seed: int) -> Estimate:
    """Mean over the classes of `correct` (N,), the share of right answers, as `mean` gives it.

    Also for a difference of two models: give −1, 0, 1. Classes without any image, here or in a resample, do not count.
    """
    correct, classes = np.asarray(correct, dtype=float), np.unique(labels)
    if len(correct) < 2 or (clusters is not None and len(set(clusters)) < 2):
        return Estimate(None, len(correct), note=f"{len(correct)} images of fewer than two groups")
    member = (np.asarray(labels)[:, None] == classes).astype(float)

    def statistic(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.nanmean((weights * x) @ member / (weights @ member), axis=1)

    return statistics.bootstrap(correct, statistic, clusters, seed=seed)


def auroc(scores: np.ndarray | None, wrong: np.ndarray, clusters: np.ndarray | None, seed: int) -> Estimate:
    """AUROC of scores (N,) for `wrong` (N,) bool as `mean` gives it; None are scores that could not be learnt."""
    if reason := _no_auroc(scores, wrong, clusters):
        return Estimate(None, len(wrong), note=reason)
    return statistics.auroc(scores, wrong, clusters, seed=seed)


def auroc_gain(
    one: np.ndarray | None, other: np.ndarray, wrong: np.ndarray, clusters: np.ndarray | None, seed: int
) -> Estimate:
    """AUROC of the scores `one` minus that of `other`, on the same images, as `mean` gives it."""
    if reason := _no_auroc(one, wrong, clusters):
        return Estimate(None, len(wrong), note=reason)

    def won(scores: np.ndarray) -> np.ndarray:  # (wrong, right): is the wrong one scored higher? A tie counts one half
        return (np.sign(scores[wrong][:, None] - scores[~wrong]) + 1) / 2

    gain = won(np.asarray(one)) - won(np.asarray(other))

    def statistic(_: np.ndarray, weights: np.ndarray) -> np.ndarray:
        up, down = weights[:, wrong], weights[:, ~wrong]
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample without wrong images is left out
            return ((up @ gain) * down).sum(1) / (up.sum(1) * down.sum(1))

    return statistics.bootstrap(wrong.astype(float), statistic, clusters, seed=seed)


def _no_auroc(scores: np.ndarray | None, wrong: np.ndarray, clusters: np.ndarray | None) -> str:
    """Why there is no AUROC, or ""."""
    if scores is None:
        return "the validation images are all right, or all wrong: nothing to learn the score from"
    return too_few(wrong, clusters)
