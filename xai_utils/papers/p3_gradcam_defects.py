"""Paper 3: do Grad-CAM's maps lie on the defects, and do they tell right from wrong (claims P3.1 to P3.4)?"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from torch import Tensor, nn

from xai_utils.data.imageset import SPLITS, ImageSet
from xai_utils.data.listing import NORMAL
from xai_utils.data.store import resolve
from xai_utils.explain.batches import in_batches
from xai_utils.explain.explainer import Explainer
from xai_utils.explain.gradcam import upsample
from xai_utils.metrics import consistency, estimates, localization
from xai_utils.metrics.statistics import Estimate
from xai_utils.models.outputs import predict
from xai_utils.models.resnet import resnet18
from xai_utils.papers import shared
from xai_utils.papers.shared import Explained
from xai_utils.seeds import derive, numpy_rng, seed_everything

OUTCOMES = ("correct", "missed", "wrong defect", "false alarm", "wrong normal", "correct normal")
LAYERS = ("layer2", "layer3", "layer4")  # whose maps are compared
SCORES = ("energy", "pointing", "coverage", "iou", "pieces")
ON_THE_GRID = ("attainable", "share", "near", "near_area", "peak")

# before and during training -------------------------------------------------------------------------------------


def normal_classes(names: str, class_names: Sequence[str]) -> list[int]:
    """Numbers of the classes without a defect, from their names with commas between; "" is none.

    The notebook's default, the three of the drawn set, takes what is there: all classes that are usually called so.

    Raises:
        ValueError: a name that is no class, or every class is normal.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if names == "normal, normal_scratch, normal_dirt":
        wanted = [name for name in class_names if name.lower() in NORMAL]
    if unknown := [name for name in wanted if name not in class_names]:
        raise ValueError(f"normal: {unknown[0]!r} is no class of the data; expected some of {', '.join(class_names)}")
    if set(wanted) >= set(class_names):
        raise ValueError(f"normal: all classes ({', '.join(class_names)}) are normal; expected one with defects")
    return sorted(class_names.index(name) for name in set(wanted))


def even_light(images: ImageSet, width: float = 1 / 12) -> ImageSet:
    """The same images with uneven light and contrast taken out: local mean 0.5, local deviation about 0.1.

    (x − μ) / (σ + σ̄/2), with μ and σ the Gaussian-weighted mean and deviation around each pixel, and σ̄ the deviation
    of x − μ over the whole image, which keeps flat places from being blown up; times 0.15, plus 0.5, cut to [0, 1].

    Args:
        images: any ImageSet; each channel is treated alone.
        width: deviation of the Gaussian, as a share of the side.
    """
    pixels = images.images.numpy()
    deviations = (0, 0, *(width * side for side in pixels.shape[2:]))

    def around(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, deviations, truncate=3)

    difference = pixels - around(pixels)
    spread = np.sqrt(np.maximum(around(difference**2), 0)) + difference.std((2, 3), keepdims=True) / 2
    even = np.divide(difference, spread, out=np.zeros_like(difference), where=spread > 1e-6)
    return replace(images, pixels=torch.from_numpy((0.15 * even + 0.5).clip(0, 1).astype(np.float32)))


def balanced(images: ImageSet, per_class: int | None = None) -> ImageSet:
    """Every class repeated, in order, until it has `per_class` images (default: as many as the largest).

    A class with more than that loses its last ones. An epoch then shows each class equally often, which is how class
    imbalance is handled here. A class without images stays without.
    """
    labels = images.labels.numpy()
    rows = [np.flatnonzero(labels == label) for label in range(len(images.class_names))]
    per_class = per_class or max(map(len, rows))
    return images.take(np.concatenate([np.resize(found, per_class) for found in rows if len(found)]))


