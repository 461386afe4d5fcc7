"""Intervals and tests over seeds and test images.

The unit of pairing is the test image, averaged over seeds. Images that share something (a road, a patient, a tile) are
one cluster, drawn, flipped or relabelled whole, because they are not independent. Seeds alone are few (3 to 5): they
get a t interval and an effect size, never a rank test, which cannot reach p < 0.05 there. How many cases are too few is
the caller's rule; here only what is undefined is refused (ValueError). Every draw comes from `seed`; resamples are held
by blocks of 16 MiB, whatever their number.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, islice
from math import comb, isfinite, sqrt
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtr, stdtrit

_CELLS = 2**21  # elements of one block of resamples: 16 MiB in float64
_FLAT = 1e-12  # a spread below this share of the values' size is rounding, not spread

Clusters = ArrayLike | None
Statistic = Literal["mean", "median"] | Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class MeanStd:
    """Mean and sample standard deviation (ddof = 1) of n values; `std` is None for a single value."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Estimate:
    """A number that was measured: the one shape in which functions return it, runs take it and records hold it.

    `n` counts the cases behind it, `low` and `high` are the ends of its interval. A value of None is one that is not
    defined; then `note` says why, and there is no interval.

    Raises:
        TypeError: value, low or high is no single number. ValueError: one is not finite, low exceeds high, n is below
            0, or an undefined value has no note.
    """

    value: float | None
    n: int | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, _number(name, number))
        if isinstance(self.n, np.integer):
            object.__setattr__(self, "n", int(self.n))
        if self.n is not None and (type(self.n) is not int or self.n < 0):
            raise ValueError(f"n = {self.n!r}: expected how many cases there are, a whole number from 0 on, or None")
        if type(self.unit) is not str or type(self.note) is not str:
            raise TypeError(f"unit = {self.unit!r}, note = {self.note!r}: expected text")
        if self.value is None and (not self.note or self.low is not None or self.high is not None):
            raise ValueError("value = None: an undefined value needs a note that says why, and has no interval")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"its interval runs from {self.low} to {self.high}; low must not exceed high")

    def times(self, factor: float, unit: str) -> Self:
        """The same in another unit: value and ends times a positive factor."""
        ends = {name: getattr(self, name) for name in ("value", "low", "high")}
        return replace(self, unit=unit, **{k: None if v is None else factor * v for k, v in ends.items()})


@dataclass(frozen=True)
class PairedT(Estimate):
    """A mean difference with its t interval, two-sided p and Cohen's d_z; both are None without any spread."""

    p: float | None = None
    effect_size: float | None = None


@dataclass(frozen=True)
class Permutation:
    """Difference of means, its p, and Cliff's δ (paired: Cohen's d_z, None without any spread)."""

    effect: float
    p: float
    effect_size: float | None
    n_permutations: int
    exact: bool


def _number(what: str, value: Any) -> float:
    try:
        if isinstance(value, bool | np.bool_ | str):
            raise TypeError
        number = float(value)  # a NumPy scalar and a tensor with one element, too
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{what} = {value!r} ({type(value).__name__}): expected one number") from None
    if not isfinite(number):
        raise ValueError(f"{what} = {number}: not finite; if it is undefined, give None and a note that says why")
    return number


def _values(name: str, values: ArrayLike, ndim: int = 1, least: int = 1) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or array.size == 0 or len(array) < least:
        raise ValueError(f"{name} has shape {array.shape}; expected {ndim} dimension(s), length ≥ {least}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values; leave those cases out and report how many")
    return array


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = _values("a", a, least=2), _values("b", b, least=2)
    if len(x) != len(y):
        raise ValueError(f"a has {len(x)} values and b has {len(y)}; paired values need equal lengths")
    return x, y


def _units(clusters: Clusters, n: int) -> tuple[np.ndarray, int]:
    """Index (n,) of the independent unit of each value (itself, or its cluster), and how many there are."""
    ids = np.arange(n) if clusters is None else np.asarray(clusters)
    if ids.shape != (n,) or (ids.dtype.kind == "f" and np.isnan(ids).any()):
        raise ValueError(f"clusters has shape {ids.shape}; expected ({n},), an id (not NaN) for each value")
    unit = np.unique(ids, return_inverse=True)[1]
    if unit.max() < 1:
        raise ValueError(f"{n} value(s) in 1 independent unit; at least 2 values or clusters are needed")
    return unit, int(unit.max()) + 1


