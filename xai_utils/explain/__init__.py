"""Explainers, all with one signature, and the differentiable cores behind them. Loaded on first use."""

import importlib
import sys
from types import ModuleType
from typing import Any

_HOME = {
    "AttentionMap": "lrp_bn",
    "Explainer": "explainer",
    "GradCAM": "cam",
    "GradCAMPlusPlus": "cam",
    "GradRAM": "cam",
    "IntegratedGradients": "baselines",
    "KernelShap": "baselines",
    "LRP": "lrp",
    "LRPBN": "lrp_bn",
    "LayerGradients": "cam",
    "Lime": "baselines",
    "MoRAM": "cam",
    "RAM": "cam",
    "RISE": "rise",
    "ShapPartition": "baselines",
    "c1c": "c1c",
    "cam": "cam",
    "class_prototypes": "morph",
    "decode_path": "morph",
    "features_and_gradients": "cam",
    "in_batches": "batches",
    "morph": "morph",
    "normalize": "cam",
    "path_along_data": "morph",
    "straight_path": "morph",
    "upsample": "cam",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """`c1c`, `cam` and `morph` are functions here, and also files: importing a file must not hide its function."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, getattr(value, name, value) if isinstance(value, ModuleType) else value)


sys.modules[__name__].__class__ = _Package
