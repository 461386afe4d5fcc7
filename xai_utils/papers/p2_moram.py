"""Paper 2: how maps of a regression compare with the true region (claims P2.2 to P2.7, X2.2 and X2.3)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from xai_utils.data.imageset import ImageSet
from xai_utils.metrics import estimates
from xai_utils.metrics.pixel_accuracy import pixel_accuracy_curve
from xai_utils.metrics.statistics import Estimate, bootstrap

READINGS = ("signed", "clip", "shift")  # of R = L̂ / ΣΣL̂; "signed" is the paper's formula as it stands
NO_REGION = "fewer than two images with a true region"


def mean_of_known(values: Tensor, seed: int, clusters: np.ndarray | None = None) -> Estimate:
    """Mean of values (N,) with its bootstrap interval over images, or over `clusters` (N,) of them.

    NaN marks an image without a true region and is left out; fewer than two others make the mean undefined.
    """
    finite = torch.isfinite(values)
    known = values[finite].double().numpy()
    if len(known) < 2:
        return Estimate(None, len(known), note=NO_REGION)
    if clusters is not None:
        return estimates.mean(known, clusters[finite.numpy()], seed)
    return bootstrap(known, seed=seed)


def mean_over(images: ImageSet, seed: int, values: Tensor, which: Tensor | None = None) -> Estimate:
    """`mean_of_known` of values (N,) of N images, of those alone where `which` (N,) holds; groups are kept together."""
    if which is not None:
        values = values[which]
    if images.groups is None:
        return mean_of_known(values, seed)
    return mean_of_known(values, seed, images.groups if which is None else images.groups[which.numpy()])


def r_squared(targets: Tensor, predictions: Tensor, seed: int, groups: np.ndarray | None = None) -> Estimate:
    """Coefficient of determination of predictions (N,), with its bootstrap interval over images; 0 = the targets' mean.

    Groups (N,) of images are drawn whole. Undefined where the targets are all alike.
    """
    truth, errors = targets.double().numpy(), (targets - predictions).double().square().numpy()
    truth = truth - truth[0]  # so that targets that are all alike have no spread by rounding, either

    def statistic(errors: np.ndarray, weights: np.ndarray) -> np.ndarray:
        n = weights.sum(1)
        spread = weights @ truth**2 - (weights @ truth) ** 2 / n
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample of one target is left out
            return 1 - weights @ errors / spread

    try:
        return bootstrap(errors, statistic, groups, seed=seed)
    except ValueError as error:  # where the targets are all alike no resample has a spread
        return Estimate(None, len(truth), note="all targets are alike" if not truth.any() else str(error))


def inside_difference(maps: Tensor, masks: Tensor | None) -> Tensor:
    """How much higher a map is inside the region than outside: (N,) in [−2, 2], negative where it misleads.

    Mean of maps (N, H, W) where masks (N, H, W) hold, minus the mean elsewhere, over the map's largest absolute value.
    A flat map gives 0; NaN without masks, and for a mask that is empty or full.
    """
    if masks is None:
        return maps.new_full((len(maps),), torch.nan)
    inside = (maps * masks).sum((1, 2)) / masks.sum((1, 2))
    outside = (maps * ~masks).sum((1, 2)) / (~masks).sum((1, 2))
    largest = maps.abs().amax((1, 2))
    return (inside - outside) / torch.where(largest > 0, largest, torch.ones_like(largest))


def high_area(maps: Tensor, masks: Tensor | None) -> Tensor:
    """Share (N,) of the region where a map is above half of its maximum, if that is positive; NaN without region."""
    if masks is None:
        return maps.new_full((len(maps),), torch.nan)
    half = maps.amax((1, 2), keepdim=True).clamp(min=0) / 2
    return ((maps > half) & masks).sum((1, 2)) / masks.sum((1, 2))


def misled(maps: Tensor, masks: Tensor | None) -> Tensor:
    """1 where a map is lower inside the region than outside, else 0; NaN without region; (N,)."""
    apart = inside_difference(maps, masks)
    return torch.where(torch.isfinite(apart), (apart < 0).to(apart), apart)


def nearest(values: Tensor, wanted: Sequence[float], own: str | None = None) -> list[int]:
    """Index of the value (N,) nearest to each wanted one.

    The paper's targets go from −1 to 1. Of `own` images (their folder) the same places among the targets are taken:
    for −0.8 that below which a tenth of them lie.
    """
    if own is not None:
        wanted = [values.double().quantile((value + 1) / 2).item() for value in wanted]
    return [(values - value).abs().argmin().item() for value in wanted]


def relative_difference(maps: Tensor, reference: Tensor) -> Tensor:
    """Σ|maps − reference| / Σ|reference| of each image, (N,)."""
    return (maps - reference).abs().sum((1, 2)) / reference.abs().sum((1, 2))


def cancelled(ram: Tensor, moram: Tensor, masks: Tensor | None = None) -> dict[str, Tensor]:
    """How much of MoRAM's map opposite signs take out of RAM's: 1 − Σ|RAM| / ΣMoRAM of each image, (N,) in [0, 1].

    0: the weights at every place have one sign; 1: they cancel at every place, and RAM's map is empty.

    Args:
        ram: RAM's maps (N, h, w) on the layer's grid, where Σ_k w_k A^k is exact.
        moram: MoRAM's, on the same grid and scale (those of `explain.MoRAM` times the number of cells).
        masks: true regions (N, H, W) bool; a cell counts as inside by the share of it that the region covers.

    Returns:
        "all", "inside" and "outside": over all cells, over the region's, over the others. NaN where MoRAM's map is
        empty, and for the last two without masks.
    """
    inside = torch.full_like(moram, torch.nan)
    if masks is not None:
        inside = F.adaptive_avg_pool2d(masks.to(moram), moram.shape[1:])
    places = {"all": torch.ones_like(moram), "inside": inside, "outside": 1 - inside}
    return {name: 1 - (ram.abs() * w).sum((1, 2)) / (moram * w).sum((1, 2)) for name, w in places.items()}


def share_difference(hits: Tensor, group: Tensor, seed: int, images: ImageSet | None = None) -> Estimate:
    """Share of `hits` (N,) where `group` (N,) holds minus the share elsewhere; NaN as in `mean_of_known`.

    The interval is over `images`, or over their groups where these are known.
    """
    known = torch.isfinite(hits)
    x, one = hits[known].double().numpy(), group[known].double().numpy()
    if min(one.sum(), len(one) - one.sum()) < 2:
        return Estimate(None, len(x), note="fewer than two images with a true region in one of the groups")

    def difference(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a resample without one of the groups is left out
            return weights @ (x * one) / (weights @ one) - weights @ (x * (1 - one)) / (weights @ (1 - one))

    if images is not None and images.groups is not None:
        if reason := estimates.too_few(one > 0, clusters := images.groups[known.numpy()]):
            return Estimate(None, len(x), note=reason)
        return bootstrap(x, difference, clusters, seed=seed)
    return bootstrap(x, difference, seed=seed)


def curves(maps: Mapping[str, Tensor], masks: Tensor | None, r: Tensor) -> dict[tuple[str, str], Tensor]:
    """Pixel-accuracy curves (N, T) of every method, by (reading, method); NaN without masks."""
    n, accuracy = len(r), pixel_accuracy_curve
    return {
        (reading, method): saliency.new_full((len(saliency), n), torch.nan)
        if masks is None
        else accuracy(saliency, masks, r, normalise=reading)
        for reading in READINGS
        for method, saliency in maps.items()
    }


def areas(curves: Mapping[tuple[str, str], Tensor], r: Tensor) -> dict[tuple[str, str], Tensor]:
    """Area under every curve of every image, (N,), by the trapezoidal rule."""
    return {key: torch.trapezoid(values, r.to(values), dim=1) for key, values in curves.items()}


def compare_readings(
    curves: Mapping[tuple[str, str], Tensor], r: Tensor, mean: Callable[[Tensor], Estimate]
) -> dict[str, dict[str, Estimate]]:
    """MoRAM against RAM under each reading, as P2.4 compares them.

    share_of_r: where on r the mean curve of MoRAM is at least RAM's. auc_difference: MoRAM's area minus RAM's. `mean`
    makes an estimate of values of all images, as `mean_over` does.
    """
    area, found = areas(curves, r), {}
    for reading in READINGS:
        ram, moram = curves[reading, "RAM"].mean(0), curves[reading, "MoRAM"].mean(0)
        known = bool(torch.isfinite(ram).all())
        share = (moram >= ram).double().mean().item()
        found[reading] = {
            "ram_area": mean(area[reading, "RAM"]),
            "moram_area": mean(area[reading, "MoRAM"]),
            "auc_difference": mean(area[reading, "MoRAM"] - area[reading, "RAM"]),
            "share_of_r": Estimate(share, len(r)) if known else Estimate(None, 0, note=NO_REGION),
        }
    return found


def best_reading(found: Mapping[str, Mapping[str, Estimate]]) -> str:
    """The reading with the largest share of r, then with the largest difference of the areas."""
    order = ("share_of_r", "auc_difference")
    return max(found, key=lambda reading: [found[reading][name].value or 0.0 for name in order])


def areas_by_sign(curves: Mapping[tuple[str, str], Tensor], r: Tensor, targets: Tensor) -> pd.DataFrame:
    """Mean area of each method under each reading, for all images and by the sign of the target."""
    groups = {"all": torch.ones_like(targets, dtype=torch.bool), "target < 0": targets < 0, "target ≥ 0": targets >= 0}
    rows = {
        key: {name: values[group].mean().item() for name, group in groups.items()}
        for key, values in areas(curves, r).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["reading", "map"])


def sums(maps: Tensor) -> dict[str, float]:
    """What dividing by ΣΣL̂ does to maps (N, H, W).

    flipped: share of maps with a negative sum, where R has the opposite sign everywhere. nearly_zero: share with a sum
    below 1 % of Σ|L̂|, where R blows up. largest: of |R|, over all pixels and maps. All are NaN for no maps.
    """
    total, weight = maps.sum((1, 2)), maps.abs().sum((1, 2))
    peaks = maps.abs().amax((1, 2)) / total.abs()
    largest = torch.cat([peaks, peaks.new_full((int(not len(peaks)),), torch.nan)]).max().item()
    flipped, tiny = (total < 0).double().mean().item(), (total.abs() < 0.01 * weight).double().mean().item()
    return {"flipped": flipped, "nearly_zero": tiny, "largest": largest}


def share(value: float, n: int) -> Estimate:
    """A share of n images; NaN, as `sums` has it for none, is not defined."""
    try:
        return Estimate(value, n, unit="share")
    except ValueError:
        return Estimate(None, n, unit="share", note="no image with a target of this sign")
