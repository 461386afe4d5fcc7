"""A run from start to record, in a tiny repository of its own: parameters, folder, metrics, record, staleness."""

import errno
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import filelock
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from xai_utils.suite import claims, provenance
from xai_utils.suite import run as experiment

PAPER = "01_id_cvae_morphing"
SCHEMA = """
profile: {type: str, choices: [quick, standard], help: "size of the run"}
seed: {type: int, minimum: 0, maximum: 2147483647, help: "seed"}
arm: {type: str, choices: [main, improved], help: "which experiment"}
device: {type: str, choices: [auto, cpu, cuda, mps], help: "where"}
learning_rate: {type: float, above: 0.0, maximum: 1.0, help: "step"}
momentum: {type: float, minimum: 0, below: 1, help: "momentum"}
patience: {type: int, minimum: 1, nullable: true, help: "epochs"}
widths: {type: int, list: true, minimum: 1, help: "channels"}
flip: {type: bool, help: "augment"}
"""
REPORTED = """
papers:
  01_id_cvae_morphing:
    title: "t"
    citation: "c"
    values:
      - {id: P1.1.accuracy, value: 98.13, unit: "%", place: "§4.2", n: 10000}
      - {id: P1.2.a, value: 1, place: "§4"}
      - {id: P1.2.b, value: 2.5, std: 0.5, place: "§4"}
      - {id: P1.2.c, value: 3, unit: s, place: "§4"}
      - {id: P1.2.d, value: 4, place: "§4"}
    claims:
      P1.1:
        kind: value
        statement: "The accuracy is high."
        place: "§4.2"
        rule:
          arms: [main, improved]
          comparable: {profile: [standard], flip: [true]}
          conditions: [{metric: P1.1.accuracy, test: at_least, bound: 98.13}]
      P1.2:
        kind: relation
        statement: "The right map is nearer."
        place: "§4.2"
        rule:
          arms: [main, improved]
          conditions: [{metric: P1.2.difference, test: above, bound: 0, use: low}]
      P1.3:
        kind: judgement
        statement: "It pleases the people."
        place: "§4.3"
        rule: {never: not tested, because: "this needs people to look at it"}
"""
GOOD = {
    "profile": "quick",
    "seed": 3,
    "arm": "main",
    "device": "cpu",
    "learning_rate": 0.001,
    "momentum": 0.9,
    "patience": None,
    "widths": [8, 16],
    "flip": True,
}


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    root = tmp_path / "repository"
    for name, text in {
        f"notebooks/parameters/{PAPER}.yaml": SCHEMA,
        f"notebooks/profiles/quick/{PAPER}.yaml": "learning_rate: 0.001",
        f"notebooks/{PAPER}.ipynb": notebook("x = 1"),
        "results/reported.yaml": REPORTED,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setenv("XAI_ROOT", str(root))
    monkeypatch.delenv("XAI_RESULTS", raising=False)
    monkeypatch.setattr(experiment, "_active", None)
    yield root
    if experiment._active:
        experiment._active._close("was ended by the test")
    plt.close("all")


def notebook(source):
    cell = {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": 1}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def start(**changes):
    return experiment.start(PAPER, GOOD | changes)


def picture(height=1.0):
    fig, ax = plt.subplots(figsize=(2, 2))
    ax.plot([0, height])
    return fig


def measured(run, accuracy=97.5, low=0.1):
    run.measure("P1.1.accuracy", accuracy, "%", n=1000)
    run.measure("P1.2.difference", 0.2, low=low, high=0.3)
    return run


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- parameters ------------------------------------------------------------------------------------------------


def test_start_takes_the_notebooks_globals(repository):
    names = {
        **GOOD,
        "widths": (8, 16),
        "learning_rate": 1,
        **{"_": 5, "_i1": "x = 1", "__name__": "__main__", "In": ["x = 1"], "Out": {}, "exit": object()},
        **{"np": np, "start": start, "Path": Path, "table": {"a": 1}, "tensor": torch.zeros(1), "mixed": [1, {}]},
    }
    run = experiment.start(PAPER, names)
    assert dict(run.parameters) == {**GOOD, "widths": (8, 16), "learning_rate": 1.0}
    assert type(run.parameters["learning_rate"]) is float
    assert (run.paper, run.profile, run.arm, run.seed) == (PAPER, "quick", "main", 3)
    assert run.device == torch.device("cpu")
    assert run.folder == repository / "results/quick" / PAPER / "main/seed_3"
    with pytest.raises(TypeError):
        run.parameters["seed"] = 4
    assert repr(run) == f"Run({PAPER}, quick, main, seed 3, cpu)"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("seed", 0.001, "seed = 0.001 (float): expected int, at least 0, at most 2147483647."),
        ("seed", 1.0, "seed = 1.0 (float): expected int"),
        ("seed", True, "seed = True (bool): expected int"),
        ("seed", "1", "seed = '1' (str): expected int"),
        ("seed", -1, "seed = -1 (int): expected int, at least 0"),
        ("seed", 2**31, "at most 2147483647"),
        ("seed", None, "seed = None (NoneType): expected int"),
        ("seed", np.zeros(2), "(ndarray): expected int"),
        ("learning_rate", "1e-4", "learning_rate = '1e-4' (str): expected float, above 0, at most 1. Change it. "
         "(YAML reads 1e-4 as text: write 1.0e-4.)"),
        ("learning_rate", "2.5E3", "write 2.5e+3"),
        ("learning_rate", 0.0, "expected float, above 0"),
        ("learning_rate", 1.0001, "at most 1."),
        ("learning_rate", math.nan, "learning_rate = nan (float)"),
        ("learning_rate", True, "learning_rate = True (bool)"),
        ("momentum", 1.0, "momentum = 1.0 (float): expected float, at least 0, below 1."),
        ("momentum", -0.1, "momentum = -0.1"),
        ("patience", 0, "patience = 0 (int): expected int, at least 1 (or None)."),
        ("profile", "fast", "profile = 'fast' (str): expected str, one of 'quick', 'standard'."),
        ("flip", 1, "flip = 1 (int): expected bool."),
        ("widths", 8, "widths = 8 (int): expected list of int, at least 1."),
        ("widths", [8, 0], "widths = [8, 0] (list): expected list of int, at least 1."),
        ("widths", (8, "16"), "expected list of int"),
        ("learning_rat", 0.1, "learning_rat = 0.1 (float): no such parameter; the closest is 'learning_rate'."),
        ("sede", [1, 2], "sede = [1, 2] (list): no such parameter; the closest is 'seed'."),
        ("stray", None, "stray = None (NoneType): no such parameter"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named_with_what_was_expected(repository, name, value, expected):
    before = content(repository)
    with pytest.raises(ValueError, match="1 wrong parameter") as caught:
        start(**{name: value})
    assert expected in str(caught.value)
    assert f"notebooks/parameters/{PAPER}.yaml" in str(caught.value)
    assert content(repository) == before
    assert not (repository / "results/quick").exists()


@pytest.mark.parametrize(("name", "value"), [("seed", 0), ("seed", 2**31 - 1), ("learning_rate", 1.0), ("momentum", 0)])
def test_closed_bounds_are_allowed(name, value):
    assert start(**{name: value}).parameters[name] == value


def test_one_error_lists_every_problem():
    names = GOOD | {"seed": True, "learning_rate": "1e-4", "epochs": 3, "widths": [0, 0, "x"]}
    del names["flip"], names["profile"]
    with pytest.raises(ValueError, match="6 wrong parameter") as caught:
        experiment.start(PAPER, names)
    lines = str(caught.value).splitlines()
    assert len(lines) == 7
    assert sorted(line.split()[0].rstrip(":") for line in lines[1:]) == [
        *("epochs", "flip", "learning_rate", "profile", "seed", "widths"),
    ]
    assert "flip: missing; expected bool. Set it in the cell tagged parameters." in str(caught.value)


def test_a_paper_without_a_schema(repository):
    (repository / "notebooks/parameters/05_lrp_bn.yaml").write_text(SCHEMA)
    with pytest.raises(FileNotFoundError, match=f"'06_x'.*Papers that have one: {PAPER}, 05_lrp_bn"):
        experiment.start("06_x", GOOD)
    with pytest.raises(ValueError, match=r"reported.yaml has no paper '05_lrp_bn'"):
        experiment.start("05_lrp_bn", GOOD)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: {type: int, help: h, minimun: 0}", "seed.minimun: Extra inputs are not permitted"),
        ("seed: {type: integer, help: h}", "seed.type: Input should be 'str', 'int', 'float' or 'bool'"),
        ("seed: {type: int}", "seed.help: Field required"),
        ("seed: {type: float, help: h, choices: [1]}", "every choice must be of type float"),
        ("seed: {type: str, help: h, minimum: 1}", "type str takes no minimum"),
        ("seed: {type: int, help: h, minimum: '0'}", "seed.minimum: Input should be a valid number"),
        ("seed: [", "is not valid YAML"),
        ("", "is not valid"),
        ("seed: {type: int, help: h}", "lacks profile"),
    ],
)
def test_the_schema_itself_is_checked(repository, text, message):
    (repository / f"notebooks/parameters/{PAPER}.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"{PAPER}.yaml") as caught:
        start()
    assert message in str(caught.value)


def test_arm_and_device_have_defaults_and_a_folder_name_is_checked(repository):
    path = repository / f"notebooks/parameters/{PAPER}.yaml"
    lines = [line for line in SCHEMA.splitlines() if not line.startswith(("arm", "device"))]
    path.write_text("\n".join(lines))
    names = {k: v for k, v in GOOD.items() if k not in ("arm", "device")}
    run = experiment.start(PAPER, names)
    assert run.arm == "main"
    assert run.folder.parts[-2:] == ("main", "seed_3")
    path.write_text("\n".join([*lines, "arm: {type: str, help: h}"]))
    for bad in ("../up", "", "a/b", ".."):
        with pytest.raises(ValueError, match="becomes a folder's name"):
            experiment.start(PAPER, {**names, "arm": bad})


def test_device(monkeypatch):
    for cuda, mps, auto in ((False, False, "cpu"), (True, False, "cuda"), (False, True, "mps"), (True, True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert experiment._device("auto").type == auto
        assert experiment._device("cpu").type == "cpu"
        for name, present in (("cuda", cuda), ("mps", mps)):
            if present:
                assert experiment._device(name).type == name
            else:
                with pytest.raises(RuntimeError, match=f"device = '{name}'.*Set device to 'auto' or 'cpu'"):
                    experiment._device(name)
    with pytest.raises(ValueError, match="expected auto, cpu, cuda or mps"):
        experiment._device("tpu")


def test_start_seeds_everything_and_leaves_threads_alone():
    threads = torch.get_num_threads()
    drawn = []
    for seed in (3, 3, 4):
        start(seed=seed)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2]))
    assert torch.get_num_threads() == threads


# --- measuring ---------------------------------------------------------------------------------------------------


def test_measure_returns_the_number_as_a_float():
    run = start()
    assert run.measure("P1.1.a", 3) == 3.0
    assert run.measure("P1.1.b", np.float32(0.5), low=np.float64(0.1), n=np.int64(4)) == 0.5
    assert run.measure("P1.1.c", torch.tensor([2.5]), high=torch.tensor(3)) == 2.5
    assert math.isnan(run.measure("P1.1.d", None, note="not defined because no image is wrong"))
    assert run._metrics["P1.1.b"] == experiment.Metric(value=0.5, low=0.1, n=4)
    assert run._metrics["P1.1.d"].value is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("P1.1.a", math.nan), ValueError, "P1.1.a, value = nan: not finite"),
        (("P1.1.a", 1.0, "", None, -math.inf), ValueError, "P1.1.a, low = -inf"),
        (("P1.1.a", 1.0, "", None, 0.9, 0.8), ValueError, "low must not exceed high"),
        (("P1.1.a", None), ValueError, "needs a note"),
        (("P1.1.a", None, "", None, 0.1, 0.2, "note"), ValueError, "has no interval"),
        (("P1.1.a", "3"), TypeError, r"P1.1.a, value = '3' \(str\): expected one number"),
        (("P1.1.a", True), TypeError, "expected one number"),
        (("P1.1.a", np.bool_(True)), TypeError, "expected one number"),
        (("P1.1.a", np.ones(2)), TypeError, "expected one number"),
        (("P1.1.a", torch.ones(2)), TypeError, "expected one number"),
        (("P1.1.a", 1.0, "", -1), ValueError, "metric P1.1.a is not valid"),
        (("P1.1.a", 1.0, "", 2.5), ValueError, "metric P1.1.a is not valid"),
        (("accuracy", 1.0), ValueError, "metric 'accuracy': expected a name such as 'P1.1.accuracy'"),
        (("P1.1.taken", 1.0), ValueError, "metric 'P1.1.taken' was given before"),
    ],
)
def test_measure_refuses(arguments, error, message):
    run = start()
    run.measure("P1.1.taken", 0.0)
    with pytest.raises(error, match=message):
        run.measure(*arguments)
    assert list(run._metrics) == ["P1.1.taken"]


