"""A run from start to record, in a checkout of its own: whose values count, folder, metrics, figures, record, lock."""

import base64
import errno
import hashlib
import math
import os
import random
import re
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
import yaml
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from tiny_paper import GOOD, PAPER, SCHEMA, content, measured, picture, recorded, rewrite, start, with_arms

from xai_utils.data.store import unpublished
from xai_utils.metrics import statistics
from xai_utils.metrics.statistics import Estimate
from xai_utils.suite import batch, claims
from xai_utils.suite import run as suite_run
from xai_utils.suite.parameters import PASSED
from xai_utils.suite.record import DataSource, load_record, stale

pytestmark = pytest.mark.usefixtures("repository")

# --- parameters ------------------------------------------------------------------------------------------------


def test_start_takes_the_notebooks_globals(repository):
    names = {
        **GOOD,
        "widths": (8, 16),
        "learning_rate": 1,
        **{"_": 5, "_i1": "x = 1", "__name__": "__main__", "In": ["x = 1"], "Out": {}, "exit": object()},
        **{"np": np, "start": start, "Path": Path, "table": {"a": 1}, "tensor": torch.zeros(1), "mixed": [1, {}]},
    }
    run = suite_run.start(PAPER, names)
    assert dict(run.parameters) == {**GOOD, "widths": (8, 16), "learning_rate": 1.0}
    assert type(run.parameters["learning_rate"]) is float
    assert (run.paper, run.profile, run.arm, run.seed) == (PAPER, "quick", "main", 3)
    assert run.device == torch.device("cpu")
    assert run.folder == repository / "results/quick" / PAPER / "main+own/seed_3"
    with pytest.raises(TypeError):
        run.parameters["seed"] = 4
    assert repr(run) == f"Run({PAPER}, quick, main, seed 3, cpu)"


def test_a_wrong_parameter_leaves_no_trace(repository):
    before = content(repository)
    with pytest.raises(ValueError, match="2 wrong parameter"):
        start(seed=-1, stray=None)
    assert content(repository) == before
    assert not (repository / "results/quick").exists()


def test_a_paper_without_a_schema(repository):
    (repository / "notebooks/parameters/05_lrp_bn.yaml").write_text(SCHEMA)
    with pytest.raises(FileNotFoundError, match=f"'06_x'.*Papers that have one: {PAPER}, 05_lrp_bn"):
        suite_run.start("06_x", GOOD)
    with pytest.raises(ValueError, match=r"reported.yaml has no paper '05_lrp_bn'"):
        suite_run.start("05_lrp_bn", GOOD)


def test_arm_and_device_have_defaults_and_a_folder_name_is_checked(repository):
    path = repository / f"notebooks/parameters/{PAPER}.yaml"
    lines = [line for line in SCHEMA.splitlines() if not line.startswith(("arm", "device"))]
    path.write_text("\n".join(lines))
    names = {k: v for k, v in GOOD.items() if k not in ("arm", "device")}
    run = suite_run.start(PAPER, names)
    assert run.arm == "main"
    assert run.folder.parts[-2:] == ("main", "seed_3")
    path.write_text("\n".join([*lines, "arm: {type: str, default: main, help: h}"]))
    for bad in ("../up", "", "a/b", ".."):
        with pytest.raises(ValueError, match="becomes a folder's name"):
            suite_run.start(PAPER, {**names, "arm": bad})


