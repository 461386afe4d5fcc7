"""Estimates, intervals and tests: slow re-implementations, hand-worked numbers, coverage, and what is refused."""

import dataclasses
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from xai_utils.metrics import statistics as st


def clustered(rng, n_clusters=20, size=5, within=0.3):
    ids = np.repeat(np.arange(n_clusters), size)
    return rng.normal(size=n_clusters)[ids] + within * rng.normal(size=len(ids)), ids


def test_mean_std_divides_by_n_minus_one():
    assert st.mean_std([1.0, 2.0, 6.0]) == st.MeanStd(3.0, math.sqrt(7.0), 3)
    assert st.mean_std([0.98]) == st.MeanStd(0.98, None, 1)


# ---- estimates


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.array(0.5), torch.tensor(0.5), 0.5])
def test_an_estimate_holds_plain_numbers(number):
    found = st.Estimate(number, np.int64(7), number, number, "%", "why")
    assert found == st.Estimate(0.5, 7, 0.5, 0.5, "%", "why")
    assert [type(value) for value in vars(found).values()] == [float, int, float, float, str, str]
    assert st.Estimate(3) == st.Estimate(3.0)
    assert type(st.Estimate(3).value) is float
    assert st.Estimate(0.5, 0).n == 0
    assert st.Estimate(None, 0, note="no case") == st.Estimate(None, 0, None, None, "", "no case")


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"value": "0.5"}, TypeError, r"value = '0.5' \(str\): expected one number"),
        ({"value": True}, TypeError, "value = True"),
        ({"value": np.True_}, TypeError, "value = .*True"),
        ({"value": np.zeros(2)}, TypeError, "value = array.*ndarray.*expected one number"),
        ({"value": torch.zeros(2)}, TypeError, "value = tensor"),
        ({"value": 1.0, "low": [1]}, TypeError, r"low = \[1\] \(list\)"),
        ({"value": math.nan}, ValueError, "value = nan: not finite; if it is undefined, give None and a note"),
        ({"value": 1.0, "low": -math.inf}, ValueError, "low = -inf: not finite"),
        ({"value": 1.0, "high": math.inf}, ValueError, "high = inf: not finite"),
        ({"value": 1.0, "n": -1}, ValueError, "n = -1: expected how many cases there are, a whole number from 0"),
        ({"value": 1.0, "n": 2.0}, ValueError, "n = 2.0"),
        ({"value": 1.0, "n": True}, ValueError, "n = True"),
        ({"value": 1.0, "n": "3"}, ValueError, "n = '3'"),
        ({"value": 1.0, "unit": None}, TypeError, "unit = None, note = '': expected text"),
        ({"value": 1.0, "note": 3}, TypeError, "unit = '', note = 3: expected text"),
        ({"value": None}, ValueError, "value = None: an undefined value needs a note that says why"),
        ({"value": None, "note": "why", "low": 0.0}, ValueError, "has no interval"),
        ({"value": None, "note": "why", "high": 0.0}, ValueError, "has no interval"),
        ({"value": 0.5, "low": 0.6, "high": 0.4}, ValueError, "runs from 0.6 to 0.4; low must not exceed high"),
    ],
)
def test_an_estimate_refuses_what_is_no_number(given, error, sentence):
    with pytest.raises(error, match=sentence):
        st.Estimate(**given)