def test_uses_checks_a_data_sets_provenance():
    run = start()
    digits = {"name": "digits", "sha256": "ab", "variant": "embedded"}
    run.uses(digits)
    run.uses(types.MappingProxyType(digits))
    assert len(run._sources) == 1
    for bad in ({"variant": "mine"}, {"name": "/home/me/photos"}, {"more": "x"}, {"sha256": 3}):
        with pytest.raises(ValueError, match=f"provenance of a data set is not valid.*\n.*{next(iter(bad))}"):
            run.uses(digits | bad)


def test_pictures_that_may_not_be_republished_are_greyed_and_maps_stay():
    def drawn(picture, heat):
        fig, axes = plt.subplots(1, 2, figsize=(2, 1))
        for ax in axes:
            ax.imshow(picture, vmin=0, vmax=1, cmap="gray")
        axes[1].imshow(heat, cmap="jet", vmin=0, vmax=1, alpha=0.45)
        return fig

    rng, run = np.random.default_rng(0), start()
    one, two, rgb, heat, other = (rng.random(shape) for shape in ((8, 8), (8, 8), (8, 8, 3), (8, 8), (8, 8)))
    shown = run.figure("one", drawn(one, heat))
    assert np.array_equal(shown.axes[0].images[0].get_array(), one)
    run.figure("two", drawn(two, heat))
    assert run._figures["one"] != run._figures["two"]
    for name in experiment.UNPUBLISHED:
        run = start()
        run.uses({"name": name, "sha256": "", "variant": "prepared"})
        kept = [run.figure(f"f{i}", drawn(picture, heat)) for i, picture in enumerate((one, two, rgb))]
        assert run._figures["f0"] == run._figures["f1"] == run._figures["f2"]
        for axes in (axes for fig in kept for axes in fig.axes):  # what the notebook displays
            assert np.unique(axes.images[0].get_array()).size == 1
        assert np.array_equal(kept[0].axes[1].images[1].get_array(), heat)
        assert f"pictures of {name} are not republished" in [text.get_text() for text in kept[0].texts]
        run.figure("curve", picture())
        assert not plt.gcf().texts
        run.figure("other", drawn(one, other))
        assert run._figures["other"] != run._figures["f0"]


