"""Differences over seeds: pooled image by image, tested once."""

import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from xai_utils.metrics import statistics
from xai_utils.suite import pooled
from xai_utils.suite.over_seeds import aggregate
from xai_utils.suite.paired import Paired, Reversal, compared

ENTRY = Paired(
    arrays="table",
    values="id",
    ours="a",
    others=["b", "c"],
    clusters="segment",
    metrics={"difference": "P9.2.id_difference", "p": "P9.2.id_p"},
)
SEGMENTS = np.array(["s1", "s1", "s2", "s3", "s3", "s4", "s5", "s6", "s6", "s7"])


class Kept:
    """What `pooled` and `paired` read of a record, and the arrays that lie beside it."""

    paper, arm, profile = "09_none", "main", "standard"

    def __init__(self, seed, arrays, metrics):
        self.seed, self.arrays, self.metrics = seed, arrays, metrics


def laid_out(tree, made):
    """The records, their arrays written into a tree, by file if there are several."""
    for record in made:
        folder = tree / f"standard/09_none/main/seed_{record.seed}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        files = record.arrays if record.arrays and "segment" not in record.arrays else {"table": record.arrays}
        for name, arrays in files.items():
            if arrays is not None:
                np.savez_compressed(folder / f"{name}.npz", **arrays)
    return made


def over_seeds(tree, entry, made):
    paper = SimpleNamespace(pooled=[entry], kept_for=lambda arm, seed: "")
    return pooled.over_seeds(paper, laid_out(tree, made), tree)


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


def test_a_p_value_over_seeds_is_that_of_one_test_of_each_images_mean(tmp_path):
    found = over_seeds(tmp_path, ENTRY, records())
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


def test_seeds_of_which_one_lacks_the_arrays_are_as_before(tmp_path):
    some = records()
    some[1].arrays = {"segment": SEGMENTS}
    for told in (some, [Kept(seed, None, record.metrics) for seed, record in enumerate(some)]):
        assert over_seeds(tmp_path, ENTRY, told) == aggregate(told)
        assert over_seeds(tmp_path, ENTRY, told)["P9.2.id_p"].value is None
    assert over_seeds(tmp_path, ENTRY, records(1))["P9.2.id_p"].value == 0.3  # one seed: its own


def test_other_images_are_refused_and_one_group_says_nothing(tmp_path):
    some = records()
    some[2].arrays["segment"] = SEGMENTS[::-1]
    with pytest.raises(ValueError, match=r"seed 2: table\.segment is of other images .* of seed 0"):
        compared(ENTRY, laid_out(tmp_path, some), tmp_path)
    alone = compared(ENTRY, laid_out(tmp_path, records(segment=np.full(10, "s1"))), tmp_path)
    assert {estimate.value for estimate in alone.values()} == {None}
    assert {estimate.note for estimate in alone.values()} == {"one group of images"}


def test_an_order_that_turns_round_over_seeds(tmp_path):
    """A leads on black by 0.3 in each seed and B on blur by 0.1; C leads in one seed alone and counts for nothing."""
    entry = Reversal(
        arrays=["black", "blur"],
        methods=["a", "b", "c"],
        clusters="segment",
        metric="X9.1.r",
    )
    made, noise = [], np.random.default_rng(1).normal(0, 0.02, (3, 3, 10))
    for seed in range(3):
        black = {"a": 0.8 + noise[seed, 0], "b": 0.5 + noise[seed, 1], "c": np.full(10, 1.0 * (seed == 0))}
        blur = {"a": 0.4 + noise[seed, 2], "b": 0.5 + noise[seed, 0], "c": np.full(10, 0.1)}
        kept = {name: {"segment": SEGMENTS, **arrays} for name, arrays in (("black", black), ("blur", blur))}
        made.append(Kept(seed, kept, {}))
    found = over_seeds(tmp_path, entry, made)["X9.1.r"]
    ahead = np.mean([record.arrays["black"]["a"] - record.arrays["black"]["b"] for record in made])
    behind = np.mean([record.arrays["blur"]["b"] - record.arrays["blur"]["a"] for record in made])
    assert found.value == pytest.approx(min(ahead, behind))
    assert 0 < found.low < found.value < found.high < 0.2
    for record in made:  # A leads on blur, too
        record.arrays["blur"]["a"] = record.arrays["blur"]["b"] + 0.2
    assert compared(entry, laid_out(tmp_path, made), tmp_path)["X9.1.r"].high < 0
