"""The tables, the diff and the command line, over small results trees made of real records."""

import json
import math
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from xai_utils.suite import claims, provenance, report
from xai_utils.suite import run as experiment

PAPER = "01_id_cvae_morphing"
GOOD = {
    "P1.1.accuracy": (98.4, None, None, "%"),
    "P1.3.misclassified": (150.0, None, None, ""),
    "P1.3.accuracy_kept": (98.4, None, None, "%"),
    "P1.3.a.distance_difference": (0.3, 0.2, 0.4, ""),
    "P1.3.b.probability_difference_true": (0.3, 0.2, 0.4, ""),
    "P1.3.b.probability_difference_runner_up": (0.3, 0.2, 0.4, ""),
    "P1.3.b.realism_difference_blend": (0.3, 0.2, 0.4, ""),
    "P1.4.odd_share": (0.2, 0.15, 0.3, ""),
    "X1.1.accuracy": (99.1, None, None, "%"),
    "X1.2.odd_share_difference": (0.1, 0.05, 0.15, ""),
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with reported.yaml and one notebook, and no records."""
    monkeypatch.delenv("XAI_RESULTS", raising=False)
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    (tmp_path / "results").mkdir()
    parameters = f"notebooks/parameters/{PAPER}.yaml"
    (tmp_path / parameters).parent.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[3] / parameters, tmp_path / parameters)
    shutil.copy(Path(__file__).parents[3] / "results/reported.yaml", tmp_path / "results")
    (tmp_path / f"notebooks/{PAPER}.ipynb").write_text('{"cells": []}')
    return tmp_path


def write(root, seed=0, profile="standard", arm="main", dataset="mnist", results="results", modules=None, **change):
    """One valid record, its claims judged by the rules; `change` replaces metric values (accuracy=…) or parameters."""
    parameters = {"profile": profile, "arm": arm, "seed": seed, "dataset": dataset, "epochs": change.pop("epochs", 2)}
    metrics = {name: dict(zip(("value", "low", "high", "unit"), entry)) for name, entry in GOOD.items()}
    for name, value in change.items():
        metrics[{"accuracy": "P1.1.accuracy", "odd": "P1.4.odd_share"}[name]]["value"] = value
    verdicts = claims.evaluate(claims.load(), PAPER, metrics, parameters)
    hardware = {"cpu": "c", "cores": 2, "memory_gib": 8.0, "gpu": None}
    data = {
        "schema_version": 1, "paper": PAPER, "profile": profile, "arm": arm, "seed": seed, "parameters": parameters,
        "metrics": {name: {"n": None, "note": ""} | entry for name, entry in metrics.items()},
        "settings": experiment._schema(Path(root), PAPER)[1].get(arm, {}),
        "claims": {name: verdict.model_dump(mode="json") for name, verdict in verdicts.items()},
        "figures": [], "arrays": [],
        "provenance": {
            "commit": "abcdef0123456789", "dirty": False, "started": "2026-11-21T00:00:00Z", "seconds": 90.0,
            "peak_memory_mib": 1.0, "python": "3.11", "packages": {}, "platform": "p", "hardware": hardware,
            "threads": 1, "device": "cpu", "data": [], "modules": modules or {},
        },
    }  # fmt: skip
    path = root / results / profile / PAPER / arm / f"seed_{seed}" / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def row(table, claim):
    (found,) = table[table["claim"] == claim].to_dict("records")
    return found


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
    one = report.aggregate(report.load())["P1.4.odd_share"]
    assert one == {"value": 0.2, "std": None, "n": 1, "low": 0.15, "high": 0.3, "unit": ""}
    path = write(root, 1)
    data = json.loads(path.read_text())
    data["metrics"]["P1.4.odd_share"] |= {"value": None, "low": None, "high": None, "note": "no case"}
    del data["metrics"]["P1.1.accuracy"]
    path.write_text(json.dumps(data))
    two = report.aggregate(report.load())
    assert two["P1.4.odd_share"] == {"value": None, "std": None, "n": 2, "low": None, "high": None, "unit": ""}
    assert "P1.1.accuracy" not in two
    got = report.suite_table()
    assert row(got, "P1.4")["standard_verdict"] == "not tested"
    assert row(got, "P1.1")["standard_verdict"] == "no record"
    assert "recorded before this rule: not measured: P1.1.accuracy" in row(got, "P1.1")["standard_evidence"]


def test_the_suite_verdict_is_the_same_rule_over_the_seeds(root):
    for seed, accuracy in enumerate((98.6, 97.5, 97.6)):  # alone: reproduced, partly, partly
        write(root, seed, accuracy=accuracy)
    write(root, 0, profile="quick", dataset="digits", accuracy=94.25)
    write(root, 0, arm="improved")
    got = report.suite_table()
    first = row(got, "P1.1")
    assert (first["reported"], first["standard_verdict"]) == ("accuracy 98.13 %", "reproduced")  # mean 97.9 ≥ 97.86
    assert first["standard_value"] == "accuracy 97.90 ± 0.61 %; 2 of 2 conditions hold"
    assert (first["standard_n"], first["standard_scale"], first["standard_commit"]) == (3, "mnist, 3 seeds", "abcdef0")
    assert (first["run_verdict"], first["run_scale"]) == ("not comparable", "digits, 1 seed")
    assert first["run_value"].startswith("accuracy 94.25 %")
    assert (row(got, "X1.1")["arm"], row(got, "X1.1")["standard_verdict"]) == ("improved", "reproduced")
    assert row(got, "X1.1")["run_verdict"] == "no record"
    assert list(got[got["statement"] == "no notebook yet"]["paper"]) == list(claims.load().papers)[1:]


def test_the_printed_table_fits_120_columns_and_says_all(root, capsys):
    write(root, modules={"notebooks/gone.ipynb": "0"})
    write(root, profile="quick", dataset="digits")
    assert report.main([]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    for part in ("98.13 %", "98.4 %", "digits, 1 seed", "mnist, 1 seed", "abcdef0", "STALE", "no notebook yet"):
        assert part in out
    assert "not comparable" in out


def test_a_changed_module_makes_a_record_stale(root):
    name = "xai_utils/seeds.py"
    write(root, modules={name: provenance.hash_file(provenance.SOURCES / name)})
    assert row(report.suite_table(), "P1.1")["standard_stale"] == ""
    write(root, modules={name: "0123456789abcdef"})
    assert row(report.suite_table(), "P1.1")["standard_stale"] == name
    assert report.profile_table("standard")["stale"].tolist() == [name]


def test_run_and_profile_tables(root):
    record = experiment.load_record(write(root, accuracy=97.5))
    table = report.run_table(record)
    assert list(table.index) == ["P1.1", "P1.2", "P1.3", "P1.4", "X1.1", "X1.2"]
    assert table.loc["P1.1", "verdict"] == "partly"
    assert table.loc["P1.1", "measured"] == "accuracy 97.5 %; 1 of 2 conditions hold"
    assert table.loc["X1.1", "measured"] == ""
    (got,) = report.profile_table("standard").to_dict("records")
    assert (got["seed"], got["dataset"], got["minutes"], got["commit"]) == (0, "mnist", 1.5, "abcdef0")
    assert (
        [got[name] for name in claims.VERDICTS]
        == [2, 2, 0, 1, 1]
        == [list(table["verdict"]).count(name) for name in claims.VERDICTS]
    )


# ---- records that cannot be used -----------------------------------------------------------------------------


def test_problems_are_listed_with_their_path_and_the_others_still_load(root, capsys):
    write(root, 0)
    half, version, copied, other = (write(root, seed) for seed in (1, 2, 3, 4))
    half.write_text(half.read_text()[:200])
    version.write_text(version.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    shutil.copy(write(root, 0, epochs=5, results="elsewhere"), copied)  # one key twice, with other parameters
    write(root, 4, epochs=3)
    hidden = root / f"results/standard/{PAPER}/main/.seed_0.record-x/new/record.json"
    hidden.parent.mkdir(parents=True)
    hidden.write_text("{")  # left by a run that was killed while it recorded
    with pytest.warns(UserWarning, match="record") as caught:
        assert [record.seed for record in report.load()] == [0]
    said = [str(warning.message) for warning in caught]
    for path, words in (
        (half, "not a whole record"),
        (version, "schema version 9, expected 1"),
        (copied, f"is the record of standard/{PAPER}/main/seed_0"),
        (other, "other parameters than seed 0 (epochs)"),
    ):
        assert any(str(path) in line and words in line for line in said), (path, said)
    assert len(said) == 4
    assert report.main([]) == 2
    assert capsys.readouterr().err.count("PROBLEM ") == 4


def test_check_fails_for_a_missing_record_and_never_for_a_verdict(root, capsys):
    assert report.main(["--check"]) == 1
    assert f"MISSING {PAPER} has no quick record: run notebooks/run {PAPER} quick main 0" in capsys.readouterr().err
    write(root, accuracy=10.0)
    assert report.main(["--check"]) == 1
    write(root, profile="quick", arm="improved")
    assert report.main(["--check"]) == 1  # main is what counts
    write(root, profile="quick", accuracy=10.0)
    assert report.main(["--check"]) == 0
    assert report.main(["--check", "--profile", "paper"]) == 1
    (root / f"results/standard/{PAPER}/main/seed_0/record.json").unlink()
    assert report.main(["--check"]) == 1


def test_quick_comes_from_xai_results_and_standard_from_the_repository(root, monkeypatch):
    write(root, accuracy=98.0)
    write(root, profile="quick", results="moved", dataset="digits")
    monkeypatch.setenv("XAI_RESULTS", str(root / "moved"))
    first = row(report.suite_table(), "P1.1")
    assert first["standard_value"].startswith("accuracy 98 %")
    assert first["run_scale"] == "digits, 1 seed"
    assert report.main(["--check"]) == 0


# ---- diff, export, readme ------------------------------------------------------------------------------------


def test_diff_finds_what_differs_beyond_tolerance(root, capsys):
    for results in ("results", "b"):
        write(root, results=results)
        write(root, 1, results=results)
    assert report.main(["diff", str(root / "results"), str(root / "b")]) == 0
    assert capsys.readouterr().out == "no difference\n"
    write(root, results="b", accuracy=98.4 * (1 + 1e-4))
    a, b = root / "results", root / "b"
    got = report.diff(a, b)
    key = f"standard/{PAPER}/main/seed_0"
    assert got.to_dict("records") == [
        {"key": key, "what": "metric", "name": "P1.1.accuracy", "a": 98.4, "b": 98.4 * (1 + 1e-4)}
    ]
    assert report.diff(a, b, rel=1.1e-4).empty
    assert report.diff(a, b, absolute=0.0099).empty
    assert len(report.diff(a, b, rel=0.9e-4)) == 1
    write(root, results="b", accuracy=97.2, epochs=9)
    write(root, 1, results="b", epochs=9)
    (b / f"standard/{PAPER}/main/seed_1/record.json").unlink()
    write(root, 2, results="b", epochs=9)
    got = report.diff(a, b).drop(columns="key").to_dict("split")["data"]
    assert got == [
        ["parameter", "epochs", 2, 9],
        ["verdict", "P1.1", "reproduced", "partly"],
        ["metric", "P1.1.accuracy", 98.4, 97.2],
        ["record", "", "there", "missing"],
        ["record", "", "missing", "there"],
    ]
    assert report.main(["diff", str(a), str(b)]) == 1
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        report.diff(a, root / "nowhere")


def test_diff_sees_intervals_and_metrics_that_one_side_lacks(root):
    paths = [write(root, results=results) for results in ("results", "b")]
    data = json.loads(paths[1].read_text())
    data["metrics"]["P1.4.odd_share"]["low"] = None
    del data["metrics"]["P1.3.accuracy_kept"]
    paths[1].write_text(json.dumps(data))
    got = report.diff(root / "results", root / "b")
    assert got["name"].tolist() == ["P1.3.accuracy_kept", "P1.4.odd_share low"]
    assert got["b"].tolist()[0] == "missing"


def test_export_writes_the_tables_whole_and_without_quick(root, capsys):
    for seed in (0, 1):
        write(root, seed)
    write(root, profile="quick")
    assert report.main(["export"]) == 0
    tables = root / "results/tables"
    assert sorted(path.name for path in tables.iterdir()) == [f"{PAPER}.csv", "suite.csv"]
    metrics = pd.read_csv(tables / f"{PAPER}.csv")
    assert set(metrics["profile"]) == {"standard"}
    first = metrics.set_index("metric").loc["P1.1.accuracy"]
    assert (first["mean"], first["n"], first["unit"]) == (98.4, 2, "%")
    suite = pd.read_csv(tables / "suite.csv")
    assert "standard_verdict" in suite
    assert not [name for name in suite if name.startswith("run_")]
    before = (tables / "suite.csv").read_bytes()
    assert report.main(["export"]) == 0
    assert (tables / "suite.csv").read_bytes() == before


def test_the_state_of_a_paper_counts_claims_and_not_arms():
    verdicts = {
        "P4.1": ["reproduced", "no record", "reproduced", "not tested"],
        "P4.2": ["partly", "not reproduced"],
        "P4.3": ["no record", "not tested"],
        "P4.4": ["no record"],
        "P4.5": ["reproduced"],
    }
    rows = pd.DataFrame(
        [(claim, verdict) for claim, found in verdicts.items() for verdict in found],
        columns=["claim", "standard_verdict"],
    )
    assert report._state(rows) == "2 reproduced, 1 not tested, 1 mixed, 1 no record"


def test_the_readme_table_has_a_row_per_paper_and_a_folded_one_per_claim(root):
    for seed in (0, 1):
        write(root, seed, accuracy=98.4 + seed / 10)
        write(root, seed, arm="improved")
    table, *folded = report.readme_table().split("\n\n<details>")
    lines = table.splitlines()
    assert len(lines) == 2 + len(claims.load().papers)
    assert f"](notebooks/{PAPER}.ipynb) | 2 reproduced, 1 partly, 1 not comparable |" in lines[2]
    assert "| accuracy: paper 98.13 %, ours 98.450 ± 0.071 % (mnist, 2 seeds)<br>" in lines[2]
    assert lines[2].endswith("<br>accuracy of the improved training: 99.1 ± 0 % (mnist, 2 seeds) |")
    assert all(line.endswith("| no notebook yet | |") for line in lines[3:])
    (one,) = folded
    assert one.endswith("\n\n</details>")
    of = [[cell.strip() for cell in line.split("|")[1:-1]] for line in one.splitlines() if line.startswith("| ")][1:]
    assert of[0] == [
        "P1.1",
        "The test accuracy by eq. (1) is 98.13 %.",
        "accuracy 98.13 %",
        "accuracy 98.450 ± 0.071 %; 2 of 2 conditions hold",
        "mnist, 2 seeds",
        "reproduced",
    ]
    assert [row[0] for row in of].count("X1.2") == 2  # judged in two arms
    (main, improved) = (row for row in of if row[0] == "X1.2")
    assert (main[4], improved[4]) == ("main: mnist, 2 seeds", "improved: mnist, 2 seeds")
    assert (main[1] != "", improved[1]) == (True, "")  # what it says stands once


def test_a_headline_that_was_not_measured_is_left_out(root):
    write(root)  # no record of the arm of the second one
    (line,) = (line for line in report.readme_table().splitlines() if line.startswith("| [Explaining"))
    assert line.endswith("| accuracy: paper 98.13 %, ours 98.4 % (mnist, 1 seed) |")


def test_a_headline_beside_a_paper_s_number_says_where_the_two_cannot_be_compared(root):
    write(root, dataset="digits")
    (line,) = (line for line in report.readme_table().splitlines() if line.startswith("| [Explaining"))
    assert line.endswith("| accuracy: paper 98.13 %, ours 98.4 % (digits, 1 seed; not comparable) |")


def test_a_stale_claim_and_a_bar_in_a_statement_show_in_the_folded_table(root):
    file = root / "results/reported.yaml"
    file.write_text(file.read_text().replace("The test accuracy by eq. (1) is 98.13 %.", "The value |x| is 98.13 %."))
    module = root / "xai_utils/thing.py"
    module.parent.mkdir()
    module.write_text("x = 1\n")
    write(root, modules={"xai_utils/thing.py": "0" * 64})
    (line,) = (line for line in report.readme_table().splitlines() if line.startswith("| P1.1 "))
    assert line.startswith(r"| P1.1 | The value \|x\| is 98.13 %. |")
    assert line.endswith("| reproduced (stale) |")


@pytest.mark.parametrize(
    ("value", "std", "text"),
    [
        (0.0134359, 0.00214, "0.0134 ± 0.0021"),
        (98.46, 0.2107, "98.46 ± 0.21"),
        (123.456, 12.3, "123 ± 12"),
        (12345.6, 678.9, "12346 ± 679"),
        (-0.10512, 0.0412, "-0.105 ± 0.041"),
        (0.3, 1e-17, "0.3 ± 0"),
        (8.5e-8, 1.4e-8, "8.5e-08 ± 1.4e-08"),
        (0.123456789, None, "0.12346"),
        (None, None, "not defined"),
    ],
)
def test_a_number_has_the_digits_that_its_deviation_leaves(value, std, text):
    assert report._number(value, std, "") == text


def test_a_clean_tree_gives_no_warning(root):
    write(root)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.suite_table()
