"""Choice 1 Component (paper 5, §4.3): of a map, only the connected region around its highest point is kept."""

import math
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.measure import label
from torch import Tensor

from .gradcam import upsample

CONNECTIVITY = {4: 1, 8: 2}  # neighbours of a cell -> scikit-image's name for them


def c1c(
    saliency: Tensor, size: int = 28, threshold: str | float = "mean", connectivity: int = 8, keep: int = 1
) -> Tensor:
    """Keep the `keep` connected components of each map (N, H, W) that hold its highest points; 0 elsewhere (N, H, W).

    Paper 5, §4.3, in its four steps: shrink to `size` × `size` cells, which drops fine noise; threshold; keep the
    component that holds the cell of the highest attention; enlarge to (H, W). The result is the shrunken map enlarged,
    not the map behind a mask: what is finer than a cell is gone. It is never negative. Works on the maps of any method.

    The paper leaves open, and this is how it is settled:

    - Shrinking: a cell is the mean of the pixels under it (adaptive average pooling; cells share pixels where the sizes
      do not divide). A side shorter than `size` keeps its pixels as cells: nothing is enlarged here.
    - Threshold: cells ≥ the mean over all cells of the shrunken map, negative ones included; or ≥ a number in the
      map's own unit. So with "mean" the highest cell is always among them.
    - Negative values: a cell of 0 or less is in no component, whatever the threshold. A kept cell would otherwise rank
      below those that are removed.
    - Ranking: by a component's highest cell (not its sum or area); k > 1 is no part of the paper, and goes on down that
      list. Fewer components than `keep`: all of them.
    - Ties: of equally high components the one of more cells is first, then the one that comes first in reading order.
    - Enlarging: bilinear, pixels as areas (`upsample`). A component fades out over half a cell beyond its border.
    - A flat positive map is one component and comes back flat, at its own value. An all-zero map, one without positive
      cells, and one that nowhere reaches the number give zeros.

    Neighbours by default: 8, as in the authors' later code, where the threshold is the mean as well.

    Args:
        saliency: maps (N, H, W), float, of any scale and sign.
        size: cells per side.
        threshold: "mean", or a number.
        connectivity: neighbours of a cell, 4 or 8.
        keep: components to keep, at least 1; the paper's C1C is 1.

    Returns:
        Maps (N, H, W), detached, with dtype and device of `saliency`.

    Raises:
        TypeError: maps that are not a floating-point tensor.
        ValueError: maps of another rank, empty or not finite; an argument that makes no sense.
    """
    _check_options(size, threshold, connectivity, keep)
    maps = _checked(saliency)
    height, width = maps.shape[1:]
    small = _within(F.adaptive_avg_pool2d(maps, (min(size, height), min(size, width))), maps)
    level = _within(small.mean((1, 2), keepdim=True), small) if threshold == "mean" else threshold
    inside = (small >= level) & (small > 0)
    pairs = zip(small.cpu().numpy(), inside.cpu().numpy(), strict=True)
    chosen = np.stack([_highest(values, cells, CONNECTIVITY[connectivity], keep) for values, cells in pairs])
    kept = small.where(torch.from_numpy(chosen).to(small.device), 0)
    return _within(upsample(kept, (height, width)), kept).to(saliency)


def _highest(values: np.ndarray, inside: np.ndarray, connectivity: int, keep: int) -> np.ndarray:
    """Cells (h, w), bool, of the first `keep` components of `inside` by peak, then area, then reading order."""
    components, count = label(inside, connectivity=connectivity, return_num=True)  # numbered in reading order
    numbers = np.arange(1, count + 1)
    peaks = np.asarray(ndimage.maximum(values, components, numbers))
    areas = np.bincount(components.ravel(), minlength=count + 1)[1:]
    order = np.lexsort((-areas, -peaks))  # stable; the last key is the first to count
    return np.isin(components, numbers[order[:keep]])


def _within(maps: Tensor, origin: Tensor) -> Tensor:
    """Maps of means of `origin`, without what rounding added to its range: so a flat map stays exactly flat."""
    return maps.clamp(origin.amin((1, 2), keepdim=True), origin.amax((1, 2), keepdim=True))


def _checked(saliency: Tensor) -> Tensor:
    if not isinstance(saliency, Tensor) or not saliency.is_floating_point():
        kind = saliency.dtype if isinstance(saliency, Tensor) else type(saliency).__name__
        raise TypeError(f"saliency: got {kind}; expected a floating-point tensor of maps (N, H, W)")
    if saliency.ndim != 3 or 0 in saliency.shape:
        hint = "; add the batch dimension: saliency[None]" if saliency.ndim == 2 else ""
        raise ValueError(f"saliency: got shape {tuple(saliency.shape)}; expected maps (N, H, W){hint}")
    finite = torch.isfinite(saliency).flatten(1).all(1)
    if not finite.all():
        bad = (~finite).nonzero()[:5, 0].tolist()
        raise ValueError(f"saliency: maps {bad} hold NaN or infinite values; remove or repair them")
    return saliency.detach() if saliency.dtype in (torch.float32, torch.float64) else saliency.detach().float()


def _check_options(size: int, threshold: str | float, connectivity: int, keep: int) -> None:
    for name, value in (("size", size), ("keep", keep)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}: got {value!r}; expected an integer of at least 1")
    number = isinstance(threshold, Real) and not isinstance(threshold, bool) and math.isfinite(threshold)
    if not (number or (isinstance(threshold, str) and threshold == "mean")):
        raise ValueError(f"threshold: got {threshold!r}; expected 'mean', or a finite number in the map's unit")
    if isinstance(connectivity, bool) or connectivity not in tuple(CONNECTIVITY):
        raise ValueError(f"connectivity: got {connectivity!r}; expected 4 or 8 neighbours")