def _within(name: str, number: float, below: float = 1.0) -> None:
    if not 0.0 < number < below:
        raise ValueError(f"{name} is {number}; expected a number above 0 and below {below}")


def mean_std(values: ArrayLike) -> MeanStd:
    """Mean and sample standard deviation (ddof = 1); a single value has no standard deviation (None)."""
    x = _values("values", values)
    return MeanStd(float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else None, len(x))


def _resamples(unit: np.ndarray, k: int, n_resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Blocks (b, N): how often each value comes up when its k units are drawn with replacement."""
    rows = max(1, _CELLS // len(unit))
    for start in range(0, n_resamples, rows):
        b = min(rows, n_resamples - start)
        drawn = rng.integers(k, size=(b, k)) + k * np.arange(b)[:, None]  # each resample counts in its own bins
        yield np.bincount(drawn.ravel(), minlength=b * k).reshape(b, k).astype(np.float64)[:, unit]


def _median(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(x, kind="stable")
    up_to = np.cumsum(weights[:, order], axis=1)
    lower, upper = np.floor((up_to[:, -1:] - 1) / 2), np.floor(up_to[:, -1:] / 2)  # ranks of the middle
    return (x[order][(up_to <= lower).sum(axis=1)] + x[order][(up_to <= upper).sum(axis=1)]) / 2


def _ends(draws: np.ndarray, confidence: float) -> list[float]:
    _within("confidence", confidence)
    return np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()


def bootstrap(
    values: ArrayLike,
    statistic: Statistic = "mean",
    clusters: Clusters = None,
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Percentile bootstrap interval of a statistic of (N,) values; clusters are drawn whole.

    `statistic` is "mean", "median" or a function (values (N,), weights (b, N)) -> (b,); weights count how often
    each value was drawn. Resamples where it is not finite are left out (more than 1 in 10: ValueError).
    """
    x = _values("values", values)
    named = {"mean": lambda x, weights: weights @ x / weights.sum(axis=1), "median": _median}
    compute = statistic if callable(statistic) else named.get(statistic)
    if compute is None:
        raise ValueError(f"statistic is {statistic!r}; expected 'mean', 'median' or a function")
    _within("n_resamples", n_resamples, np.inf)
    unit, k = _units(clusters, len(x))
    rng = np.random.default_rng(seed)
    draws = np.concatenate([compute(x, weights) for weights in _resamples(unit, k, n_resamples, rng)])
    defined = draws[np.isfinite(draws)]
    if len(defined) < 0.9 * n_resamples:
        raise ValueError(f"the statistic is defined in only {len(defined)} of {n_resamples} resamples")
    return Estimate(float(compute(x, np.ones((1, len(x))))[0]), len(x), *_ends(defined, confidence))


def bootstrap_seeds_images(
    values: ArrayLike, clusters: Clusters = None, *, n_resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Percentile interval of the mean of (seeds, images) values over new seeds and new images.

    Seeds and images (whole clusters of them) are drawn independently: Owen's pigeonhole bootstrap (2007). It counts the
    noise of single (seed, image) values up to three times, and (S − 1)/S of the variance between S seeds. `n` counts
    images. For the difference of two methods give a − b.
    """
    x = _values("values", values, ndim=2, least=2)
    _within("n_resamples", n_resamples, np.inf)
    unit, k = _units(clusters, x.shape[1])
    images_rng, seeds_rng = np.random.default_rng(seed).spawn(2)
    draws = []
    for weights in _resamples(unit, k, n_resamples, images_rng):
        counts = np.concatenate([*_resamples(np.arange(len(x)), len(x), len(weights), seeds_rng)])
        draws.append((counts * (weights @ x.T)).sum(axis=1) / (len(x) * weights.sum(axis=1)))
    return Estimate(float(x.mean()), x.shape[1], *_ends(np.concatenate(draws), confidence))


def paired_interval(a: ArrayLike, b: ArrayLike, clusters: Clusters = None, **options: Any) -> Estimate:
    """Interval of the mean of a − b, paired by image (values averaged over seeds); options as in `bootstrap`."""
    x, y = _pair(a, b)
    return bootstrap(x - y, clusters=clusters, **options)


def reversal(
    one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], interval: Callable[[np.ndarray], Estimate]
) -> Estimate:
    """By how much the leader under one condition is ahead there, and behind under another: the smaller of the two.

    A leads under `one`, B is the best of the rest under `other`: the smaller of mean(A − B) under `one` and
    mean(B − A) under `other`, with the smaller ends. "low above 0" is "which is first depends on the condition".

    Args:
        one: method -> scores, arrays of equal shape whose means are compared.
        other: the same methods under the other condition, paired with `one` element by element.
        interval: differences -> Estimate of their mean.
    """
    first = max(one, key=lambda name: float(one[name].mean()))
    second = max((name for name in other if name != first), key=lambda name: float(other[name].mean()))
    found = interval(one[first] - one[second]), interval(other[second] - other[first])
    value, low, high = (min(getattr(each, end) for each in found) for end in ("value", "low", "high"))
    return Estimate(value, found[0].n, low, high)


def auroc(scores: ArrayLike, labels: ArrayLike, clusters: Clusters = None, **options: Any) -> Estimate:
    """Area under the ROC curve of (N,) scores (high = positive), 0/1 labels; options as in `bootstrap`.

    The value is scikit-learn's. The resamples, where one class may be absent and the area then undefined, take
    the same area as the share of (positive, negative) pairs in the right order, a tie counting one half.
    """
    from sklearn.metrics import roc_auc_score

    x, y = _values("scores", scores), _values("labels", labels)
    if len(x) != len(y) or not np.array_equal(np.unique(y), [0, 1]):
        raise ValueError(f"labels has {len(y)} values of {np.unique(y)[:5]}; expected {len(x)} of both 0 and 1")
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.diff(x[order], prepend=-np.inf) > 0)  # where each group of tied scores begins

    def area(_: np.ndarray, weights: np.ndarray) -> np.ndarray:
        w = weights[:, order]
        positive = np.add.reduceat(w * y[order], starts, axis=1)
        negative = np.add.reduceat(w * (1 - y[order]), starts, axis=1)
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        won = (positive * (np.cumsum(negative, axis=1) - negative / 2)).sum(axis=1)
        return np.divide(won, pairs, out=np.full(len(w), np.nan), where=pairs > 0)

    return replace(bootstrap(x, area, clusters, **options), value=float(roc_auc_score(y, x)))


def proportion(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Share of successes with Wilson's score interval (1927), which holds at 0, at n and for small n."""
    _within("confidence", confidence)
    if not 0 <= successes <= n or n < 1 or successes % 1 or n % 1:
        raise ValueError(f"{successes} successes of {n}; expected whole numbers, 0 ≤ successes ≤ n, n ≥ 1")
    p, z2 = successes / n, float(ndtri((1 + confidence) / 2)) ** 2
    centre, half = p + z2 / (2 * n), sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n**2)))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)  # at 0 and n exact up to rounding
    return Estimate(p, int(n), low if successes else 0.0, high if successes < n else 1.0)