def test_device(monkeypatch):
    for cuda, mps, auto in ((False, False, "cpu"), (True, False, "cuda"), (False, True, "mps"), (True, True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert suite_run._device("auto").type == auto
        assert suite_run._device("cpu").type == "cpu"
        for name, present in (("cuda", cuda), ("mps", mps)):
            if present:
                assert suite_run._device(name).type == name
            else:
                with pytest.raises(RuntimeError, match=f"device = '{name}'.*Set device to 'auto' or 'cpu'"):
                    suite_run._device(name)
    with pytest.raises(ValueError, match="expected auto, cpu, cuda or mps"):
        suite_run._device("tpu")


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
    assert type(run.measure("P1.1.aa", 3)) is float
    assert run.measure("P1.1.b", np.float32(0.5), n=np.int64(4)) == 0.5
    assert run.measure("P1.1.c", torch.tensor([2.5]), "px") == 2.5
    assert math.isnan(run.measure("P1.1.d", None, note="not defined because no image is wrong"))
    assert run._metrics["P1.1.b"] == Estimate(0.5, 4)
    assert run._metrics["P1.1.c"] == Estimate(2.5, unit="px")
    assert run._metrics["P1.1.d"] == Estimate(None, note="not defined because no image is wrong")


def test_measure_takes_an_estimate_and_completes_it():
    run, found = start(), Estimate(0.5, 4, 0.25, 0.75, "%", "rough")
    assert run.measure("P1.1.a", found) == 0.5
    assert run._metrics["P1.1.a"] == found
    run.measure("P1.1.b", found, "px", 0, "better")
    assert run._metrics["P1.1.b"] == Estimate(0.5, 0, 0.25, 0.75, "px", "better")
    assert math.isnan(run.measure("P1.1.c", Estimate(None, 2, note="too few"), "%"))
    assert run._metrics["P1.1.c"] == Estimate(None, 2, unit="%", note="too few")


def test_a_test_s_result_is_recorded_as_the_estimate_that_it_is(recwarn):
    run = measured(start())
    found = statistics.paired_t([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    run.measure("P1.4.gain", found)
    run.measure("P1.4.same", statistics.proportion(3, 4), "%")
    run.record()
    kept = load_record(run.folder).metrics
    assert kept["P1.4.gain"] == Estimate(found.value, 3, found.low, found.high)
    assert kept["P1.4.same"].unit == "%"
    assert [str(warning.message) for warning in recwarn if "ydantic" in str(warning.message)] == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("P1.1.a", math.nan), ValueError, "P1.1.a: value = nan: not finite"),
        (("P1.1.a", None), ValueError, "P1.1.a: .*needs a note"),
        (("P1.1.a", Estimate(0.5), "", 2.5), ValueError, "P1.1.a: n = 2.5"),
        (("P1.1.a", Estimate(0.5), 3), TypeError, "P1.1.a: unit = 3, note = '': expected text"),
        (("P1.1.a", "3"), TypeError, r"P1.1.a: value = '3' \(str\): expected one number"),
        (("P1.1.a", {"value": 3.0}), TypeError, "P1.1.a: value = {'value': 3.0}"),
        (("P1.1.a", True), TypeError, "expected one number"),
        (("P1.1.a", np.bool_(True)), TypeError, "expected one number"),
        (("P1.1.a", np.ones(2)), TypeError, "expected one number"),
        (("P1.1.a", torch.ones(2)), TypeError, "expected one number"),
        (("P1.1.a", 1.0, "", -1), ValueError, "P1.1.a: n = -1: expected how many cases"),
        (("P1.1.a", 1.0, "", 2.5), ValueError, "P1.1.a: n = 2.5"),
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


def test_a_section_is_measured_in_one_call():
    run = start()
    none = Estimate(None, note="no image is wrong")
    run.measure_all({"P1.1.a": 3, "P1.2.b": Estimate(0.5, 4, 0.4, 0.6), "P1.2.c": none})
    run.measure_all({"a": torch.tensor(2.0), "b.c": np.float32(0.5)}, prefix="P1.3.signed")
    assert run._metrics == {
        "P1.1.a": Estimate(3.0),
        "P1.2.b": Estimate(0.5, 4, 0.4, 0.6),
        "P1.2.c": none,
        "P1.3.signed.a": Estimate(2.0),
        "P1.3.signed.b.c": Estimate(0.5),
    }


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"P1.1.b": 1, "P1.1.a": 2}, "metric 'P1.1.a' was given before"),
        ({"P1.1.b": 1, "accuracy": 2}, "metric 'accuracy': expected a name such as"),
        ({"P1.1.b": 1, "P1.1.c": math.nan}, r"P1\.1\.c: "),
        ({"P1.1.b": 1, "P1.1.c": None}, r"P1\.1\.c: value = None: an undefined value needs a note"),
    ],
)
def test_a_section_with_one_refused_metric_adds_none(found, message):
    run = start()
    run.measure("P1.1.a", 3)
    with pytest.raises(ValueError, match=message):
        run.measure_all(found)
    assert run._metrics == {"P1.1.a": Estimate(3.0)}


