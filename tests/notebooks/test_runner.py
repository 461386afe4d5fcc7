"""What `notebooks/run` and `make` refuse before a kernel starts, with the words that say what to do."""

import subprocess
import sys

import pytest
from runs import PAPERS, ROOT, environment, notebooks_run, refused, seed_folder

PAPER = PAPERS[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: notebooks/run PAPER"),
        (["06_none"], f"no notebook notebooks/06_none.ipynb; there are: {PAPER}.ipynb"),
        ([PAPER, "fast"], f"no profile notebooks/profiles/fast/{PAPER}.yaml; profiles are: paper quick standard"),
        ([PAPER, "quick", "../main"], "'../main' is no arm"),
        ([PAPER, "quick", "main", "../0"], "'../0' is no seed"),
        ([PAPER, "quick", "main", "0", "-p", "seed", "1"], "seed is the 4th argument: notebooks/run PAPER PROFILE ARM"),
        ([PAPER, "quick", "main", "0", "--parameters", "arm", "x"], "arm is the 3rd argument"),
    ],
    ids=["nothing", "paper", "profile", "arm", "seed", "seed twice", "arm twice"],
)
def test_the_runner_refuses_before_anything_starts(home, tmp_path, arguments, message):
    refused(notebooks_run(home, tmp_path, *arguments), tmp_path, message, left=[])


def test_wrong_parameters_leave_an_older_record_alone(home, tmp_path):
    folder = seed_folder(tmp_path)
    folder.mkdir(parents=True)
    for name in ("record.json", "notebook.ipynb", "samples.png"):
        (folder / name).write_text("older")
    wrong = ["-p", "epoch", "3", "-p", "latent_dim", "0", "-p", "dataset", "mnits", "-p", "batch_size", "1.5"]
    done = notebooks_run(home, tmp_path, PAPER, "quick", "main", 0, *wrong, "-r", "learning_rate", "fast")
    expected = [
        "5 wrong parameter(s); notebooks/parameters/01_id_cvae_morphing.yaml describes all:",
        "epoch = 3 (int): no such parameter; the closest is 'epochs'.",
        "latent_dim = 0 (int): expected int, at least 1, at most 1024.",
        "dataset = 'mnits' (str): expected str, one of 'digits', 'mnist', 'folder'.",
        "batch_size = 1.5 (float): expected int",
        "learning_rate = 'fast' (str): expected float",
    ]
    older = ["notebook.ipynb", "record.json", "samples.png"]
    refused(done, tmp_path, *expected, left=[f"{folder.relative_to(tmp_path)}/{name}" for name in older])
    assert {(folder / name).read_text() for name in older} == {"older"}


def test_a_results_folder_that_is_a_file(home, tmp_path):
    (tmp_path / "results").write_text("mine")
    done = notebooks_run(home, tmp_path / "results", PAPER)
    refused(done, tmp_path, f"cannot write to {tmp_path}/results/quick", "set XAI_RESULTS", left=["results"])
    assert (tmp_path / "results").read_text() == "mine"


# make ----------------------------------------------------------------------------------------------------


@pytest.fixture
def make(home, tmp_path):
    """`make TARGET …` in the checkout with an environment that counts as installed: this interpreter's."""
    bin = tmp_path / "venv/bin"
    bin.mkdir(parents=True)
    (bin / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (bin / "python").chmod(0o755)
    (tmp_path / "venv/.suite-installed").touch()

    def call(*arguments, results):
        command = ["make", "-C", str(ROOT), f"VENV={tmp_path}/venv", *arguments]
        chosen = environment(home, results)
        return subprocess.run(command, env=chosen, capture_output=True, text=True, timeout=300)

    return call


def test_make_reproduce_names_the_notebook_that_failed(make, tmp_path):
    done = make("reproduce", "PAPERS=06_none", results=tmp_path / "results")
    refused(done, tmp_path / "results", "no notebook notebooks/06_none.ipynb", "failed: 06_none", left=[])


def test_make_reproduce_fails_for_a_missing_record_and_names_it(make, tmp_path):
    (tmp_path / "results").mkdir()
    done = make("reproduce", "PAPERS=", results=tmp_path / "results")
    wanted = f"{PAPER} has no quick record: run notebooks/run {PAPER} quick main 0"
    refused(done, tmp_path / "results", wanted, "P1.1", left=[])
    assert "failed:" not in done.stdout
