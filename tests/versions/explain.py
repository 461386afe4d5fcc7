"""What `pip install .` without extras is for: explain a model and measure the maps. Run by tests/versions/run wheel."""

import sys
from importlib.metadata import files
from pathlib import Path

import torch
from torch import nn

import xai_utils
from xai_utils import explain, metrics, models
from xai_utils.suite import claims

HELD = ("xai_utils/py.typed", "xai_utils/explain/__init__.pyi", "xai_utils/models/__init__.pyi", "/reported.yaml")

assert Path(xai_utils.__file__).is_relative_to(sys.prefix), f"{xai_utils.__file__} is not the installed package"
installed = [str(file) for file in files("xai-utils")]
assert all(any(name.endswith(held) for name in installed) for held in HELD), installed

torch.manual_seed(0)
images = torch.rand(2, 1, 16, 16)
model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
for method in (
    explain.GradCAM(model, model[1]),
    explain.LRP(model),
    explain.RISE(model, n_masks=20),
    explain.IntegratedGradients(model),
    explain.Lime(model, n_samples=20, segments=4),
    explain.KernelShap(model, n_samples=40, segments=4),
):
    maps = method.attribute(images, 1)
    scores = metrics.insertion_deletion(model, images, maps, 1, steps=8)
    assert maps.shape == (2, 16, 16)
    assert torch.as_tensor(scores.id_score).isfinite().all()
    print(type(method).__name__, maps.abs().mean().item())
assert explain.LRP(models.SmallCNN(width=4).eval()).attribute(images, 1).shape == (2, 16, 16)
assert len(claims.load().papers) == 5