def test_the_table_of_what_was_measured_so_far():
    run = measured(start())
    run.measure("P1.4.none", None, note="no image is wrong")
    table = run.table()
    assert list(table.columns) == ["value", "low", "high", "n"]
    assert table.index.name == "metric"
    assert list(table.index) == ["P1.1.accuracy", "P1.2.difference", "P1.4.none"]
    assert table.loc["P1.1.accuracy", ["value", "n"]].tolist() == [97.5, 1000]
    assert table.loc["P1.2.difference", ["value", "low", "high"]].tolist() == [0.2, 0.1, 0.3]
    assert table.loc["P1.4.none"].isna().all()
    assert list(run.table("P1.2.", "P1.4.n").index) == ["P1.2.difference", "P1.4.none"]
    assert list(start().table().columns) == ["value", "low", "high", "n"]


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
    for name in unpublished():
        run = start()
        run.uses({"name": name, "sha256": "", "variant": "prepared"})
        kept = [run.figure(f"f{i}", drawn(picture, heat)) for i, picture in enumerate((one, two, rgb))]
        assert run._figures["f0"] == run._figures["f1"] == run._figures["f2"]
        for axes in (axes for fig in kept for axes in fig.axes):  # what the notebook displays
            assert np.unique(axes.images[0].get_array()).size == 1
        assert np.array_equal(kept[0].axes[1].images[1].get_array(), heat)
        assert f"pictures of {name} are not republished" in [text.get_text() for text in kept[0].texts]
        assert not run.figure("curve", picture()).texts
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
    assert int.from_bytes(run._figures["fig1"][16:20], "big") == 200  # 2 inches at 100 dpi
    with pytest.raises(ValueError, match="figure 'fig1' was given before"):
        run.figure("fig1", picture())
    with pytest.raises(ValueError, match=r"figure '../x': expected a name such as 'fig2_morph'"):
        run.figure("../x", picture())
    with pytest.raises(TypeError, match="expected a matplotlib Figure, got Axes"):
        run.figure("axes", fig.gca())


def test_a_notebook_shows_the_kept_picture_once_with_its_alternative_text():
    says = "A line that rises from zero to one, without any axis label."
    shell, run = InteractiveShell.instance(), start()
    shell.user_ns |= {"run": run, "picture": picture, "says": says}
    try:
        with capture_output() as said:
            shell.run_cell("_ = run.figure('plain', picture()), run.figure('told', picture(), alt=says)")
    finally:
        InteractiveShell.clear_instance()
    assert [output.metadata for output in said.outputs] == [{}, {"image/png": {"alt": says}}]
    for name, output in zip(("plain", "told"), said.outputs, strict=True):
        assert base64.b64decode(output.data["image/png"]) == run._figures[name]
        assert output.data["text/plain"] == f"<figure {name}>"
    assert run._figures["plain"] == run._figures["told"]
    assert plt.get_fignums() == []  # nothing is left that Jupyter would draw again
    with pytest.raises(ValueError, match="figure 'line': alt = 'the line' says hardly more than the name"):
        run.figure("line", picture(), alt="the line")
    assert list(run._figures) == ["plain", "told"]


def test_a_standard_run_shows_no_finding_and_another_reads_the_file(repository):
    said = repr(start(profile="standard").finding("P1.1", "P1.2"))
    assert said == "P1.1, P1.2: this run is one of the standard runs, so it shows no result of them."
    with pytest.raises(FileNotFoundError, match=r"findings\.yaml"):
        start().finding("P1.1")


def test_the_closing_table_of_a_run_without_standard_records(repository):
    summary = {"when": ["P1.1.accuracy > 0"], "en": "Nothing is shown here.", "ja": "ここには数値がない。"}
    entry = {"arm": "main", "sentences": [summary]}
    text = yaml.safe_dump(
        {"surprise": entry | {"paper": PAPER}, "papers": {}, "claims": {"P1.1": entry}}, allow_unicode=True
    )
    (repository / "results/findings.yaml").write_text(text, encoding="utf-8")
    rows = measured(start()).closing_table().rows
    assert [row[0] for row in rows] == ["The accuracy is high.", "The right map is nearer.", "It pleases the people."]
    assert [row[3:] for row in rows] == [
        ("no current record", "not comparable", "—"),
        ("no current record", "reproduced", "—"),
        ("no current record", "not tested", "—"),
    ]
    with pytest.raises(claims.MissingMetric, match=r"P1\.1 needs"):
        start().closing_table()


def test_arrays_refuse_objects():
    run = start()
    with pytest.raises(TypeError, match=r"arrays 'a': bad holds Python objects"):
        run.arrays("a", good=[1, 2], bad=[{}, None])
    run.arrays("a", good=[1, 2])
    with pytest.raises(ValueError, match="arrays 'a' was given before"):
        run.arrays("a", good=[1])


