"""Runs that a rule keeps for itself: what is computed from all of them, and that nothing else looks at them."""

import shutil

import numpy as np
import pytest
from small_records import PAPER, row, small_checkout, write

from xai_utils.suite import claims, findings, load_record, pooled, readme, report
from xai_utils.suite.record import stale


def run_of(n, patients, without, with_loss, seed):
    """Arrays of one run: n images of two classes and some patients, with these shares of errors."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    predicted = {f"judged.{when}": np.where(rng.random(n) < share, 1 - labels, labels)
                 for when, share in (("before", without), ("after", with_loss))}  # fmt: skip
    return {
        "judged.labels": labels,
        "groups.groups": np.char.add("p", rng.integers(patients, size=n).astype(str)),
    } | predicted


def slow_errors(run, patients, when):
    """1 − balanced accuracy where patient p counts patients[p] times."""
    wrong, images = {}, {}
    for label, guess, whose in zip(run["judged.labels"], run[f"judged.{when}"], run["groups.groups"]):
        images[label] = images.get(label, 0) + patients.get(whose, 0)
        wrong[label] = wrong.get(label, 0) + patients.get(whose, 0) * (guess != label)
    return np.mean([wrong[label] / images[label] for label in images])


RUNS = [run_of(120, 40, 0.30, 0.15, 1), run_of(90, 40, 0.15, 0.10, 2), run_of(150, 40, 0.2, 0.25, 3)]


def test_the_error_ratio_by_loops():
    found = pooled.error_ratio(RUNS)
    one = {f"p{k}": 1 for k in range(40)}
    without, with_loss = ([slow_errors(run, one, when) for run in RUNS] for when in ("before", "after"))
    assert found["error_ratio"].value == pytest.approx(np.mean(with_loss) / np.mean(without), rel=1e-12)
    assert found["networks"].value == found["error_ratio"].n == 3
    better = sum(a < b for a, b in zip(with_loss, without))
    assert (found["fewer_errors"].value, found["more_errors"].value) == (better, 3 - better)
    assert 0 < better < 3


def test_the_interval_draws_runs_and_patients_by_loops():
    known = sorted({name for run in RUNS for name in run["groups.groups"]})
    rng, ratios = np.random.default_rng(11), []
    for _ in range(1500):
        names, counts = np.unique(rng.choice(known, len(known)), return_counts=True)
        drawn = rng.integers(3, size=3)
        means = [np.mean([slow_errors(RUNS[k], dict(zip(names, counts)), when) for k in drawn])
                 for when in ("after", "before")]  # fmt: skip
        ratios.append(means[0] / means[1])
    found = pooled.error_ratio(RUNS)["error_ratio"]
    assert [found.low, found.high] == pytest.approx(np.quantile(ratios, [0.025, 0.975]), rel=0.05)
    assert found == pooled.error_ratio(RUNS)["error_ratio"]  # from its seed alone
    same = pooled.error_ratio([RUNS[0]] * 8)["error_ratio"]  # patients are still few, however many runs there are
    assert same.high - same.low > 0.5 * (pooled.error_ratio([RUNS[0]])["error_ratio"].high - same.value)
    half = pooled.error_ratio([run_of(4000, 2000, 0.2, 0.1, 5), run_of(4000, 2000, 0.2, 0.1, 6)])["error_ratio"]
    assert half.low < 0.5 < half.high < 0.6


def test_no_error_without_the_loss_leaves_the_ratio_undefined():
    perfect = RUNS[0] | {"judged.before": RUNS[0]["judged.labels"]}
    found = pooled.error_ratio([perfect])
    assert (found["error_ratio"].value, found["error_ratio"].note) == (None, "hardly any error without the loss")
    assert found["more_errors"].value == 1


def test_paper_4_s_rule_is_the_one_that_its_notebook_states():
    paper = claims.load().papers["04_cam_consistency"]
    rule = paper.judged["X4.4"].rule
    assert (rule.arms, rule.seeds, rule.needs[0].at_least) == (["grad_cam_20", "grad_cam_50"], [100, 119], 20)
    kept = [(arm, seed) for arm in ("grad_cam_20", "grad_cam_50", "none_20") for seed in (0, 99, 100, 119, 120)
            if paper.kept_for(arm, seed)]  # fmt: skip
    assert kept == [(arm, seed) for arm in rule.arms for seed in (100, 119)]
    assert paper.kept_for("grad_cam_20+own", 100) == "X4.4"
    assert {*pooled.POOLED} == {
        name for p in claims.load().papers.values() for name in p.judged if p.judged[name].rule.seeds
    }
    for ends, networks, verdict in (
        ((0.8, 0.95), 20, "reproduced"),
        ((0.8, 1.05), 20, "undecided"),
        ((1.01, 1.2), 20, "not reproduced"),
        ((0.8, 0.95), 19, "not tested"),
    ):
        ratio = pooled.OverSeeds(sum(ends) / 2, networks, *ends)
        metrics = {"X4.4.error_ratio": ratio, "X4.4.networks": pooled.OverSeeds(float(networks))}
        assert paper.judge("X4.4", metrics, {"arm": "grad_cam_20", "together": True}).verdict == verdict
    one = paper.judge("X4.4", {}, {"arm": "grad_cam_20", "seed": 100})
    assert (one.verdict, one.evidence) == (
        "not tested",
        "is judged over the seeds 100 to 119 together, not by one run",
    )


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout whose rule X1.2 keeps the seeds 100 and 101 of arm main, and seeds 0, 1, 100, 101 of that arm."""
    root = small_checkout(tmp_path, monkeypatch)
    path = root / "results/reported.yaml"
    old = """          arms: [main, improved]
          needs:
            - {metric: P1.3.misclassified, at_least: 10}
          conditions:
            - {metric: X1.2.odd_share_difference, test: above, bound: 0}
"""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    new = """          arms: [main]
          seeds: [100, 101]
          needs: [{metric: X1.2.networks, at_least: 2}]
          conditions: [{metric: X1.2.error_ratio, test: below, bound: 1}]
"""
    path.write_text(text.replace(old, new), encoding="utf-8")
    monkeypatch.setitem(pooled.POOLED, "X1.2", pooled.error_ratio)
    for seed, accuracy in ((0, 98.2), (1, 98.4), (100, 10.0), (101, 20.0)):
        write(root, seed=seed, accuracy=accuracy)
        if seed >= 100:
            folder = root / f"results/standard/{PAPER}/main/seed_{seed}"
            for name in ("judged", "groups"):
                np.savez(folder / f"{name}.npz", **{k.partition(".")[2]: v for k, v in RUNS[seed - 100].items()
                                                    if k.startswith(name)})  # fmt: skip
    return root


