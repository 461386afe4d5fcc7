"""notebooks/run with a stand-in for papermill: where a run goes, what it is told, and what stays of one that fails."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
PAPER = "01_first"
STANDS_IN = """#!/usr/bin/env bash
echo "$0 reads $1" >&2
echo "${XAI_PASSED-unset}" > passed.txt
echo "$XAI_FOLDER" > folder.txt
printf '%s\\n' "$@" > words.txt
echo '{"cells": []}' > "$2"
touch begun
exec sleep "${SLOW:-0}"
"""
SCHEMA = """
arms:
  main: {}
  short: {steps: 5}
profile: {type: str, default: quick, choices: [quick, standard], help: "size"}
seed: {type: int, default: 0, minimum: 0, help: "seed"}
steps: {type: int, default: 100, minimum: 1, help: "steps"}
text: {type: str, default: "", help: "text"}
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
    for profile in ("quick", "standard"):
        script(tmp_path / f"notebooks/profiles/{profile}/{PAPER}.yaml", f"profile: {profile}\n")
    (tmp_path / "notebooks/parameters").mkdir(exist_ok=True)
    (tmp_path / f"notebooks/parameters/{PAPER}.yaml").write_text(SCHEMA)
    return tmp_path


def started(checkout, *words, **more):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("XAI_")}
    path = f"{checkout}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = inherited | {"PATH": path, "PYTHONPATH": str(REPOSITORY), "HOSTNAME": "node"} | more
    words = [str(checkout / "notebooks/run"), PAPER, *(words or ("quick", "main", "0"))]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def interruptible():  # what is started in the background ignores Ctrl-C, and a shell that does cannot trap it
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(words, env=environment, preexec_fn=interruptible, **told)


def left(checkout):
    folder = checkout / f"results/quick/{PAPER}/main/seed_0"
    return folder, sorted(path.name for path in folder.iterdir())


def test_a_run_leaves_its_notebook_and_takes_away_what_dead_ones_left(checkout):
    folder = checkout / f"results/quick/{PAPER}/main/seed_0"
    folder.mkdir(parents=True)
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = [f"notebook.running-{place}.ipynb" for place in (f"node-{dead.pid}", f"node-{os.getpid()}", "a-b-5", "c-6")]
    for name in [*names, *(f"{name}.log" for name in names), "notebook.failed.ipynb"]:
        (folder / name).touch()
    for name in (names[3], f"{names[3]}.log"):
        os.utime(folder / name, (time.time() - 4 * 86400,) * 2)
    process = started(checkout)
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    kept = [names[1], names[2]]  # of a process that lives, and of another machine's that may
    assert left(checkout)[1] == sorted(["notebook.ipynb", *kept, *(f"{name}.log" for name in kept)])


def test_a_run_shows_what_its_kernel_says_and_where_its_record_is(checkout):
    # as a kernel does: words for who waits, and a record at the end
    says = STANDS_IN.replace(
        "exec sleep",
        'echo "about two minutes" >> "$XAI_SHOWN"; echo "{}" > "$XAI_FOLDER/record.json"\nsleep 2; exec sleep',
    )
    script(checkout / "bin/papermill", says)
    script(
        checkout / "bin/python3",
        f'#!/bin/sh\ncase "$*" in *answer*) echo told $3 $4; exit $CODE ;; esac\nexec {sys.executable} "$@"\n',
    )
    process = started(checkout, CODE="0")
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said == "about two minutes\n"
    assert out == f"told answer results/quick/{PAPER}/main/seed_0\n"
    assert left(checkout)[1] == ["notebook.ipynb", "record.json"]
    out, _ = started(checkout, CODE="2").communicate(timeout=60)
    assert out.endswith(f"record: results/quick/{PAPER}/main/seed_0\n")


