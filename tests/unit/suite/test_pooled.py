"""Differences over seeds: pooled image by image, tested once."""

import itertools

import numpy as np
import pytest

from xai_utils.metrics import statistics
from xai_utils.suite import over_seeds
from xai_utils.suite.pooled import Pooled, Reversal, pooled
from xai_utils.suite.record import Record

ENTRY = Pooled(
    arrays="table",
    values="id",
    ours="a",
    others=["b", "c"],
    clusters="segment",
    metrics={"difference": "P9.2.id_difference", "p": "P9.2.id_p"},
)
SEGMENTS = np.array(["s1", "s1", "s2", "s3", "s3", "s4", "s5", "s6", "s6", "s7"])


class Kept:
    """What `aggregate` and `pooled` read of a record."""

    paper, arm = "09_none", "main"

    def __init__(self, seed, arrays, metrics):
        self.seed, self.arrays, self.metrics = seed, arrays, metrics

    def load_arrays(self, name):
        return self.arrays if name == "table" else None


def records(n=3, **changed):
    made = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        arrays = {"segment": SEGMENTS, "id_a": rng.normal(1, 0.1, 10)}
        arrays |= {"id_b": arrays["id_a"] - rng.normal(0.1, 0.2, 10), "id_c": rng.normal(0.2, 0.1, 10)}
        metrics = {
            "P9.2.id_difference": statistics.Estimate(0.4, 10, 0.1, 0.7),
            "P9.2.id_p": statistics.Estimate(0.3, 10),
        }
        made.append(Kept(seed, arrays | changed, metrics))
    return made


def test_a_p_value_over_seeds_is_that_of_one_test_of_each_images_mean():
    found = over_seeds.aggregate(records(), [ENTRY])
    means = {name: np.mean([record.arrays[f"id_{name}"] for record in records()], axis=0) for name in "abc"}
    p = {}
    for other in "bc":
        apart, names = means["a"] - means[other], sorted(set(SEGMENTS))
        observed, hits, count = abs(apart.mean()), 0, 0
        for signs in itertools.product((-1, 1), repeat=len(names)):
            sign = dict(zip(names, signs))
            flipped = abs(sum(sign[segment] * value for segment, value in zip(SEGMENTS, apart)) / len(apart))
            hits, count = hits + (flipped >= observed - 1e-12), count + 1
        p[other] = hits / count
    low, high = sorted(p.values())
    assert found["P9.2.id_p"].value == pytest.approx(max(2 * low, high))  # Holm, the larger of the two
    assert 0.05 < found["P9.2.id_p"].value < 1
    assert (found["P9.2.id_p"].n, found["P9.2.id_difference"].n) == (3, 3)
    smallest = min((means["a"] - means[other]).mean() for other in "bc")
    assert found["P9.2.id_difference"].value == pytest.approx(smallest)
    apart = np.stack([record.arrays["id_a"] - record.arrays["id_b"] for record in records()])
    each = statistics.bootstrap_seeds_images(apart, SEGMENTS)
    assert found["P9.2.id_difference"].low == pytest.approx(each.low)


def test_seeds_of_which_one_lacks_the_arrays_are_as_before():
    some = records()
    some[1].arrays = {"segment": SEGMENTS}
    for told in (some, [Kept(seed, None, record.metrics) for seed, record in enumerate(some)]):
        assert over_seeds.aggregate(told, [ENTRY]) == over_seeds.aggregate(told)
        assert over_seeds.aggregate(told, [ENTRY])["P9.2.id_p"].value is None
    assert over_seeds.aggregate(records(1), [ENTRY])["P9.2.id_p"].value == 0.3  # one seed: its own


def test_other_images_are_refused_and_one_group_says_nothing():
    some = records()
    some[2].arrays["segment"] = SEGMENTS[::-1]
    with pytest.raises(ValueError, match=r"seed 2: table\.npz is of other .* seed 0 \(segment differs\)"):
        pooled(ENTRY, some)
    alone = pooled(ENTRY, records(segment=np.full(10, "s1")))
    assert {estimate.value for estimate in alone.values()} == {None}
    assert {estimate.note for estimate in alone.values()} == {"one group of images"}


def test_a_record_finds_its_arrays_and_says_when_there_are_none(tmp_path):
    record = Record.model_construct()
    record._folder = tmp_path
    assert record.load_arrays("table") is None
    np.savez_compressed(tmp_path / "table.npz", id_a=np.arange(3.0), segment=np.array(["x", "y", "y"]))
    kept = record.load_arrays("table")
    assert (kept["id_a"].tolist(), kept["segment"].tolist()) == ([0, 1, 2], ["x", "y", "y"])
    np.savez(tmp_path / "bad.npz", objects=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        record.load_arrays("bad")


def test_an_order_that_turns_round_over_seeds():
    """A leads on black by 0.3 in each seed and B on blur by 0.1; C leads in one seed alone and counts for nothing."""
    entry = Reversal(
        arrays="table",
        conditions=["black", "blur"],
        methods=["a", "b", "c"],
        clusters="segment",
        metric="X9.1.r",
    )
    made, noise = [], np.random.default_rng(1).normal(0, 0.02, (3, 3, 10))
    for seed in range(3):
        arrays = {"segment": SEGMENTS, "black_a": 0.8 + noise[seed, 0], "black_b": 0.5 + noise[seed, 1]}
        arrays |= {"blur_a": 0.4 + noise[seed, 2], "blur_b": 0.5 + noise[seed, 0]}
        arrays |= {"black_c": np.full(10, 1.0 * (seed == 0)), "blur_c": np.full(10, 0.1)}
        made.append(Kept(seed, arrays, {}))
    found = over_seeds.aggregate(made, [entry])["X9.1.r"]
    ahead = np.mean([record.arrays["black_a"] - record.arrays["black_b"] for record in made])
    behind = np.mean([record.arrays["blur_b"] - record.arrays["blur_a"] for record in made])
    assert found.value == pytest.approx(min(ahead, behind))
    assert 0 < found.low < found.value < found.high < 0.2
    for record in made:  # A leads on blur, too
        record.arrays["blur_a"] = record.arrays["blur_b"] + 0.2
    assert pooled(entry, made)["X9.1.r"].high < 0