def test_only_their_own_rule_looks_at_kept_runs(root):
    table = report.suite_table("standard")
    assert row(table, "P1.1")["standard_scale"] == "mnist, 2 seeds"
    assert row(table, "P1.1")["standard_value"].startswith("accuracy 98.3")
    found = row(table, "X1.2")
    ratio = pooled.error_ratio(RUNS[:2])["error_ratio"]
    assert (found["standard_scale"], found["standard_n"]) == ("mnist, 2 seeds", 2)
    assert found["standard_verdict"] == ("reproduced" if ratio.high < 1 else "undecided")
    assert f"X1.2.error_ratio {ratio.value:.6g} [{ratio.low:.6g}, {ratio.high:.6g}] < 1" in found["standard_evidence"]
    means = report.seeds_table(PAPER)
    assert means.loc["P1.1.accuracy", "mean"] == pytest.approx(98.3)
    assert means.loc["X1.2.error_ratio", "mean"] == pytest.approx(ratio.value)
    assert "98.3" in readme.papers_table()
    assert [r.seed for r in report.common(report.load())] == [0, 1]
    source = findings.Source(root)
    assert [r.seed for r in source.records(PAPER, "main")] == [0, 1]
    assert [r.seed for r in source.records(PAPER, "main", "X1.2")] == [100, 101]
    assert source.metrics(PAPER, "main")["X1.2.error_ratio"].value == pytest.approx(ratio.value)


def test_without_kept_runs_the_claim_has_no_record_and_nothing_else_changes(root):
    before = report.suite_table("standard").set_index("claim").drop("X1.2").astype(str)
    for seed in (100, 101):
        shutil.rmtree(root / f"results/standard/{PAPER}/main/seed_{seed}")
    after = report.suite_table("standard")
    assert row(after, "X1.2")["standard_verdict"] == "no record"
    assert after.set_index("claim").drop("X1.2").astype(str).equals(before)


def test_with_one_kept_run_there_are_too_few_and_kept_runs_alone_are_no_mean(root):
    shutil.rmtree(root / f"results/standard/{PAPER}/main/seed_101")
    table = report.suite_table("standard")
    assert row(table, "X1.2")["standard_verdict"] == "not tested"
    for seed in (0, 1):
        shutil.rmtree(root / f"results/standard/{PAPER}/main/seed_{seed}")
    table = report.suite_table("standard")
    assert row(table, "P1.1")["standard_verdict"] == "no record"
    assert row(table, "X1.2")["standard_n"] == 1


def test_a_kept_run_by_itself_needs_no_pooled_metric_and_a_lost_array_is_named(root):
    record = load_record(root / f"results/standard/{PAPER}/main/seed_100")
    assert not [line for line in stale(record) if "X1.2" in line]
    path = root / f"results/standard/{PAPER}/main/seed_100/groups.npz"
    path.unlink()
    with pytest.raises(ValueError, match=r"groups\.npz cannot be read"):
        report.suite_table("standard")