# --- recording -----------------------------------------------------------------------------------------------------


def test_a_record_holds_everything(repository):
    run, _ = recorded()
    assert sorted(content(run.folder)) == ["curve.npz", "fig1.png", "record.json"]
    assert sorted(p.name for p in run.folder.parent.iterdir()) == ["seed_3"]  # nothing temporary is left
    record = load_record(run.folder)
    assert record == load_record(run.folder / "record.json")
    assert (record.schema_version, record.paper, record.profile, record.arm, record.seed) == (
        2,
        PAPER,
        "quick",
        "main",
        3,
    )
    assert record.parameters == record.values == GOOD
    assert (record.overrides, record.settings) == ([], {})
    assert record.metrics["P1.1.accuracy"] == Estimate(97.5, 1000, unit="%")
    assert record.metrics["P1.2.difference"] == Estimate(0.2, low=0.1, high=0.3)
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
    assert made.data == [DataSource(name="digits", sha256="ab", variant="embedded")]
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


def test_a_run_says_whether_its_network_has_learned_and_judges_no_map_of_one_that_has_not():
    run = start()
    with pytest.raises(claims.MissingMetric, match=r"^not measured: P1\.1\.accuracy, which says"):
        run.competent("P1.2")
    with pytest.raises(ValueError, match=r"no claim 'P1\.7'; there are P1\.1, P1\.2, P1\.3"):
        run.competent("P1.7")
    measured(run, accuracy=59.0)
    said = "P1.1.accuracy is 59 on test images, it needs 60"
    assert run.competent("P1.2") == (False, said)
    assert run.competent("P1.2").warning == f"This network has not learned its task ({said}): its maps say little."
    assert run.competent("P1.1").warning == ""  # no gate stands before it
    assert run.record().verdict[1] == f"not tested (the network has not learned it: {said})"
    assert load_record(run.folder).claims["P1.2"].reason == f"the network has not learned it: {said}"


def test_on_own_images_the_network_must_be_better_than_guessing():
    run = start()
    run.uses({"name": "mine", "sha256": "ab", "variant": "own"})
    run.measure("P1.1.accuracy", Estimate(80.0, low=50.0, high=90.0))
    run.measure("P1.2.difference", Estimate(0.2, low=0.1, high=0.3))
    assert run.competent("P1.2") == (
        None,
        "P1.1.accuracy is 80 [50, 90] on test images, and V1.chance was not measured",
    )
    run.measure("V1.chance", 50.0)
    assert run.competent("P1.2").learned is False
    said = "not tested (the network has not learned it: P1.1.accuracy is 80 [50, 90] on test images"
    assert run.record().verdict[1].startswith(said)


def test_a_missing_metric_stops_before_anything_is_written():
    run = start()
    run.measure("P1.1.accuracy", 90.0)
    run.checkpoint("model").write_bytes(b"weights")
    before = content(run.folder)
    with pytest.raises(claims.MissingMetric, match=r"P1\.2\.difference"):
        run.record()
    assert content(run.folder) == before
    run.measure("P1.2.difference", Estimate(1.0, low=0.5))  # the run is still open
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
        with pytest.raises(RuntimeError, match=r"this run has been recorded. Begin a new one with suite.start"):
            action()
    assert content(run.folder) == before


