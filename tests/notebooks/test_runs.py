"""What a user sees who runs a notebook by `notebooks/run` (papermill): two equal runs, and every kind of bad input."""

import os
import subprocess
import sys
from pathlib import Path

import filelock
import nbformat
import numpy as np
import pytest
import yaml
from PIL import Image
from test_guards import clean_metadata, executed_in_order, no_error_and_no_stderr, no_machine_path, valid

from xai_utils.data import store
from xai_utils.suite import claims
from xai_utils.suite import run as experiment

ROOT = Path(__file__).parents[2]
PAPER = "01_id_cvae_morphing"
SMALL = ["-p", "epochs", "2", "-p", "classifier_epochs", "1", "-p", "limit", "400", "-p", "morph_steps", "3"]
FIGURES = ["along_data", "controls_probability", "controls_realism", "fig1_heat_maps", "fig2_morph", "fig3_structure"]
FIGURES += ["fig4_latent_path", "fig6_misclassified", "prototypes", "samples", "training"]
# a few steps at the standard profile, for each notebook and each of its arms: on which data set (None: generated), what
# the record calls it, and the parameters that make it short
MNIST = {"dataset": "mnist", "sources": ["mnist"], "claim": "P1.1"}
MNIST["few"] = {"limit": 500, "epochs": 2, "batch_size": 32, "classifier_epochs": 1}
FEW = {"images": 300, "size": 32, "limit": 300, "width": 4, "poolings": 2, "epochs": 2, "compared": 4}
TILES = {"dataset": "magnetic_tiles", "sources": ["magnetic_tiles"], "claim": "X3.1"}
TILES["few"] = {"limit": 240, "size": 32, "width": 8, "epochs": 3, "compared": 2, "added": 10}
VIEWS = {"dataset": None, "claim": "P4.4"}
VIEWS["few"] = {"size": 32, "per_class": 10, "width": 2, "steps": 6, "batch_size": 10, "compared": 4}
CRACKS = {"dataset": "road_cracks", "sources": ["road_cracks", "crackforest"], "claim": "P5.2"}
CRACKS["few"] = {
    "size": 64,
    "width": 8,
    "epochs": 1,
    "limit": 60,
    "cracks": 8,
    "fewer": 4,
    "steps": 4,
    "rise_masks": 20,
}
REAL = {
    PAPER: {"main": MNIST, "improved": MNIST | {"claim": "X1.1"}},
    "02_moram_regression": {
        "rectangles": {"dataset": None, "sources": ["rectangles"] * 2, "claim": "P2.4", "few": FEW},
        "rotated_digits": {"dataset": "mnist", "sources": ["rotated_mnist"], "claim": "X2.1", "few": FEW},
    },
    "03_gradcam_defects": {"main": TILES, "selection": TILES | {"claim": "P3.3"}},
    "04_cam_consistency": {
        "grad_cam": VIEWS | {"dataset": "chest_xray", "sources": ["chest_xray"]},
        "road_views": VIEWS | {"dataset": "road_cracks", "sources": ["road_cracks"]},
        "stanford_cars": VIEWS | {"dataset": "stanford_cars", "sources": ["stanford_cars"]},
        "cifar10": VIEWS | {"dataset": "cifar10", "sources": ["cifar10"]},
        "cat_dog": VIEWS | {"dataset": "cifar10", "sources": ["cifar10"], "claim": "P4.3"},
    },
    "05_lrp_bn": {"main": CRACKS},
}


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Home and temporary folder of all runs: what Jupyter and matplotlib keep for themselves goes there."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "tmp").mkdir()
    return folder


def environment(home, results, **more):
    own = ("XAI_", "XDG_", "JUPYTER", "IPYTHON", "MPLCONFIGDIR", "MAKE", "MFLAGS", "PYTEST", "NUMBA")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    kept |= {"HOME": str(home), "TMPDIR": str(home / "tmp"), "XAI_RESULTS": str(results)}
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | {name: str(value) for name, value in more.items()}


def notebooks_run(home, results, *arguments, **more):
    command = [str(ROOT / "notebooks/run"), *map(str, arguments)]
    chosen = environment(home, results, **more)
    return subprocess.run(command, cwd=home, env=chosen, capture_output=True, text=True, timeout=600)


def seed_folder(results, profile="quick", arm="main", seed=0, paper=PAPER):
    return results / profile / paper / arm / f"seed_{seed}"


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


# two runs with one seed, watched ----------------------------------------------------------------------------