def test_figures_are_kept_as_they_are_and_repeat_byte_by_byte():
    run = start()
    fig = picture()
    assert run.figure("fig1", fig) is fig
    fig.clear()
    run.figure("again", picture())
    assert run._figures["fig1"] == run._figures["again"]
    run.figure("other", picture(2.0))
    assert run._figures["other"] != run._figures["fig1"]
    assert run._figures["fig1"][:8] == b"\x89PNG\r\n\x1a\n"
    assert b"matplotlib" not in run._figures["fig1"].lower()
    assert int.from_bytes(run._figures["fig1"][16:20], "big") == 220  # 2 inches at 110 dpi
    with pytest.raises(ValueError, match="figure 'fig1' was given before"):
        run.figure("fig1", picture())
    with pytest.raises(ValueError, match=r"figure '../x': expected a name such as 'fig2_morph'"):
        run.figure("../x", picture())
    with pytest.raises(TypeError, match="expected a matplotlib Figure, got Axes"):
        run.figure("axes", fig.gca())


def test_arrays_refuse_objects():
    run = start()
    with pytest.raises(TypeError, match=r"arrays 'a': bad holds Python objects"):
        run.arrays("a", good=[1, 2], bad=[{}, None])
    run.arrays("a", good=[1, 2])
    with pytest.raises(ValueError, match="arrays 'a' was given before"):
        run.arrays("a", good=[1])