def test_an_estimate_in_another_unit():
    found = st.Estimate(0.25, 8, 0.125, 0.5, note="rough").times(100, "%")
    assert found == st.Estimate(25.0, 8, 12.5, 50.0, "%", "rough")
    assert st.Estimate(0.25, 8, low=0.125).times(8, "px") == st.Estimate(2.0, 8, 1.0, None, "px")
    assert st.Estimate(None, 3, note="why").times(100, "%") == st.Estimate(None, 3, unit="%", note="why")
    paired = st.paired_t([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    other = paired.times(100, "%")
    assert type(other) is st.PairedT
    assert (other.value, other.p, other.effect_size, other.n) == (200.0, paired.p, paired.effect_size, 3)
    assert (other.low, other.high) == (100 * paired.low, 100 * paired.high)


def test_an_estimate_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        st.Estimate(0.5).value = 0.6


# ---- bootstrap


def slow_draws(values, clusters, statistic, n_resamples, seed):
    """One resample after the other: draw clusters, put their members one after the other, take the statistic."""
    ids = sorted(set(clusters))
    rng, draws = np.random.default_rng(seed), []
    for _ in range(n_resamples):
        drawn = []
        for c in rng.integers(len(ids), size=len(ids)):
            drawn += [v for v, own in zip(values, clusters) if own == ids[c]]
        draws.append(statistic(drawn))
    return draws


@pytest.mark.parametrize(("name", "statistic"), [("mean", np.mean), ("median", np.median)])
@pytest.mark.parametrize("sizes", [[1] * 9, [1, 4, 2, 2], [3, 1, 1, 5, 2]])
def test_bootstrap_equals_the_slow_loop(name, statistic, sizes):
    clusters = np.repeat([f"road {i}" for i in range(len(sizes))], sizes)
    values = np.random.default_rng(3).exponential(size=len(clusters)).round(1)  # with ties
    mixed = np.random.default_rng(4).permutation(len(values))  # members of a cluster need not stand together
    draws = slow_draws(values[mixed], clusters[mixed], statistic, 300, seed=5)
    result = st.bootstrap(values[mixed], name, clusters[mixed], n_resamples=300, seed=5, confidence=0.9)
    assert result.value == pytest.approx(statistic(values), rel=1e-12)
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(draws, [0.05, 0.95])), rel=1e-12)
    assert result.n == len(values)


def test_bootstrap_of_a_function_and_of_one_undefined_in_some_resamples():
    x = np.arange(12.0)

    def ratio(values, weights):
        return weights @ values**2 / (weights @ values)

    result = st.bootstrap(x, ratio, n_resamples=400)
    assert result.value == pytest.approx((x**2).sum() / x.sum())
    assert result.low < result.value < result.high

    def rarely(values, weights):
        return np.where(weights[:, 0] > 3, np.nan, weights @ values)

    assert math.isfinite(st.bootstrap(x, rarely, n_resamples=400).high)
    with pytest.raises(ValueError, match="defined in only"):
        st.bootstrap(x, lambda v, w: np.where(w[:, 0] > 0, np.nan, w @ v), n_resamples=400)


def test_seeds_repeat_and_block_size_does_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    a, ids = clustered(rng)
    b, grid = rng.normal(size=len(a)), rng.normal(size=(3, len(a)))

    def everything(seed):
        return (
            st.bootstrap(a, "median", ids, n_resamples=50, seed=seed),
            st.bootstrap_seeds_images(grid, ids, n_resamples=50, seed=seed),
            st.auroc(a, b > 0, n_resamples=50, seed=seed),
            st.permutation_test(a, b, n_permutations=50, seed=seed),
            st.permutation_test(a, b, True, ids, n_permutations=50, seed=seed),
        )

    first, exact = everything(1), st.permutation_test(a[:5], b[:6])
    assert everything(1) == first
    assert all(one != other for one, other in zip(everything(2), first))
    monkeypatch.setattr(st, "_CELLS", 700)  # 7 resamples of 100 values at once
    assert st.permutation_test(a[:5], b[:6]) == exact
    for one, other in zip(everything(1), first):
        rounded = {name for name, value in vars(one).items() if type(value) is float}  # sums in another order
        for name, value in vars(one).items():
            expected = getattr(other, name)
            assert value == (pytest.approx(expected, rel=1e-12) if name in rounded else expected)
        assert len(rounded) > 1


def test_blocks_stay_small_whatever_n_is():
    for n, k in [(100, 100), (30_000, 30_000), (30_000, 300)]:
        blocks = st._resamples(np.arange(n) % k, k, 40_000, np.random.default_rng(0))
        assert next(blocks).nbytes <= 16 * 2**20
    assert next(st._labellings(30_000, None, 10_000, np.random.default_rng(0))).nbytes <= 16 * 2**20


def test_seeds_and_images_are_both_resampled():
    rng = np.random.default_rng(8)
    seeds, images = rng.normal(size=(40, 1)), rng.normal(size=(1, 60))
    both = st.bootstrap_seeds_images(seeds + images, n_resamples=4000)
    expected = math.sqrt(seeds.var() / 40 + images.var() / 60)  # the two parts are drawn independently
    assert (both.high - both.low) / (2 * 1.96) == pytest.approx(expected, rel=0.06)
    assert both.value == pytest.approx(seeds.mean() + images.mean())
    assert both.n == 60
    only_seeds = st.bootstrap_seeds_images(seeds + 0 * images, n_resamples=4000)
    assert (only_seeds.high - only_seeds.low) / (2 * 1.96) == pytest.approx(math.sqrt(seeds.var() / 40), rel=0.06)
    ids = np.repeat(np.arange(12), 5)
    shared = np.repeat(images[:, :12], 5, axis=1)
    whole = st.bootstrap_seeds_images(0 * seeds + shared, ids, n_resamples=4000)
    assert (whole.high - whole.low) / (2 * 1.96) == pytest.approx(math.sqrt(images[0, :12].var() / 12), rel=0.08)
    assert whole.n == 60  # images, not clusters of them


