"""Measures of explanations and of what they are judged by; each takes arrays or images, wherever they come from."""

import importlib
from typing import Any

_STATISTICS = """auroc bootstrap bootstrap_seeds_images effect_size equivalence holm mean_std
    paired_interval paired_t permutation_test proportion"""
_CONSISTENCY = """ClassMeans Consistency attention_area attention_centroid attention_spread between_class_distance
    cam_consistency class_means consistency_loss distance_to_class_mean expected_calibration_error normalised
    pairwise_correlation updated_means"""
_HOME = {
    "Faithfulness": "faithfulness",
    "RealismBand": "realism",
    "insertion_deletion": "faithfulness",
    "pixel_accuracy_curve": "pixel_accuracy",
}
_HOME |= dict.fromkeys(("energy_inside", "iou", "pieces", "pointing_game"), "localization")
_HOME |= dict.fromkeys(_CONSISTENCY.split(), "consistency")
_HOME |= dict.fromkeys(_STATISTICS.split(), "statistics")
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