# --- recording -----------------------------------------------------------------------------------------------------


def recorded(**changes):
    run = measured(start(**changes))
    run.uses({"name": "digits", "sha256": "ab", "variant": "embedded"})
    run.figure("fig1", picture())
    run.arrays("curve", x=np.arange(3.0), t=torch.ones(2, requires_grad=True), names=np.array(["a", "b"]))
    run.checkpoint("model").write_bytes(b"weights")
    return run, run.record()


def test_a_record_holds_everything(repository):
    run, _ = recorded()
    assert sorted(content(run.folder)) == ["curve.npz", "fig1.png", "record.json"]
    assert sorted(p.name for p in run.folder.parent.iterdir()) == ["seed_3"]  # nothing temporary is left
    record = experiment.load_record(run.folder)
    assert record == experiment.load_record(run.folder / "record.json")
    assert (record.schema_version, record.paper, record.profile, record.arm, record.seed) == (
        1,
        PAPER,
        "quick",
        "main",
        3,
    )
    assert record.parameters == GOOD
    assert record.metrics["P1.1.accuracy"] == experiment.Metric(value=97.5, unit="%", n=1000)
    assert record.claims == claims.evaluate(
        claims.load(), PAPER, record.metrics, {**GOOD, "profile": "quick", "arm": "main", "dataset": "digits"}
    )
    assert (record.figures, record.arrays) == (["fig1"], ["curve"])
    with np.load(run.folder / "curve.npz", allow_pickle=False) as arrays:
        assert arrays["x"].tolist() == [0, 1, 2]
        assert arrays["t"].tolist() == [1, 1]
        assert arrays["names"].tolist() == ["a", "b"]
    made = record.provenance
    assert made.commit == "unknown"
    assert made.dirty is None
    assert made.threads == torch.get_num_threads()
    assert made.device == "cpu"
    assert made.data == [experiment.DataSource(name="digits", sha256="ab", variant="embedded")]
    assert made.seconds >= 0
    assert made.started.endswith("+00:00")
    assert {f"notebooks/{PAPER}.ipynb", "xai_utils/seeds.py"} < set(made.modules)
    text = (run.folder / "record.json").read_text()
    for private in (str(repository), os.getcwd(), str(Path.home()), os.uname().nodename):
        assert private not in text


