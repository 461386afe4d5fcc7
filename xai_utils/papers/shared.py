"""What several papers train with, and how they look at what was trained."""

import re
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from xai_utils.explain.gradcam import GradCAM
from xai_utils.models.outputs import predict


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor], _generator: torch.Generator) -> dict[str, Tensor]:
    """Cross-entropy and accuracy of a batch, as `training.fit` takes them."""
    logits = model(batch[0])
    accuracy = (logits.argmax(1) == batch[1]).float().mean()
    return {"loss": nn.functional.cross_entropy(logits, batch[1]), "accuracy": accuracy}


def metric_key(name: str) -> str:
    """A name as part of a metric's id: "Grad-CAM++" is grad_campp, "LRP-BN" lrp_bn, "θ = 0.5" theta_0_5."""
    plain = name.replace("θ", "theta").replace("+", "p").lower()
    return re.sub("[^a-z0-9]+", "_", plain).strip("_")


def shifted(images: Tensor, generator: torch.Generator, reach: float, fill: Tensor | None = None) -> Tensor:
    """Images (N, C, H, W) moved by up to `reach` of the side each way, in whole pixels: nothing is interpolated.

    Args:
        images: on any device.
        generator: on the CPU.
        reach: largest shift, as a share of the side.
        fill: what the uncovered strip gets, (N, 1, 1, 1) for example; None = it repeats the border.
    """
    n, _, height, width = images.shape
    shifts = torch.rand(n, 2, generator=generator) * (2 * reach) - reach
    rows, columns = (
        (torch.arange(side) + (shift[:, None] * side).round().long()).to(images.device)
        for side, shift in ((height, shifts[:, 0]), (width, shifts[:, 1]))
    )
    which = torch.arange(n, device=images.device)[:, None, None]
    moved = images[which, :, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]]
    moved = moved.permute(0, 3, 1, 2)
    if fill is None:
        return moved
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    return torch.where(inside[:, None], moved, fill)


def relit(images: Tensor, mean: Tensor, generator: torch.Generator, contrast: float) -> Tensor:
    """Images (N, C, H, W) in [0, 1] with another contrast about `mean` (N, 1, 1, 1), and up to 0.1 brighter or darker.

    The contrast is multiplied by e^c, with c drawn from ± `contrast`.
    """
    change, light = torch.rand(2, len(images), 1, 1, 1, generator=generator).to(images.device) * 2 - 1
    return ((images - mean) * torch.exp(contrast * change) + mean + 0.1 * light).clamp(0, 1)


class Explained(NamedTuple):
    """What a network says of N images, and Grad-CAM maps on the layer's own grid."""

    logits: Tensor  # (N, K)
    predicted: Tensor  # (N,) classes
    maps: Tensor  # (N, h, w) for the predicted class
    true_maps: Tensor | None  # (N, h, w) for the true class; None where that was not given

    @property
    def uncertainty(self) -> Tensor:
        """1 − softmax confidence (N,)."""
        return 1 - self.logits.softmax(1).amax(1)


def predict_and_explain(model: nn.Module, layer: str, images: Tensor, labels: Tensor | None = None) -> Explained:
    """Predictions for images (N, C, H, W) and their Grad-CAM, in batches of 64 on the model's device.

    With `labels` (N,) also the maps for the true classes; where prediction and label agree, the two are one map.
    """
    logits = predict(model, images)
    predicted, device, explainer = logits.argmax(1), next(model.parameters()).device, GradCAM(model, layer)

    def grid(pixels: Tensor, classes: Tensor) -> Tensor:
        pairs = zip(pixels.split(64), classes.split(64), strict=True)
        return torch.cat([explainer.attribute_layer(x.to(device), c.to(device)).cpu() for x, c in pairs])

    if labels is None:
        return Explained(logits, predicted, grid(images, predicted), None)
    true, wrong = grid(images, labels), predicted != labels
    maps = true.clone()
    if wrong.any():
        maps[wrong] = grid(images[wrong], predicted[wrong])
    return Explained(logits, predicted, maps, true)


def logistic() -> Pipeline:
    """Logistic regression of standardised features that counts both answers as equally frequent."""
    return make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))


def cross_validated_score(
    features: np.ndarray, wrong: np.ndarray, clusters: np.ndarray | None, seed: int
) -> np.ndarray | None:
    """One score (N,) of several features (N, S) for `wrong` (N,): `logistic`, each image by a fit on other clusters.

    None where too few are wrong, or right, to learn from.
    """
    groups = np.arange(len(wrong)) if clusters is None else np.asarray(clusters)
    folds = min(5, *(len(set(groups[wrong == side])) for side in (False, True)))
    if folds < 2:
        return None
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    if any(len(set(wrong[rest])) < 2 for rest, _ in split.split(features, wrong, groups)):
        return None
    return cross_val_predict(logistic(), features, wrong, groups=groups, cv=split, method="decision_function")
