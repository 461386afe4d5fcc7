"""`python -m xai_utils.suite verify`: the committed records agree with themselves, and what was changed is named."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from xai_utils.suite import claims, report
from xai_utils.suite.record import load_record
from xai_utils.suite.verify import FROM_ARRAYS, main, verify

RESULTS = Path(__file__).parents[3] / "results"
FIRST = {
    "01_id_cvae_morphing": "main",
    "02_moram_regression": "rectangles",
    "03_gradcam_defects": "main",
    "04_cam_consistency": "grad_cam_20",
    "05_lrp_bn": "main",
}


@pytest.fixture
def tree(tmp_path):
    """A results tree with one committed record of each paper."""
    for paper, arm in FIRST.items():
        shutil.copytree(RESULTS / "standard" / paper / arm / "seed_0", tmp_path / "standard" / paper / arm / "seed_0")
    return tmp_path


def place(tree, paper):
    return tree / "standard" / paper / FIRST[paper] / "seed_0"


def told(tree, capsys):
    status = main(["verify", "--results", str(tree)])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def test_every_listed_metric_of_the_committed_records_follows_from_their_arrays(tree, capsys):
    status, lines, err = told(tree, capsys)
    wrong = [line for line in lines if ": metric " in line]
    assert (wrong, err) == ([], [])
    assert status == (1 if lines[:-1] else 0)  # a rule may have changed since
    counts = {}
    for record in report.load(tree):
        counts[record.paper] = verify([record], tree).metrics
    assert counts == {paper: len(FROM_ARRAYS[paper]) for paper in FIRST}


@pytest.mark.parametrize(
    ("paper", "metric"), [("01_id_cvae_morphing", "P1.4.odd_share"), ("05_lrp_bn", "P5.1.lrp_bn.id_score")]
)
def test_a_metric_that_was_changed_is_named(tree, capsys, paper, metric):
    path = place(tree, paper) / "record.json"
    data = json.loads(path.read_text())
    there = data["metrics"][metric]["value"]
    data["metrics"][metric]["value"] = there * (1 + 1e-5)
    path.write_text(json.dumps(data))
    status, lines, _ = told(tree, capsys)
    key = f"standard/{paper}/{FIRST[paper]}/seed_0"
    assert f"{key}: metric {metric}: recorded as {there * (1 + 1e-5):.7g}, the arrays give {there:.7g}" in lines
    assert status == 1


@pytest.mark.parametrize("paper", FIRST)
def test_an_array_that_was_changed_is_named(tree, capsys, paper):
    for path in place(tree, paper).glob("*.npz"):
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        np.savez(path, **{name: np.flip(a) * 1.5 if a.dtype.kind == "f" else a for name, a in arrays.items()})
    status, lines, _ = told(tree, capsys)
    assert status == 1
    assert any(f"{paper}/{FIRST[paper]}/seed_0: metric " in line for line in lines)


def test_a_verdict_that_was_changed_is_named(tree, capsys):
    path = place(tree, "01_id_cvae_morphing") / "record.json"
    paper, record = claims.load().papers["01_id_cvae_morphing"], load_record(path)
    now = {name: paper.judge(name, record.metrics, record.subject) for name in paper.judged}
    data = json.loads(path.read_text())
    data["claims"] = {name: verdict.model_dump(mode="json") for name, verdict in now.items()}  # by today's rules
    path.write_text(json.dumps(data))
    key = "standard/01_id_cvae_morphing/main/seed_0"
    assert not [line for line in told(tree, capsys)[1] if line.startswith(key)]

    one, two = [name for name, verdict in now.items() if any(c.holds for c in verdict.conditions)][:2]
    held = [condition.holds for condition in now[two].conditions].count(True)
    verdict = "not reproduced" if now[one].verdict != "not reproduced" else "partly"
    data["claims"][one]["verdict"] = verdict
    for condition in data["claims"][two]["conditions"]:
        condition["holds"] = False
    del data["claims"]["X1.1"]
    path.write_text(json.dumps(data))
    status, lines, _ = told(tree, capsys)
    assert status == 1
    assert {line.removeprefix(f"{key}: ") for line in lines if line.startswith(key)} == {
        f"claim {one}: recorded as {verdict!r}, its metrics give {now[one].verdict!r} by today's rule",
        f"claim {two}: recorded with 0 conditions that hold, its metrics give {held}",
        "claim X1.1: not recorded, the rule came later",
    }


@pytest.mark.parametrize("kind", ["missing", "empty", "damaged", "pickle"])
def test_arrays_that_cannot_be_read_are_a_problem_and_the_others_are_looked_at(tree, capsys, kind):
    path = place(tree, "05_lrp_bn") / "curves.npz"
    if kind == "missing":
        path.unlink()
    elif kind == "pickle":
        np.savez(path, id_rise=np.array([{}], dtype=object))
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 255
        path.write_bytes(b"" if kind == "empty" else bytes(content))
    status, lines, err = told(tree, capsys)
    assert status == 2
    assert [line for line in err if "curves.npz cannot be read: " in line and line.startswith("PROBLEM ")] == err
    assert len(err) == 1
    assert lines[-1].startswith("5 records: ")


def test_no_record_at_all(tmp_path, capsys):
    assert told(tmp_path, capsys) == (0, ["0 records: 0 verdicts and 0 metrics computed anew, 0 disagree"], [])
