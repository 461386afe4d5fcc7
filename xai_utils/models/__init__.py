"""Models, and how a model is run as the subject of an explanation or a measurement. Loaded on first use."""

import importlib
from typing import Any

_HOME = {
    "Add": "layers",
    "AttentionBranchNetwork": "abn",
    "Gate": "layers",
    "IDCVAE": "id_cvae",
    "ResNet": "resnet",
    "SmallCNN": "cnn",
    "VGG16GAP": "vgg",
    "as_found": "subject",
    "branch_loss": "abn",
    "check_images": "subject",
    "from_torchvision": "resnet",
    "kl_divergence": "id_cvae",
    "predict": "outputs",
    "reconstruction_loss": "id_cvae",
    "resnet18": "resnet",
    "resnet34": "resnet",
    "resnet50": "resnet",
    "target_indices": "subject",
    "target_scores": "subject",
    "vgg16_gap": "vgg",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