def test_the_claims_table_is_stable_text():
    _, table = recorded()
    assert list(table.columns) == ["claim", "kind", "statement", "paper", "this run", "verdict"]
    assert table.claim.tolist() == ["P1.1", "P1.2", "P1.3"]
    assert table.verdict.tolist() == ["not comparable", "reproduced", "not tested"]
    assert table.paper.tolist() == ["98.13 %", "a 1; b 2.5 ± 0.5; c 3 s; … (4 in all)", "—"]
    assert table["this run"][2] == "this needs people to look at it"
    assert table[["claim", "verdict"]].to_string() == (
        "  claim         verdict\n0  P1.1  not comparable\n1  P1.2      reproduced\n2  P1.3      not tested"
    )


def test_profile_arm_and_parameters_reach_the_rules():
    run = measured(start(profile="standard", arm="improved"), accuracy=99.0)
    assert run.record().verdict[0] == "reproduced"
    assert run.folder.parts[-4:] == ("standard", PAPER, "improved", "seed_3")
    run = measured(start(profile="standard", flip=False), accuracy=99.0)
    assert run.record().verdict[0] == "not comparable"


def test_a_missing_metric_stops_before_anything_is_written():
    run = start()
    run.measure("P1.1.accuracy", 90.0)
    run.checkpoint("model").write_bytes(b"weights")
    before = content(run.folder)
    with pytest.raises(claims.MissingMetric, match=r"P1\.2\.difference"):
        run.record()
    assert content(run.folder) == before
    run.measure("P1.2.difference", 1.0, low=0.5)  # the run is still open
    assert run.record().verdict[1] == "reproduced"


def test_a_recorded_run_is_closed():
    run, _ = recorded()
    before = content(run.folder)
    for action in (
        run.record,
        lambda: run.measure("P1.1.x", 1.0),
        lambda: run.figure("x", picture()),
        lambda: run.arrays("x", a=[1]),
        lambda: run.checkpoint("x"),
        lambda: run.uses({}),
    ):
        with pytest.raises(RuntimeError, match=r"this run has been recorded. Begin a new one with experiment.start"):
            action()
    assert content(run.folder) == before


def test_a_new_record_replaces_the_files_of_the_old_one():
    run, _ = recorded()
    (run.folder / "executed.ipynb").write_text("{}")
    run = measured(start(), accuracy=50.0)
    run.figure("other", picture(3.0))
    run.record()
    assert sorted(content(run.folder)) == ["executed.ipynb", "other.png", "record.json"]
    assert experiment.load_record(run.folder).metrics["P1.1.accuracy"].value == 50.0


def test_at_no_instant_does_a_record_stand_beside_files_that_are_not_its_own(monkeypatch):
    old, _ = recorded()
    owned = {"old": content(old.folder)}
    run = measured(start(), accuracy=50.0)
    run.figure("fig1", picture(3.0))
    run.figure("fig2", picture())
    seen, replace = [], os.replace

    def watched(source, target):
        replace(source, target)
        seen.append({k: v for k, v in content(run.folder).items() if k != ".lock"})

    monkeypatch.setattr(os, "replace", watched)
    run.record()
    owned["new"] = content(run.folder)
    assert len(seen) == 6  # three files go, three come
    with_record = [files for files in seen if "record.json" in files]
    assert with_record == [owned["new"]]
    assert seen[0].keys() == {"curve.npz", "fig1.png"}
    assert owned["new"]["fig1.png"] != owned["old"]["fig1.png"]


