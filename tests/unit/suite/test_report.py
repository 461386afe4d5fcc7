"""The tables, the diff and the command line, over small results trees made of real records."""

import io
import json
import os
import shutil
import sys
import warnings

import pandas as pd
import pytest
from small_records import PAPER, row, small_checkout, write

from xai_utils.suite import claims, provenance, report
from xai_utils.suite.rules import VERDICTS


@pytest.fixture
def root(tmp_path, monkeypatch):
    return small_checkout(tmp_path, monkeypatch)


def test_the_suite_verdict_is_the_same_rule_over_the_seeds(root):
    for seed, accuracy in enumerate((98.1, 98.2, 98.3)):  # each alone: reproduced
        write(root, seed, accuracy=accuracy)
    write(root, 0, profile="quick", dataset="digits", accuracy=94.25)
    write(root, 0, arm="improved")
    got = report.suite_table()
    first = row(got, "P1.1")
    assert (first["reported"], first["standard_verdict"]) == ("accuracy 98.13 %", "partly")
    assert first["standard_reason"] == "open: accuracy"  # over seeds from 97.95 to 98.45, and the paper's ends at 98.4
    assert first["standard_value"] == "accuracy 98.20 ± 0.10 %; 1 of 2 conditions hold, 1 open"
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


def test_the_printed_table_says_what_is_open(root, capsys):
    for seed, accuracy in enumerate((98.1, 98.2, 98.3)):
        write(root, seed, accuracy=accuracy)
    report.main([])
    assert "partly (open: accuracy);" in capsys.readouterr().out


def test_a_changed_module_makes_a_record_stale(root):
    name = "xai_utils/seeds.py"
    write(root, modules={name: provenance.hash_file(provenance.SOURCES / name)})
    assert row(report.suite_table(), "P1.1")["standard_stale"] == ""
    write(root, modules={name: "0123456789abcdef"})
    assert row(report.suite_table(), "P1.1")["standard_stale"] == name
    assert report.profile_table("standard")["stale"].tolist() == [name]


def test_the_table_of_a_profile_has_a_row_per_run(root):
    write(root, accuracy=97.5)
    (got,) = report.profile_table("standard").to_dict("records")
    assert (got["seed"], got["dataset"], got["minutes"], got["commit"]) == (0, "mnist", 1.5, "abcdef0")
    assert [got[name] for name in VERDICTS] == [2, 2, 0, 0, 1, 1]  # the accuracy alone is enough for "partly"


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


# ---- which runs are shown ------------------------------------------------------------------------------------


def later(path, seconds):
    """The record as if it was written so much later."""
    os.utime(path, (path.stat().st_mtime + seconds,) * 2)
    return path


def test_a_plain_call_shows_the_run_that_was_just_made_whatever_its_profile(root, capsys):
    write(root)
    later(write(root, profile="quick", dataset="digits"), 60)
    assert report.main([]) == 0
    out = capsys.readouterr().out
    assert "this quick run" in out
    assert "digits, 1 seed" in out
    later(write(root, profile="paper", dataset="mnist", accuracy=97.5), 120)
    assert report.main([]) == 0
    assert "this paper run" in capsys.readouterr().out
    assert report.newest(root / "results").profile == "paper"
    assert report.newest(root) is None


def test_a_plain_call_after_a_run_with_own_values_shows_its_paper_against_them(root, capsys):
    write(root)
    write(root, profile="quick", dataset="digits")
    later(write(root, profile="quick", arm="main+own-steel", dataset="steel", accuracy=77.0), 60)
    assert report.main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"The newest record is of own values, quick/{PAPER}/main+own-steel:")
    assert "accuracy 77 %" in out
    assert "steel, 1 seed" in out
    assert "no notebook yet" not in out  # of the other papers
    assert "X1.1" not in out  # of another arm
    assert report.main(["--profile", "quick"]) == 0
    assert "steel" not in capsys.readouterr().out


def test_what_is_not_there_is_refused(root, capsys, monkeypatch):
    write(root)
    assert report.main(["--profile", "fast"]) == 2
    assert capsys.readouterr().err == "no profile 'fast'; there are: paper, quick, standard\n"
    assert report.main(["--results", "nowhere"]) == 2
    assert capsys.readouterr().err == "no folder nowhere\n"
    assert report.main(["diff", "results", "elsewhere"]) == 2
    monkeypatch.setenv("XAI_RESULTS", str(root / "lost"))
    assert report.main([]) == 2


# ---- diff, export --------------------------------------------------------------------------------------------


def test_diff_finds_what_differs_beyond_tolerance(root, capsys):
    for results in ("results", "b"):
        write(root, results=results)
        write(root, 1, results=results)
    assert report.main(["diff", str(root / "results"), str(root / "b")]) == 0
    assert capsys.readouterr().out == "no difference\n"
    write(root, results="b", accuracy=98.4 * (1 - 1e-4))
    a, b = root / "results", root / "b"
    got = report.diff(a, b)
    key = f"standard/{PAPER}/main/seed_0"
    assert got.to_dict("records") == [
        {"key": key, "what": "metric", "name": "P1.1.accuracy", "a": 98.4, "b": 98.4 * (1 - 1e-4)}
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
    assert report.number(value, std, "") == text


def test_a_clean_tree_gives_no_warning(root):
    write(root)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.suite_table()


@pytest.mark.parametrize("encoding", ["cp932", "cp1252", "ascii"])
def test_the_report_prints_on_any_terminal(root, encoding, monkeypatch):
    write(root, profile="quick")
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert report.main([]) in (0, 1)
    stream.flush()
    assert "P1.1" in stream.buffer.getvalue().decode(encoding)