def test_seeds_and_images_weigh_unequal_clusters_by_their_images():
    values = np.array([[1.0, 1.0, 1.0, 7.0], [1.0, 1.0, 1.0, 7.0]])
    result = st.bootstrap_seeds_images(values, ["a", "a", "a", "b"], n_resamples=500, confidence=0.4)
    # draws: aa → 1, ab → (3·1 + 7)/4 = 2.5, bb → 7, with probabilities ¼, ½, ¼
    assert (result.value, result.low, result.high) == (2.5, 2.5, 2.5)
    assert st.bootstrap_seeds_images(values, ["a", "a", "a", "b"], n_resamples=500).high == 7.0


def test_whole_clusters_restore_the_coverage():
    rng, hits, n = np.random.default_rng(11), np.zeros(2), 150
    for repeat in range(n):
        x, ids = clustered(rng)
        for way, clusters in enumerate((None, ids)):
            interval = st.bootstrap(x, clusters=clusters, n_resamples=300, seed=repeat)
            hits[way] += interval.low <= 0.0 <= interval.high
    unclustered, whole = hits / n
    assert unclustered < 0.75  # nominal 0.95
    assert 0.88 <= whole <= 0.99


def test_paired_interval_is_the_bootstrap_of_the_differences():
    rng = np.random.default_rng(2)
    base, ids = clustered(rng)
    a, b = base + 0.1, base + 0.05 * rng.normal(size=len(base))
    options = {"n_resamples": 200, "seed": 4, "confidence": 0.9}
    assert st.paired_interval(a, b, ids, **options) == st.bootstrap(a - b, clusters=ids, **options)
    assert st.paired_interval(a, b).low > 0  # the pairing removes what the images share
    assert st.bootstrap(a).low < 0


def test_proportion_by_hand():
    # z = 1.959964: centre (0.9 + z²/20)/(1 + z²/10), half z·√(0.009 + z²/400)/(1 + z²/10)
    result = st.proportion(9, 10)
    assert (result.value, result.low, result.high) == pytest.approx((0.9, 0.595850, 0.982124), abs=1e-6)
    assert (st.proportion(0, 10).low, st.proportion(10, 10).high) == (0.0, 1.0)
    assert st.proportion(0, 10).high == pytest.approx(1.959964**2 / (10 + 1.959964**2), abs=1e-6)


def test_effect_size_counts_pairs():
    rng = np.random.default_rng(6)
    a, b = rng.integers(0, 6, 17), rng.integers(1, 8, 23)
    slow = sum((x > y) - (x < y) for x in a.tolist() for y in b.tolist()) / (17 * 23)
    assert st.effect_size(a, b) == pytest.approx(slow, abs=1e-15)
    assert st.effect_size(b, a) == pytest.approx(-slow, abs=1e-15)
    assert st.effect_size([2, 3], [0, 1]) == 1.0
    assert st.effect_size([1, 1], [1]) == 0.0


# ---- tests


def test_paired_t_by_hand():
    # differences 1, 2, 3: mean 2, std 1, t = 2√3, t(0.975; 2) = 4.302653
    result = st.paired_t([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (result.value, result.effect_size, result.n) == (2.0, 2.0, 3)
    assert result.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)
    assert result.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    # two degrees of freedom have a closed form: p = 1 − t/√(t² + 2)
    assert result.p == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-12)


def test_paired_t_without_spread_has_no_p():
    result = st.paired_t([0.3, 0.4, 0.9], [0.2, 0.3, 0.8])  # equal differences up to rounding
    assert (result.p, result.effect_size) == (None, None)
    assert result.low == result.high == pytest.approx(0.1)


