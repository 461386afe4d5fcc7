"""The statistics against scipy.stats and scikit-learn."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from xai_utils.metrics import statistics as st

RNG = np.random.default_rng


@pytest.mark.parametrize(("name", "statistic"), [("mean", np.mean), ("median", np.median)])
def test_bootstrap_against_scipy(name, statistic):
    x = RNG(0).exponential(size=80)
    theirs = stats.bootstrap((x,), statistic, n_resamples=6000, method="percentile", rng=RNG(1)).confidence_interval
    ours = st.bootstrap(x, name, n_resamples=6000, seed=2)
    tolerance = 0.05 * (theirs.high - theirs.low)  # Monte Carlo error of two quantiles
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=tolerance)


def test_auroc_and_its_resamples_against_scikit_learn():
    rng = RNG(3)
    scores, labels = rng.normal(size=40).round(1), rng.integers(0, 2, 40)
    ids = np.arange(40) // 2
    ours = st.auroc(scores, labels, ids, n_resamples=200, seed=4)
    assert ours.value == roc_auc_score(labels, scores)
    draws, rng = [], RNG(4)
    for _ in range(200):
        weights = np.bincount(rng.integers(20, size=20), minlength=20)[ids]
        draws.append(roc_auc_score(labels, scores, sample_weight=weights))
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=1e-12)
    assert 2 * ours.value - 1 == pytest.approx(st.effect_size(scores[labels == 1], scores[labels == 0]))


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_paired_t_against_scipy(n, confidence):
    a, b = RNG(n).normal(size=n) + 0.4, RNG(n + 1).normal(size=n)
    theirs = stats.ttest_rel(a, b)
    ours = st.paired_t(a, b, confidence)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval(confidence)), rel=1e-9)
    assert ours.effect_size * np.sqrt(n) == pytest.approx(theirs.statistic)


def difference(a, b, axis):
    return np.mean(a, axis=axis) - np.mean(b, axis=axis)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("n", [7, 25])  # all arrangements, and random ones
@pytest.mark.parametrize("paired", [True, False])
def test_permutation_against_scipy(paired, n, alternative):
    a, b = RNG(5).normal(size=n) + 0.3, RNG(6).normal(size=n if paired else n - 2)
    kind = "samples" if paired else "independent"
    size = 9999 if alternative == "greater" or n == 7 else 4999

    def statistic(x, y, axis):  # two-sided here is |difference|; scipy's doubles the smaller tail
        d = difference(x, y, axis)
        return np.abs(d) if alternative == "two-sided" else d

    side = "greater" if alternative == "two-sided" else alternative
    theirs = stats.permutation_test(
        (a, b), statistic, permutation_type=kind, n_resamples=size, alternative=side, rng=RNG(7), vectorized=True
    )
    ours = st.permutation_test(a, b, paired, n_permutations=size, alternative=alternative, seed=8)
    assert ours.exact == (n == 7)
    tolerance = 1e-12 if ours.exact else 4 * np.sqrt(2 * theirs.pvalue * (1 - theirs.pvalue) / size)
    assert ours.p == pytest.approx(theirs.pvalue, abs=tolerance)
    assert abs(ours.effect) == pytest.approx(abs(theirs.statistic))


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (1, 1), (3, 17), (9813, 10000), (40, 40)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_against_scipy(successes, n, confidence):
    theirs = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    ours = st.proportion(successes, n, confidence)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=1e-12)
    assert ours.value == successes / n


def test_cliffs_delta_against_mann_whitney():
    a, b = RNG(11).integers(0, 9, 31), RNG(12).integers(2, 11, 24)
    u = stats.mannwhitneyu(a, b).statistic
    assert st.effect_size(a, b) == pytest.approx(2 * u / (31 * 24) - 1)
