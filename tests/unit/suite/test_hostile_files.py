"""Whatever lies in the results or the checkout, `report` and `batch` go on: one line a problem, and exit code 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_records import PAPER, small_checkout, write

from xai_utils.suite import batch, provenance, report
from xai_utils.suite.record import load_record, records_below
from xai_utils.suite.strict import load_yaml, said

REPOSITORY = Path(__file__).parents[3]
SCHEMA, PROFILE = f"notebooks/parameters/{PAPER}.yaml", f"notebooks/profiles/standard/{PAPER}.yaml"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi")
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = small_checkout(tmp_path, monkeypatch)
    (root / PROFILE).write_text("profile: standard\n")
    return root


def problems(capsys):
    """What `report` names as problems; each is one line of its own."""
    status = report.main(["--profile", "standard"])
    lines = capsys.readouterr().err.splitlines()
    assert status == (2 if lines else 0)
    assert [line for line in lines if not line.startswith("PROBLEM ")] == []
    return [line.removeprefix("PROBLEM ") for line in lines]


# links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linked", ["seed_0", "main", PAPER, "standard"])
def test_a_linked_folder_is_in_the_report_as_in_the_batch(root, tmp_path_factory, linked, capsys):
    record = write(root, accuracy=98.6)
    place = next(path for path in record.parents if path.name == linked)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / linked
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    assert [record.metrics["P1.1.accuracy"].value for record in report.load()] == [98.6]
    assert problems(capsys) == []
    (job,) = batch.plan("standard", root=root)
    assert job.reason.startswith("made with other parameters")  # it was found


def test_links_that_lead_nowhere_or_in_a_circle_are_named(root, capsys):
    arm = write(root).parents[1]
    (arm / "seed_1").symlink_to(arm / "gone")
    (arm.parent / "again").symlink_to(root / "results")
    (arm.parent / "self").symlink_to(arm.parent / "self")
    (arm / "seed_2").symlink_to(arm / "seed_0")
    assert sorted(problems(capsys)) == sorted(
        [
            f"{arm.parent}/again: a link that leads back to a folder above it; remove it",
            f"{arm.parent}/self: a link that leads nowhere; mend or remove it",
            f"{arm}/seed_1: a link that leads nowhere; mend or remove it",
            f"{arm}/seed_2/record.json: is the record of standard/{PAPER}/main/seed_0; move or delete it",
        ]
    )
    assert [record.seed for record in report.scan()[0]] == [0]


def test_the_record_of_a_killed_run_is_put_in_place_before_it_is_read(root):
    path = write(root)
    stage = path.parents[1] / ".seed_0.record-x"
    for kind in ("new", "old"):
        (stage / kind).mkdir(parents=True)
    path.rename(stage / "new/record.json")
    (stage / "moves.json").write_text('[["new", "record.json"]]')
    assert records_below(root / "results") == ([path], [])
    assert not stage.exists()


# records ----------------------------------------------------------------------------------------------------------


def broken(text):
    data = json.loads(text)
    modules = data["provenance"]["modules"]
    for name, change in {
        "empty": lambda: "",
        "brackets": lambda: "[" * 100_000,
        "objects": lambda: '{"a":' * 100_000,
        "twice": lambda: text.replace('"seed": 1', '"seed": 1, "seed": 1', 1),
        "metric twice": lambda: text.replace('"metrics": {', '"metrics": {"P1.1.accuracy": {"value": 1.0}, ', 1),
        "conflict": lambda: f"<<<<<<< ours\n{text}\n=======\n{text}\n>>>>>>> theirs\n",
        "legacy": lambda: text.replace('"quick"', '"quick"').encode() + "精度".encode("cp932"),
        "utf-16": lambda: text.encode("utf-16"),
        "above": lambda: json.dumps(data | {"provenance": data["provenance"] | {"modules": {"../../etc/passwd": "0"}}}),
        "absolute": lambda: json.dumps(data | {"provenance": data["provenance"] | {"modules": {"/etc/passwd": "0"}}}),
        "device": lambda: json.dumps(data | {"provenance": data["provenance"] | {"modules": {"/dev/zero": "0"}}}),
        "inside out": lambda: json.dumps(
            data | {"provenance": data["provenance"] | {"modules": modules | {"xai_utils/../../x.py": "0"}}}
        ),
        "no object": lambda: "3",
        "infinite": lambda: text.replace("98.4", "1e999"),
        "long number": lambda: text.replace("98.4", "9" * 5000),
    }.items():
        yield name, change()


@pytest.mark.parametrize("number", range(15))
def test_a_record_that_is_none_is_one_line_and_the_others_are_read(root, capsys, number):
    path = write(root, 1)
    name, content = list(broken(path.read_text()))[number]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    write(root, 0)
    (line,) = problems(capsys)
    assert str(path) in line, name
    assert [record.seed for record in report.scan()[0]] == [0]
    assert batch.plan("standard", seeds="1", root=root)[0].reason.startswith("unusable record")


def test_a_path_outside_the_checkout_is_refused_and_never_opened(root, monkeypatch):
    path, opened = write(root, modules={"xai_utils/../../secret.yaml": "0" * 16}), []
    monkeypatch.setattr(provenance, "hash_file", opened.append)
    with pytest.raises(ValueError, match=r"modules.*secret.yaml.*relative path below the checkout"):
        load_record(path)
    assert opened == []
    for name in ("/etc/passwd", "..", "a/../b", "./a", "C:/x", "a\\b", "", "a/.."):
        path = write(root, modules={name: "0"})
        with pytest.raises(ValueError, match="relative path below the checkout"):
            load_record(path)
    path = write(root, modules={"xai_utils/größe.py": "0", "data/splits/a..b.csv": "0"})
    assert len(load_record(path).provenance.modules) == 2


@pytest.mark.parametrize("lacking", ["metrics", "claims", "both"])
def test_a_record_whose_metrics_were_emptied_is_no_error(root, capsys, lacking):
    path = write(root)
    data = json.loads(path.read_text())
    for part in ("metrics", "claims"):
        if lacking in (part, "both"):
            data[part] = {}
    path.write_text(json.dumps(data))
    assert problems(capsys) == []
    for command in (["records"], ["export"], ["diff", str(root / "results"), str(root / "results")]):
        assert report.main(command) == 0


# the checkout -----------------------------------------------------------------------------------------------------

FILES = {
    "conflict in the notebook": (f"notebooks/{PAPER}.ipynb", '{"cells": [\n<<<<<<< HEAD\n]}'),
    "brackets in the notebook": (f"notebooks/{PAPER}.ipynb", "[" * 100_000),
    "legacy notebook": (f"notebooks/{PAPER}.ipynb", '{"cells": [], "x": "説明"}'.encode("cp932")),
    "conflict in the profile": (PROFILE, "<<<<<<< HEAD\nepochs: 3\n=======\nepochs: 4\n>>>>>>> theirs\n"),
    "bomb in the profile": (PROFILE, BOMB),
    "deep profile": (PROFILE, "a: " + "[" * 50_000),
    "deep profile, closed": (PROFILE, "a: " + "[" * 500 + "]" * 500),
    "key twice in the profile": (PROFILE, "epochs: 3\nepochs: 4\n"),
    "legacy profile": (PROFILE, "folder: 写真\n".encode("shift_jis")),
    "bomb in the schema": (SCHEMA, BOMB),
    "key twice in the schema": (SCHEMA, "seed: {type: int, default: 0, default: 1, help: it}\n"),
    "deep schema": (SCHEMA, "arms: " + "{a: " * 50_000),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_the_checkout_that_cannot_be_read_is_one_line(root, capsys, case):
    name, content = FILES[case]
    modules = {file: provenance.hash_file(root / file) for file in (f"notebooks/{PAPER}.ipynb", PROFILE)}
    write(root, modules=modules)
    assert problems(capsys) == []
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    stat = (root / name).stat()
    os.utime(root / name, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    (line,) = problems(capsys)
    assert Path(name).name in line
    (job,) = batch.plan("standard", root=root)
    first = "made with other" if "notebook" in case else "its notebook, profile or parameters cannot be read ("
    assert job.reason.startswith(first)
    assert "\n" not in job.reason


def test_the_rules_with_conflict_markers_are_one_line(root, capsys):
    write(root)
    (root / "results/reported.yaml").write_text("<<<<<<< HEAD\n")
    (line,) = problems(capsys)
    assert "reported.yaml is not valid" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "line 2: *a is an alias"),
        ("a: [\n*x\n]", "line 2: *x is an alias"),
        ("[" * 101 + "]" * 101, "line 1: nested deeper than 100"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: 'c' stands twice"),
        ("- {a: 1, a: 1}", "line 1: 'a' stands twice"),
    ],
)
def test_yaml_that_could_grow_or_contradicts_itself_is_refused(text, message):
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        load_yaml(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [1, 2.5, null, true, x]", {"a": 1, "b": [1, 2.5, None, True, "x"]}),
        ("", None),
        ("# nothing", None),
        ("[" * 100 + "]" * 100, "deep"),
        ("{1: a, '1': b}", {1: "a", "1": "b"}),
        ("{a: {b: 1}, c: {b: 1}}", {"a": {"b": 1}, "c": {"b": 1}}),
    ],
)
def test_yaml_that_is_only_data_is_read(text, value):
    found = load_yaml(text)
    if value != "deep":
        assert found == value
    else:
        assert str(found) == text


# terminals and pipes -----------------------------------------------------------------------------------------------


def test_a_problem_is_one_line_that_no_terminal_obeys():
    assert said(ValueError("one\n  two\x1b[31m three\u202e")) == "one two?[31m three?"


@pytest.mark.parametrize("words", [["xai_utils.suite.report"], ["xai_utils.suite", "verify"]])
def test_a_closed_pipe_is_no_traceback(root, words):
    write(root)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "XAI_ROOT": str(root), "PYTHONUNBUFFERED": "1"}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (2, "")