@pytest.mark.parametrize("moves", range(6))
def test_a_failure_while_moving_puts_the_old_record_back(monkeypatch, moves):
    old, _ = recorded()
    before = content(old.folder)
    run = measured(start(), accuracy=50.0)
    run.figure("fig1", picture(3.0))
    run.figure("fig2", picture())
    replace, done = os.replace, []

    def failing(source, target):
        if len(done) == moves:
            done.append("failed")
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)
        done.append(target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(RuntimeError, match="Input/output error"):
        run.record()
    monkeypatch.undo()
    after = content(run.folder)
    assert after.pop(".lock") == b""
    assert after == before
    assert sorted(p.name for p in run.folder.parent.iterdir()) == ["seed_3"]


def test_a_full_disk_leaves_the_old_record_and_the_run_can_record_again(monkeypatch):
    old, _ = recorded()
    before = content(old.folder)
    run = measured(start(), accuracy=50.0)
    run.figure("fig1", picture(3.0))
    run.checkpoint("model").write_bytes(b"weights")
    write = Path.write_bytes

    def full(path, data):
        write(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(RuntimeError, match=r"No space left on device.*older record there is as it was") as caught:
            run.record()
    assert str(run.folder) in str(caught.value)
    assert "XAI_RESULTS" in str(caught.value)
    assert content(run.folder) == {**before, ".lock": b"", "checkpoints/model.pt": b"weights"}
    assert sorted(p.name for p in run.folder.parent.iterdir()) == ["seed_3"]
    run.record()
    assert experiment.load_record(run.folder).metrics["P1.1.accuracy"].value == 50.0


def test_too_large_a_run_is_refused_before_anything_moves():
    old, _ = recorded()
    before = content(old.folder)
    run = measured(start())
    noise = np.random.default_rng(0).integers(0, 256, 1_600_000, dtype=np.uint8)
    run.arrays("small", x=noise)
    run.arrays("large", x=noise, y=noise[::-1])
    with pytest.raises(ValueError, match=r"would hold 4\.8\d MB, more than 3 MB \(large.npz 3\.2\d MB") as caught:
        run.record()
    assert str(run.folder) in str(caught.value)
    assert content(run.folder) == {**before, ".lock": b""}


def test_the_executed_notebook_counts_and_what_is_replaced_does_not():
    noise = np.random.default_rng(0).integers(0, 256, 1_800_000, dtype=np.uint8)
    for _ in range(2):  # the second record replaces the first one's 1.8 MB
        run = measured(start())
        run.arrays("a", x=noise)
        run.record()
    run = measured(start())
    run.arrays("a", x=noise)
    (run.folder / "executed.ipynb").write_bytes(b" " * 1_300_000)
    with pytest.raises(ValueError, match=r"more than 3 MB \(a.npz 1\.80 MB, executed.ipynb 1\.30 MB"):
        run.record()


@pytest.mark.parametrize("place", ["results", "results/quick/01_id_cvae_morphing/main/seed_3"])
def test_a_results_folder_that_is_a_file(repository, tmp_path, monkeypatch, place):
    monkeypatch.setenv("XAI_RESULTS", str(tmp_path / "results"))
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("a file")
    before = content(tmp_path)
    with pytest.raises(RuntimeError, match=r"cannot write the results folder .*results/quick.*XAI_RESULTS"):
        start()
    assert content(tmp_path) == before


def test_xai_results_moves_the_results(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_RESULTS", str(tmp_path / "elsewhere"))
    run, _ = recorded()
    assert run.folder == tmp_path / "elsewhere/quick" / PAPER / "main/seed_3"
    assert not (repository / "results/quick").exists()
    monkeypatch.setenv("XAI_RESULTS", "out")  # counts from the repository, wherever the notebook runs
    assert experiment.results_root() == repository / "out"


# --- one run at a time ---------------------------------------------------------------------------------------------


def test_a_second_run_into_the_folder_is_refused_and_writes_nothing():
    run, _ = recorded()
    with filelock.FileLock(run.folder / ".lock", timeout=0):
        before = content(run.folder)
        with pytest.raises(RuntimeError, match=r"another run is writing into .*seed_3. Wait until it has ended"):
            start()
        assert content(run.folder) == before
        assert start(seed=4).folder.name == "seed_4"
    start()


def test_a_run_of_a_batch_waits_for_one_that_was_left_behind(monkeypatch, capfd):
    folder = measured(start()).folder
    experiment._active._close("was ended by the test")
    code = "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); "
    command = [sys.executable, "-c", code + "time.sleep(1)", str(folder / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "1\n"
        monkeypatch.setenv("XAI_WAIT", "60")
        measured(start()).record()
        assert process.poll() == 0
    assert f"another run is writing into {folder}; waiting for its end, 60 s at most" in capfd.readouterr().err


def test_what_killed_runs_left_does_not_count_as_the_records_size(monkeypatch):
    run = measured(start())
    monkeypatch.setattr(experiment, "SIZE_LIMIT", 40_000)
    for name in ("notebook.running-node-7.ipynb", "notebook.failed.ipynb"):
        (run.folder / name).write_bytes(bytes(50_000))
    run.record()
    (run.folder / "notebook.ipynb").write_bytes(bytes(50_000))
    with pytest.raises(ValueError, match="would hold"):
        measured(start()).record()


def test_a_notebook_run_again_from_its_top_gives_the_old_run_up():
    first = start()
    first.measure("P1.1.accuracy", 1.0)
    second = start()
    with pytest.raises(RuntimeError, match="this run was given up for a later one"):
        first.measure("P1.1.x", 1.0)
    third = start(seed=5)
    assert not (second.folder / ".lock").exists()
    with filelock.FileLock(second.folder / ".lock", timeout=0):  # free for another process
        pass
    measured(third).record()


def test_wrong_parameters_leave_the_open_run_alone():
    run = start()
    with pytest.raises(ValueError, match="wrong parameter"):
        start(seed=-1)
    measured(run).record()


def test_a_killed_process_leaves_no_stale_lock_and_its_leftovers_go():
    folder = measured(start()).folder
    experiment._active._close("was ended by the test")
    code = "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); "
    command = [sys.executable, "-c", code + "time.sleep(60)", str(folder / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "1\n"
        with pytest.raises(RuntimeError, match="another run is writing"):
            start()
        process.send_signal(signal.SIGKILL)
    half = folder.parent / ".seed_3.record-abc/new"
    half.mkdir(parents=True)
    (half / "record.json").write_text("{")
    neighbour = folder.parent / ".seed_31.record-abc"
    neighbour.mkdir()
    start()
    assert not half.parent.exists()
    assert neighbour.exists()  # another run may be recording there


# --- reading -------------------------------------------------------------------------------------------------------


def test_load_record_refuses_what_is_no_whole_record(tmp_path):
    run, _ = recorded()
    text = (run.folder / "record.json").read_text()
    path = tmp_path / "record.json"
    with pytest.raises(FileNotFoundError, match=r"no record at .*record.json"):
        experiment.load_record(tmp_path)
    data = json.loads(text)
    for bad, message in (
        (text[: len(text) // 2], "is not a whole record"),
        ("", "is not a whole record"),
        (text.replace("97.5", "NaN"), "is not a whole record"),
        (json.dumps(data | {"schema_version": 2}), "has schema version 2, expected 1"),
        ("[]", "has schema version None"),
        (json.dumps(data | {"mood": "good"}), "mood: Extra inputs are not permitted"),
        (json.dumps({k: v for k, v in data.items() if k != "claims"}), "claims: Field required"),
        (json.dumps(data | {"seed": "3"}), "seed: Input should be a valid integer"),
        (text.replace('"not comparable"', '"surely"'), "verdict: Input should be"),
    ):
        path.write_text(bad)
        with pytest.raises(ValueError, match=r"record\.json") as caught:
            experiment.load_record(path)
        assert message in str(caught.value)


def test_two_runs_with_one_seed_give_equal_records():
    records = []
    for seed in (3, 3, 4):
        run = start(seed=seed)
        run.measure("P1.1.accuracy", torch.rand(1) * 100, "%")
        run.measure("P1.2.difference", np.random.rand(), low=0.0)
        run.figure("fig1", picture())
        run.record()
        records.append(experiment.load_record(run.folder))
    first, second, third = records
    assert experiment.same_result(first, second) == []
    other = first.provenance.model_copy(update={"seconds": 9e9, "commit": "other"})
    assert experiment.same_result(first, first.model_copy(update={"provenance": other})) == []
    found = experiment.same_result(first, third)
    assert "seed: 3 against 4" in found
    assert any(line.startswith("metrics.P1.1.accuracy.value: ") for line in found)
    more = first.model_copy(update={"metrics": first.metrics | {"P1.9.x": experiment.Metric(value=1.0)}})
    (line,) = experiment.same_result(first, more)
    assert line.startswith("metrics.P1.9.x: 'absent' against")


def test_stale_names_what_changed(repository):
    run, _ = recorded()
    record = experiment.load_record(run.folder)
    assert experiment.stale(record) == []
    (repository / f"notebooks/{PAPER}.ipynb").write_text(notebook("x = 1  # a comment"))
    (repository / f"notebooks/profiles/quick/{PAPER}.yaml").write_text("# a comment\nlearning_rate: 0.001\n")
    assert experiment.stale(record) == []
    (repository / f"notebooks/{PAPER}.ipynb").write_text(notebook("x = 2"))
    (repository / f"notebooks/profiles/quick/{PAPER}.yaml").unlink()
    changed = [f"notebooks/{PAPER}.ipynb", f"notebooks/profiles/quick/{PAPER}.yaml"]
    assert experiment.stale(record) == changed
    # against another checkout: everything there counts, the package too
    shutil.copytree(provenance.SOURCES / "xai_utils", repository / "xai_utils")
    assert experiment.stale(record, repository) == changed
    with (repository / "xai_utils/seeds.py").open("a") as stream:
        stream.write("\nMORE = 1\n")
    with (repository / "xai_utils/suite/run.py").open("a") as stream:
        stream.write("\nMORE = 1\n")
    assert experiment.stale(record, repository) == [*changed, "xai_utils/seeds.py"]


def test_a_record_holds_the_code_as_it_was_at_the_start(repository):
    run = measured(start())
    (repository / f"notebooks/{PAPER}.ipynb").write_text(notebook("x = 2"))  # saved while it runs
    run.record()
    assert experiment.stale(experiment.load_record(run.folder)) == [f"notebooks/{PAPER}.ipynb"]


def test_the_published_fields_are_closed():
    with pytest.raises(ValueError, match="Extra inputs"):
        experiment.Metric(value=1.0, colour="red")
    for bad in (math.nan, math.inf, "1"):
        with pytest.raises(ValueError, match="value"):
            experiment.Metric(value=bad)


# arms: an entry of the parameter file that makes `arm` a parameter, and the settings of each ------------------------

ARMS = """
arms:
  main: {contrast: 0.0}
  improved: {contrast: 10.0, shift: 1, widths: [8, 16], schedule: null}
"""


def with_arms(repository, text=ARMS):
    lines = [line for line in SCHEMA.splitlines() if not line.startswith("arm:")]
    (repository / f"notebooks/parameters/{PAPER}.yaml").write_text(text + "\n".join(lines))


def test_the_settings_of_an_arm_reach_the_run_and_its_record(repository):
    with_arms(repository)
    run = measured(start(arm="improved"))
    assert dict(run.settings) == {"contrast": 10.0, "shift": 1, "widths": [8, 16], "schedule": None}
    assert run.parameters["arm"] == run.arm == run.folder.parent.name == "improved"
    with pytest.raises(TypeError):
        run.settings["contrast"] = 1.0
    run.record()
    assert experiment.load_record(run.folder).settings == dict(run.settings)
    main = measured(start())
    main.record()
    assert experiment.load_record(main.folder).settings == {"contrast": 0.0}


def test_an_unknown_arm_is_refused_with_those_there_are(repository):
    with_arms(repository)
    with pytest.raises(ValueError, match=r"arm = 'best' \(str\): expected str, one of 'main', 'improved'\."):
        start(arm="best")
    with pytest.raises(ValueError, match=r"arm: missing; expected str, one of 'main', 'improved'"):
        experiment.start(PAPER, {name: value for name, value in GOOD.items() if name != "arm"})
    assert not (repository / "results/quick").exists()


def test_without_arms_a_run_has_no_settings():
    run = measured(start())
    assert dict(run.settings) == {}
    run.record()
    assert experiment.load_record(run.folder).settings == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arms: [main, improved]\n", r"arms of .*\.yaml is not valid; correct it:\n.*valid dictionary"),
        ("arms:\n", r"arms of .*\.yaml is not valid; correct it:\n.*valid dictionary"),
        ("arms: {main: 0.5}\n", r"main: Input should be a valid dictionary \(got 0.5\)"),
        ("arms: {main: {contrast: {a: 1}}}\n", r"main\.contrast"),
        ("arms: {}\n", r"arm\.choices: List should have at least 1 item"),
    ],
)
def test_arms_that_are_no_mapping_of_settings(repository, text, message):
    with_arms(repository, text)
    with pytest.raises(ValueError, match=message):
        start()


def test_versions_are_those_a_record_names():
    shown = experiment.versions()
    record = experiment.load_record(recorded()[0].folder)
    assert shown.to_dict() == {"python": record.provenance.python, **record.provenance.packages}
    assert shown["python"] == ".".join(map(str, sys.version_info[:3]))
    assert shown["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert shown["numpy"] == np.__version__
