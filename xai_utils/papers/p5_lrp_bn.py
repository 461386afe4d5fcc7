"""Paper 5: LRP for Branch Networks on road cracks: what maps are compared with, and by what (P5.1 to P5.9)."""

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from xai_utils import plot
from xai_utils.data.imageset import ImageSet, as_float
from xai_utils.explain.baselines import IntegratedGradients, KernelShap, Lime
from xai_utils.explain.components import c1c
from xai_utils.explain.lrp import LRP
from xai_utils.explain.lrp_bn import LRPBN
from xai_utils.metrics import estimates
from xai_utils.metrics.faithfulness import Faithfulness, pixel_order
from xai_utils.metrics.statistics import Estimate
from xai_utils.metrics.tables import by_map, orders_table
from xai_utils.models import abn
from xai_utils.models.resnet import BasicBlock
from xai_utils.papers import shared
from xai_utils.seeds import derive, generator, seed_everything
from xai_utils.suite import claims

METHODS = ("RISE", "Grad-CAM", "LRP", "ABN", "LRP-BN")  # of the paper's tables
BASELINES = ("zero", "black", "blur")


class Scale(NamedTuple):
    """Mean and standard deviation of each channel, over the training images: what the networks' input is scaled by."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


# data and networks ----------------------------------------------------------------------------------------------


def scale_of(images: ImageSet) -> Scale:
    """The scale of a set of training images; of 8-bit pixels their histograms tell it, without a float copy of them."""
    if images.pixels.dtype != torch.uint8:
        pixels = images.images.double()
        return Scale(tuple(pixels.mean((0, 2, 3)).tolist()), tuple(pixels.std((0, 2, 3)).clamp(min=1e-6).tolist()))
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.pixels.unbind(1)])
    values, n = as_float(torch.arange(256, dtype=torch.uint8)).double(), counts.sum(1)
    mean = counts.double() @ values / n
    variance = (counts * (values - mean[:, None]) ** 2).sum(1) / (n - 1)
    return Scale(tuple(mean.tolist()), tuple(variance.sqrt().clamp(min=1e-6).tolist()))


def scaled(pixels: Tensor, scale: Scale) -> Tensor:
    """Images (N, C, H, W) in [0, 1], minus the mean and divided by the deviation."""
    mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in scale)
    return (pixels - mean) / std


def network(kind: str, depth: int, n_classes: int, width: int, channels: int, seed: int, **options: Any) -> nn.Module:
    """An untrained "abn" or "resnet" whose random weights follow from `seed` alone.

    Weights lie channels-last, which trains a fifth faster on a CPU.

    Args:
        kind: "abn" (§4.1) or "resnet", its plain backbone.
        depth: 18, 34 or 50.
        n_classes: number of outputs.
        width: channels of the stem.
        channels: of the images.
        seed: of the weights.
        options: of `AttentionBranchNetwork`, for "abn" alone: theta, blocks, residual, max_pool.

    Raises:
        ValueError: another kind, or what the network refuses.
    """
    if kind not in ("abn", "resnet") or depth not in abn.RESNETS:
        expected = f"'abn' or 'resnet', and one of {', '.join(map(str, abn.RESNETS))}"
        raise ValueError(f"kind is {kind!r} and depth {depth!r}; expected {expected}")
    seed_everything(derive(seed, kind))
    if kind == "abn":
        model = abn.AttentionBranchNetwork(depth, n_classes, width, channels, **options)
    else:
        model = abn.RESNETS[depth](n_classes, width, channels)
    return model.to(memory_format=torch.channels_last)


def with_theta(model: abn.AttentionBranchNetwork, theta: float) -> abn.AttentionBranchNetwork:
    """A copy of a trained network with another θ_α, from 0 to 1; ValueError for any other number."""
    return _copied(model, abn.Threshold(theta))


def without_gate(model: abn.AttentionBranchNetwork) -> abn.AttentionBranchNetwork:
    """A copy of a trained network whose α′ is 1 everywhere: its perception branch sees h as it is."""
    return _copied(model, _Open())


class _Open(nn.Module):
    """An attention map of ones."""

    def forward(self, attention: Tensor) -> Tensor:
        return torch.ones_like(attention)


def _copied(model: abn.AttentionBranchNetwork, threshold: nn.Module) -> abn.AttentionBranchNetwork:
    changed = copy.deepcopy(model)
    changed.threshold = threshold
    return changed


def tiny_abn(channels: int = 1) -> abn.AttentionBranchNetwork:
    """An Attention Branch Network small enough to follow by hand: its weights are written down, nothing is trained.

    On scaled images. FE: four filters 3×3 for dark lines (flat, upright, slanted both ways), ReLU, and a residual block
    that adds to each response what its eight neighbours support, their mean less half of the response itself. AB joins
    the four responses to one; its map is high where this is above 1.5; its classes vote cell by cell, as do PB's, and
    the mean over the cells is the logit. h is as large as the image. The global random state is left as found.

    Args:
        channels: of the images.
    """
    with torch.random.fork_rng(devices=[]):
        model = abn.AttentionBranchNetwork(18, 2, 1, channels)
        lines, block = nn.Conv2d(channels, 4, 3, padding=1, bias=False), BasicBlock(4, 4)
        model.extractor = nn.Sequential(lines, nn.ReLU(), block)
        joined, high, vote_ab, vote_pb = (nn.Conv2d(n, m, 1) for n, m in ((4, 1), (1, 1), (1, 2), (4, 2)))
    branch = model.attention
    branch.blocks, branch.reduce, branch.map = nn.Identity(), nn.Sequential(joined, nn.ReLU()), nn.Sequential(high)
    branch.map.append(nn.Sigmoid())
    branch.classes = nn.Sequential(vote_ab, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.perception = nn.Sequential(vote_pb, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    flat, slanted = torch.ones(3, 3), torch.ones(3, 3).fill_diagonal_(-2)
    flat[1], around = -2, torch.full((3, 3), 1 / 8)
    around[1, 1] = -0.5
    kernels = torch.stack([flat, flat.T, slanted, slanted.flip(1)]) / 6
    same, sign = torch.eye(4)[:, :, None, None], torch.tensor([-1.0, 1.0])
    with torch.no_grad():
        lines.weight[:] = kernels[:, None] / channels
        block.conv1.weight[:] = same * around
        block.conv2.weight[:] = F.pad(same, (1, 1, 1, 1))
        for layer, weight, bias in ((joined, 1, 0), (high, 2, -3), (vote_ab, 4, -2), (vote_pb, 10, -1)):
            signs = sign if len(layer.weight) == 2 else torch.ones(1)
            layer.weight[:], layer.bias[:] = weight * signs[:, None, None, None], bias * signs
    return model.eval().requires_grad_(False)


def augment(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flips, rotation by any angle and crops of at least 80 % of the side (§5.1), in one resampling; borders reflect.

    Resampling blurs, and the images that are judged are sharp. So half of the images keep their pixels: they are
    flipped, turned by quarters, and moved by whole pixels, a tenth of the side at most. For square images: others would
    be sheared.

    Args:
        batch: images (N, C, H, W), of any scale, and labels.
        generator: on the CPU.
    """
    images, labels = batch
    n, side = len(images), images.shape[-1]
    turn = torch.rand(n, generator=generator)
    size = 0.8 + 0.2 * torch.rand(n, generator=generator)
    move = torch.rand(n, 2, generator=generator) * 2 - 1
    flip = (torch.rand(n, generator=generator) < 0.5).float() * 2 - 1
    sharp = torch.rand(n, generator=generator) < 0.5
    shift = torch.where(sharp[:, None], (side / 10 * move).round() * 2 / side, move * (1 - size)[:, None])
    turn, size = torch.where(sharp, (4 * turn).floor() / 4, turn) * 2 * math.pi, torch.where(sharp, 1.0, size)
    cos, sin = turn.cos() * size, turn.sin() * size
    rows = torch.stack([cos * flip, -sin, shift[:, 0]], 1), torch.stack([sin * flip, cos, shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack(rows, 1).to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False), labels


def crack_crops(images: ImageSet, n: int) -> ImageSet:
    """The first n images with a crack whose mask marks something: those that maps are measured on.

    From each road segment in turn, so that the first few come from as many segments as there are.
    """
    rows = np.flatnonzero(
        (images.labels.numpy() == images.class_names.index("crack")) & images.masks.any((1, 2)).numpy()
    )
    if images.groups is not None:
        turn = pd.Series(rows).groupby(np.asarray(images.groups)[rows]).cumcount()
        rows = rows[np.argsort(turn, kind="stable")]
    return images.take(rows[:n])


# maps to compare with -------------------------------------------------------------------------------------------


def references(masks: Tensor, seed: int) -> dict[str, Tensor]:
    """Maps (N, H, W) that no network made, from the true masks (N, H, W): what does a perfect or a blind map score?

    true mask: 1 on the crack. dilated: 1 within 1/28 of the side of it, as wide as a cell of C1C. blurred: the mask
    under a Gaussian of 1/28 of the side. box: 1 in the mask's bounding box. Gaussian: centred, a quarter of the side
    wide. uniform: 1. random: drawn from `seed`. Equal pixels count in reading order when they are inserted or deleted.
    """
    n, height, width = masks.shape
    reach = max(1, round(height / 28))
    mask = masks.float()
    wide = F.max_pool2d(mask[:, None], 2 * reach + 1, 1, reach)[:, 0]
    blurred = ndimage.gaussian_filter(mask.numpy(), (0, reach, reach))
    rows, columns = masks.any(2), masks.any(1)

    def between(found: Tensor) -> Tensor:  # from the first to the last True of each row
        forwards = found.long().cumsum(1) > 0
        return forwards & (found.flip(1).long().cumsum(1).flip(1) > 0)

    y, x = (torch.arange(side) / (side - 1) - 0.5 for side in (height, width))
    centred = torch.exp(-8 * (y[:, None] ** 2 + x**2))
    return {
        "true mask": mask,
        "dilated mask": wide,
        "blurred mask": torch.from_numpy(blurred),
        "box": (between(rows)[:, :, None] & between(columns)[:, None]).float(),
        "Gaussian": centred.expand(n, -1, -1).clone(),
        "uniform": torch.ones(n, height, width),
        "random": torch.rand(n, height, width, generator=generator(seed, "random map")),
    }


# how maps are compared ------------------------------------------------------------------------------------------


def faithfulness(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    maps: Mapping[str, Tensor],
    scale: Scale,
    *,
    baseline: str = "zero",
    steps: int = 28,
    choices: Sequence[bool] = (False, True),
    ties: str = "reading",
) -> pd.DataFrame:
    """Insertion, deletion and ID score (eq. (7), (8)) of every map, with and without C1C.

    Args:
        model: whose probabilities are followed.
        images: (N, C, H, W), scaled, on the model's device.
        labels: the class whose probability is followed (N,): the true one.
        maps: name -> (N, H, W).
        scale: of the images, for the baseline "black".
        baseline: one of `BASELINES`: 0 after scaling (the training images' mean), black (0 before it), or a blur.
        steps: of the curves.
        choices: without C1C, with it, or both.
        ties: how equal pixels are ordered, of `insertion_deletion`.

    Returns:
        A row per map, C1C (False, True) and image: map, c1c, image, insertion, deletion, id_score, tied, empty.
    """
    orders = {
        (name, chosen): pixel_order(c1c(values) if chosen else values, steps, ties=ties)
        for name, values in maps.items()
        for chosen in choices
    }
    return orders_table(model, images, labels, orders, ("map", "c1c"), baseline=baseline, normalization=scale)


def in_every_order(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    maps: Mapping[str, Tensor],
    scale: Scale,
    *,
    steps: int = 14,
    seed: int = 0,
) -> pd.DataFrame:
    """Table 2 under each order of equal pixels and each image that hides: what part of a score do these two decide?

    Args:
        model: whose probabilities are followed.
        images: (N, C, H, W), scaled, on the model's device.
        labels: (N,), the true ones.
        maps: name -> (N, H, W).
        scale: of the images.
        steps: of the curves.
        seed: of the random order.

    Returns:
        A row per image that hides (`baseline`: zero, black, blur), order (`ties`: reading, random, together), map and
        image: insertion, deletion, id_score, tied, empty. The n-th image with equal pixels has the n-th random order.
    """
    read = {name: pixel_order(values, steps) for name, values in maps.items()}
    orders = {("reading", name): order for name, order in read.items()}
    for name, order in read.items():
        some, entry = order.tied > 0, order.entry.clone()
        entry[some] = pixel_order(maps[name][some], steps, ties="random", seed=seed).entry
        orders["random", name] = order._replace(entry=entry)
    orders |= {("together", name): pixel_order(values, steps, ties="together") for name, values in maps.items()}
    score = partial(orders_table, model, images, labels, orders, ("ties", "map"), normalization=scale)
    return pd.concat([score(baseline=name).assign(baseline=name) for name in BASELINES], ignore_index=True)


def variants(abn_model: nn.Module, gamma: float, seed: int) -> dict[str, Any]:
    """Explainers of the ABN beside LRP-BN: LIME, Kernel SHAP, integrated gradients, and LRP-BN with one thing changed.

    "gate open" and another θ change the network, too, which was not trained that way.
    """
    samples, bn = {"segments": 8, "seed": seed, "n_samples": 200}, partial(LRPBN, abn_model)
    found = {
        "LIME": Lime(abn_model, **samples),
        "Kernel SHAP": KernelShap(abn_model, **samples),
        "Integrated gradients": IntegratedGradients(abn_model),
        "skip |main| : |skip|": bn(skip="magnitude"),
        "skip none": bn(skip="none"),
        "$R_{AB}$ alone": bn(skip=gamma, branches="attention"),
        "$R_{PB}$ alone": bn(skip=gamma, branches="perception"),
        "without α′": bn(skip=gamma, multiply=False),
        "gate open": LRPBN(without_gate(abn_model), skip=gamma),
        "both from PB": bn(skip=gamma, seeds="perception"),
        "two components": bn(skip=gamma, c1c={"keep": 2}),
    }
    return found | {f"θ = {theta}": LRPBN(with_theta(abn_model, theta), skip=gamma) for theta in (0.5, 0.8)}


def open_choices(abn_model: nn.Module, plain: nn.Module, gamma: float, scale: Scale) -> dict[str, dict[str, Any]]:
    """What the paper leaves open, choice by choice: LRP of the plain network and LRP-BN of the ABN with it.

    The first layer: z^B, whose box is black and white after scaling, or an image of ones. C1C's cells: 14 or 56 a side
    instead of 28 (LRP has none, and stays).
    """
    mean, std = (torch.tensor(part) for part in scale)
    first = {"z^B in the first layer": (-mean / std, (1 - mean) / std), "ones in the first layer": "ones"}
    lrp = partial(LRP, plain, skip="none", start="probability")
    found = {
        name: {"LRP": lrp(box=box), "LRP-BN": LRPBN(abn_model, skip=gamma, box=box)} for name, box in first.items()
    }
    cells = {f"{k} cells of C1C": LRPBN(abn_model, skip=gamma, c1c={"size": k}) for k in (14, 56)}
    return found | {name: {"LRP": lrp(), "LRP-BN": explainer} for name, explainer in cells.items()}


def highest(maps: Tensor, share: float = 0.2) -> Tensor:
    """Maps (N, H, W) with all but their highest values set to 0: the filter of a later routine of the authors'.

    Args:
        maps: of any sign.
        share: of the pixels, in (0, 1]; those equal to the last one that is kept stay, too.
    """
    k = max(1, round(share * maps[0].numel()))
    last = maps.flatten(1).topk(k, dim=1).values[:, -1]
    return maps.where(maps >= last[:, None, None], 0)


def metric_key(name: str) -> str:
    """A map's name as part of a metric's id: "Grad-CAM" is gradcam here, the others as in `shared.metric_key`."""
    return {"Grad-CAM": "gradcam"}.get(name) or shared.metric_key(name)


def tables(found: pd.DataFrame) -> pd.DataFrame:
    """Tables 2 and 3 as text: the paper's mean ± deviation over its runs, and the run's mean with its interval.

    Args:
        found: the metrics P5.1.<method>.<column>, as `Run.table` gives them. One that is not there: "—".
    """
    paper = {value.id: value for value in claims.load().papers["05_lrp_bn"].reported("P5.1")}
    rows = {}
    for name in METHODS:
        for column in ("accuracy", "insertion", "deletion", "id_score", "iou"):
            metric = f"P5.1.{metric_key(name)}.{column}"
            theirs, ours = paper[metric], found.T.get(metric, {"value": math.nan})
            text = "—" if pd.isna(ours["value"]) else "{value:.2f} [{low:.2f}, {high:.2f}]".format(**ours)
            rows.setdefault(name, {}).update(
                {(column, "paper"): f"{theirs.value:.3f} ± {theirs.std:.3f}", (column, "ours"): text}
            )
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.set_axis(pd.MultiIndex.from_tuples(table.columns), axis=1).rename_axis("map")


def last_block(model: nn.Module) -> str:
    """Name of the last residual block (of a ResNet: its last stage): the layer for Grad-CAM."""
    if isinstance(model, abn.AttentionBranchNetwork):
        return [f"perception.{name}" for name, _ in model.perception.named_children() if name.startswith("block")][-1]
    return "layer4"


def with_intervals(table: pd.DataFrame, column: str, clusters: np.ndarray | None, seed: int) -> pd.DataFrame:
    """One column of `faithfulness`, a row per map: mean over images, interval over clusters; columns by C1C."""
    parts = {}
    for title, chosen in {"as it is": False, "with C1C": True}.items():
        rows = {}
        for name, values in by_map(table, column, c1c=chosen).items():
            found = estimates.mean(values, clusters, seed)
            rows[name] = {"mean": values.mean(), "low": found.low, "high": found.high}
        parts[title] = pd.DataFrame.from_dict(rows, orient="index")
    return pd.concat(parts, axis=1)


def conclusions(
    scores: pd.DataFrame, lies: pd.DataFrame | None, clusters: np.ndarray | None, seed: int
) -> pd.DataFrame:
    """What one would conclude from the tables, each as a paired difference: LRP-BN above each rival, C1C, wider masks.

    Args:
        scores: of `faithfulness`; rows without C1C are compared. A conclusion about a map that is missing is left out.
        lies: of `localization_table`, for IoU; None leaves it out.
        clusters: road segments, or None.
        seed: of the intervals.

    Returns:
        A row per conclusion: difference, low, high, holds ("yes": all of the interval is above 0, "no": below, "open").
    """
    of = {column: by_map(scores, column, c1c=False) for column in ("insertion", "id_score")}
    if lies is not None:
        of["iou"] = by_map(lies, "iou")
    asked = {f"{column}: LRP-BN above {name}": (column, "LRP-BN", name) for column in of for name in METHODS[:-1]}
    asked["id_score: C1C raises it (LRP-BN above R ⊙ α′)"] = ("id_score", "LRP-BN", "$R\\odot\\alpha'$")
    for wider in ("dilated mask", "blurred mask"):
        asked[f"id_score: {wider} above the true one"] = ("id_score", wider, "true mask")
    rows = {}
    for conclusion, (column, one, other) in asked.items():
        if one in of[column] and other in of[column]:
            found = estimates.mean(of[column][one] - of[column][other], clusters, seed)
            value, low, high = (math.nan if each is None else each for each in (found.value, found.low, found.high))
            answer = "yes" if low > 0 else "no" if high < 0 else "open"
            rows[conclusion] = {"difference": value, "low": low, "high": high, "holds": answer}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("conclusion")


def agreement(here: pd.DataFrame, there: pd.DataFrame) -> Estimate:
    """Share of the conclusions of two sets, as `conclusions` gives them, with the same answer, "yes" or "no", in both.

    n counts the conclusions that both sets know.
    """
    one, two = here["holds"].align(there["holds"], join="inner")
    if not len(one):
        return Estimate(None, 0, note="no conclusion in both sets")
    return Estimate(float(((one == two) & (one != "open")).mean()), len(one))


def border_contrast(images: Tensor, masks: Tensor) -> np.ndarray:
    """How much darker or brighter a crack is than what lies around it (N,): |difference of means| / deviation around.

    Args:
        images: (N, C, H, W) in [0, 1]; channels are averaged. A deviation below one grey level counts as one.
        masks: (N, H, W), not empty. Around = within 1/14 of the side, and not on the crack; nothing
            around: 0.
    """
    grey, reach = images.mean(1).double(), max(1, round(masks.shape[1] / 14))
    wide = F.max_pool2d(masks.float()[:, None], 2 * reach + 1, 1, reach)[:, 0] > 0
    around = wide & ~masks

    def mean(values: Tensor, where: Tensor) -> Tensor:
        return (values * where).sum((1, 2)) / where.sum((1, 2)).clamp(min=1)

    middle = torch.where(around.any(2).any(1), mean(grey, around), mean(grey, masks))
    spread = mean((grey - middle[:, None, None]) ** 2, around).sqrt()
    return ((mean(grey, masks) - middle).abs() / spread.clamp(min=1 / 255)).numpy()


def conservation(explainer: LRPBN, images: Tensor, target: Tensor) -> dict[str, np.ndarray]:
    """Relative error of the relevance sum, image by image, against the sum of both starts (P5.7).

    branch: what is lost in the attention branch and at the gate: what eq. (4) adds is only what arrives there. skip:
    what is lost at the skip connections outside of it (the sums of eq. (5), and the down-sampling shortcuts beside
    them). other: everywhere else, in layers without a positive contribution. Each is |absorbed| / |the starts|.
    """
    rows = []
    for image, label in zip(images.split(1), target.split(1), strict=True):
        explainer.attribute(image, label)
        ledger = explainer.ledger
        total = abs(ledger["relevance_out"].iloc[-1])
        steps = ledger.iloc[:-1]
        branch = (steps["module"] == "Gate") | steps["layer"].str.startswith("attention.")
        skip = ~branch & ((steps["module"] == "Add") | steps["layer"].str.contains("downsample"))
        lost = steps["absorbed"].abs()
        rows.append([lost[chosen].sum() / total for chosen in (branch, skip, ~branch & ~skip)])
    return dict(zip(("branch", "skip", "other"), np.array(rows, dtype=float).T, strict=True))


def component_on_crack(maps: Tensor, masks: Tensor, size: int = 28) -> np.ndarray:
    """Share (N,) of the component that C1C keeps of each map (N, H, W) that lies within a cell of the crack (N, H, W).

    In cells of size × size. A cell is on the crack if any of its pixels is; its eight neighbours are within a cell of
    it, as a crack is often narrower than a cell. NaN for a map of which nothing is kept.
    """
    kept = c1c(F.adaptive_avg_pool2d(maps[:, None], size)[:, 0], size=size) > 0
    crack = F.max_pool2d(F.adaptive_max_pool2d(masks.float()[:, None], size), 3, 1, 1)[:, 0] > 0
    with np.errstate(invalid="ignore"):
        return (kept & crack).sum((1, 2)).double().numpy() / kept.sum((1, 2)).double().numpy()


# figures --------------------------------------------------------------------------------------------------------


def number_grids(grids: Mapping[str, Tensor], title: str = "", width: float = 1.7) -> Figure:
    """Small maps (h, w) side by side with the number in every cell, each coloured by its own largest size."""
    fig, axes = plt.subplots(
        1, len(grids), figsize=(width * len(grids), width + 0.6), squeeze=False, layout="constrained"
    )
    for ax, (name, grid) in zip(axes[0], grids.items()):
        values = grid.numpy()
        pale = 1.6 * max(np.abs(values).max(), 1e-9)  # so that the numbers can be read
        ax.imshow(values, cmap=plot.DIVERGING, vmin=-pale, vmax=pale)
        for (row, column), value in np.ndenumerate(values):
            ax.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=8, color=plot.INK)
        ax.set(title=name, xticks=[], yticks=[])
    fig.suptitle(title, fontsize=11)
    return fig