def test_a_new_record_replaces_the_files_of_the_old_one():
    run, _ = recorded()
    (run.folder / "executed.ipynb").write_text("{}")
    run = measured(start(), accuracy=50.0)
    run.figure("other", picture(3.0))
    run.record()
    assert sorted(content(run.folder)) == ["executed.ipynb", "other.png", "record.json"]
    assert load_record(run.folder).metrics["P1.1.accuracy"].value == 50.0


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

    def full(handle):  # the system may say so only now
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RuntimeError, match=r"No space left on device.*older record there is as it was") as caught:
            run.record()
    assert str(run.folder) in str(caught.value)
    assert "XAI_RESULTS" in str(caught.value)
    assert content(run.folder) == {**before, ".lock": b"", "checkpoints/model.pt": b"weights"}
    assert sorted(p.name for p in run.folder.parent.iterdir()) == ["seed_3"]
    run.record()
    assert load_record(run.folder).metrics["P1.1.accuracy"].value == 50.0


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
    suite_run._active._close("was ended by the test")
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
    monkeypatch.setattr(suite_run, "SIZE_LIMIT", 40_000)
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
    suite_run._active._close("was ended by the test")
    code = "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); "
    command = [sys.executable, "-c", code + "time.sleep(60)", str(folder / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "1\n"
        with pytest.raises(RuntimeError, match="another run is writing"):
            start()
        process.send_signal(signal.SIGKILL)
    half = folder.parent / ".seed_3.record-abc/new"
    half.mkdir(parents=True)
    (half / "record.json").write_text("{")  # nothing was moved yet
    neighbour = folder.parent / ".seed_31.record-abc"
    neighbour.mkdir()
    start()
    assert not half.parent.exists()
    assert neighbour.exists()  # another run may be recording there


# --- reading -------------------------------------------------------------------------------------------------------


# --- arms, and whose value counts ------------------------------------------------------------------------------------


def test_what_an_arm_sets_reaches_the_run_and_its_record(repository):
    with_arms(repository)
    run = measured(start(arm="improved"))
    assert dict(run.settings) == {"contrast": 10.0, "shift": 1, "schedule": None}
    assert (run.parameters["widths"], run.parameters["momentum"]) == ((4, 2), 0.0)
    assert type(run.parameters["momentum"]) is float
    assert run.overrides == ()
    assert run.parameters["arm"] == run.arm == run.folder.parent.name == "improved"
    for mapping in (run.settings, run.replaced):
        with pytest.raises(TypeError):
            mapping["contrast"] = 1.0
    run.record()
    record = load_record(run.folder)
    assert record.settings == dict(run.settings)
    assert record.parameters == GOOD | {"arm": "improved", "widths": [4, 2], "momentum": 0.0}
    main = measured(start())
    main.record()
    assert load_record(main.folder).settings == {"contrast": 0.0}
    assert load_record(main.folder).parameters == GOOD


def test_start_prints_what_it_replaces_and_writes_it_back(repository, monkeypatch, capsys):
    with_arms(repository)
    monkeypatch.setenv(PASSED, "")
    names = GOOD | {"arm": "improved", "learning_rate": 0.5, "patience": 7, "table": [{}]}
    before = dict(names)
    run = suite_run.start(PAPER, names)
    assert names == before | {"learning_rate": 0.001, "patience": None, "widths": (4, 2), "momentum": 0.0}
    assert {name: run.parameters[name] for name in run.parameters} == {n: names[n] for n in run.parameters}
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "arm improved sets momentum = 0.0 (it was 0.9)",
        "arm improved sets widths = (4, 2) (it was (8, 16))",
        "default sets patience = None (it was 7)",
        "profile quick sets learning_rate = 0.001 (it was 0.5)",
    ]


def test_start_takes_names_that_cannot_be_changed(repository, capsys):
    with_arms(repository)
    names = types.MappingProxyType(GOOD | {"arm": "improved"})
    assert suite_run.start(PAPER, names).parameters["widths"] == (4, 2)
    assert names["widths"] == [8, 16]
    assert "arm improved sets widths" in capsys.readouterr().out


def test_a_plain_run_prints_nothing(capsys):
    names = dict(GOOD)
    run = suite_run.start(PAPER, names)
    assert (run.overrides, dict(run.replaced), names) == ((), {}, GOOD)
    assert capsys.readouterr().out == ""


def test_a_run_with_own_values_never_replaces_the_arms_record(repository, monkeypatch, capsys):
    with_arms(repository)
    arms_own = measured(start(arm="improved"), accuracy=99.0)
    arms_own.record()
    before = content(arms_own.folder)
    capsys.readouterr()
    monkeypatch.setenv(PASSED, "widths flip seed")
    names = GOOD | {"arm": "improved", "widths": [3], "flip": False}
    run = measured(suite_run.start(PAPER, names))
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "arm improved sets momentum = 0.0 (it was 0.9)",
        "flip = False, widths = (3,): not what profile quick and arm improved say, so this run is filed under "
        "improved+own",
    ]
    assert names["widths"] == [3]  # what was passed stays as it was given
    assert (run.arm, run.overrides) == ("improved", ("flip", "widths"))
    assert run.folder == arms_own.folder.parents[1] / "improved+own/seed_3"
    assert run.record().verdict[0] == "not comparable"
    record = load_record(run.folder)
    assert (record.arm, record.overrides) == ("improved+own", ["flip", "widths"])
    assert record.parameters == GOOD | {"arm": "improved", "widths": [3], "flip": False, "momentum": 0.0}
    assert record.settings == dict(run.settings)
    assert record.subject == {**record.parameters, "dataset": "", "arm": "improved", "own": False}
    assert content(arms_own.folder) == before
    assert load_record(arms_own.folder).arm == "improved"