def git_status():
    command = ["git", "status", "--porcelain", "--", ".", ":!tests"]  # somebody may be writing a test meanwhile
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def two_runs(home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_runs")
    before = git_status()
    for name in ("a", "b"):
        watch = {"PYTHONPATH": ROOT / "tests/notebooks/watch", "WATCH_LOG": folder / f"{name}.log"}
        done = notebooks_run(home, folder / name, PAPER, "quick", "main", 0, *SMALL, **watch)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder, before, git_status()


def logged(two_runs, kind):
    lines = [line.split("\t") for name in "ab" for line in (two_runs[0] / f"{name}.log").read_text().splitlines()]
    return [line[1] for line in lines if line[0] == kind]


def test_two_runs_with_one_seed_are_equal(two_runs):
    a, b = (seed_folder(two_runs[0] / name) for name in "ab")
    assert experiment.same_result(experiment.load_record(a), experiment.load_record(b)) == []
    pictures = [name for name in files(a) if name.endswith((".png", ".npz"))]
    assert [name for name in pictures if (a / name).read_bytes() != (b / name).read_bytes()] == []


def test_no_connection_beyond_loopback(two_runs):
    kernels = [line for line in logged(two_runs, "process") if "ipykernel_launcher" in line]
    assert len(kernels) == 2  # the watch was there
    assert logged(two_runs, "beyond") == []


def test_nothing_is_written_outside_the_results_folder(two_runs, home):
    folder, before, after = two_runs
    assert after == before
    allowed = [*(str(seed_folder(folder / name).parent) for name in "ab"), str(home), "/dev/"]
    written = logged(two_runs, "write")
    assert any(path.endswith("record.json") for path in written)
    assert sorted({path for path in written if not path.startswith(tuple(allowed))}) == []
    assert files(home / "tmp") == []


def test_a_run_folder_holds_the_record_its_files_and_the_notebook(two_runs):
    for name in "ab":
        results, folder = two_runs[0] / name, seed_folder(two_runs[0] / name)
        expected = ["misclassified.npz", "notebook.ipynb", "record.json", *(f"{figure}.png" for figure in FIGURES)]
        assert sorted(path.name for path in folder.iterdir()) == sorted(expected)  # no checkpoints, no lock
        assert files(results) == sorted(str(folder.relative_to(results) / file) for file in expected)
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 3_000_000
        record = experiment.load_record(folder)
        assert (sorted(record.figures), record.arrays) == (FIGURES, ["misclassified"])
        assert (record.parameters["epochs"], record.parameters["limit"]) == (2, 400)
        assert [source.name for source in record.provenance.data] == ["digits"]


def test_nothing_in_a_run_folder_tells_of_the_machine(two_runs, home):
    folder = seed_folder(two_runs[0] / "a")
    notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
    for guard in (valid, executed_in_order, no_error_and_no_stderr, no_machine_path, clean_metadata):
        assert guard(notebook) == []
    for path in folder.iterdir():
        content = path.read_bytes()
        assert [place for place in (ROOT, home, two_runs[0]) if str(place).encode() in content] == [], path.name


# bad input: a clear message, a non-zero exit code, nothing half-written -------------------------------------------


def refused(done, folder, *texts, left=("notebook.failed.ipynb",)):
    """The run failed, its messages hold `texts` (spaces apart), and its folder holds only the files `left`."""
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0, said
    assert [text for text in texts if text not in said] == [], done.stdout + done.stderr
    assert files(folder) == sorted(left)


def failed_cell(folder):
    """The error that the kept notebook shows."""
    notebook = nbformat.read(folder / "notebook.failed.ipynb", as_version=4)
    errors = [o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "error"]
    return errors[0].evalue


def test_wrong_parameters_leave_an_older_record_alone(home, tmp_path):
    folder = seed_folder(tmp_path)
    folder.mkdir(parents=True)
    for name in ("record.json", "notebook.ipynb", "samples.png"):
        (folder / name).write_text("older")
    wrong = ["-p", "epoch", "3", "-p", "latent_dim", "0", "-p", "dataset", "mnits", "-p", "batch_size", "1.5"]
    done = notebooks_run(home, tmp_path, PAPER, "quick", "main", 0, *wrong, "-r", "learning_rate", "fast")
    expected = [
        "ValueError: 5 wrong parameter(s); notebooks/parameters/01_id_cvae_morphing.yaml describes all:",
        "epoch = 3 (int): no such parameter; the closest is 'epochs'.",
        "latent_dim = 0 (int): expected int, at least 1, at most 1024.",
        "dataset = 'mnits' (str): expected str, one of 'digits', 'mnist', 'folder'.",
        "batch_size = 1.5 (float): expected int",
        "learning_rate = 'fast' (str): expected float",
        f"the notebook with its error: {folder}/notebook.failed.ipynb",
    ]
    older = ["notebook.ipynb", "record.json", "samples.png"]
    refused(done, folder, *expected, left=[*older, "notebook.failed.ipynb"])
    assert "5 wrong parameter(s)" in failed_cell(folder)
    assert {(folder / name).read_text() for name in older} == {"older"}


def test_an_unknown_arm_and_a_seed_that_is_no_number(home, tmp_path):
    done = notebooks_run(home, tmp_path, PAPER, "quick", "best", "0.5")
    expected = "arm = 'best' (str): expected str, one of 'main', 'improved'.", "seed = 0.5 (float): expected int"
    refused(done, seed_folder(tmp_path, arm="best", seed="0.5"), *expected)
    assert files(tmp_path) == [f"quick/{PAPER}/best/seed_0.5/notebook.failed.ipynb"]


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


def test_a_results_folder_that_is_a_file(home, tmp_path):
    (tmp_path / "results").write_text("mine")
    done = notebooks_run(home, tmp_path / "results", PAPER)
    refused(done, tmp_path, f"cannot write to {tmp_path}/results/quick", "set XAI_RESULTS", left=["results"])
    assert (tmp_path / "results").read_text() == "mine"


@pytest.fixture
def without_data(tmp_path):
    """A root that shares all but its data folder, which has been fetched nothing into, with the checkout."""
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    (root / "results").mkdir()
    for name in ("notebooks", "data/registry.yaml", "data/splits", "results/reported.yaml"):
        (root / name).symlink_to(ROOT / name)
    return root


def test_mnist_that_is_nowhere(home, tmp_path, without_data):
    (tmp_path / "empty").mkdir()
    places = {"XAI_ROOT": without_data, "XAI_DATA": tmp_path / "empty"}
    done = notebooks_run(home, tmp_path / "results", PAPER, "standard", **places)
    expected = [
        "FileNotFoundError: data set 'mnist' (MNIST handwritten digits) was not found. Looked in:",
        f"XAI_DATA: {tmp_path}/empty lacks MNIST/raw/train-images-idx3-ubyte.gz",
        f"the repository's data folder: {without_data}/data lacks MNIST/raw/train-images-idx3-ubyte.gz",
        "(1) set XAI_DATA to a folder that holds a prepared copy, or (2) run `python -m xai_utils.data fetch mnist`",
    ]
    refused(done, seed_folder(tmp_path / "results", "standard"), *expected)
    assert files(tmp_path / "empty") == []


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
    own = ["-p", "dataset", "folder", "-p", "folder", tmp_path / "images"]
    done = notebooks_run(home, tmp_path / "results", PAPER, "quick", "main", 0, *own)
    refused(done, seed_folder(tmp_path / "results"), f"class folder {tmp_path}/images/train/dog holds no images")


@pytest.mark.parametrize("masks", [True, False], ids=["masks", "no masks"])
def test_own_regression_with_and_without_masks(home, tmp_path, masks):
    paper, lines = "02_moram_regression", ["file,target"]
    for i in range(30):
        picture = np.zeros((16, 16), np.uint8)
        picture[2 : 4 + i // 3, 3:9] = 255
        for folder in ("images", "images/masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / folder / f"{i:02d}.png")
        lines.append(f"{i:02d}.png,{i / 15 - 1}")
    (tmp_path / "images/targets.csv").write_text("\n".join(lines))
    own = {"folder": tmp_path / "images", "masks": "masks" if masks else "", "size": 16, "width": 2, "poolings": 1}
    given = [word for name, value in (own | {"epochs": 1, "compared": 2}).items() for word in ("-p", name, value)]
    if not masks:
        for path in (tmp_path / "images/masks").iterdir():
            path.unlink()
    done = notebooks_run(home, tmp_path / "results", paper, "quick", "rectangles", 0, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    record = experiment.load_record(seed_folder(tmp_path / "results", arm="rectangles", paper=paper))
    assert [(source.name, source.variant) for source in record.provenance.data] == [("images", "own")]
    assert (record.claims["P2.1"].verdict, record.claims["P2.6"].verdict) == ("not comparable", "not tested")
    assert (record.metrics["P2.4.signed.auc_difference"].value is None) == (not masks)
    assert (record.claims["P2.4"].verdict == "not tested") == (not masks)
    assert record.claims["P2.5"].verdict == "reproduced"  # an identity, with or without masks


@pytest.mark.parametrize("masks", [True, False], ids=["masks", "no masks"])
def test_own_defects_with_and_without_masks(home, tmp_path, masks):
    paper, rng = "03_gradcam_defects", np.random.default_rng(0)
    for i in range(60):
        picture = rng.integers(90, 160, (32, 32)).astype(np.uint8)
        mask = np.zeros_like(picture)
        if i % 3:
            down, wide = (slice(8, 14), 6) if i % 3 == 1 else (slice(4, 28), 2)
            place = down, slice(i % 20, i % 20 + wide)
            picture[place], mask[place] = 20, 255
        name = ("good", "pit", "crack")[i % 3]
        for folder, pixels in (("images", picture), *([("images/masks", mask)] if i % 3 and masks else [])):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / name / f"{i:02d}.png")
    own = {"dataset": "folder", "normal": "good", "folder": tmp_path / "images", "masks": "masks" if masks else ""}
    own |= {"size": 32, "width": 2, "epochs": 1, "compared": 2, "added": 4}
    given = [word for name, value in own.items() for word in ("-p", name, value)]
    done = notebooks_run(home, tmp_path / "results", paper, "quick", "selection", 0, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    record = experiment.load_record(seed_folder(tmp_path / "results", arm="selection", paper=paper))
    assert [(source.name, source.variant) for source in record.provenance.data] == [("images", "own")]
    marked = {name: record.metrics[f"P3.outcomes.{name}"].value for name in ("correct", "missed", "wrong_defect")}
    assert sum(marked.values()) == 8  # a fifth of 40
    assert record.metrics["P3.1.correct"].value == (marked["correct"] if masks else 0)
    assert (record.metrics["P3.4.auroc"].n == 8) == masks
    assert record.metrics["X3.2.random.balanced_accuracy"].n == 12  # needs no mask


def test_own_defects_need_the_names_of_their_normal_classes(home, tmp_path):
    for name in ("good", "crack"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(np.full((32, 32), 10 * i, np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    own = ["-p", "dataset", "folder", "-p", "folder", tmp_path / "images", "-p", "size", "32"]
    done = notebooks_run(home, tmp_path / "results", "03_gradcam_defects", "quick", "main", 0, *own)
    text = "normal: 'normal' is no class of the data; expected some of crack, good"
    refused(done, seed_folder(tmp_path / "results", paper="03_gradcam_defects"), text)


def test_own_images_of_one_composition(home, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(60):
        picture = rng.integers(90, 130, (16, 16)).astype(np.uint8)
        picture[2:14, 4:12] += 60  # the composition
        mask = np.zeros_like(picture)
        if i % 2:
            picture[6:10, 5 + i % 4 : 9 + i % 4] = mask[6:10, 5 + i % 4 : 9 + i % 4] = 255
        name = ("empty", "filled")[i % 2]
        for folder, pixels in (("images", picture), *([("images/masks", mask)] if i % 2 else [])):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / name / f"{i:02d}.png")
    own = {"source": "folder", "folder": tmp_path / "images", "masks": "masks", "size": 16, "width": 4}
    own |= {"per_class": 0, "steps": 200, "batch_size": 14, "compared": 4, "weight": 0.1}
    given = [word for name, value in own.items() for word in ("-p", name, value)]
    done = notebooks_run(home, tmp_path / "results", "04_cam_consistency", "quick", "hybrid", 0, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    record = experiment.load_record(seed_folder(tmp_path / "results", arm="hybrid", paper="04_cam_consistency"))
    assert [(source.name, source.variant) for source in record.provenance.data] == [("images", "own")]
    value = {name: metric.value for name, metric in record.metrics.items()}
    assert value["P4.1.wrong"] + value["P4.1.correct"] == 12  # a fifth of 60
    assert value["P4.3.wrong"] + value["P4.3.correct"] == 6
    assert value["P4.2.after.balanced_accuracy"] > 0.7
    assert record.claims["X4.2"].verdict != "not tested"
    assert record.claims["P4.1"].evidence.startswith("belongs to arm grad_cam or")


def test_more_training_images_of_a_class_than_there_are(home, tmp_path):
    done = notebooks_run(home, tmp_path, "04_cam_consistency", "quick", "grad_cam", 0, "-p", "per_class", "900")
    text = "per_class is 900, but radiographs has 315 training images of 'normal'"
    refused(done, seed_folder(tmp_path, arm="grad_cam", paper="04_cam_consistency"), text)


@pytest.mark.parametrize("masks", [True, False], ids=["masks", "no masks"])
def test_own_cracks_with_and_without_masks(home, tmp_path, masks):
    rng = np.random.default_rng(0)
    for i in range(80):
        picture = rng.integers(90, 160, (64, 64, 3)).astype(np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        if i % 2:
            picture[4:60, 10 + i % 40 : 14 + i % 40], mask[4:60, 10 + i % 40 : 14 + i % 40] = 20, 255
        name = ("sound", "crack")[i % 2]
        for folder, pixels in (("images", picture), *([("images/masks", mask)] if i % 2 and masks else [])):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / name / f"{i:02d}.png")
    own = {"dataset": "folder", "folder": tmp_path / "images", "masks": "masks" if masks else "", "size": 64}
    own |= {"width": 8, "epochs": 2, "cracks": 8, "fewer": 4, "steps": 4, "rise_masks": 20}
    given = [word for name, value in own.items() for word in ("-p", name, value)]
    done = notebooks_run(home, tmp_path / "results", "05_lrp_bn", "quick", "main", 0, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    record = experiment.load_record(seed_folder(tmp_path / "results", paper="05_lrp_bn"))
    assert [(source.name, source.variant) for source in record.provenance.data] == [("images", "own")]
    assert record.metrics["P5.1.lrp_bn.id_score"].n == 8  # insertion and deletion need no mask
    assert (record.metrics["P5.1.lrp_bn.iou"].value is None) == (not masks)
    assert (record.claims["P5.4"].verdict == "not tested") == (not masks)
    assert record.claims["P5.2"].verdict != "not tested"
    assert record.claims["P5.1"].verdict == "not comparable"
    assert record.claims["X5.5"].verdict == "not tested"  # no second set


def test_a_second_run_into_one_folder_at_once(home, tmp_path):
    folder = seed_folder(tmp_path)
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / ".lock"):
        done = notebooks_run(home, tmp_path, PAPER, "quick", "main", 0, *SMALL)
        expected = f"another run is writing into {folder}. Wait until it has ended", "choose another seed"
        refused(done, folder, *expected, left=[".lock", "notebook.failed.ipynb"])


# make ---------------------------------------------------------------------------------------------------------


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


# every notebook on its real data, a few steps --------------------------------------------------------------------


def test_every_notebook_and_arm_has_its_few_steps_on_real_data():
    assert {*REAL} == {path.stem for path in ROOT.glob("notebooks/0*.ipynb")}
    for paper, arms in REAL.items():
        settings = yaml.safe_load((ROOT / f"notebooks/parameters/{paper}.yaml").read_text(encoding="utf-8"))["arms"]
        assert [*arms] == [arm for arm in settings if arm in arms]
        # paper 4 has many arms on one set, and test_paper_cam_consistency.py has its losses: one arm for every set
        left = {arm: set(settings[arm]) - {"loss", "per_class", "weight", "means"} for arm in settings.keys() - arms}
        assert paper == "04_cam_consistency" or not left
        assert not any(left.values())


@pytest.mark.real_data
@pytest.mark.parametrize(("paper", "arm"), [(paper, arm) for paper, arms in REAL.items() for arm in arms])
def test_a_few_steps_on_real_data(home, tmp_path, paper, arm):
    real = REAL[paper][arm]
    name = real["dataset"]
    if name and store.place(store.entry(name))[0] == "missing":
        pytest.skip(f"{name} is neither in $XAI_DATA nor in data/: set XAI_DATA, or fetch it")
    data = {"XAI_DATA": os.environ["XAI_DATA"]} if os.environ.get("XAI_DATA") else {}
    few = [word for name, value in real["few"].items() for word in ("-p", name, value)]
    done = notebooks_run(home, tmp_path, paper, "standard", arm, 0, *few, **data)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = seed_folder(tmp_path, "standard", arm, paper=paper)
    record = experiment.load_record(folder)
    assert (record.paper, record.profile, record.arm, record.seed) == (paper, "standard", arm, 0)
    assert [source.name for source in record.provenance.data] == real["sources"]
    variant = store.locate(name)[1]["variant"] if name else "embedded"
    assert {source.variant for source in record.provenance.data} == {variant}
    if real["sources"] == [name]:
        assert [source.model_dump() for source in record.provenance.data] == [store.locate(name)[1]]
    assert record.claims.keys() == claims.load().papers[paper].judged.keys()
    assert record.claims[real["claim"]].verdict in {*claims.VERDICTS} - {"not tested"}
    assert (folder / "notebook.ipynb").is_file()
