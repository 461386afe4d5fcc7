"""What every test stands on: the torchvision guard, seeds, and no window for figures."""

import os

os.environ["MPLBACKEND"] = "Agg"
os.environ["NUMBA_DISABLE_JIT"] = "1"  # shap runs the Python that it would take 5 s to compile
import random

import numpy as np
import pytest
import torch

from xai_utils.models import make_torchvision_importable

make_torchvision_importable()  # zennit, pytorch-grad-cam and quantus import it


@pytest.fixture(autouse=True)
def _same_random_numbers_for_every_test():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