def test_a_passed_value_that_is_the_arms_own_overrides_nothing(repository, monkeypatch):
    with_arms(repository)
    monkeypatch.setenv(PASSED, "widths learning_rate")
    run = start(arm="improved", widths=[4, 2])
    assert (run.overrides, run.folder.parent.name) == ((), "improved")
    assert run.parameters["widths"] == (4, 2)


def test_the_claims_of_a_run_with_own_values_are_those_of_its_arm(repository):
    with_arms(repository)
    verdicts = measured(start(profile="standard", arm="improved", widths=[3]), accuracy=99.0).record().verdict
    assert verdicts.tolist() == ["reproduced", "reproduced", "not tested"]


def test_an_unknown_arm_is_refused_with_those_there_are(repository):
    with_arms(repository)
    with pytest.raises(ValueError, match=r"arm = 'best' \(str\): expected str, one of 'main', 'improved'\."):
        start(arm="best")
    with pytest.raises(ValueError, match=r"arm: missing; expected str, one of 'main', 'improved'"):
        suite_run.start(PAPER, {name: value for name, value in GOOD.items() if name != "arm"})
    with pytest.raises(ValueError, match=r"arm = 'main\+own'"):
        start(arm="main+own")
    assert not (repository / "results/quick").exists()


def test_without_arms_a_run_has_no_settings():
    run = measured(start())
    assert dict(run.settings) == {}
    run.record()
    assert load_record(run.folder).settings == {}


# --- versions -----------------------------------------------------------------------------------------------------