def test_a_name_keeps_runs_with_own_values_apart(checkout):
    process = started(checkout, "quick", "main", "0", "-p", "steps", "7", XAI_NAME="steel")
    assert process.wait(timeout=60) == 0
    assert (checkout / f"results/quick/{PAPER}/main+own-steel/seed_0/notebook.ipynb").is_file()
    process = started(checkout, "quick", "main", "0", XAI_NAME="steel")  # nothing of one's own
    said = "XAI_NAME is 'steel' and names runs with values of your own, but every value is the arm's: unset XAI_NAME"
    assert said in process.communicate()[1]
    assert process.returncode == 2
    assert not (checkout / f"results/quick/{PAPER}/main").exists()
    process = started(checkout, "quick", "main", "0", "-p", "steps", "7", XAI_NAME="a/b")
    assert "becomes a folder's name" in process.communicate()[1]
    assert process.returncode == 2


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("", "folder is empty: name the folder of your images, such as -p folder /path/to/images"),
        ("nowhere", "/nowhere does not exist, or is not a folder; a relative path counts from the repository"),
        ("/nowhere", "image folder /nowhere does not exist, or is not a folder\n"),
    ],
)
def test_a_folder_that_is_none_is_refused_before_anything_starts(checkout, folder, said):
    """An empty one is what a shell makes of a variable that is not set; it must not run on the drawn data."""
    schema = checkout / f"notebooks/parameters/{PAPER}.yaml"
    schema.write_text(schema.read_text() + 'folder: {type: str, default: "", help: "folder"}\n')
    process = started(checkout, "quick", "main", "0", "-p", "folder", folder)
    assert said in process.communicate()[1]
    assert process.returncode == 2
    assert not (checkout / "results").exists()


def test_without_packages_it_says_what_to_do(checkout):
    (checkout / "bin/papermill").unlink()
    for name in ("bash", "sed", "dirname", "head"):
        (checkout / "bin" / name).symlink_to(shutil.which(name))
    process = started(checkout, PATH=f"{checkout}/bin")
    assert process.communicate()[1].startswith("papermill was not found: run make setup first")
    assert process.returncode == 2


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


def done(checkout, *words, **more):
    """Folders of the run's notebooks, XAI_PASSED as papermill saw it, and papermill's arguments after those of ours."""
    process = started(checkout, *words, **more)
    assert process.communicate() == ("", "")
    assert process.returncode == 0
    folders = [path.parent.relative_to(checkout).as_posix() for path in checkout.rglob("results/**/notebook.ipynb")]
    given = (checkout / "words.txt").read_text().splitlines()
    return folders, (checkout / "passed.txt").read_text().removesuffix("\n"), given[given.index("seed") + 2 :]


def test_a_run_with_own_values_is_filed_beside_its_arm_and_papermill_is_told_their_names(checkout):
    words = ["-p", "steps", "3", "-y", "text: a b"]
    folders, names, given = done(checkout, "quick", "short", "4", *words)
    assert folders == [f"results/quick/{PAPER}/short+own/seed_4"]
    assert names == "text steps"
    assert given == words


@pytest.mark.parametrize("words", [(), ("-p", "steps", "5"), ("-k", "other")])
def test_a_run_with_the_arms_values_is_the_arms(checkout, words):
    folders, names, given = done(checkout, "quick", "short", "4", *words)
    assert folders == [f"results/quick/{PAPER}/short/seed_4"]
    assert names == ("steps" if "steps" in words else "")  # set, and empty: nothing was passed
    assert given == list(words)


def test_a_plain_run_takes_the_first_arm_and_nothing_that_was_passed_elsewhere(checkout):
    folders, names, given = done(checkout, "quick", XAI_PASSED="steps")
    assert (folders, names, given) == ([f"results/quick/{PAPER}/main/seed_0"], "", [])


