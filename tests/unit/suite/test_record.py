"""Records: what is read and refused, where they lie, when two are equal, and when one is stale."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_paper import ARMS, GOOD, PAPER, SCHEMA, measured, notebook, picture, recorded, rewrite, start, with_arms

from xai_utils.metrics.statistics import Estimate
from xai_utils.suite import provenance
from xai_utils.suite.record import Record, load_record, results_root, run_folder, same_result, stale

pytestmark = pytest.mark.usefixtures("repository")


def test_xai_results_moves_the_results(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_RESULTS", str(tmp_path / "elsewhere"))
    run, _ = recorded()
    assert run.folder == tmp_path / "elsewhere/quick" / PAPER / "main/seed_3"
    assert not (repository / "results/quick").exists()
    monkeypatch.setenv("XAI_RESULTS", "out")  # counts from the repository, wherever the notebook runs
    assert results_root() == repository / "out"


def test_load_record_refuses_what_is_no_whole_record(tmp_path):
    run, _ = recorded()
    text = (run.folder / "record.json").read_text()
    path = tmp_path / "record.json"
    with pytest.raises(FileNotFoundError, match=r"no record at .*record.json"):
        load_record(tmp_path)
    data = json.loads(text)
    for bad, message in (
        (text[: len(text) // 2], "is not a whole record"),
        ("", "is not a whole record"),
        (text.replace("97.5", "NaN"), "is not a whole record"),
        (json.dumps(data | {"schema_version": 3}), "has schema version 3, expected 1 or 2"),
        ("[]", "has schema version None"),
        (json.dumps(data | {"mood": "good"}), "mood: Extra inputs are not permitted"),
        (json.dumps({k: v for k, v in data.items() if k != "claims"}), "claims: Field required"),
        (json.dumps(data | {"seed": "3"}), "seed: Input should be a valid integer"),
        (text.replace('"not comparable"', '"surely"'), "verdict: Input should be"),
    ):
        path.write_text(bad)
        with pytest.raises(ValueError, match=r"record\.json") as caught:
            load_record(path)
        assert message in str(caught.value)


def test_two_runs_with_one_seed_give_equal_records():
    records = []
    for seed in (3, 3, 4):
        run = start(seed=seed)
        run.measure("P1.1.accuracy", torch.rand(1) * 100, "%")
        run.measure("P1.2.difference", Estimate(np.random.rand(), low=0.0))
        run.figure("fig1", picture())
        run.record()
        records.append(load_record(run.folder))
    first, second, third = records
    assert same_result(first, second) == []
    other = first.provenance.model_copy(update={"seconds": 9e9, "commit": "other"})
    assert same_result(first, first.model_copy(update={"provenance": other})) == []
    found = same_result(first, third)
    assert "seed: 3 against 4" in found
    assert any(line.startswith("metrics.P1.1.accuracy.value: ") for line in found)
    more = first.model_copy(update={"metrics": first.metrics | {"P1.9.x": Estimate(1.0)}})
    (line,) = same_result(first, more)
    assert line.startswith("metrics.P1.9.x: 'absent' against")


def test_stale_names_what_changed(repository):
    run, _ = recorded()
    record = load_record(run.folder)
    assert stale(record) == []
    (repository / f"notebooks/{PAPER}.ipynb").write_text(notebook("x = 1  # a comment"))
    (repository / f"notebooks/profiles/quick/{PAPER}.yaml").write_text("# a comment\nlearning_rate: 0.001\n")
    assert stale(record) == []
    (repository / f"notebooks/{PAPER}.ipynb").write_text(notebook("x = 2"))
    (repository / f"notebooks/profiles/quick/{PAPER}.yaml").unlink()
    changed = [f"notebooks/{PAPER}.ipynb", f"notebooks/profiles/quick/{PAPER}.yaml"]
    assert stale(record) == changed
    # against another checkout: everything there counts, the package too
    shutil.copytree(provenance.SOURCES / "xai_utils", repository / "xai_utils")
    assert stale(record, repository) == changed
    with (repository / "xai_utils/seeds.py").open("a") as stream:
        stream.write("\nMORE = 1\n")
    with (repository / "xai_utils/suite/run.py").open("a") as stream:
        stream.write("\nMORE = 1\n")
    assert stale(record, repository) == [*changed, "xai_utils/seeds.py"]


def test_a_record_holds_the_code_as_it_was_at_the_start(repository):
    run = measured(start())
    (repository / f"notebooks/{PAPER}.ipynb").write_text(notebook("x = 2"))  # saved while it runs
    run.record()
    assert stale(load_record(run.folder)) == [f"notebooks/{PAPER}.ipynb"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"value": 1.0, "colour": "red"}, "unknown field.s. colour"),
        ({"value": float("nan")}, "holds NaN"),
        ({"value": float("inf")}, "holds Infinity"),
        ({"value": "1"}, "metrics.P1.1.accuracy: .*expected one number"),
        ({"value": None}, "needs a note"),
        ({"value": 1.0, "n": -1}, "n = -1"),
        ({"value": 1.0, "low": 2.0, "high": 1.0}, "low must not exceed high"),
        ({"n": 3}, "metrics.P1.1.accuracy: .*value"),
        (0.5, "metrics.P1.1.accuracy"),
    ],
)
def test_a_metric_of_a_record_is_an_estimate(tmp_path, entry, message):
    run, _ = recorded()
    data = json.loads((run.folder / "record.json").read_text())
    data["metrics"]["P1.1.accuracy"] = entry
    (tmp_path / "record.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message):
        load_record(tmp_path)


def test_a_record_is_written_and_read_without_a_difference():
    run, _ = recorded()
    record = load_record(run.folder)
    assert Record.model_validate(json.loads(record.model_dump_json())) == record
    assert json.loads((run.folder / "record.json").read_text()) == record.model_dump(mode="json")
    with pytest.raises(ValueError, match="frozen"):
        record.seed = 4


# --- records of before: what an arm set stood in `settings`, and counted -----------------------------------------


def old(path, arm="improved", settings=None, **parameters):
    """A record of schema 1 of the run that was recorded last, with what its arm set then."""
    data = json.loads((path / "record.json").read_text())
    data.pop("overrides", None)
    data |= {"schema_version": 1, "arm": arm, "settings": settings or {}}
    data["parameters"] = GOOD | {"arm": arm} | parameters
    (path / "record.json").write_text(json.dumps(data))
    return load_record(path)


SETTINGS = {"contrast": 10.0, "shift": 1, "widths": [4, 2], "schedule": None, "momentum": 0}


def test_a_record_of_schema_1_says_what_it_was_computed_with(repository):
    with_arms(repository)
    record = old(recorded(arm="improved")[0].folder, settings=SETTINGS, widths=[8, 16])
    assert (record.schema_version, record.overrides) == (1, [])
    assert record.parameters["widths"] == [8, 16]  # what was asked for, and did not count
    assert record.values == GOOD | {"arm": "improved"} | SETTINGS
    assert stale(record) == []


def test_a_record_of_schema_1_is_stale_when_its_arm_is_another(repository):
    with_arms(repository)
    place = [f"notebooks/parameters/{PAPER}.yaml (arm improved)"]
    folder = recorded(arm="improved")[0].folder
    record = old(folder, settings=SETTINGS)
    for text in (
        ARMS.replace("shift: 1", "shift: 2"),
        ARMS.replace("widths: [4, 2]", "widths: [4, 3]"),
        ARMS.replace(", momentum: 0", ""),
        ARMS.replace("schedule: null", "schedule: null, flip: false"),
        ARMS.replace("improved:", "better:"),
    ):
        with_arms(repository, text)
        assert stale(record) == place
    with_arms(repository)
    assert stale(record) == []
    assert stale(old(folder, settings={})) == place  # made before the arm set anything
    (repository / f"notebooks/parameters/{PAPER}.yaml").unlink()
    assert stale(record) == [f"notebooks/parameters/{PAPER}.yaml"]
    assert stale(old(folder, settings={})) == []


# --- where records lie, and when they are stale --------------------------------------------------------------------


def test_a_run_with_own_values_lies_beside_its_arm(repository):
    assert run_folder("quick", PAPER, "main", 3, False) == repository / f"results/quick/{PAPER}/main/seed_3"
    assert run_folder("quick", PAPER, "main", 3, True) == repository / f"results/quick/{PAPER}/main+own/seed_3"


@pytest.mark.parametrize(
    "text",
    [
        ARMS.replace("shift: 1", "shift: 2"),
        ARMS.replace("shift: 1, ", ""),
        ARMS.replace("shift: 1", "shift: 1, more: 2"),
        ARMS.replace("widths: [4, 2]", "widths: [4, 3]"),
        ARMS.replace("widths: [4, 2], ", ""),
        ARMS.replace(", momentum: 0", ""),
        ARMS.replace("schedule: null", "schedule: null, flip: false"),
        ARMS.replace("improved:", "better:"),
    ],
    ids=range(8),
)
def test_a_record_is_stale_when_its_arm_says_other_values(repository, text):
    with_arms(repository)
    run = measured(start(arm="improved"))
    run.record()
    main = measured(start())
    main.record()
    record = load_record(run.folder)
    assert stale(record) == []
    with_arms(repository, text)
    assert stale(record) == [f"notebooks/parameters/{PAPER}.yaml (arm improved)"]
    assert stale(load_record(main.folder)) == []
    with_arms(repository, ARMS.replace("widths: [4, 2]", "widths: [ 4, 2 ]"))
    assert stale(record) == []


def test_a_record_is_stale_when_a_default_has_changed_that_it_was_made_with(repository):
    record = load_record(recorded()[0].folder)
    path = repository / f"notebooks/parameters/{PAPER}.yaml"
    rewrite(path, SCHEMA.replace("default: 0.9,", "default: 0.8,"))
    assert stale(record) == [f"notebooks/parameters/{PAPER}.yaml (arm main)"]
    rewrite(path, SCHEMA.replace("default: auto", "default: cpu").replace("default: 0, ", "default: 1, "))
    assert stale(record) == []  # device and seed say where and which
    rewrite(path, SCHEMA + 'more: {type: int, default: 3, help: "came later"}\n')
    assert stale(record) == []


def test_what_was_passed_does_not_make_a_record_stale(repository):
    with_arms(repository)
    run = measured(start(arm="improved", widths=[3], patience=5))
    run.record()
    record = load_record(run.folder)
    assert record.overrides == ["patience", "widths"]
    assert stale(record) == []
    with_arms(repository, ARMS.replace("widths: [4, 2]", "widths: [4, 3]"))
    assert stale(record) == []
    with_arms(repository, ARMS.replace("momentum: 0", "momentum: 0.5"))
    assert stale(record) == [f"notebooks/parameters/{PAPER}.yaml (arm improved)"]
