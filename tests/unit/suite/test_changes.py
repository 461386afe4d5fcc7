"""The list of changed verdicts: from two tables, and as committed."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from xai_utils.suite import changes, report
from xai_utils.suite.equivalence.history import NotPossible

ROOT = Path(__file__).parents[3]
COLUMNS = ["paper", "claim", "arm", "standard_verdict", "standard_reason", "standard_evidence", "standard_commit"]
OLD = [
    ("01_a", "P1.1", "main", "reproduced", "", "P1.1.a 3 > 2: holds", "abc"),
    ("01_a", "P1.2", "main", "partly", "", "P1.2.a 1 > 0: holds", "abc"),
    ("01_a", "P1.2", "other", "partly", "", "", "abc"),
    ("01_a", "P1.3", "main", "not reproduced", "", "", "abc"),
    ("01_a", "P1.4", "main", "reproduced", "", "", "abc"),
    ("01_a", "P1.5", "main", "no record", "", "", ""),
]
GATE = "the network has not learned it: P1.acc is 0.3 on test images, it needs 0.5"
NEW = [
    ("01_a", "P1.1", "main", "reproduced", "", "P1.1.a 3 [2.5, 4] > 2: holds", "abc"),
    ("01_a", "P1.2", "main", "undecided", "open: a", "P1.2.a 1 [-1, 3] > 0: open; P1.2.b 0 > 1: fails", "abc"),
    ("01_a", "P1.2", "other", "partly", "open: a", "P1.2.a 1 [-1, 3] > 0: open; P1.2.b 2 > 1: holds", "abc"),
    ("01_a", "P1.3", "main", "not tested", GATE, f"{GATE}; P1.3.a 1 > 0: holds; measured on d", "abc"),
    ("01_a", "P1.4", "main", "partly", "open: a", "P1.4.a 1 [0, 3] > 0: open; P1.4.b: holds; P1.4.c: fails", "def"),
    ("01_a", "P1.5", "main", "not comparable", "", "it is context", "def"),
    ("01_a", "P1.6", "main", "not reproduced", "", "P1.6.a 0 > 1: fails", "abc"),
]  # fmt: skip


def tables():
    return (pd.DataFrame(rows, columns=COLUMNS) for rows in (OLD, NEW))


def test_each_verdict_that_is_another_one_stands_with_what_it_rests_on():
    assert changes.changed(*tables()).to_numpy().tolist() == [
        ["P1.2", "main", "partly", "undecided (open: a)", "P1.2.a 1 [-1, 3] > 0: open"],
        ["P1.3", "main", "not reproduced", "not tested", GATE],
        ["P1.4", "main", "reproduced", "partly (open: a)", "other runs; P1.4.a 1 [0, 3] > 0: open; P1.4.c: fails"],
        ["P1.5", "main", "no record", "not comparable", "other runs; it is context"],
        ["P1.6", "main", "no such claim", "not reproduced", "P1.6.a 0 > 1: fails"],
    ]  # fmt: skip


def test_the_page_names_its_commit_and_its_command(tmp_path):
    text = changes.page("b7a7949", changes.changed(*tables()))
    (tmp_path / "page.md").write_text(text)
    assert changes.commit_of(tmp_path / "page.md") == "b7a7949"
    assert text.splitlines()[-1] == "| P1.6 | main | no such claim | not reproduced | P1.6.a 0 > 1: fails |"
    (tmp_path / "page.md").write_text("no commit")
    with pytest.raises(ValueError, match=r"names no commit: write it again with python -m xai_utils\.suite\.changes"):
        changes.commit_of(tmp_path / "page.md")


def test_without_history_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    assert changes.main(["b7a7949", "--results", str(tmp_path)]) == 2
    assert "no git history" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_committed_page_is_what_both_versions_give(tmp_path):
    path = ROOT / "results" / changes.FILE
    commit = changes.commit_of(path)
    inside = subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True)
    if inside.returncode:
        pytest.skip(f"commit {commit} is not here: no git history, or a shallow one")
    old = changes.suite_at(commit)
    new = pd.read_csv(ROOT / "results/tables/suite.csv", keep_default_na=False)  # another test holds it to the records
    assert path.read_text(encoding="utf-8") == changes.page(commit, changes.changed(old, new)), "run make tables"
    with pytest.raises(NotPossible):
        changes.suite_at("0" * 40)


def test_the_command_writes_the_page(tmp_path, monkeypatch, capsys):
    old, new = tables()
    monkeypatch.setattr(changes, "suite_at", {"b7a7949": old}.__getitem__)
    monkeypatch.setattr(report, "suite_table", lambda profile, folder: new)
    assert changes.main(["b7a7949", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / changes.FILE}\n"
    assert (tmp_path / changes.FILE).read_text() == changes.page("b7a7949", changes.changed(old, new))
    assert changes.main(["--results", str(tmp_path)]) == 0  # the commit that the file names
    assert [path.name for path in tmp_path.iterdir()] == [changes.FILE]