def augment(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flips, shifts by up to 12 % of the side, and other contrast and brightness; nothing is interpolated.

    Resampling would smooth the grain of the surface in training images only, and the network would then fail on sharp
    ones. The strip that a shift uncovers gets the image's mean.

    Args:
        batch: images (B, C, H, W) in [0, 1] and labels.
        generator: on the CPU.
    """
    images, labels = batch
    for axis in (2, 3):
        flip = torch.rand(len(images), generator=generator).to(images.device) < 0.5
        images = torch.where(flip[:, None, None, None], images.flip(axis), images)
    mean = images.mean((1, 2, 3), keepdim=True)
    return shared.relit(shared.shifted(images, generator, 0.12, mean), mean, generator, 0.4), labels


def network(n_classes: int, width: int, channels: int, seed: int) -> nn.Module:
    """ResNet-18 with random weights that follow from `seed` alone, in training mode, in the faster memory layout."""
    seed_everything(derive(seed, "network"))
    model = resnet18(n_classes, width, channels)
    # with fewer channels the backward pass in channels_last ends the process (PyTorch 2.13 on a CPU)
    return model.to(memory_format=torch.channels_last) if width >= 8 else model


def references(images: ImageSet, seed: int) -> dict[str, np.ndarray]:
    """Which test images are guessed rightly by rules that do not look at the surface; {name: (n,) bool}.

    majority: the most frequent class of the training images, always. shape: a random forest, fitted on the training
    images, that sees nothing but how wide the margins of one grey value are, which keep the aspect ratio.
    """
    train, test = images.subset("train"), images.subset("test")
    frequent = np.full(len(test), train.labels.bincount().argmax())
    forest = RandomForestClassifier(300, min_samples_leaf=5, class_weight="balanced", random_state=seed)
    guess = forest.fit(_margins(train.images), train.labels).predict(_margins(test.images))
    return {name: found == test.labels.numpy() for name, found in {"majority": frequent, "shape": guess}.items()}


def shared_groups(images: ImageSet) -> set[str]:
    """Groups with images in more than one split; none may be, or a network meets its test images in training."""
    if images.groups is None:
        return set()
    parts = [set(images.groups[images.split == part]) for part in SPLITS]
    return {group for group in set().union(*parts) if sum(group in part for part in parts) > 1}


def _margins(pixels: Tensor) -> np.ndarray:
    """Rows and columns of one value, as shares of the sides, (N, 2), of images (N, C, H, W)."""
    return torch.stack([(pixels.amax((1, k)) == pixels.amin((1, k))).double().mean(1) for k in (3, 2)], 1).numpy()


def start_from(model: nn.Module, path: str | Path) -> list[str]:
    """Load a checkpoint with torchvision's names into `model`; returns the names that keep their new weights.

    A first convolution for three channels is summed for a model of grey images, which is the same network for grey
    pictures in three equal channels. A last layer `fc` of another number of classes is left out: train it. A file
    without `num_batches_tracked` (torchvision before 0.3) is fine.

    Raises:
        FileNotFoundError: no such file. ValueError: no file of weights, or weights of another network.
    """
    path = resolve(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights {path} do not exist: correct the path, or leave weights empty to start anew")
    try:
        found = dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged or foreign file can raise nearly anything
        raise ValueError(f"weights {path} are damaged, or not a state dict: {error}") from error
    if foreign := [name for name, value in found.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"weights {path} are not a state dict: {foreign[0]!r} is no tensor; save model.state_dict()")
    own = model.state_dict()
    first, there = own["conv1.weight"], found.get("conv1.weight")
    if there is not None and there.ndim == 4 and there.shape[1] == 3 and first.shape[1] == 1:
        found["conv1.weight"] = there.sum(1, keepdim=True)
    left = [name for name in own if name.endswith("num_batches_tracked") and name not in found]
    head = ("fc.weight", "fc.bias")
    if any(name in found and found[name].shape != own[name].shape for name in head):
        left += head
    differ = [
        name
        for name in {**own, **found}
        if name not in left and (name not in own or name not in found or found[name].shape != own[name].shape)
    ]
    if differ:
        got, expected = ({n: tuple(d[n].shape) for n in differ[:3] if n in d} for d in (found, own))
        raise ValueError(
            f"weights {path} are of another network: {len(differ)} tensors differ; there {got}, here {expected}. "
            "Choose width and grey as the checkpoint was made (torchvision's resnet18: width 64)"
        )
    model.load_state_dict({name: value for name, value in found.items() if name not in left}, strict=False)
    return left


# several networks, each of which judges the images that it never saw (arm patches) --------------------------------

HELD_BACK = 9  # one in so many groups of a fold's training part is for validation


def folds(images: ImageSet, count: int, seed: int) -> list[ImageSet]:
    """The same images, split anew for each of `count` networks, so that each image is tested once.

    Stratified by class, and no group is divided: `count` parts are tested in turn. Of the groups that are left, one in
    `HELD_BACK` is for validation and the others for training.

    Raises:
        ValueError: fewer groups than `count` (scikit-learn's).
    """
    labels = images.labels.numpy()
    groups = images.ids if images.groups is None else images.groups
    found = []
    for rest, tested in StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, groups):
        parts = min(HELD_BACK, len(set(groups[rest])))
        inner = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
        _, held = next(inner.split(rest, labels[rest], groups[rest]))
        split = np.full(len(labels), "train", dtype=images.split.dtype)
        split[tested], split[rest[held]] = "test", "val"
        found.append(replace(images, split=split))
    return found


def copies(model: nn.Module, count: int) -> list[nn.Module]:
    """`count` networks of the same weights, the first of them `model` itself."""
    return [model, *(copy.deepcopy(model) for _ in range(count - 1))]


def judged(divided: Sequence[ImageSet]) -> tuple[ImageSet, np.ndarray]:
    """The images that are tested in one of several splits, in their order, and in which, (N,) int."""
    tested = np.stack([images.split == "test" for images in divided])
    rows = np.flatnonzero(tested.any(0))
    return divided[0].take(rows), tested[:, rows].argmax(0)


def by_fold(
    networks: Sequence[nn.Module], fold: np.ndarray, function: Callable[[nn.Module, np.ndarray], Tensor]
) -> Tensor:
    """What each image's own network says of it.

    Args:
        networks: one for each split of `folds`; a single one judges all images.
        fold: (N,) which of them judges an image; each judges at least one.
        function: `function(network, rows)` -> a tensor with a row for each of these row numbers.

    Returns:
        (N, …), in the order of the images.
    """
    found = [function(network, np.flatnonzero(fold == k)) for k, network in enumerate(networks) if (fold == k).any()]
    whole = torch.cat(found)
    ordered = torch.empty_like(whole)
    ordered[torch.from_numpy(np.argsort(fold, kind="stable"))] = whole
    return ordered


def maps_by_fold(
    networks: Sequence[nn.Module],
    kind: Callable[[nn.Module], Explainer],
    images: Tensor,
    classes: Tensor,
    fold: np.ndarray,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Maps (N, H, W) of images (N, C, H, W) for classes (N,), each by its own network's explainer, `kind(network)`."""

    def explained(network: nn.Module, rows: np.ndarray) -> Tensor:
        return in_batches(kind(network), images[rows], classes[rows], device=device)

    return by_fold(networks, fold, explained)


def validated(
    networks: Sequence[nn.Module], divided: Sequence[ImageSet]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Which validation images each network is right about, their classes and groups (None: none), one after the other.

    An image that is held back from several networks stands there as often.
    """
    parts = [images.subset("val") for images in divided]
    said = [predict(network, val.images).argmax(1) for network, val in zip(networks, parts, strict=True)]
    right = np.concatenate([(one == val.labels).numpy() for one, val in zip(said, parts)])
    groups = None if parts[0].groups is None else np.concatenate([val.groups for val in parts])
    return right, torch.cat([val.labels for val in parts]).numpy(), groups


def references_by_fold(divided: Sequence[ImageSet], seed: int) -> dict[str, np.ndarray]:
    """As `references`, each image by the rules that were fitted without its fold."""
    found, (_, fold) = [references(images, seed) for images in divided], judged(divided)
    order = np.argsort(np.argsort(fold, kind="stable"))
    return {name: np.concatenate([one[name] for one in found])[order] for name in found[0]}


# how the predictions came out -----------------------------------------------------------------------------------


def outcomes(labels: Tensor, predicted: Tensor, normal: Sequence[int]) -> np.ndarray:
    """One of `OUTCOMES` for each image, (N,) str.

    Images with a defect: "correct" (its class), "missed" (predicted as normal), "wrong defect" (another defect).
    Images without: "false alarm" (predicted as a defect), "wrong normal", "correct normal".
    """
    labels, predicted = labels.numpy(), predicted.numpy()
    fine, called_fine, right = np.isin(labels, normal), np.isin(predicted, normal), labels == predicted
    cases = [~fine & right, ~fine & called_fine, ~fine, ~called_fine, ~right]
    return np.select(cases, OUTCOMES[:5], OUTCOMES[5])


# where the maps lie ---------------------------------------------------------------------------------------------


def agreement(maps: Tensor, masks: Tensor) -> pd.DataFrame:
    """How maps (N, H, W) agree with masks (N, H, W) that are not empty, a row each.

    area: share of the image inside the mask. energy: share of the map's positive sum inside. pointing: whether the
    highest pixel is inside. coverage: share of the mask at or above half of the maximum. iou: of that region and the
    mask. pieces: its connected regions. A map without positive values says nothing: it gets what a uniform map gets,
    energy and pointing = area, and coverage, iou and pieces 0.
    """
    area = masks.double().mean((1, 2))
    energy = localization.energy_inside(maps, masks).double()
    half = maps.amax((1, 2), keepdim=True) / 2
    high = (maps >= half) & (maps > 0)
    found = {
        "area": area,
        "energy": torch.where(energy.isnan(), area, energy),
        "pointing": localization.pointing_game(maps.clamp(min=0), masks),
        "coverage": (high & masks).sum((1, 2)) / masks.sum((1, 2)),
        "iou": localization.iou(maps, masks, 0.5, of="maximum"),
        "pieces": localization.pieces(maps),
    }
    return pd.DataFrame({name: values.double().numpy() for name, values in found.items()})


def no_agreement() -> pd.DataFrame:
    """What `agreement` and `on_the_grid` would return for no images: where nothing is marked, nothing is compared."""
    names = ("area", *SCORES, *ON_THE_GRID)
    return pd.DataFrame({name: np.empty(0) for name in names})


def attainable(masks: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Largest energy that any map on a layer's grid can have inside each mask, and the cell (row-major) that has it.

    An enlarged map without negative values is a weighted sum of the maps that are 1 in one cell alone. So its energy is
    a weighted mean of theirs, and none has more than the best of them.

    Args:
        masks: (N, H, W) bool, none of them empty.
        grid: rows and columns of the layer's maps, which `upsample` enlarges to (H, W).

    Returns:
        Energy (N,) in (0, 1], float64, and cells (N,) from 0 to rows · columns − 1.
    """
    cells = one_cell_maps(grid, masks.shape[1:])
    inside = torch.einsum("nhw,chw->nc", masks.to(cells), cells) / cells.sum((1, 2))
    return inside.amax(1), inside.argmax(1)


def one_cell_maps(grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The maps that are 1 in one cell of a grid and 0 in the others, enlarged: (rows · columns, *size), float64."""
    rows, columns = grid
    return upsample(torch.eye(rows * columns, dtype=torch.float64).reshape(-1, rows, columns), tuple(size))


def near(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Masks (N, H, W) widened by one cell of a layer's grid in each direction, diagonals included: (N, H, W) bool."""
    down, across = (-(-side // cells) for side, cells in zip(masks.shape[1:], grid, strict=True))
    kernel, padding = (2 * down + 1, 2 * across + 1), (down, across)
    return torch.nn.functional.max_pool2d(masks[:, None].float(), kernel, 1, padding)[:, 0] > 0


def on_the_grid(maps: Tensor, masks: Tensor, grid: tuple[int, int]) -> pd.DataFrame:
    """What maps (N, H, W) reach of what the grid that they come from lets them reach, a row each.

    attainable: largest energy inside the mask on this grid. share: the map's energy as a share of it. near: whether the
    map's highest pixel is at most one cell away from the mask. near_area: share of the image that is so near, which is
    what a uniform map gets for `near`; a map without positive values gets that, too. peak: whether a map of one cell
    can have its highest pixels inside the mask, the largest share of them.
    """
    widened, (best, _) = near(masks, grid), attainable(masks, grid)
    cells = one_cell_maps(grid, masks.shape[1:])
    highest = (cells == cells.amax((1, 2), keepdim=True)).double()
    peak = (torch.einsum("nhw,chw->nc", masks.double(), highest) / highest.sum((1, 2))).amax(1)
    found = {
        "attainable": best,
        "share": torch.tensor(agreement(maps, masks)["energy"].to_numpy()) / best,
        "near": localization.pointing_game(maps.clamp(min=0), widened),
        "near_area": widened.double().mean((1, 2)),
        "peak": peak,
    }
    return pd.DataFrame({name: values.double().numpy() for name, values in found.items()})


def centred(size: tuple[int, int], deviation: float = 1 / 6) -> Tensor:
    """A map (H, W) that knows nothing but where the middle of a picture is: a Gaussian of `deviation` sides, at most 1.

    Whoever places a patch around a defect puts the defect in its middle; so a map has to beat this one.
    """
    rows, columns = (((torch.arange(n) - (n - 1) / 2) / (deviation * n)).square() for n in size)
    return torch.exp(-(rows[:, None] + columns) / 2)


def error_auroc(scores: pd.DataFrame, wrong: np.ndarray, clusters: np.ndarray | None, seed: int) -> Estimate:
    """AUROC with which the agreement of map and mask (`SCORES`) tells wrong from right predictions (P3.4).

    Logistic regression, cross-validated: an image is scored by a fit on images of other clusters only.
    """
    if reason := estimates.too_few(wrong, clusters):
        return Estimate(None, len(wrong), note=reason)
    groups = np.arange(len(wrong)) if clusters is None else np.asarray(clusters)
    split = StratifiedGroupKFold(
        min(5, *(len(set(groups[wrong == side])) for side in (False, True))), shuffle=True, random_state=seed
    )
    x = scores[list(SCORES)].to_numpy()
    if any(len(set(wrong[rest])) < 2 for rest, _ in split.split(x, wrong, groups)):
        return Estimate(None, len(wrong), note="one group of images holds nearly all wrong, or right, predictions")
    found = cross_val_predict(shared.logistic(), x, wrong, groups=groups, cv=split, method="decision_function")
    return estimates.auroc(found, wrong, clusters, seed)


# without a mask (P3.3) ------------------------------------------------------------------------------------------


def suspicious_features(found: Explained, maps: Tensor, means: consistency.ClassMeans) -> pd.DataFrame:
    """What a map shows without any mask: pieces, spread, area, and distance to the predicted class's mean map.

    Args:
        found: of N images, a row each.
        maps: (N, H, W), those of `found` at the images' size.
        means: `class_means` of rightly classified training images. A class without any gets the largest distance.
    """
    distance = consistency.distance_to_class_mean(found.maps, found.predicted, means)
    known = distance[distance.isfinite()]
    columns = {
        "pieces": localization.pieces(maps),
        "spread": consistency.attention_spread(found.maps),
        "area": consistency.attention_area(found.maps),
        "distance": distance.nan_to_num(known.max().item() if len(known) else 0.0),
    }
    return pd.DataFrame({name: values.double().numpy() for name, values in columns.items()})


def suspicion(features: pd.DataFrame, wrong: np.ndarray, images: pd.DataFrame) -> np.ndarray | None:
    """Score (N,) of each of `images`, high = suspicious: a logistic regression of `wrong` on validation `features`.

    None if the validation images are all right, or all wrong: there is nothing to learn from.
    """
    return shared.logistic().fit(features, wrong).decision_function(images) if 0 < wrong.sum() < len(wrong) else None


class Warned(NamedTuple):
    """What the shape of a network's maps says of N images that it has not seen, without any mask."""

    maps: Tensor  # (N, h, w), on the layer's own grid, for the predicted class
    shape: pd.DataFrame  # `suspicious_features`, a row each
    scores: dict[str, np.ndarray | None]  # (N,), high = suspicious; None: nothing to learn from
    rank: Callable[[Explained], np.ndarray | None]  # the score "map" of other images


def warned(model: nn.Module, layer: str, base: ImageSet, val: ImageSet, images: Tensor) -> Warned:
    """Scores that warn of a wrong answer: map (features of its shape), confidence, both, and each feature alone.

    Args:
        model: a trained network.
        layer: whose maps are looked at.
        base: training images; of those that are classified rightly come the classes' mean maps.
        val: validation images, whose right and wrong answers `suspicion` learns from.
        images: (N, C, H, W), the images to be warned of.
    """
    explained = partial(shared.predict_and_explain, model, layer)
    enlarge = partial(upsample, size=images.shape[2:])
    seen, checked, tested = (explained(part) for part in (base.images, val.images, images))
    means = consistency.class_means(seen.maps, base.labels, seen.predicted == base.labels, len(base.class_names))

    def features(found: Explained) -> pd.DataFrame:
        return suspicious_features(found, enlarge(found.maps), means)

    known, shape, wrong = features(checked), features(tested), (checked.predicted != val.labels).numpy()
    doubted = known.assign(doubt=checked.uncertainty), wrong, shape.assign(doubt=tested.uncertainty)
    scores = {"map": suspicion(known, wrong, shape), "confidence": tested.uncertainty.numpy()}
    scores |= {"both": suspicion(*doubted)} | {name: shape[name].to_numpy() for name in shape}
    return Warned(tested.maps, shape, scores, lambda found: suspicion(known, wrong, features(found)))


def warned_by_fold(networks: Sequence[nn.Module], layer: str, divided: Sequence[ImageSet]) -> Warned:
    """As `warned`, each image by its own network; a score that one network could not learn is None for all."""
    found = [
        warned(network, layer, images.subset("train"), images.subset("val"), images.subset("test").images)
        for network, images in zip(networks, divided, strict=True)
    ]
    order = np.argsort(np.argsort(judged(divided)[1], kind="stable"))
    scores = {name: [one.scores[name] for one in found] for name in found[0].scores}
    return Warned(
        torch.cat([one.maps for one in found])[torch.from_numpy(order)],
        pd.concat([one.shape for one in found]).iloc[order].reset_index(drop=True),
        {n: None if any(one is None for one in got) else np.concatenate(got)[order] for n, got in scores.items()},
        found[0].rank,
    )


def halves(images: ImageSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two halves of the images: one to train on, one to choose from; groups stay together, classes are shared.

    Class by class, its groups (by its most frequent class, if it has several) are shuffled and dealt in turn.
    """
    labels = images.labels.numpy()
    groups = np.arange(len(labels)) if images.groups is None else images.groups
    names, unit = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), len(images.class_names)), dtype=int)
    np.add.at(counts, (unit, labels), 1)
    rng, side = numpy_rng(seed, "halves"), np.empty(len(names), dtype=bool)
    for label in range(counts.shape[1]):
        own = rng.permutation(np.flatnonzero(counts.argmax(1) == label))
        side[own] = np.arange(len(own)) % 2 == 0
    return np.flatnonzero(side[unit]), np.flatnonzero(~side[unit])


def random_scores(n: int, seed: int) -> np.ndarray:
    """Uniform random numbers (n,): a ranking that knows nothing."""
    return numpy_rng(seed, "random choice").random(n)


def chosen(rankings: Mapping[str, np.ndarray], k: int) -> dict[str, np.ndarray]:
    """The k first places of every ranking (scores (N,), high = first; of equals the earlier), as row numbers."""
    return {name: np.argsort(-np.asarray(scores), kind="stable")[:k] for name, scores in rankings.items()}


def with_added(images: ImageSet, base: np.ndarray, added: Mapping[str, np.ndarray]) -> dict[str, ImageSet]:
    """For each entry the images of `base` and its added rows, balanced to one number per class for all entries.

    So every training of the comparison takes equally many steps, if every entry has the same classes.
    """
    sets: dict[str, Any] = {name: images.take(np.concatenate([base, rows])) for name, rows in added.items()}
    largest = max(int(found.labels.bincount().max()) for found in sets.values())
    return {name: balanced(found, largest) for name, found in sets.items()}
