"""Paper 1 as a user runs it: two equal runs, watched, and every kind of bad input: what is said, and what is left."""

import os
import subprocess

import filelock
import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from runs import PAPERS, ROOT, failed_cell, files, given, notebooks_run, refused, seed_folder
from test_guards import clean_metadata, executed_in_order, no_error_and_no_stderr, no_machine_path, valid

from xai_utils import suite
from xai_utils.data import store
from xai_utils.suite.record import same_result

PAPER, OWN = PAPERS[0], "main+own"  # where a run with other values than its arm's is filed
SMALL = given(epochs=2, classifier_epochs=1, limit=400, morph_steps=3)
FIGURES = ["along_data", "controls_probability", "controls_realism", "eq1_redrawings", "fig1_heat_maps", "fig2_morph"]
FIGURES += ["fig3_structure", "fig4_latent_path", "fig6_misclassified", "prototypes", "samples", "training"]


# two runs with one seed, watched --------------------------------------------------------------------------------


def git_status():
    command = ["git", "status", "--porcelain", "--", ".", ":!tests"]  # somebody may be writing a test meanwhile
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def two_runs(home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_runs")
    before = git_status()
    for name in ("a", "b"):
        watch = {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests/notebooks/watch"), str(ROOT)]),
            "WATCH_LOG": folder / f"{name}.log",
        }
        done = notebooks_run(home, folder / name, PAPER, "quick", "main", 0, *SMALL, **watch)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder, before, git_status()


def logged(two_runs, kind):
    lines = [line.split("\t") for name in "ab" for line in (two_runs[0] / f"{name}.log").read_text().splitlines()]
    return [line[1] for line in lines if line[0] == kind]


def test_two_runs_with_one_seed_are_equal(two_runs):
    a, b = (seed_folder(two_runs[0] / name, arm=OWN) for name in "ab")
    assert same_result(suite.load_record(a), suite.load_record(b)) == []
    pictures = [name for name in files(a) if name.endswith((".png", ".npz", ".csv"))]
    assert [name for name in pictures if (a / name).read_bytes() != (b / name).read_bytes()] == []


def test_no_connection_beyond_loopback(two_runs):
    kernels = [line for line in logged(two_runs, "process") if "ipykernel_launcher" in line]
    assert len(kernels) == 2  # the watch was there
    assert logged(two_runs, "beyond") == []


def test_nothing_is_written_outside_the_results_folder(two_runs, home):
    folder, before, after = two_runs
    assert after == before
    allowed = [*(str(seed_folder(folder / name, arm=OWN).parent) for name in "ab"), str(home), "/dev/"]
    written = logged(two_runs, "write")
    assert any(path.endswith("record.json") for path in written)
    assert sorted({path for path in written if not path.startswith(tuple(allowed))}) == []
    assert files(home / "tmp") == []


def test_a_run_folder_holds_the_record_its_files_and_the_notebook(two_runs):
    for name in "ab":
        results, folder = two_runs[0] / name, seed_folder(two_runs[0] / name, arm=OWN)
        expected = [
            "films.npz",
            "images.csv",
            "misclassified.npz",
            "notebook.ipynb",
            "record.json",
            *(f"{figure}.png" for figure in FIGURES),
        ]
        assert sorted(path.name for path in folder.iterdir()) == sorted(expected)  # no checkpoints, no lock
        assert files(results) == sorted(str(folder.relative_to(results) / file) for file in expected)
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 3_000_000
        record = suite.load_record(folder)
        assert (sorted(record.figures), record.arrays) == (FIGURES, ["misclassified", "films"])
        assert (record.parameters["epochs"], record.parameters["limit"]) == (2, 400)
        rows = pd.read_csv(folder / "images.csv")
        assert (rows["outcome"] == "right").mean() * 100 == pytest.approx(record.metrics["P1.1.accuracy"].value)
        assert ((rows["suspicion"] > 0) == (rows["outcome"] == "wrong")).all()
        assert len(rows) == record.images == record.metrics["P1.1.accuracy"].n
        assert [source.name for source in record.provenance.data] == ["digits"]


def test_nothing_in_a_run_folder_tells_of_the_machine(two_runs, home):
    folder = seed_folder(two_runs[0] / "a", arm=OWN)
    notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
    for guard in (valid, executed_in_order, no_error_and_no_stderr, no_machine_path, clean_metadata):
        assert guard(notebook) == []
    for path in folder.iterdir():
        content = path.read_bytes()
        assert [place for place in (ROOT, home, two_runs[0]) if str(place).encode() in content] == [], path.name


# bad input, one run of each kind (data, own images, a folder in use): a clear message, a non-zero exit code,
# nothing half-written. test_runner.py and test_refusals.py have the others, without a kernel.


def test_a_truncated_file_in_xai_data_stays_untouched(home, tmp_path):
    registered = store.entry("mnist").files
    for file in registered:
        (tmp_path / "data" / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / file.path).write_bytes(b"\x1f\x8b short")
    done = notebooks_run(home, tmp_path / "results", PAPER, "standard", XAI_DATA=tmp_path / "data")
    first = registered[0]
    damaged = f"{tmp_path}/data/{first.path} is damaged: it has 8 bytes, expected {first.bytes}"
    expected = [damaged, f"(expected sha256 {first.sha256})", "left untouched: replace it by an intact copy"]
    refused(done, seed_folder(tmp_path / "results", "standard"), *expected)
    assert files(tmp_path / "data") == sorted(file.path for file in registered)
    assert {(tmp_path / "data" / file.path).read_bytes() for file in registered} == {b"\x1f\x8b short"}


def test_own_images_with_a_class_without_training_images(home, tmp_path):
    for name in ("train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        if name != "train/dog":
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / name / "1.png")
    own = given(dataset="folder", folder=tmp_path / "images")
    done = notebooks_run(home, tmp_path / "results", PAPER, "quick", "main", 0, *own)
    folder, said = (
        seed_folder(tmp_path / "results", arm=OWN),
        f"class folder {tmp_path}/images/train/dog holds no images",
    )
    refused(done, folder, said, f"the notebook with its error: {folder}/notebook.failed.ipynb")
    assert said in failed_cell(folder)


def test_a_second_run_into_one_folder_at_once(home, tmp_path):
    folder = seed_folder(tmp_path, arm=OWN)
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / ".lock"):
        done = notebooks_run(home, tmp_path, PAPER, "quick", "main", 0, *SMALL)
        expected = f"another run is writing into {folder}. Wait until it has ended", "choose another seed"
        refused(done, folder, *expected, left=[".lock", "notebook.failed.ipynb"])
