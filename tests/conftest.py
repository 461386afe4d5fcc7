"""What every test stands on: the torchvision guard, seeds, and no window for figures."""

import os

os.environ["MPLBACKEND"] = "Agg"
os.environ["NUMBA_DISABLE_JIT"] = "1"  # shap runs the Python that it would take 5 s to compile
import xai_utils  # noqa: F401, I001  first: zennit and pytorch-grad-cam import torchvision, which its guard makes possible

import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_numbers_for_every_test():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