def test_versions_are_those_a_record_names():
    shown = suite_run.versions()
    record = load_record(recorded()[0].folder)
    assert shown.to_dict() == {"python": record.provenance.python, **record.provenance.packages}
    assert shown["python"] == ".".join(map(str, sys.version_info[:3]))
    assert shown["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert shown["numpy"] == np.__version__


def test_a_kernel_of_another_environment_is_refused_by_name(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("XAI_PREFIX", sys.prefix)
    start()
    monkeypatch.setenv("XAI_PREFIX", str(tmp_path / "other"))
    with pytest.raises(RuntimeError, match=rf"runs in the environment {re.escape(sys.prefix)}, .*{tmp_path}/other"):
        start()


@pytest.mark.parametrize(("results", "changes"), [("other", {}), ("", {"seed": 4}), ("", {"widths": [3]})])
def test_a_record_that_would_lie_elsewhere_than_the_notebook_is_refused(repository, monkeypatch, results, changes):
    folder = repository / "results/quick" / PAPER / "main/seed_3"
    monkeypatch.setenv("XAI_FOLDER", str(folder))
    start()
    monkeypatch.setenv("XAI_RESULTS", results)
    with pytest.raises(RuntimeError, match=f"keeps the notebook in {folder}: leave"):
        start(**changes)
    assert not (repository / "other").exists()
    assert [path.name for path in (repository / "results/quick" / PAPER).iterdir()] == ["main"]


# --- what a record tells of files and of how it came about ----------------------------------------------------------


def with_paths(repository):
    more = 'folder: {type: str, default: "", help: "images"}\nweights: {type: str, default: "", help: "file"}\n'
    more += 'several: {type: str, default: [], list: true, help: "files"}\n'
    rewrite(repository / f"notebooks/parameters/{PAPER}.yaml", SCHEMA + more)
    return {"folder": "", "weights": "", "several": []}


def test_no_absolute_path_enters_a_record(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    paths = with_paths(repository) | {"folder": str(tmp_path / "photos/mine"), "several": ["~/a/b", "/x/y", "c/d", "e"]}
    run = measured(start(**paths, device="cpu"))
    assert run.parameters["folder"] == str(tmp_path / "photos/mine")  # what it computes with
    run.record()
    record = load_record(run.folder)
    assert record.parameters["folder"] == "mine"
    assert record.parameters["several"] == ["b", "y", "c/d", "e"]
    text = (run.folder / "record.json").read_text()
    assert str(tmp_path) not in text
    inside = measured(start(**paths | {"folder": str(repository / "data/mine")}))
    inside.record()
    assert load_record(inside.folder).parameters["folder"] == "data/mine"


def test_a_profile_with_an_absolute_path_makes_current_records(repository, tmp_path, monkeypatch):
    paths = with_paths(repository)
    profile = repository / f"notebooks/profiles/quick/{PAPER}.yaml"
    rewrite(profile, f"learning_rate: 0.001\nfolder: {tmp_path}/photos\n")
    monkeypatch.setenv(PASSED, "")
    run = measured(start(**paths))
    run.record()
    record = load_record(run.folder)
    assert (record.overrides, record.parameters["folder"]) == ([], "photos")
    assert stale(record) == []
    (run.folder / "notebook.ipynb").write_text("{}")
    assert batch.plan("quick", PAPER, "main", "3")[0].reason.startswith("changed since: xai_utils/")  # no package there
    rewrite(profile, f"learning_rate: 0.001\nfolder: {tmp_path}/others\n")
    assert stale(record) == [f"notebooks/profiles/quick/{PAPER}.yaml"]
    assert batch.plan("quick", PAPER, "main", "3")[0].reason == "made with other parameters: folder"


def test_weights_that_a_run_reads_are_named_by_checksum(repository, tmp_path):
    paths = with_paths(repository)
    (tmp_path / "w.pth").write_bytes(b"weights")
    run = measured(start(**paths | {"weights": str(tmp_path / "w.pth")}))
    run.record()
    record = load_record(run.folder)
    assert record.provenance.weights == {"weights": hashlib.sha256(b"weights").hexdigest()}
    assert record.parameters["weights"] == "w.pth"
    for value in ("", "nowhere.pth"):
        run = measured(start(**paths | {"weights": value}))
        run.record()
        assert load_record(run.folder).provenance.weights == {}
        assert '"weights": {' not in (run.folder / "record.json").read_text()


def test_a_record_tells_that_it_was_resumed_and_how_often():
    run = measured(start())
    run.checkpoint("model").with_name("model.pt.resumed").write_text("epoch 3\nepoch 7\n")
    run.checkpoint("other").write_bytes(b"")
    run.record()
    assert load_record(run.folder).provenance.resumed == {"model": 2}
    run = measured(start())
    run.record()
    assert load_record(run.folder).provenance.resumed == {}
    assert "resumed" not in (run.folder / "record.json").read_text()


# --- the lock, whatever happens -------------------------------------------------------------------------------------


def is_free(folder):
    with filelock.FileLock(folder / ".lock", timeout=0):
        pass
    (folder / ".lock").unlink(missing_ok=True)
    return True


def test_the_lock_is_released_even_where_its_file_cannot_be_removed(monkeypatch):
    run = measured(start())
    unlink = Path.unlink

    def refused(path, *more, **options):
        if path.name == ".lock":
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(path, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        run.record()
    assert is_free(run.folder)


def test_a_run_whose_folder_is_gone_says_so_and_ends(monkeypatch):
    run = measured(start())
    shutil.rmtree(run.folder)
    with pytest.raises(RuntimeError, match=r"cannot write the results folder .*seed_3: No such file"):
        run.record()
    run._close("was ended by the test")
    measured(start()).record()
    run = start()
    shutil.rmtree(run.folder)
    run.folder.write_text("a file now")
    run._close("was ended by the test")  # no error


def test_a_forked_child_neither_ends_nor_frees_the_run():
    run = measured(start())
    child = os.fork()
    if not child:
        suite_run._give_up()  # what a child does that ends by sys.exit
        os._exit(0)
    os.waitpid(child, 0)
    assert (run.folder / ".lock").exists()
    with pytest.raises(filelock.Timeout):
        filelock.FileLock(run.folder / ".lock", timeout=0).acquire()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:  # one that outlives the run
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    run.record()
    assert is_free(run.folder)
    os.close(writer)
    os.waitpid(child, 0)


@pytest.mark.parametrize("said", ["abc", "-1", "nan", "inf", "1 minute"])
def test_a_wait_that_is_no_number_of_seconds_is_named(monkeypatch, said):
    monkeypatch.setenv("XAI_WAIT", said)
    with pytest.raises(ValueError, match=rf"XAI_WAIT is '{said}'; expected seconds to wait for another run"):
        start()
    monkeypatch.setenv("XAI_WAIT", "")
    start()
