"""Every line of code of docs/own_model.md runs, and its table says what is so."""

import ast
import re
import warnings
from pathlib import Path

import pytest
import torch
import torchvision

from xai_utils.explain import LRP, RISE, GradCAM, GradCAMPlusPlus, GradRAM, IntegratedGradients, Lime, MoRAM
from xai_utils.models import from_torch

PAGE = (Path(__file__).parents[2] / "docs" / "own_model.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| `\"(.*?)\"` \| (.*?) ?\| (yes|no) \| (.*?) \|$", PAGE, re.MULTILINE)
MODELS = [(name, *row[1:]) for row in ROWS for name in re.findall(r"`(\w+)`", row[0])]
RESHAPES = {
    "": None,
    "tokens": lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4)),
    "channels last": lambda maps: maps.permute(0, 3, 1, 2),
}


def test_every_line_of_code_runs_and_gives_maps_of_the_images_size():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 11
    torch.manual_seed(0)
    names = {}
    for block in blocks:
        for statement in map(ast.unparse, ast.parse(block).body):
            exec(statement, names)
            for name in ("heat", "relevance", "labels"):
                if statement.startswith(f"{name} ="):
                    assert names[name].shape == (2, 64, 64), statement
                    assert names[name].isfinite().all(), statement
                    assert names[name].abs().amax((1, 2)).min() > 0 or name == "heat", statement
    assert names["scores"]["map"].tolist() == ["Grad-CAM", "Grad-CAM", "random", "random"]
    assert names["scores"]["id_score"].abs().max() < 1


def test_the_table_is_found():
    assert [name for name, *_ in MODELS] == [
        "resnet18", "resnet50", "vgg16", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "convnext_tiny",
        "vit_b_16", "swin_t",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "layer", "reshape", "lrp", "said"), MODELS)
@pytest.mark.filterwarnings("ignore:MoRAM")
def test_the_table_says_what_works_and_what_is_refused(name, layer, reshape, lrp, said):
    torch.manual_seed(0)
    options = {"image_size": 64} if name.startswith("vit") else {}
    model, images = getattr(torchvision.models, name)(weights=None, **options).eval(), torch.rand(1, 3, 64, 64)
    if options:
        torch.nn.init.normal_(model.heads.head.weight, std=0.02)  # torchvision begins with zeros
    for method in (GradCAM, GradCAMPlusPlus, GradRAM, MoRAM):
        found = method(model, layer, reshape=RESHAPES[reshape]).attribute_layer(images, 3)
        assert found.ndim == 3
        assert found.any() or method in (GradCAM, GradCAMPlusPlus)  # they keep the positive part alone
    for explainer in (RISE(model, n_masks=8), IntegratedGradients(model, steps=2), Lime(model, n_samples=60)):
        assert explainer.attribute(images, 3).any()
    if reshape:
        assert "without `reshape=`" in said
        with pytest.raises(ValueError, match="reshape"):
            GradCAM(model, layer).attribute(images, 3)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        MoRAM(model, layer, reshape=RESHAPES[reshape]).attribute_layer(images, 3)
    if not reshape:
        assert any("MoRAM" in str(each.message) for each in noted) == ("MoRAM warns" in said)
    explainer = LRP(from_torch(model, images))
    if lrp == "yes":
        assert explainer.attribute(images, 3).any()
        if "LRP of the network itself" in said:
            with pytest.raises(
                ValueError, match="in place" if "in place" in said else "calls 'flatten'|calls 'add|in place"
            ):
                LRP(model).attribute(images, 3)
    else:
        why = re.search(r"cannot be folded|outside any module with a rule", said)[0]
        with pytest.raises(ValueError, match=why):
            explainer.attribute(images, 3)