def order_curves(curves: Mapping[str, Mapping[str, Faithfulness]], title: str = "") -> Figure:
    """Insertion (left) and deletion of one image, a row a map, a line an order of equal pixels with its area."""
    fig, axes = plt.subplots(
        len(curves),
        2,
        figsize=(7, 2.3 * len(curves) + 0.4),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for (name, orders), line in zip(curves.items(), axes):
        for ax, kind in zip(line, ("insertion", "deletion")):
            for (ties, found), style in zip(orders.items(), ("-", "--", ":")):
                area = getattr(found, f"{kind}_auc")[0].item()
                curve = getattr(found, kind)[0].cpu()
                ax.plot(found.fractions.cpu(), curve, style, linewidth=2, label=f"{ties} {area:.2f}")
            ax.set(title=f"{name}: {kind}, and its area by order", ylim=(-0.04, 1.3), yticks=(0, 0.5, 1))
            ax.legend(loc="upper center", ncols=len(orders), fontsize=7, handlelength=1.3, columnspacing=0.6)
        line[0].set_ylabel("probability of crack")
    for ax in axes[-1]:
        ax.set_xlabel(f"share of the pixels {'inserted' if ax is axes[-1, 0] else 'deleted'}")
    fig.suptitle(title, fontsize=11)
    return fig