def effect_size(a: ArrayLike, b: ArrayLike) -> float:
    """Cliff's δ of two unpaired groups: P(a > b) − P(a < b) = 2·AUROC − 1, from −1 to 1.

    Chosen over Cohen's d: the values met here (shares of energy, IoU, probabilities) are bounded and skewed.
    """
    x, y = _values("a", a), np.sort(_values("b", b))
    above = np.searchsorted(y, x, side="left").sum()
    below = (len(y) - np.searchsorted(y, x, side="right")).sum()
    return float(above - below) / (len(x) * len(y))


def _cohen_dz(x: np.ndarray, y: np.ndarray) -> float | None:
    std = float((x - y).std(ddof=1))
    return None if std <= _FLAT * np.abs([x, y]).max() else float((x - y).mean()) / std


def paired_t(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> PairedT:
    """Paired t interval and test of a − b over seeds, with Cohen's d_z = mean / std of a − b; n ≥ 2.

    Equal differences give no estimate of the spread: the interval is then one point, p and d_z are None.
    """
    _within("confidence", confidence)
    x, y = _pair(a, b)
    n, mean, d_z = len(x), float((x - y).mean()), _cohen_dz(x, y)
    if d_z is None:
        return PairedT(mean, n, mean, mean)
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * (x - y).std(ddof=1)) / sqrt(n)
    p = 2 * float(stdtr(n - 1, -abs(d_z) * sqrt(n)))
    return PairedT(mean, n, mean - half, mean + half, p=p, effect_size=d_z)


