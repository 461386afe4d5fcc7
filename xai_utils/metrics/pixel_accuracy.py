"""Pixel accuracy of a thresholded map against the true region: the evaluation of paper 2, §4 and fig. 1."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

NORMALISATIONS = ("signed", "clip", "shift")
_BATCH = 2**18  # pixels of maps worked on at once, about 80 bytes each


def pixel_accuracy_curve(
    saliency: Tensor, mask: Tensor, r: Tensor | Sequence[float], normalise: str = "signed"
) -> Tensor:
    """Share of the pixels on which the region of high importance and the true one agree, at every threshold.

    Paper 2, §4, steps 1 to 5: R = L̂ / ΣΣL̂; the pixels are sorted by R, ascending, and cumulated: a pixel's cumulative
    importance is the sum of R up to and with its own; at threshold r the pixels whose cumulative importance is ≥ r are
    black, the rest white. Black stands for the region: step 5 measures, in the paper's words, how far "the region of a
    certain importance or above" and the true rectangle coincide. So the accuracy is the share of pixels that are black
    inside the mask or white outside it.

    What R is where values are negative, or their sum is (the paper does not say; its LANCZOS upsampling makes some):

    - "signed": R as written. The cumulation falls below 0 first and rises to 1 then, so that the black pixels are
      still those with the largest R, but fewer. A negative sum turns the order round, a sum near 0 makes R large and
      nearly all white: both are the formula's, and are left so.
    - "clip": negative values become 0 first. - "shift": the map's minimum is subtracted first.

    Where the sum is 0, R is not defined and the map counts as uniform, R = 1/P for P pixels: an all-zero map, one
    without a positive value under "clip", a flat one under "shift", and under "signed" one whose |ΣΣL̂| is no larger
    than what rounding makes of adding P values up, 2 P ε Σ|L̂| in float64.

    Pixels of equal importance have no order: the result is the mean over all their orders, so it does not depend on
    where in the image they lie. A uniform map thus goes straight from a to 1 − a (a: the mask's share of the image), an
    area of 1/2 for every mask. The mask itself as the map gives 1 − r a, if a ≤ 1/2 nearly the best there is.

    An empty or full mask is legitimate: the accuracy is then the share of white or of black pixels. The work for a map
    is O(P log P), however many thresholds there are.

    Args:
        saliency: maps L̂ (N, H, W), floating point, raw (not normalised), upsampled to the images' size.
        mask: true regions (N, H, W), bool.
        r: thresholds (T,) in [0, 1], in any order.
        normalise: "signed", "clip" or "shift".

    Returns:
        Accuracies (N, T) in [0, 1], float64, on the CPU, column t for r[t]. The area is `torch.trapezoid(curve, r)`.

    Raises:
        TypeError: maps that are not a floating-point tensor, a mask that is not a boolean one.
        ValueError: other shapes, a mask of another size than the maps, NaN or infinite values, no threshold or one
            outside [0, 1], an unknown `normalise`.
    """
    if normalise not in NORMALISATIONS:
        raise ValueError(f"normalise: got {normalise!r}; expected one of {', '.join(NORMALISATIONS)}")
    maps, inside, levels = _checked(saliency, mask, r)
    order = np.argsort(levels, kind="stable")
    curves, batch = np.empty((len(maps), len(levels))), max(1, _BATCH // maps.shape[1])
    for start in range(0, len(maps), batch):
        some = slice(start, start + batch)
        values = maps[some].double().numpy()
        curves[some, order] = _accuracies(_positive_sum(values, normalise), inside[some].numpy(), levels[order])
    return torch.from_numpy(curves)


def _checked(saliency: Tensor, mask: Tensor, r: Tensor | Sequence[float]) -> tuple[Tensor, Tensor, np.ndarray]:
    """Maps and masks (N, P) on the CPU, thresholds (T,); see `pixel_accuracy_curve`."""
    if not isinstance(saliency, Tensor) or not saliency.is_floating_point():
        kind = saliency.dtype if isinstance(saliency, Tensor) else type(saliency).__name__
        raise TypeError(f"saliency: got {kind}; expected a floating-point tensor of maps (N, H, W)")
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask: got {kind}; expected a tensor of bool (N, H, W), such as mask > 0.5")
    if saliency.ndim != 3 or 0 in saliency.shape[1:]:
        hint = "; add the batch dimension: saliency[None]" if saliency.ndim == 2 else ""
        raise ValueError(f"saliency: got shape {tuple(saliency.shape)}; expected maps (N, H, W){hint}")
    if mask.shape != saliency.shape:
        raise ValueError(
            f"mask: got shape {tuple(mask.shape)}, but the maps have {tuple(saliency.shape)}; expected one mask for "
            "each map, of its size: upsample the maps to the images first"
        )
    maps = saliency.detach().cpu().flatten(1)
    if bad := (~torch.isfinite(maps).all(1)).nonzero()[:5, 0].tolist():
        raise ValueError(f"saliency: maps {bad} hold NaN or infinite values; expected finite ones")
    levels = torch.as_tensor(r, dtype=torch.float64, device="cpu").detach().numpy()
    if levels.ndim != 1 or not len(levels):
        raise ValueError(f"r: got shape {levels.shape}; expected one or more thresholds (T,)")
    if len(wrong := levels[~((levels >= 0) & (levels <= 1))]):  # true for NaN, too
        raise ValueError(f"r: got the threshold {wrong[0]}; expected values in [0, 1]")
    return maps, mask.cpu().flatten(1), levels


def _positive_sum(values: np.ndarray, normalise: str) -> np.ndarray:
    """The maps (N, P), each in proportion to its R."""
    if normalise == "clip":
        values = values.clip(min=0)
    elif normalise == "shift":
        values = values - values.min(1, keepdims=True)
    total, weight = values.sum(1, keepdims=True), np.abs(values).sum(1, keepdims=True)
    rounding = 2 * values.shape[1] * np.finfo(np.float64).eps * weight
    return np.where(np.abs(total) > rounding, values * np.sign(total), 1.0)


def _accuracies(values: np.ndarray, inside: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Accuracies (N, T) of maps (N, P) with a positive sum, at ascending thresholds (T,)."""
    n, pixels = values.shape
    order = np.argsort(values, 1)
    values, inside = np.take_along_axis(values, order, 1), np.take_along_axis(inside, order, 1)
    cumulative = values.cumsum(1)
    cumulative /= cumulative[:, -1:]
    # equal pixels share their part of the mask
    starts = np.concatenate([np.ones((n, 1), bool), values[:, 1:] != values[:, :-1]], 1)
    group = starts.cumsum() - 1
    share = (np.bincount(group, inside.ravel()) / np.bincount(group))[group]
    # a pixel is black at the first `black` thresholds: count pixels by that number, then add up from the last threshold
    black = np.searchsorted(levels, cumulative.ravel(), side="right")
    cell = black + np.repeat(np.arange(n) * (len(levels) + 1), pixels)

    def at_thresholds(weights: np.ndarray) -> np.ndarray:
        counts = np.bincount(cell, weights, minlength=n * (len(levels) + 1)).reshape(n, -1)
        return counts[:, :0:-1].cumsum(1)[:, ::-1]

    right, wrong = at_thresholds(share), at_thresholds(1 - share)  # black inside, black outside
    return (right + (~inside).sum(1, keepdims=True) - wrong) / pixels