def test_the_results_may_lie_elsewhere(checkout, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("results")
    process = started(checkout, "quick", "main", "0", "-p", "steps", "3", XAI_RESULTS=str(elsewhere))
    assert process.communicate()[1] == ""
    assert [path.name for path in elsewhere.glob(f"quick/{PAPER}/main+own/seed_0/*")] == ["notebook.ipynb"]
    assert not (checkout / "results").exists()
    assert (checkout / "folder.txt").read_text() == f"{elsewhere}/quick/{PAPER}/main+own/seed_0\n"


def test_results_below_the_home_folder(checkout):
    process = started(checkout, "quick", "main", "0", XAI_RESULTS="~/r", HOME=str(checkout / "me"))
    assert process.communicate()[1] == ""
    assert [path.name for path in checkout.glob(f"me/r/quick/{PAPER}/main/seed_0/*")] == ["notebook.ipynb"]
    assert not (checkout / "~").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("quick", "main", "0", "-p", "seed", "3"), "seed is the 4th argument: notebooks/run PAPER PROFILE ARM SEED"),
        (("quick", "main", "0", "-p", "arm", "short"), "arm is the 3rd argument"),
        (("quick", "main", "0", "-p", "profile", "quick"), "profile is the 2nd argument"),
        (("quick", "main", "0", "-p", "step", "3"), "no such parameter; the closest is 'steps'"),
        (("quick", "main", "0", "-p", "steps", "0"), "steps = 0 (int): expected int, at least 1."),
        (("quick", "best", "0"), "arm = 'best' (str): expected str, one of 'main', 'short'."),
        (("quick", "main", "x"), "seed = 'x' (str): expected int, at least 0."),
        (("quick", "main", "007"), "seed = '007': write 7, as the run's folder is named"),
        (("quick", "main", "+3"), "seed = '+3': write 3"),
        (("quick", "main", "1_000"), "seed = '1_000': write 1000"),
        (("quick", "main", " 3"), "seed = ' 3': write 3"),
        (("quick", "main", "-0"), "seed = '-0': write 0"),
        (("..", "main", "0"), "no profile notebooks/profiles/../01_first.yaml"),
        (("quick", "main", "0", "-pseed", "7"), "seed is the 4th argument"),
        (("quick", "main", "0", "--parameters=seed", "7"), "seed is the 4th argument"),
        (("quick", "main", "0", "-p", "steps"), "-p needs a name and a value, such as -p epochs 3"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_said_and_nothing_is_run(checkout, words, message):
    process = started(checkout, *words)
    assert message in process.communicate()[1]
    assert process.returncode == 2
    assert not (checkout / "results").exists()
    assert not (checkout / "words.txt").exists()


STANDS_IN_WITH_FILES = """#!/usr/bin/env bash
echo '{"cells": []}' > "$2"
touch "$(dirname "$2")"/{record.json,scores.npz,maps.png,images.csv}
"""


@pytest.mark.parametrize(("profile", "thinned"), [("standard", True), ("quick", False)])
def test_only_the_lowest_seed_keeps_its_notebook_and_figures(checkout, profile, thinned):
    script(checkout / "bin/papermill", STANDS_IN_WITH_FILES)
    arm = checkout / f"results/{profile}/{PAPER}/main"
    small = ["record.json", "scores.npz"]
    whole = ["images.csv", "maps.png", "notebook.ipynb", "record.json", "scores.npz"]

    def kept():
        return {path.name: sorted(file.name for file in path.iterdir()) for path in arm.iterdir()}

    others = small if thinned else whole
    for seed, expected in (
        ("2", {"seed_2": whole}),  # of the only seed nothing is taken
        ("10", {"seed_2": whole, "seed_10": others}),  # as numbers: 2 is lower
        ("0", {"seed_0": whole, "seed_2": others, "seed_10": others}),  # a batch may run the lowest one last
    ):
        process = started(checkout, profile, "main", seed)
        assert process.communicate()[1] == ""
        assert process.returncode == 0
        assert kept() == expected


def test_a_failed_run_takes_nothing_from_other_seeds(checkout):
    script(checkout / "bin/papermill", STANDS_IN_WITH_FILES)
    started(checkout, "standard", "main", "1").communicate()
    script(checkout / "bin/papermill", STANDS_IN_WITH_FILES.replace("#!/usr/bin/env bash", "#!/bin/bash\nexit 3"))
    process = started(checkout, "standard", "main", "0")
    process.communicate()
    assert process.returncode != 0
    assert (checkout / f"results/standard/{PAPER}/main/seed_1/notebook.ipynb").is_file()


def test_a_kernel_that_died_is_told_with_what_to_try(checkout):
    died = 'echo "nbclient.exceptions.DeadKernelError: Kernel died" >&2; exit 1'
    script(checkout / "bin/papermill", STANDS_IN.replace('exec sleep "${SLOW:-0}"', died))
    process = started(checkout)
    said = process.communicate()[1]
    assert process.returncode == 1
    assert "the kernel died below Python, mostly for want of memory: take a smaller size, limit or batch_size" in said
    script(checkout / "bin/papermill", STANDS_IN.replace('exec sleep "${SLOW:-0}"', "exit 1"))
    assert "the kernel died" not in started(checkout).communicate()[1]


def test_runs_with_own_values_keep_all_they_made(checkout):
    script(checkout / "bin/papermill", STANDS_IN_WITH_FILES)
    for seed in ("0", "1"):
        process = started(checkout, "standard", "main", seed, "-p", "steps", "3")
        assert process.communicate()[1] == ""
    arm = checkout / f"results/standard/{PAPER}/main+own"
    assert sorted(path.parent.name for path in arm.glob("*/notebook.ipynb")) == ["seed_0", "seed_1"]
