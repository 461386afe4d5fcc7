"""notebooks/run with a stand-in for papermill: what stays of a run that is stopped, fails late, or meets leftovers."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
PAPER = "01_first"
STANDS_IN = """#!/usr/bin/env bash
echo "$0 reads $1" >&2
echo '{"cells": []}' > "$2"
touch begun
exec sleep "${SLOW:-0}"
"""


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path):
    script(tmp_path / "bin/papermill", STANDS_IN)
    shutil.copytree(
        REPOSITORY / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("*.ipynb", "*.yaml")
    )
    (tmp_path / f"notebooks/{PAPER}.ipynb").write_text("{}")
    script(tmp_path / "notebooks/clean", "#!/bin/sh\nexit ${CLEAN:-0}\n")
    script(tmp_path / f"notebooks/profiles/quick/{PAPER}.yaml", "profile: quick\n")
    return tmp_path


def started(checkout, **more):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("XAI_")}
    environment = inherited | {"PATH": f"{checkout}/bin:{os.environ['PATH']}", "HOSTNAME": "node"} | more
    words = [str(checkout / "notebooks/run"), PAPER, "quick", "main", "0"]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def interruptible():  # what is started in the background ignores Ctrl-C, and a shell that does cannot trap it
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(words, env=environment, preexec_fn=interruptible, **told)


def left(checkout):
    folder = checkout / f"results/quick/{PAPER}/main/seed_0"
    return folder, sorted(path.name for path in folder.iterdir())


def test_a_run_leaves_its_notebook_and_takes_away_what_killed_ones_left(checkout):
    folder = checkout / f"results/quick/{PAPER}/main/seed_0"
    folder.mkdir(parents=True)
    for name in ("notebook.failed.ipynb", "notebook.running-other-5.ipynb", "notebook.running-other-5.ipynb.log"):
        (folder / name).touch()
    process = started(checkout)
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert left(checkout)[1] == ["notebook.ipynb"]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_its_notebook_and_says_so(checkout, stop):
    process = started(checkout, SLOW="60")
    while not (checkout / "begun").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(stop)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    folder, names = left(checkout)
    assert names == ["notebook.failed.ipynb"]
    assert f"reads notebooks/{PAPER}.ipynb" in said
    assert "stopped from outside" in said
    assert f"the notebook with its error: results/quick/{PAPER}/main/seed_0/notebook.failed.ipynb" in said
    assert folder.joinpath(names[0]).read_text() == '{"cells": []}\n'


def test_a_notebook_that_cannot_be_cleaned_is_a_failure(checkout):
    process = started(checkout, CLEAN="3")
    process.communicate()
    assert process.returncode == 3
    assert left(checkout)[1] == ["notebook.failed.ipynb"]


@pytest.mark.parametrize(("interpreter", "used"), [("/bin/bash", True), ("/nowhere/python", False)])
def test_an_environment_of_another_machine_is_passed_over(checkout, interpreter, used):
    script(checkout / ".venv/bin/papermill", STANDS_IN.replace("#!/usr/bin/env bash", f"#!{interpreter}"))
    script(checkout / "notebooks/clean", "#!/bin/sh\nexit 4\n")  # the log is shown then
    said = started(checkout).communicate()[1]
    place = ".venv/bin" if used else "bin"
    assert f"{checkout / place / 'papermill'} reads" in said
