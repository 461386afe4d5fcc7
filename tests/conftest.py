"""What every test stands on: one thread, the torchvision guard, seeds, and no window for figures."""

import os
import tempfile
from pathlib import Path

# one thread a process: two processes with two threads each take three times as long on two cores. Before torch is
# imported; the kernels and commands that tests start inherit it.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
# what is started imports this tree, wherever the package is installed from
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.getenv("PYTHONPATH")]))
os.environ["MPLBACKEND"] = "Agg"
os.environ["NUMBA_DISABLE_JIT"] = "1"  # shap runs the Python that it would take 5 s to compile
# not in the tree
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(tempfile.gettempdir(), "hypothesis"))
import random
import sys

import numpy as np
import pytest
import torch

from xai_utils.models import make_torchvision_importable

make_torchvision_importable()  # zennit, pytorch-grad-cam and quantus import it


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Home and temporary folder of all runs: what Jupyter and matplotlib keep for themselves goes there."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "tmp").mkdir()
    return folder


@pytest.fixture(autouse=True)
def _same_random_numbers_for_every_test():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_test_leaves_its_style():
    before = dict(sys.modules["matplotlib"].rcParams) if "matplotlib" in sys.modules else None
    yield
    if "matplotlib" in sys.modules:
        settings = sys.modules["matplotlib"]
        dict.update(settings.rcParams, settings.rcParamsDefault if before is None else before)
