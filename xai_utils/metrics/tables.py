"""Tables of many maps: a row per map and image, and what they say about one map against the others."""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from xai_utils.metrics import estimates, faithfulness, localization, statistics
from xai_utils.metrics.faithfulness import PixelOrder
from xai_utils.metrics.statistics import Estimate

FIXED = 0.15  # share of the maximum: the one threshold of IoU besides the sweep
SWEEP = tuple(round(0.05 * k, 2) for k in range(1, 20))  # shares of the maximum
FEW = "fewer than two independent groups of images"


def faithfulness_table(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    maps: Mapping[str, Tensor],
    *,
    steps: int = 50,
    ties: str = "reading",
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """Insertion, deletion and ID score of every map; a row per map and image.

    Args:
        model: whose probabilities are followed.
        images: (N, C, H, W), as the model takes them, on its device.
        labels: the class whose probability is followed (N,).
        maps: name -> (N, H, W).
        steps: of the curves.
        ties: how equal pixels are ordered, of `faithfulness.insertion_deletion`.
        seed: of the order with ties="random".
        options: of `faithfulness.score_orders`: baseline, normalization, …

    Returns:
        Columns map, image, insertion, deletion, id_score, tied (share of pixels that another equals), empty (the
        score of the image that hides all: where insertion begins).
    """
    orders = {(name,): faithfulness.pixel_order(values, steps, ties=ties, seed=seed) for name, values in maps.items()}
    return orders_table(model, images, labels, orders, ["map"], **options)


def orders_table(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    orders: Mapping[tuple[Any, ...], PixelOrder],
    columns: Sequence[str],
    **options: Any,
) -> pd.DataFrame:
    """`faithfulness_table` of orders of the pixels: a row per order and image, its key in the `columns` named first."""
    rows = []
    for key, found in zip(orders, faithfulness.score_orders(model, images, list(orders.values()), labels, **options)):
        scores = {"insertion": found.insertion_auc, "deletion": found.deletion_auc, "id_score": found.id_score}
        scores |= {"tied": found.tied, "empty": found.insertion[:, 0]}
        scores = {column: numbers.double().cpu().numpy() for column, numbers in scores.items()}
        rows.append(pd.DataFrame(dict(zip(columns, key, strict=True)) | {"image": np.arange(len(images))} | scores))
    return pd.concat(rows, ignore_index=True)


def localization_table(maps: Mapping[str, Tensor], masks: Tensor) -> pd.DataFrame:
    """How maps (N, H, W) lie on regions (N, H, W) that are known; a row per map and image.

    best_iou, mean_iou: over thresholds from 5 to 95 % of the maximum, the best one chosen image by image. iou: at 15 %.
    pointing: share of the highest pixels that are in the region (mostly one: 0 or 1). strong: share of pixels at or
    above half of the maximum. coverage: share of the region that is. outside: share of the positive sum that is not in
    the region. A map without positive values: IoU, pointing, strong and coverage 0, outside as for a uniform map.

    Negative values count as 0, and then a map's lowest value is set to 0: RISE's lies far above it, and any share of
    the maximum would take in the whole image. A flat map stays as it is.
    """
    rows = []
    area = masks.double().mean((1, 2))
    for name, values in maps.items():
        values = values.clamp(min=0)
        lowest = values.amin((1, 2), keepdim=True)
        values = torch.where(values.amax((1, 2), keepdim=True) > lowest, values - lowest, values)
        sweep = localization.iou(values, masks, [FIXED, *SWEEP], of="maximum").double()
        half = values.amax((1, 2), keepdim=True) / 2
        high = (values >= half) & (values > 0)
        inside = localization.energy_inside(values, masks).double()
        columns = {
            "iou": sweep[:, 0],
            "best_iou": sweep[:, 1:].amax(1),
            "mean_iou": sweep[:, 1:].mean(1),
            "pointing": (localization.pointing_game(values, masks) * (values.amax((1, 2)) > 0)).double(),
            "strong": high.double().mean((1, 2)),
            "coverage": (high & masks).sum((1, 2)) / masks.sum((1, 2)),
            "outside": 1 - torch.where(inside.isnan(), area, inside),
        }
        columns = {column: numbers.double().numpy() for column, numbers in columns.items()}
        rows.append(pd.DataFrame({"map": name, "image": np.arange(len(values)), **columns}))
    return pd.concat(rows, ignore_index=True)


def coverage_table(maps: Mapping[str, Tensor], masks: Tensor) -> pd.DataFrame:
    """Where maps (N, H, W) are above 0, a row per map and image: share of the region (N, H, W), and of the image."""
    rows = []
    for name, values in maps.items():
        kept = values > 0
        columns = {"region": (kept & masks).sum((1, 2)) / masks.sum((1, 2)), "area": kept.double().mean((1, 2))}
        columns = {column: numbers.double().numpy() for column, numbers in columns.items()}
        rows.append(pd.DataFrame({"map": name, "image": np.arange(len(values)), **columns}))
    return pd.concat(rows, ignore_index=True)


def by_map(table: pd.DataFrame, column: str, **where: Any) -> dict[str, np.ndarray]:
    """One column of a table here as name -> (N,), in the order of the images; `where` picks rows."""
    for name, value in where.items():
        table = table[table[name] == value]
    if table.duplicated(["map", "image"]).any():
        raise ValueError(f"{column}: several rows for a map and image; pick some, by c1c=False for example")
    return {name: part.sort_values("image")[column].to_numpy() for name, part in table.groupby("map", sort=False)}


def paired_table(
    values: Mapping[str, np.ndarray], ours: str, clusters: np.ndarray | None, seed: int, others: Sequence[str]
) -> pd.DataFrame:
    """`ours` minus each of `others`, image by image: difference, low, high, and p of a permutation test, Holm-adjusted.

    Clusters (road segments) are drawn, and change their sign, as a whole. Fewer than two of them: NaN.
    """
    rows, test = {}, partial(statistics.permutation_test, paired=True, clusters=clusters, seed=seed)
    for other in others:
        if other != ours:
            gain = estimates.mean(values[ours] - values[other], clusters, seed)
            p = math.nan if gain.value is None else test(values[ours], values[other]).p
            rows[other] = {"value": gain.value, "low": gain.low, "high": gain.high, "p": p}
    table = pd.DataFrame(rows).T.astype(float).rename(columns={"value": "difference"})
    p = table["p"].to_numpy()
    return table.assign(p_holm=p if np.isnan(p).any() else statistics.holm(p))


def smallest_difference(table: pd.DataFrame, n: int) -> Estimate:
    """The smallest difference of `paired_table`, with the smallest ends: "above each of the others" is "low above 0".

    All must hold for that, so no correction is needed. The ends may be those of different others. "high below 0" is no
    test: any one of them suffices, so it errs up to as many times as often.
    """
    value, low, high = (float(table[column].min()) for column in ("difference", "low", "high"))
    if math.isnan(low):
        return Estimate(None, n, note=FEW)
    return Estimate(value, n, low, high)


def reversals(
    values: Mapping[str, Mapping[str, np.ndarray]], methods: Sequence[str], clusters: np.ndarray | None, seed: int
) -> dict[str, Estimate]:
    """`statistics.reversal` of some methods for each two conditions: "<one>_<other>.reversal" -> estimate.

    Args:
        values: condition -> map -> scores (N,).
        methods: the maps that are compared.
        clusters: of the images, or None; fewer than two: undefined.
        seed: of the intervals.
    """
    made, pair = {}, partial(paired_table, clusters=clusters, seed=seed)
    for one, other in itertools.combinations(values, 2):
        here, there = ({name: values[kind][name] for name in methods} for kind in (one, other))
        first = max(here, key=lambda name: here[name].mean())
        second = max((name for name in there if name != first), key=lambda name: there[name].mean())
        both = pd.concat([pair(here, ours=first, others=[second]), pair(there, ours=second, others=[first])])
        made[f"{one}_{other}.reversal"] = smallest_difference(both, len(here[first]))
    return made


def largest_p(table: pd.DataFrame, n: int) -> Estimate:
    """The largest p of `paired_table`, Holm-adjusted: "significantly above each other" is "below 0.05"."""
    p = float(table["p_holm"].max())
    return Estimate(None, n, note=FEW) if math.isnan(p) else Estimate(p, n)


def largest_difference(
    values: Mapping[str, np.ndarray], ours: str, clusters: np.ndarray | None, seed: int, others: Sequence[str]
) -> Estimate:
    """The largest difference of `ours` to one of `others`, with simultaneous ends: "above one" is "low above 0".

    One suffices for that, so each interval is one of 1 − 0.05 / number of others (Bonferroni); the ends are the largest
    ones. Fewer than two clusters: undefined.
    """
    rivals, n = [name for name in others if name != ours], len(values[ours])
    if (n if clusters is None else len(set(clusters))) < 2:
        return Estimate(None, n, note=FEW)
    level = 1 - 0.05 / len(rivals)
    interval = partial(statistics.bootstrap, clusters=clusters, seed=seed, confidence=level)
    found = [interval(values[ours] - values[name]) for name in rivals]
    ends = {end: max(getattr(each, end) for each in found) for end in ("value", "low", "high")}
    return Estimate(n=n, **ends)
