"""Means, differences, balanced accuracy and AUROC over groups of images, against plain loops over the resamples."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from xai_utils.metrics import estimates, statistics
from xai_utils.metrics.statistics import Estimate

SEED = 0


def drawn_units(clusters, seed, n_resamples=2000):
    """Rows (lists of image numbers) of each resample, with the clusters drawn as `statistics.bootstrap` draws them."""
    names, unit = np.unique(clusters, return_inverse=True)
    for drawn in np.random.default_rng(seed).integers(len(names), size=(n_resamples, len(names))):
        yield np.concatenate([np.flatnonzero(unit == k) for k in drawn])


def expect_interval(found, statistic, clusters, seed):
    """`found` is the statistic of all rows, with the quantiles of it over the resamples where it is defined."""
    rows = [statistic(rows) for rows in drawn_units(clusters, seed)]
    low, high = np.quantile([value for value in rows if not math.isnan(value)], [0.025, 0.975])
    n = len(clusters)
    assert (found.value, found.n, found.low, found.high) == (
        pytest.approx(statistic(np.arange(n))),
        n,
        pytest.approx(low),
        pytest.approx(high),
    )


VALUES = np.round(np.random.default_rng(1).random(24), 1)
TILES = np.repeat(list("abcdefghijkl"), 2)


@pytest.mark.parametrize("clusters", [None, TILES])
def test_interval_by_resampling(clusters):
    units = np.arange(24) if clusters is None else clusters
    found = estimates.mean(torch.from_numpy(VALUES), clusters, 3)
    expect_interval(found, lambda rows: VALUES[rows].mean(), units, 3)
    assert found.value == pytest.approx(sum(VALUES.tolist()) / 24)


def test_interval_of_fewer_than_two_groups_is_undefined():
    note = "images of 1 groups: fewer than two"
    assert estimates.mean(VALUES[:3], np.array(["a"] * 3), 0) == Estimate(None, 3, note=f"3 {note}")
    assert estimates.mean(VALUES[:1], None, 0) == Estimate(None, 1, note=f"1 {note}")
    assert estimates.mean(torch.empty(0), None, 0).note == "0 images of 0 groups: fewer than two"


@pytest.mark.parametrize("clusters", [None, TILES])
def test_difference_by_resampling(clusters):
    one = np.arange(24) % 3 == 0

    def statistic(rows):
        picked, group = VALUES[rows], one[rows]
        return picked[group].mean() - picked[~group].mean() if group.any() and not group.all() else math.nan

    units = np.arange(24) if clusters is None else clusters
    expect_interval(estimates.difference(VALUES, one, clusters, 5), statistic, units, 5)


@pytest.mark.parametrize("count", [0, 2, 4, 6])
def test_a_difference_needs_three_groups_on_either_side(count):
    one = np.arange(6) < count
    note = f"{count} of 6 images, of {count} groups ({6 - count} the others): fewer than 3"
    assert estimates.difference(VALUES[:6], one, None, 0) == Estimate(None, 6, note=note)
    assert all(map(math.isnan, estimates.permuted(VALUES[:6], one, None, 0)))


def test_images_of_one_tile_count_once_in_a_difference():
    one = np.arange(24) < 5  # of tiles a, b and c: the third lies on both sides
    assert estimates.difference(VALUES, one, TILES, 0).value is not None
    assert not math.isnan(estimates.permuted(VALUES, one, TILES, 0, 50)[0])
    one = np.arange(24) < 4
    note = "4 of 24 images, of 2 groups (10 the others): fewer than 3"
    assert estimates.difference(VALUES, one, TILES, 0).note == note
    assert estimates.auroc(VALUES, one, TILES, 0).note == note
    assert math.isnan(estimates.permuted(VALUES, one, TILES, 0)[0])


def relabellings(one, clusters):
    """Every allowed labelling, equally likely: pure clusters among each other, mixed ones within."""
    names = sorted(set(clusters))
    rows = {name: [i for i, c in enumerate(clusters) if c == name] for name in names}
    pure = [name for name in names if len({one[i] for i in rows[name]}) == 1]
    mixed = [name for name in names if name not in pure]
    sides = [one[rows[name][0]] for name in pure]
    within = [[one[i] for i in rows[name]] for name in mixed]
    for whole in itertools.permutations(sides):
        for parts in itertools.product(*(list(itertools.permutations(part)) for part in within)):
            labels = [None] * len(one)
            for name, side in zip(pure, whole):
                for i in rows[name]:
                    labels[i] = side
            for name, part in zip(mixed, parts):
                for i, side in zip(rows[name], part):
                    labels[i] = side
            yield np.array(labels)


CASES = {
    "every image for itself": ([1, 1, 1, 0, 0, 0, 0], "abcdefg"),
    "whole clusters only": ([1, 1, 1, 0, 0, 0, 1, 0], "aabccdfg"),
    "pure clusters of unequal size": ([1, 1, 1, 1, 0, 0, 0, 0], "aabcdeef"),
    "mixed clusters only": ([1, 0, 0, 1, 1, 0, 1, 0], "aaabbbcc"),
    "pure and mixed": ([1, 1, 0, 0, 1, 0, 1, 0], "aebcdddd"),
}


@pytest.mark.parametrize("case", CASES)
def test_permuted_against_all_allowed_relabellings(case):
    one, clusters = CASES[case]
    one, clusters = np.array(one, dtype=bool), np.array(list(clusters))
    values = np.array([0.9, 0.7, 0.45, 0.3, 0.5, 0.2, 0.65, 0.1])[: len(one)]
    observed = abs(values[one].mean() - values[~one].mean())
    differences = [abs(values[x].mean() - values[~x].mean()) for x in relabellings(one, clusters)]
    exact = np.mean([difference >= observed - 1e-12 for difference in differences])
    p, delta = estimates.permuted(values, one, clusters, SEED)
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 10000) + 2e-4)
    pairs = [np.sign(a - b) for a in values[one] for b in values[~one]]
    assert delta == pytest.approx(np.mean(pairs))
    assert estimates.permuted(values, one, clusters, SEED) == (p, delta)


def test_permuted_by_hand():
    values = np.array([5.0, 6.0, 7.0, 8.0, 0.0, 1.0, 2.0, 3.0])
    one = np.arange(8) < 4
    p, delta = estimates.permuted(values, one, None, SEED)
    assert p == pytest.approx(2 / math.comb(8, 4), abs=0.006)
    assert delta == 1
    tiles = np.array(list("aabcddef"))
    assert estimates.permuted(values, one, tiles, SEED)[0] == pytest.approx(2 / math.comb(6, 3), abs=0.012)
    assert estimates.permuted(values, ~one, None, SEED)[1] == -1
    assert estimates.permuted(values, one, None, SEED, 99)[0] >= 1 / 100
    far = np.concatenate([np.arange(30.0) + 100, np.arange(30.0)])
    assert estimates.permuted(far, np.arange(60) < 30, None, SEED, 99)[0] == 1 / 100  # never below 1 / (1 + draws)
    assert estimates.permuted(far, np.arange(60) % 2 == 0, None, 0) != estimates.permuted(
        far, np.arange(60) % 2 == 0, None, 1
    )
    equal = estimates.permuted(np.full(8, 0.1), one, None, SEED)
    assert equal == (1, 0)


def test_defined_values():
    assert estimates.defined(0.25, 8) == Estimate(0.25, 8)
    assert estimates.defined(math.nan, 1) == Estimate(None, 1, note="too few images")


LABELS = np.array([0, 0, 0, 0, 0, 2, 2, 2, 1, 1, 1, 1] * 2)
PREDICTED = np.array([0, 0, 0, 1, 0, 2, 1, 0, 1, 0, 1, 1, 0, 2, 0, 1, 0, 2, 2, 0, 1, 0, 2, 1])
OTHER = np.array([0, 1, 0, 1, 1, 2, 1, 2, 1, 2, 1, 0, 0, 2, 1, 1, 0, 0, 2, 1, 1, 0, 1, 1])


@pytest.mark.parametrize("clusters", [None, TILES])
def test_balanced_accuracy_is_sklearns(clusters):
    def share(rows, predicted=PREDICTED):
        return np.mean([(predicted[rows] == LABELS[rows])[LABELS[rows] == k].mean() for k in set(LABELS[rows])])

    units = np.arange(24) if clusters is None else clusters
    found = estimates.balanced_accuracy(PREDICTED == LABELS, LABELS, clusters, 2)
    assert found.value == pytest.approx(balanced_accuracy_score(LABELS, PREDICTED))
    expect_interval(found, share, units, 2)
    gain = (PREDICTED == LABELS).astype(int) - (OTHER == LABELS)
    found = estimates.balanced_accuracy(gain, LABELS, clusters, 2)
    scores = [balanced_accuracy_score(LABELS, guess) for guess in (PREDICTED, OTHER)]
    assert found.value == pytest.approx(scores[0] - scores[1])
    expect_interval(found, lambda rows: share(rows) - share(rows, OTHER), units, 2)


def test_balanced_accuracy_of_fewer_than_two_groups_is_undefined():
    right = np.array([True, False, True])
    expected = Estimate(None, 3, note="3 images of fewer than two groups")
    assert estimates.balanced_accuracy(right, np.array([0, 1, 1]), np.array(["a"] * 3), 0) == expected
    assert estimates.balanced_accuracy(right[:1], np.array([0]), None, 0).value is None
    assert estimates.balanced_accuracy(right[:0], np.empty(0, dtype=int), None, 0).n == 0


WRONG = np.arange(24) % 3 == 1


def area_of(scores, rows):
    up, down = scores[rows][WRONG[rows]], scores[rows][~WRONG[rows]]
    pairs = (up[:, None] > down) + (up[:, None] == down) / 2
    return pairs.mean() if pairs.size else math.nan


@pytest.mark.parametrize("clusters", [None, TILES])
def test_auroc_and_its_gain_by_pairs(clusters):
    units = np.arange(24) if clusters is None else clusters
    other = np.round(np.random.default_rng(9).random(24) + 0.3 * WRONG, 1)
    found = estimates.auroc(VALUES, WRONG, clusters, 4)
    assert found.value == pytest.approx(roc_auc_score(WRONG, VALUES))
    expect_interval(found, lambda rows: area_of(VALUES, rows), units, 4)
    gain = estimates.auroc_gain(other, VALUES, WRONG, clusters, 4)
    assert gain.value == pytest.approx(roc_auc_score(WRONG, other) - roc_auc_score(WRONG, VALUES))
    expect_interval(gain, lambda rows: area_of(other, rows) - area_of(VALUES, rows), units, 4)


def test_auroc_and_its_gain_without_an_answer():
    few = np.arange(24) == 3
    for wrong, count in ((few, 1), (~few, 23)):
        for found in (estimates.auroc(VALUES, wrong, None, 0), estimates.auroc_gain(VALUES, -VALUES, wrong, None, 0)):
            assert (found.value, found.n) == (None, 24)
            assert found.note == f"{count} of 24 images, of {count} groups ({24 - count} the others): fewer than 3"
    note = "the validation images are all right, or all wrong: nothing to learn the score from"
    for found in (estimates.auroc(None, WRONG, None, 0), estimates.auroc_gain(None, VALUES, WRONG, None, 0)):
        assert found == Estimate(None, 24, note=note)


def test_effect_size_of_permuted_is_that_of_the_statistics():
    assert estimates.permuted(VALUES, WRONG, TILES, 0, 100)[1] == statistics.effect_size(VALUES[WRONG], VALUES[~WRONG])