def slow_permutation(a, b, unit, paired, alternative):
    """Every arrangement by itertools, with plain sums."""
    ids = sorted(set(unit))
    fold = {"two-sided": abs, "greater": float, "less": lambda d: -d}[alternative]
    if paired:
        d = [x - y for x, y in zip(a, b)]
        null = [
            sum(sign[ids.index(u)] * v for u, v in zip(unit, d)) / len(d)
            for sign in itertools.product([1, -1], repeat=len(ids))
        ]
        observed = sum(d) / len(d)
    else:
        pooled, in_a = [*a, *b], len(set(unit[: len(a)]))
        null = []
        for chosen in itertools.combinations(ids, in_a):
            one = [v for u, v in zip(unit, pooled) if u in chosen]
            other = [v for u, v in zip(unit, pooled) if u not in chosen]
            null.append(sum(one) / len(one) - sum(other) / len(other))
        observed = sum(a) / len(a) - sum(b) / len(b)
    return observed, sum(fold(d) >= fold(observed) - 1e-9 for d in null) / len(null), len(null)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("grouped", [True, False])
def test_exact_permutation_equals_the_enumeration(paired, grouped, alternative):
    rng = np.random.default_rng(9)
    a = (rng.normal(size=7) + 0.8).round(1)
    b = rng.normal(size=7 if paired else 5).round(1)
    n = 7 if paired else 12
    ids = [0, 0, 0, 1, 2, 3, 3, 4, 4, 5, 6, 6][:n] if grouped else list(range(n))
    effect, p, arrangements = slow_permutation(a.tolist(), b.tolist(), ids, paired, alternative)
    result = st.permutation_test(a, b, paired, ids if grouped else None, alternative=alternative)
    assert result.exact
    assert result.n_permutations == arrangements
    assert result.effect == pytest.approx(effect, abs=1e-12)
    assert result.p == pytest.approx(p, abs=1e-12)
    d = a - b if paired else None
    size = d.mean() / d.std(ddof=1) if paired else st.effect_size(a, b)
    assert result.effect_size == pytest.approx(size)


def test_random_permutations_count_the_observed_arrangement():
    a, b = np.linspace(5, 6, 40), np.linspace(0, 1, 40)
    for paired in (True, False):
        result = st.permutation_test(a, b, paired, n_permutations=99)
        assert not result.exact
        assert result.p == 1 / 100  # no arrangement reaches it, and still p is not 0
        assert st.permutation_test(a, b, paired, n_permutations=99, alternative="less").p == 1.0


def test_random_permutations_come_near_the_exact_p():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=8) + 0.7, rng.normal(size=8)
    for paired in (True, False):
        exact = st.permutation_test(a, b, paired, n_permutations=20000)
        drawn = st.permutation_test(a, b, paired, n_permutations=200)
        assert exact.exact
        assert not drawn.exact
        assert drawn.p == pytest.approx(exact.p, abs=4 * math.sqrt(exact.p / 200))


def test_p_is_uniform_under_the_null_also_with_clusters():
    rng, n = np.random.default_rng(21), 200
    p = np.empty((3, n))
    for i in range(n):
        x, ids = clustered(rng, n_clusters=14, size=3)
        p[0, i] = st.permutation_test(x[:21], x[21:], clusters=ids, n_permutations=199, seed=i).p
        p[1, i] = st.permutation_test(x, 0 * x, True, ids, n_permutations=199, seed=i).p
        p[2, i] = st.permutation_test(x, 0 * x, True, n_permutations=199, seed=i).p  # clusters forgotten
    steps = np.array([0.05, 0.1, 0.25, 0.5, 0.75])
    share = (p[:, :, None] <= steps).mean(axis=1)
    assert np.abs(share[:2] - steps).max() < 0.1
    assert share[2, 0] > 0.15  # as if the images were independent: far too many small p


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.5 → ×4, ×3, ×2, ×1 = 0.04, 0.06, 0.06, 0.5
    assert st.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    # a smaller product later may not undercut an earlier one, and nothing exceeds 1
    assert st.holm([0.2, 0.21, 0.9]) == pytest.approx([0.6, 0.6, 0.9])
    assert st.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert st.holm([0.04]) == pytest.approx([0.04])


def test_auroc_counts_pairs_and_leaves_out_resamples_of_one_class():
    scores, labels = [0.1, 0.4, 0.4, 0.8, 0.9], [0, 0, 1, 1, 0]
    # pairs (positive, negative): 0.4 over 0.1, ties 0.4, under 0.9; 0.8 over 0.1, 0.4, under 0.9 → 3.5 of 6
    result = st.auroc(scores, labels, n_resamples=500)
    assert result.value == pytest.approx(3.5 / 6)
    assert 0.0 <= result.low < result.value < result.high <= 1.0
    with pytest.raises(ValueError, match="defined in only"):
        st.auroc([0.1, 0.9], [0, 1])


