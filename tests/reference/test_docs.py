"""Every line of code of docs/own_model.md runs, and its table says what is so."""

import re
from pathlib import Path

import pytest
import torch
import torchvision

from xai_utils.explain import LRP, GradCAM
from xai_utils.models import from_torch

PAGE = (Path(__file__).parents[2] / "docs" / "own_model.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`.*?) \| `\"(.*?)\"`(.*?) \| (yes|no)(.*?) \|$", PAGE, re.MULTILINE)
MODELS = [(name, *row[1:]) for row in ROWS for name in re.findall(r"`(\w+)`", row[0])]


def test_every_line_of_code_runs_and_gives_maps_of_the_images_size():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    torch.manual_seed(0)
    names = {}
    for block in blocks:
        for statement in re.split(r"\n(?=\S)", block):
            exec(statement, names)
            for name in ("heat", "relevance", "labels"):
                if statement.startswith(f"{name} ="):
                    assert names[name].shape == (2, 64, 64), statement
                    assert names[name].isfinite().all(), statement
                    assert names[name].abs().amax((1, 2)).min() > 0 or name == "heat", statement


def test_the_table_is_found():
    assert [name for name, *_ in MODELS] == [
        "resnet18", "resnet50", "vgg16", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "convnext_tiny",
        "vit_b_16", "swin_t",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "layer", "more", "works", "why"), MODELS)
def test_the_table_says_what_lrp_and_grad_cam_do(name, layer, more, works, why):
    torch.manual_seed(0)
    options = {"image_size": 64} if name.startswith("vit") else {}
    model, images = getattr(torchvision.models, name)(weights=None, **options).eval(), torch.rand(1, 3, 64, 64)
    explainer = LRP(from_torch(model, images))
    if works == "yes":
        assert explainer.attribute(images, 3).isfinite().all()
    else:
        with pytest.raises(ValueError, match=r"cannot be folded|outside any module with a rule|has no rule"):
            explainer.attribute(images, 3)
        assert len(why) > 5  # and the page says why
    if "reshape" in more:
        with pytest.raises(ValueError, match="reshape"):
            GradCAM(model, layer).attribute(images, 3)
    else:
        assert GradCAM(model, layer).attribute_layer(images, 3).ndim == 3
