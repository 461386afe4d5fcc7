"""Runs of notebooks as a user starts them, by `notebooks/run`, and what their tests ask of a run's folder."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
PAPERS = ["01_id_cvae_morphing", "02_moram_regression", "03_gradcam_defects", "04_cam_consistency", "05_lrp_bn"]
OWN = ("XAI_", "XDG_", "JUPYTER", "IPYTHON", "MPL", "MAKE", "MFLAGS", "PYTEST", "NUMBA", "TORCHINDUCTOR")


def without_settings(variables):
    """Environment variables (a mapping) without those that a test's own process has set, or a library within it."""
    return {name: value for name, value in variables.items() if not name.startswith(OWN)}


def environment(home, results, **more):
    """A user's environment: home and temporary files in `home`, results in `results`, this interpreter first."""
    chosen = without_settings(os.environ)
    chosen |= {"HOME": str(home), "TMPDIR": str(home / "tmp"), "XAI_RESULTS": str(results)}
    chosen["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), chosen["PATH"]])
    chosen |= {"PYTHONDONTWRITEBYTECODE": "1", "NUMBA_DISABLE_JIT": "1"}  # shap takes 5 s to compile
    return chosen | {name: str(value) for name, value in more.items()}


def notebooks_run(home, results, *arguments, **more):
    """`notebooks/run` with these arguments, run to its end; `more` are environment variables."""
    command = [str(ROOT / "notebooks/run"), *map(str, arguments)]
    chosen = environment(home, results, **more)
    return subprocess.run(command, cwd=home, env=chosen, capture_output=True, text=True, timeout=900)


def given(**parameters):
    """Papermill's arguments for parameters."""
    return [word for name, value in parameters.items() for word in ("-p", name, value)]


def seed_folder(results, profile="quick", arm="main", seed=0, paper=PAPERS[0]):
    return results / profile / paper / arm / f"seed_{seed}"


def files(folder):
    """Paths of all files below a folder, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


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