# ---- refused

GOOD = [0.1, 0.5, 0.7]
REFUSED = {
    "empty": (lambda: st.mean_std([]), "values has shape"),
    "one value": (lambda: st.bootstrap([1.0]), "at least 2 values or clusters"),
    "one cluster": (lambda: st.bootstrap(GOOD, clusters=[7, 7, 7]), "at least 2 values or clusters"),
    "NaN": (lambda: st.bootstrap([1.0, float("nan")]), "NaN or infinite"),
    "infinite": (lambda: st.effect_size(GOOD, [float("inf")]), "b holds NaN"),
    "matrix": (lambda: st.bootstrap(np.ones((2, 2))), r"shape \(2, 2\)"),
    "statistic": (lambda: st.bootstrap(GOOD, "mode"), "'mode'"),
    "resamples": (lambda: st.bootstrap(GOOD, n_resamples=0), "n_resamples is 0"),
    "confidence": (lambda: st.bootstrap(GOOD, confidence=95), "confidence is 95"),
    "confidence t": (lambda: st.paired_t(GOOD, GOOD, 1.0), "confidence is 1.0"),
    "clusters": (lambda: st.bootstrap(GOOD, clusters=[1, 2]), r"expected \(3,\)"),
    "NaN cluster": (lambda: st.bootstrap(GOOD, clusters=[1, 2, float("nan")]), "not NaN"),
    "one seed": (lambda: st.bootstrap_seeds_images([GOOD]), "length ≥ 2"),
    "one image": (lambda: st.bootstrap_seeds_images([[1.0], [2.0]]), "at least 2 values or clusters"),
    "image clusters": (lambda: st.bootstrap_seeds_images([GOOD, GOOD], [1, 2]), r"expected \(3,\)"),
    "lengths": (lambda: st.paired_interval(GOOD, [1.0, 2.0]), "3 values and b has 2"),
    "lengths t": (lambda: st.paired_t(GOOD, [1.0, 2.0]), "3 values and b has 2"),
    "one pair": (lambda: st.paired_t([1.0], [2.0]), "length ≥ 2"),
    "lengths p": (lambda: st.permutation_test(GOOD, [1.0, 2.0], True), "3 values and b has 2"),
    "no b": (lambda: st.permutation_test(GOOD, []), "b has shape"),
    "alternative": (lambda: st.permutation_test(GOOD, GOOD, alternative="both"), "'both'"),
    "permutations": (lambda: st.permutation_test(GOOD, GOOD, n_permutations=0), "n_permutations is 0"),
    "mixed cluster": (lambda: st.permutation_test([1, 2], [3, 4], clusters=[0, 1, 1, 2]), "in a and in b"),
    "one-cluster p": (lambda: st.permutation_test(GOOD, GOOD, True, [1, 1, 1]), "at least 2 values"),
    "p-value": (lambda: st.holm([0.2, 1.2]), "from 0.2 to 1.2"),
    "no p-values": (lambda: st.holm([]), "p_values has shape"),
    "successes": (lambda: st.proportion(11, 10), "11 successes of 10"),
    "no cases": (lambda: st.proportion(0, 0), "0 successes of 0"),
    "half a case": (lambda: st.proportion(1.5, 3), "whole numbers"),
    "one class": (lambda: st.auroc(GOOD, [1, 1, 1]), "both 0 and 1"),
    "other labels": (lambda: st.auroc(GOOD, [1, 2, 1]), "both 0 and 1"),
    "labels": (lambda: st.auroc(GOOD, [1, 0]), "expected 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_clear_sentence(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_the_package_loads_its_modules_when_they_are_used():
    code = (
        "import sys, xai_utils.metrics as m; assert 'xai_utils.metrics.statistics' not in sys.modules;"
        "assert m.holm([0.5])[0] == 0.5 and m.RealismBand and set(dir(m)) == set(m.__all__);"
        "assert 'sklearn' not in sys.modules and 'scipy.stats' not in sys.modules\n"
        "for name in m.__all__: assert callable(getattr(m, name))\n"
        "try: m.nothing\n"
        "except AttributeError as error: assert 'nothing' in str(error)\n"
        "else: raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