def _labellings(k: int, ones: int | None, n: int, rng: np.random.Generator | None) -> Iterator[np.ndarray]:
    """Blocks (b, k) of n labellings by 0 and 1, `ones` ones in each (None: any number); all of them if rng is None."""
    rows, chosen = max(1, _CELLS // k), combinations(range(k), ones or 0)
    for start in range(0, n, rows):
        b = min(rows, n - start)
        block = np.tile(np.arange(k) < (ones or 0), (b, 1))
        if rng is None and ones is None:
            block = np.arange(start, start + b)[:, None] >> np.arange(k) & 1
        elif rng is None:
            block[:] = False
            np.put_along_axis(block, np.array([*islice(chosen, b)]), True, axis=1)
        yield block if rng is None else rng.permuted(block, axis=1) if ones else rng.integers(2, size=(b, k))


def permutation_test(
    a: ArrayLike,
    b: ArrayLike,
    paired: bool = False,
    clusters: Clusters = None,
    *,
    n_permutations: int = 10000,
    seed: int = 0,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
) -> Permutation:
    """Permutation test of mean(a) − mean(b) ("greater": a above b; "two-sided": by its absolute value).

    Paired: the sign of a − b is flipped, for whole clusters, one id a pair. Unpaired: the labels are permuted,
    for whole clusters; `clusters` holds the ids of a, then of b, and none may occur in both. All arrangements
    are tried if they are no more than `n_permutations`, else p = (1 + hits) / (1 + n_permutations).
    """
    fold = {"two-sided": np.abs, "greater": np.positive, "less": np.negative}.get(alternative)
    if fold is None:
        raise ValueError(f"alternative is {alternative!r}; expected 'two-sided', 'greater' or 'less'")
    _within("n_permutations", n_permutations, np.inf)
    x, y = _pair(a, b) if paired else (_values("a", a), _values("b", b))
    cases = x - y if paired else np.concatenate([x, y]) - np.concatenate([x, y]).mean()
    unit, k = _units(clusters, len(cases))
    sums, sizes = np.bincount(unit, weights=cases), np.bincount(unit).astype(np.float64)
    label = np.ones(k) if paired else (np.bincount(unit[: len(x)], minlength=k) > 0).astype(np.float64)
    if not paired and label[unit[len(x) :]].any():
        raise ValueError("a cluster occurs in a and in b; average each side in it and test with paired=True")

    def difference(labels: np.ndarray) -> np.ndarray:
        if paired:
            return (2 * labels - 1) @ sums / len(cases)
        total, size = labels @ sums, labels @ sizes  # all cases together sum to 0
        return total / size + total / (len(cases) - size)

    ones = None if paired else int(label.sum())
    arrangements = 2**k if paired else comb(k, ones)
    exact, n = arrangements <= n_permutations, min(arrangements, n_permutations)
    observed, slack = float(difference(label[None])[0]), _FLAT * float(np.abs(cases).max())
    blocks = _labellings(k, ones, n, None if exact else np.random.default_rng(seed))
    hits = sum(int((fold(difference(labels)) >= fold(observed) - slack).sum()) for labels in blocks)
    p = hits / n if exact else (1 + hits) / (1 + n)
    return Permutation(observed, p, _cohen_dz(x, y) if paired else effect_size(x, y), n, exact)


def holm(p_values: ArrayLike) -> np.ndarray:
    """P-values adjusted for their number by Holm's step-down method (1979), in the order given."""
    p = _values("p_values", p_values)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p_values run from {p.min()} to {p.max()}; expected values from 0 to 1")
    order, adjusted = np.argsort(p, kind="stable"), np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted
