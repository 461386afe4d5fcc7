"""How well a map finds a region that is known: maps (N, H, W) against masks (N, H, W), an image each.

A mask without any pixel is an error in all of them: where nothing is to be found, localization has no meaning.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

LEVELS = ("value", "maximum", "quantile")
PIXELS = 2**22  # of the maps, worked on at once


def iou(saliency: Tensor, mask: Tensor, threshold: float | Sequence[float] | Tensor, of: str = "value") -> Tensor:
    """Intersection over union of {saliency ≥ threshold} and the mask: (N,), or (N, T) over a sweep of T thresholds.

    Args:
        saliency: maps (N, H, W).
        mask: the true regions (N, H, W), bool.
        threshold: one, or several in any order.
        of: what it is a threshold of. "value": the map's values; "maximum": a share of the map's maximum (0.15 is
            15 %), where pixels of 0 or less are never in the region, so a map without positive values has IoU 0;
            "quantile": of the map's values (0.95: the highest 5 %, and all that equal the least of them).

    Raises:
        TypeError, ValueError: shapes or types that do not fit, NaN, an empty mask, a threshold that makes no sense.
    """
    saliency, mask = _checked(saliency, mask)
    thresholds = torch.as_tensor(threshold, dtype=torch.float64, device="cpu")
    if of not in LEVELS:
        raise ValueError(f"of: got {of!r}; expected one of {', '.join(LEVELS)}")
    if thresholds.ndim > 1 or thresholds.numel() == 0 or thresholds.isnan().any():
        raise ValueError(f"threshold: got {threshold!r}; expected a number, or several in one row")
    if of != "value" and not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise ValueError(f"threshold: got {threshold!r} of the {of}; expected numbers from 0 to 1")
    ascending, order = thresholds.reshape(-1).sort()
    images = min(1024, max(1, PIXELS // saliency[0].numel()))
    parts = zip(saliency.flatten(1).split(images), mask.flatten(1).split(images), strict=True)
    result = torch.empty(len(saliency), len(order), dtype=saliency.dtype, device=saliency.device)
    result[:, order] = torch.cat([_iou(values, inside, ascending, of) for values, inside in parts])
    return result if thresholds.ndim else result[:, 0]


def _iou(values: Tensor, inside: Tensor, thresholds: Tensor, of: str) -> Tensor:
    """IoU (N, T) of values (N, P) and bool (N, P) at ascending thresholds (T,), by one histogram per image."""
    if of == "quantile":  # NumPy's selects, torch's sorts
        levels = torch.from_numpy(np.quantile(values.cpu().numpy(), thresholds.numpy(), axis=1).T).to(values)
    else:
        levels = thresholds.to(values).expand(len(values), -1)
    if of == "maximum":
        levels = levels * values.amax(1, keepdim=True).clamp(min=0)
    # how many thresholds each pixel reaches (N, P)
    reached = torch.searchsorted(levels.contiguous(), values, right=True, out_int32=True)
    if of == "maximum":
        reached.mul_(values > 0)
    bins = levels.shape[1] + 1
    first = torch.arange(len(values), dtype=torch.int32, device=values.device)[:, None] * (2 * bins)
    cell = reached.mul_(2).add_(inside).add_(first)
    counts = cell.flatten().bincount(minlength=len(values) * bins * 2).view(-1, bins, 2)
    region = counts.flip(1).cumsum(1).flip(1)[:, 1:]  # pixels (N, T, outside or inside) that reach each threshold
    intersection = region[..., 1]
    return intersection.to(values) / (region[..., 0] + inside.sum(1, keepdim=True)).to(values)


def energy_inside(saliency: Tensor, mask: Tensor) -> Tensor:
    """Share (N,) of a map's positive sum that lies inside the mask; NaN for a map without positive values.

    Compare it with the mask's share of the area, which a uniform map gets. Raises as `iou` does.
    """
    saliency, mask = _checked(saliency, mask)
    positive = saliency.clamp(min=0)
    return (positive * mask).sum((1, 2)) / positive.sum((1, 2))


def pointing_game(saliency: Tensor, mask: Tensor) -> Tensor:
    """Whether the map's highest pixel lies in the mask: (N,), 1 or 0.

    Where several are equally high, the share of them inside: the chance of a hit if one is drawn at random. So a flat
    map scores the mask's share of the area, whatever the order of the pixels. Raises as `iou` does.
    """
    saliency, mask = _checked(saliency, mask)
    highest = saliency == saliency.amax((1, 2), keepdim=True)
    return (highest & mask).sum((1, 2)).to(saliency) / highest.sum((1, 2)).to(saliency)


def pieces(saliency: Tensor, level: float = 0.5) -> Tensor:
    """Number (N,) of connected regions, with 8 neighbours, at or above `level` times the map's maximum.

    A map without positive values has none; a flat positive one has one. Raises as `iou` does.
    """
    saliency = _checked_maps(saliency)
    if not 0 < level <= 1:
        raise ValueError(f"level: got {level!r}; expected a share of the maximum above 0 and up to 1")
    regions = (saliency >= level * saliency.amax((1, 2), keepdim=True)) & (saliency > 0)
    eight = np.ones((3, 3))
    counts = [ndimage.label(region, eight)[1] for region in regions.cpu().numpy()]
    return torch.tensor(counts, device=saliency.device)


def _checked_maps(saliency: Any) -> Tensor:
    saliency = (saliency if isinstance(saliency, Tensor) else torch.as_tensor(saliency, device="cpu")).detach()
    if saliency.ndim != 3 or 0 in saliency.shape:
        raise ValueError(f"saliency: got shape {tuple(saliency.shape)}; expected maps (N, H, W)")
    saliency = saliency if saliency.dtype in (torch.float32, torch.float64) else saliency.float()
    ends = saliency.amax((1, 2)), saliency.amin((1, 2))  # NaN wherever a map holds one
    finite = torch.isfinite(ends[0]) & torch.isfinite(ends[1])
    if not finite.all():
        raise ValueError(f"saliency: maps {(~finite).nonzero()[:5, 0].tolist()} hold NaN or infinite values")
    return saliency


def _checked(saliency: Any, mask: Any) -> tuple[Tensor, Tensor]:
    saliency = _checked_maps(saliency)
    mask = torch.as_tensor(mask, device=saliency.device)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: got {mask.dtype}; expected bool (mask > 0)")
    if mask.shape != saliency.shape:
        got, expected = tuple(mask.shape), tuple(saliency.shape)
        raise ValueError(f"mask: got shape {got}; expected that of the maps, {expected}: resize one of them")
    found = mask.flatten(1).any(1)
    if not found.all():
        bad = (~found).nonzero()[:5, 0].tolist()
        raise ValueError(f"mask: masks {bad} are empty: nothing is to be found there; leave these images out")
    return saliency, mask
