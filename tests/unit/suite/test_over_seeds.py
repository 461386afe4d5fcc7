"""Metrics over seeds: the wider interval, p values that stay alone, and quantities that keep their bounds."""

import json
import math
from itertools import groupby
from pathlib import Path

import pytest
from scipy import stats
from small_records import PAPER, row, small_checkout, write

from xai_utils.metrics import Estimate
from xai_utils.suite import over_seeds, report

RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture
def root(tmp_path, monkeypatch):
    return small_checkout(tmp_path, monkeypatch)


def test_seeds_are_averaged_with_the_wider_of_two_intervals(root):
    odd = [0.10, 0.20, 0.24]
    for seed, share in enumerate(odd):
        write(root, seed, odd=share, accuracy=98.4 + seed / 10)
    table = report.seeds_table(PAPER)
    mean = sum(odd) / 3
    std = math.sqrt(sum((x - mean) ** 2 for x in odd) / 2)
    low, high = stats.t.interval(0.95, 2, mean, std / math.sqrt(3))
    assert (low < 0.15, high > 0.3) == (True, True)  # wider than the runs' own
    got = table.loc["P1.4.odd_share"]
    assert [got["mean"], got["std"], got["low"], got["high"]] == pytest.approx([mean, std, low, high])
    assert got["n"] == 3
    same = table.loc["P1.3.a.distance_difference"]  # equal in every seed: the runs' own interval stays
    assert [same["mean"], same["std"], same["low"], same["high"]] == pytest.approx([0.3, 0, 0.2, 0.4])
    accuracy = table.loc["P1.1.accuracy"]  # no own interval: that of the seeds
    assert accuracy["high"] - accuracy["mean"] == pytest.approx(4.30265273 * 0.1 / math.sqrt(3))


def test_one_seed_keeps_its_own_interval_and_undefined_stays_undefined(root):
    write(root)
    one = over_seeds.aggregate(report.load())["P1.4.odd_share"]
    assert one == over_seeds.OverSeeds(0.2, 1, 0.15, 0.3)
    path = write(root, 1)
    data = json.loads(path.read_text())
    data["metrics"]["P1.4.odd_share"] |= {"value": None, "low": None, "high": None, "note": "no case"}
    del data["metrics"]["P1.1.accuracy"]
    path.write_text(json.dumps(data))
    two = over_seeds.aggregate(report.load())
    assert two["P1.4.odd_share"] == over_seeds.OverSeeds(None, 2, note="not defined in every seed")
    assert "P1.1.accuracy" not in two
    got = report.suite_table()
    assert row(got, "P1.4")["standard_verdict"] == "not tested"
    assert row(got, "P1.1")["standard_verdict"] == "no record"
    assert "recorded before this rule: not measured: P1.1.accuracy" in row(got, "P1.1")["standard_evidence"]


class OfMetrics:
    """What `aggregate` reads of a record."""

    def __init__(self, **metrics):
        self.metrics = {name.replace("__", "."): Estimate(**metric) for name, metric in metrics.items()}


def test_p_values_of_several_seeds_are_not_averaged():
    records = [OfMetrics(P5__2__id_p={"value": p}, P4__1__distance_p_true={"value": p}) for p in (0.001, 0.94, 0.99)]
    alone = over_seeds.aggregate(records[:1])["P5.2.id_p"]
    assert (alone.value, alone.low, alone.high, alone.n) == (0.001, None, None, 1)
    for entry in over_seeds.aggregate(records).values():
        assert entry == over_seeds.OverSeeds(None, 3, note="p values are not averaged")


def test_an_interval_ends_where_the_quantity_does():
    values = {
        "auroc": (0.70, 0.74, 0.99),
        "iou": (0.0, 0.01, 0.2),
        "mae": (0.0, 0.01, 0.2),
        "blurred": (0.0, 0.01, 0.2),
    }
    made = [OfMetrics(**{f"P3__4__{k}": {"value": v[seed]} for k, v in values.items()}) for seed in range(3)]
    got = over_seeds.aggregate(made)
    for name, kept in {"auroc": (-math.inf, 1), "iou": (0, 1), "mae": (0, math.inf), "blurred": (-9, 9)}.items():
        spread = stats.sem(values[name])
        low, high = stats.t.interval(0.95, 2, sum(values[name]) / 3, spread)
        assert low < 0 or high > 1  # what the t interval alone would say
        entry = got[f"P3.4.{name}"]
        assert [entry.low, entry.high] == pytest.approx([max(low, kept[0]), min(high, kept[1])])


@pytest.mark.parametrize(
    ("metric", "unit", "expected"),
    [
        ("P1.1.accuracy", "%", (0, 100)),
        ("P5.3.accuracy_difference", "", (-1, 1)),
        ("P5.1.lrp_bn.iou", "", (0, 1)),
        ("P3.4.auroc", "", (0, 1)),
        ("X3.2.random.auroc_gain_over_confidence", "", (-1, 1)),
        ("P2.7.ram.misled_share_negative", "", (0, 1)),
        ("P2.5.negative_weights", "share", (0, 1)),
        ("P2.4.clip.share_of_r", "", (-math.inf, math.inf)),
        ("P2.4.signed.auc_difference", "", (-math.inf, math.inf)),
        ("P5.1.lrp_bn.id_score", "", (-1, 1)),
        ("P5.2.id_difference", "", (-2, 2)),
        ("P4.1.distance_effect_size_true", "", (-1, 1)),
        ("P4.1.distance_difference_true", "", (-math.inf, math.inf)),
        ("P4.2.between_class_ratio", "", (0, math.inf)),
        ("P1.3.misclassified", "images", (0, math.inf)),
        ("P2.1.r2", "", (-math.inf, 1)),
    ],
)
def test_the_bounds_of_a_metric_by_its_id_and_unit(metric, unit, expected):
    assert over_seeds.bounds(metric, unit) == expected


def test_every_committed_value_lies_within_its_bounds_and_every_p_value_between_0_and_1():
    records, wrong = report.scan(RESULTS, "standard")[0], []
    for record in records:
        for name, metric in record.metrics.items():
            least, most = (0, 1) if over_seeds.is_p_value(name) else over_seeds.bounds(name, metric.unit)
            ends = [end for end in (metric.low, metric.value, metric.high) if end is not None]
            wrong += [name] * (not all(least - 1e-12 <= end <= most + 1e-12 for end in ends))
    assert sorted(set(wrong)) == []
    assert {name for record in records for name in record.metrics if over_seeds.is_p_value(name)} == {
        *(f"P3.2.{what}_p" for what in ("energy", "coverage", "pieces")),
        *(f"P4.1.distance_p_{which}" for which in ("true", "predicted")),
        *(f"P5.2.{what}_p" for what in ("insertion", "id")),
    }


def test_no_interval_over_committed_seeds_holds_an_impossible_number():
    records = report.scan(RESULTS, "standard")[0]
    for _, own in groupby(records, key=lambda record: (record.paper, record.arm)):
        for name, entry in over_seeds.aggregate([*own]).items():
            least, most = over_seeds.bounds(name, entry.unit)
            if entry.low is not None:
                assert least <= entry.low <= entry.value <= entry.high <= most, name
