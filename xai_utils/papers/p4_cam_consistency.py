"""Paper 4: Grad-CAM consistency as a training loss, and the maps of right and wrong predictions (P4.1 to P4.5)."""

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from xai_utils.data.imageset import ImageSet
from xai_utils.explain.gradcam import GradCAM, cam, features_and_gradients, upsample
from xai_utils.metrics import consistency, estimates, localization, statistics
from xai_utils.metrics.statistics import Estimate
from xai_utils.models.resnet import resnet18
from xai_utils.papers import shared
from xai_utils.seeds import derive, numpy_rng, seed_everything

LOSSES = (
    "none", "grad_cam", "grad_cam_pp", "small_region", "less_spread", "more_spread", "hybrid", "curriculum"
)  # fmt: skip
LAYERS = {"vgg": "features", "resnet18": "layer4"}  # the last convolution of each network
GRID = 8  # cells a side of its maps, for "vgg"
STAGES = ("more_spread", "grad_cam", "small_region")  # of the curriculum, a third of the epochs each

# data and network -----------------------------------------------------------------------------------------------


def subsample_per_class(images: ImageSet, per_class: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Images to train on, and images to judge by: those of the test part, and what scarcity leaves over.

    Args:
        images: with the parts train and test.
        per_class: training images of each class, drawn at random (from `seed`); 0 = all of them.
        seed: of the draw.

    Returns:
        Both sets; no group (a patient, a road segment) of the training part has images in both. The second begins with
        the test images.

    Raises:
        ValueError: a class has fewer training images than `per_class`; less than 0.
    """
    train, test = (np.flatnonzero(images.split == part) for part in ("train", "test"))
    if per_class < 0:
        raise ValueError(f"per_class is {per_class}; expected 0 (all) or more")
    if not per_class:
        return images.take(train), images.take(test)
    labels, rng, rows = images.labels.numpy(), numpy_rng(seed, "scarce"), []
    for label, name in enumerate(images.class_names):
        own = train[labels[train] == label]
        if len(own) < per_class:
            raise ValueError(f"per_class is {per_class}, but {images.name} has {len(own)} training images of {name!r}")
        rows.append(rng.permutation(own)[:per_class])
    used = np.sort(np.concatenate(rows))
    groups = np.arange(len(labels)) if images.groups is None else images.groups
    spare = train[~np.isin(groups[train], groups[used])]
    return images.take(used), images.take(np.concatenate([test, spare]))


def composition(images: ImageSet, side: int = 16) -> float:
    """Similarity of composition: mean correlation of the grey images of one class, shrunk to side × side.

    Mean over the images, each with all others of its class; 1 if all are the same, about 0 if nothing is.
    """
    grey = images.images.mean(1)
    small = nn.functional.adaptive_avg_pool2d(grey[:, None], side)[:, 0]
    return consistency.pairwise_correlation(small, images.labels, len(images.class_names)).nanmean().item()


def augment(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shifts by up to 6 % of the side, other contrast and brightness. No flips: the composition has a left and a right.

    The strip that a shift uncovers repeats the border.

    Args:
        batch: images (B, C, H, W) in [0, 1] and labels.
        generator: on the CPU.
    """
    images = shared.shifted(batch[0], generator, 0.06)
    return shared.relit(images, images.mean((1, 2, 3), keepdim=True), generator, 0.3), batch[1]


def network(kind: str, n_classes: int, channels: int, side: int, width: int, seed: int) -> nn.Module:
    """A classifier with random weights that follow from `seed` alone, in training mode.

    Args:
        kind: "vgg" = pairs of 3×3 convolutions with BatchNorm, max-pooled until 8×8 cells are left (6 to 11 for sides
            that are no power of two), one more convolution, GAP, linear; or "resnet18", with a cell per 32 pixels.
        n_classes: number of outputs.
        channels: of the images.
        side: of the images, in pixels.
        width: channels of the first convolutions.
        seed: of the weights.

    Raises:
        ValueError: another kind, or images of fewer than 16 (vgg) or 64 (resnet18) pixels a side.
    """
    if kind not in LAYERS or side < (64 if kind == "resnet18" else 2 * GRID):
        raise ValueError(
            f"got {kind!r} for images of {side} pixels; expected {' or '.join(LAYERS)}, of at least "
            f"{2 * GRID} and 64 pixels: a map of a single cell is always consistent"
        )
    seed_everything(derive(seed, "network"))
    if kind == "resnet18":
        return resnet18(n_classes, width, channels)
    layers: list[nn.Module] = []
    before, poolings = channels, max(1, round(math.log2(side / GRID)))
    for after in [width * 2 ** min(k, 2) for k in range(poolings)]:
        layers += [*_convolution(before, after), *_convolution(after, after), nn.MaxPool2d(2)]
        before = after
    layers += [*_convolution(before, before)]
    named = {"features": nn.Sequential(*layers), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    model = nn.Sequential()
    for name, module in (named | {"head": nn.Linear(before, n_classes)}).items():
        model.add_module(name, module)
    return model


def _convolution(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()


# training -------------------------------------------------------------------------------------------------------


class Watched(nn.Module):
    """A classifier, and the mean maps of its classes that its training compares with.

    The means are buffers, so that a checkpoint holds them and a resumed training goes on with the same ones.

    Attributes:
        network: the classifier; calling the module calls it.
        maps, counts: the class means (K, h, w) in use, and how many maps each came from (0: none yet, no L_cam).
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        example: Tensor,
        n_classes: int,
        epoch_images: int,
        *,
        normalise: str = "norm",
        momentum: float | None = None,
    ) -> None:
        """Watch `network`.

        Args:
            network: a classifier of images like `example`, with `n_classes` outputs.
            layer: whose maps.
            example: images (N, C, H, W), to see the size of the maps by.
            n_classes: K.
            epoch_images: training images of an epoch.
            normalise: how maps are brought to one size before they are compared, see `metrics.normalised`.
            momentum: None = an epoch is compared with the means of the epoch before it; else a running mean, to which
                every batch gives the share 1 − momentum.
        """
        super().__init__()
        self.network, self.layer, self.epoch_images = network, layer, epoch_images
        self.normalise, self.momentum = normalise, momentum
        grid = GradCAM(network.eval(), layer).attribute_layer(example[:1], 0).shape[1:]
        network.train()
        for name, values in {
            "maps": torch.full((n_classes, *grid), math.nan),
            "counts": torch.zeros(n_classes, dtype=torch.int64),
            "sums": torch.zeros(n_classes, *grid),
            "summed": torch.zeros(n_classes, dtype=torch.int64),
            "images": torch.zeros((), dtype=torch.int64),
            "kept": torch.zeros((), dtype=torch.int64),
        }.items():
            self.register_buffer(name, values.to(example.device))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W)."""
        return self.network(images)

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next training image belongs to, from 0."""
        return int(self.images) // self.epoch_images

    @property
    def means(self) -> consistency.ClassMeans:
        """The class means in use."""
        return consistency.ClassMeans(self.maps, self.counts, self.normalise)

    def update_means(self, maps: Tensor, labels: Tensor, correct: Tensor) -> None:
        """Take a training batch's maps (N, h, w) into the means; only those of correctly classified images count.

        A class without a correct image in an epoch (or, for a running mean, in a batch) keeps its last mean; `kept`
        says for how many classes the epoch that just ended did.

        Raises:
            ValueError: more images than the epoch has left.
        """
        left = self.epoch_images - int(self.images) % self.epoch_images
        if len(maps) > left:
            raise ValueError(
                f"epoch_images is {self.epoch_images}, but a batch of {len(maps)} came when {left} were left"
            )
        maps = maps.detach().float()
        new = consistency.class_means(maps, labels, correct, len(self.counts), self.normalise)
        if self.momentum is not None:
            self._set(consistency.updated_means(self.means, new, self.momentum))
        self.sums += new.maps.nan_to_num() * new.counts[:, None, None]
        self.summed += new.counts
        self.images += len(maps)
        if len(maps) == left:
            self.kept.copy_((self.summed == 0).sum())
            if self.momentum is None:
                found = torch.where(self.summed > 0, 1.0, math.nan)[:, None, None] * self.sums
                found = found / self.summed.clamp(min=1)[:, None, None]
                self._set(consistency.updated_means(self.means, self.means._replace(maps=found, counts=self.summed)))
            self.sums.zero_()
            self.summed.zero_()

    def _set(self, means: consistency.ClassMeans) -> None:
        self.maps.copy_(means.maps)
        self.counts.copy_(means.counts)


def objective(
    model: Watched,
    batch: tuple[Tensor, Tensor],
    _generator: torch.Generator | None = None,
    *,
    loss: str,
    weight: float,
    epochs: int,
) -> dict[str, Tensor]:
    """L_cls + λ L_cam of a batch, as `training.fit` takes it.

    One forward pass serves both terms; the maps (for the true class) are differentiated through. The report names the
    losses besides the class mean without a formula: those below are ours, and stand in its place.

    - grad_cam: mean squared distance of the normalised maps to their class's mean. grad_cam_pp: of Grad-CAM++ maps.
    - small_region: the share of the grid that a map covers in effect. less_spread: the second moment of the map about
      its centroid; more_spread: ½ minus that.
    - hybrid: the mean of grad_cam and less_spread. curriculum: more_spread, grad_cam, small_region, for a third of the
      epochs each: look everywhere, then where the others looked, then closer.

    Args:
        model: watched; its class means are updated by this, in training mode only.
        batch: images (N, C, H, W) and true classes (N,).
        loss: one of `LOSSES`; "none" is plain cross-entropy.
        weight: λ.
        epochs: of the whole training, for the curriculum.

    Returns:
        loss, cross_entropy, accuracy; unless λ = 0 also cam (the unweighted L_cam) and kept (classes that had no
        correctly classified image in the last epoch and kept their mean).

    Raises:
        ValueError: an unknown loss, λ < 0.
    """
    if loss not in LOSSES or not weight >= 0:
        raise ValueError(f"got loss {loss!r}, λ = {weight!r}; expected one of {', '.join(LOSSES)}, and λ of at least 0")
    images, labels = batch
    plain = loss == "none" or weight == 0
    if plain:
        logits = model(images)
    else:
        found = features_and_gradients(model.network, model.layer, images, labels, torch.is_grad_enabled())
        logits = found.outputs
    cross_entropy = nn.functional.cross_entropy(logits.float(), labels)
    correct = logits.argmax(1) == labels
    told = {"cross_entropy": cross_entropy, "accuracy": correct.float().mean()}
    if plain:
        return {"loss": cross_entropy} | told
    maps = cam(found.features, found.gradients, "gradcam++" if loss == "grad_cam_pp" else "gradcam")
    epoch = model.epoch if model.training else max(0, model.epoch - 1)  # validation ends the epoch before it
    stage = STAGES[min(2, 3 * epoch // epochs)] if loss == "curriculum" else loss
    term = _terms(stage, maps, labels, model.means)
    told |= {"cam": term, "kept": model.kept.float()}  # of the epoch before: `update_means` may end this one
    if model.training:
        model.update_means(maps, labels, correct)
    return {"loss": cross_entropy + weight * term} | told


def _terms(loss: str, maps: Tensor, labels: Tensor, means: consistency.ClassMeans) -> Tensor:
    if loss == "small_region":
        return consistency.attention_area(maps).mean()
    if loss in ("less_spread", "more_spread"):
        spread = consistency.attention_spread(maps).mean()
        return spread if loss == "less_spread" else 0.5 - spread
    distance = consistency.consistency_loss(maps, labels, means)
    return (distance + consistency.attention_spread(maps).mean()) / 2 if loss == "hybrid" else distance


def guided_by_masks(train: ImageSet, val: ImageSet, weight: float) -> dict[str, Any]:
    """Guidance by masks in place of the class mean, which the report does not try: what `training.fit` takes for it.

    Returns:
        loss (`mask_objective` with λ = `weight`), data and validation (images, labels and masks), augment.

    Raises:
        ValueError: images without masks.
    """
    for images in (train, val):
        if images.masks is None:
            raise ValueError(f"{images.name} has no masks to guide by; take images with masks, or another loss")
    data, validation = (TensorDataset(part.images, part.labels, part.masks) for part in (train, val))
    loss = partial(mask_objective, weight=weight)
    return {"loss": loss, "data": data, "validation": validation, "augment": augment_with_masks}


def augment_with_masks(
    batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """`augment` of images and labels, by the same random numbers; the masks (B, H, W) move with their images."""
    images, labels, masks = batch
    twin = torch.Generator().set_state(generator.get_state())
    moved = shared.shifted(masks[:, None].to(images), twin, 0.06)[:, 0] > 0
    return *augment((images, labels), generator), moved


def energy_outside(maps: Tensor, masks: Tensor) -> Tensor:
    """Energy loss: the share of a map's positive sum that lies outside the mask; the mean over the images with one.

    1 minus the energy-based pointing game (Rao et al. 2023, "Studying how to efficiently and effectively guide models
    with explanations"), differentiable. A cell counts as inside if the mask touches it: a small object does not vanish,
    and 0 can be reached. A map without positive values has nothing inside: 1, with zero gradient.

    Args:
        maps: (N, h, w), on the layer's own grid.
        masks: (N, H, W) bool; an image with an empty one has no term.

    Returns:
        A scalar between 0 and 1; 0 where no image has a mask.
    """
    inside = nn.functional.adaptive_max_pool2d(masks[:, None].to(maps), maps.shape[1:])[:, 0]
    marked = inside.amax((1, 2))
    outside = 1 - (consistency.normalised(maps.clamp(min=0), "sum") * inside).sum((1, 2))
    return (outside * marked).sum() / marked.sum().clamp(min=1)


def mask_objective(
    model: Watched, batch: tuple[Tensor, Tensor, Tensor], _generator: torch.Generator | None = None, *, weight: float
) -> dict[str, Tensor]:
    """L_cls + λ `energy_outside` of a batch of images, true classes and masks, as `training.fit` takes it.

    The maps are for the true class, as in `objective`; the class means of `model` are neither used nor updated.

    Returns:
        loss, cross_entropy, accuracy, and cam: the unweighted second term.
    """
    images, labels, masks = batch
    found = features_and_gradients(model.network, model.layer, images, labels, torch.is_grad_enabled())
    cross_entropy = nn.functional.cross_entropy(found.outputs.float(), labels)
    term = energy_outside(cam(found.features, found.gradients, "gradcam"), masks)
    accuracy = (found.outputs.argmax(1) == labels).float().mean()
    return {"loss": cross_entropy + weight * term, "cross_entropy": cross_entropy, "accuracy": accuracy, "cam": term}


def epochs_for(steps: int, n_images: int, batch_size: int) -> int:
    """Whole epochs that come nearest to `steps` batches, at least two: the first has no class means to compare with."""
    return max(2, round(steps / math.ceil(n_images / batch_size)))


# what maps look like --------------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """What a network says of N images whose classes are known, and its maps on the layer's own grid."""

    logits: Tensor  # (N, K)
    right: np.ndarray  # (N,) bool
    labels: Tensor  # (N,) true classes
    predicted: Tensor  # (N,)
    true_maps: Tensor  # (N, h, w) for the true class
    maps: Tensor  # (N, h, w) for the predicted class

    @property
    def uncertainty(self) -> np.ndarray:
        """1 − softmax confidence (N,)."""
        return 1 - self.logits.double().softmax(1).amax(1).numpy()  # float32 ties above a gap of 17


def judge(model: nn.Module, layer: str, images: ImageSet) -> Judged:
    """Predictions and Grad-CAM of all images, in batches on the model's device."""
    found = shared.predict_and_explain(model, layer, images.images, images.labels)
    right = (found.predicted == images.labels).numpy()
    return Judged(found.logits, right, images.labels, found.predicted, found.true_maps, found.maps)


def means_of(found: Judged, n_classes: int, normalise: str = "norm") -> consistency.ClassMeans:
    """Mean maps over the correctly classified images (of the training part, so that no test image is among them)."""
    return consistency.class_means(found.true_maps, found.labels, torch.from_numpy(found.right), n_classes, normalise)


def distances(found: Judged, means: consistency.ClassMeans) -> dict[str, np.ndarray]:
    """Distance (N,) to a class mean: "true" = map for and mean of the true class, "predicted" = of the predicted one.

    For correct predictions they are the same. A class without a mean gets the largest distance there is.
    """
    pairs = {"true": (found.true_maps, found.labels), "predicted": (found.maps, found.predicted)}
    values = {name: consistency.distance_to_class_mean(maps, labels, means) for name, (maps, labels) in pairs.items()}
    largest = max((float(v[v.isfinite()].max()) for v in values.values() if v.isfinite().any()), default=0.0)
    return {name: v.nan_to_num(largest).double().numpy() for name, v in values.items()}


def scatter(found: Judged, means: consistency.ClassMeans) -> dict[str, dict[str, float]]:
    """Correlation within a class, spread, and scatter of the centroids of correct and of wrong predictions' maps.

    Maps for the true class, within the true class; `metrics.cam_consistency` has the definitions.
    """
    rows = {}
    for name, chosen in {"correct": found.right, "wrong": ~found.right}.items():
        if chosen.any():
            part = consistency.cam_consistency(found.true_maps[chosen], found.labels[chosen], means)
            rows[name] = {
                "n": int(chosen.sum()),
                "distance": part.distance.nanmean().item(),
                "correlation": part.correlation.nanmean().item(),
                "spread": part.spread.mean().item(),
                "centroid_scatter": part.centroid_scatter.nanmean().item(),
            }
    return rows


def within_between(maps: Tensor, labels: Tensor, clusters: np.ndarray | None, seed: int) -> Estimate:
    """How much closer maps (N, h, w) of one class are to each other than to those of other classes.

    Mean ‖a − b‖² over the pairs of images of one class, divided by that over the pairs of two classes, of maps divided
    by their norm; 1 = the class makes no difference. Undefined where fewer than two classes have images of four groups.
    """
    groups = np.arange(len(maps)) if clusters is None else np.asarray(clusters)
    units = sorted(len(set(groups[np.asarray(labels) == name])) for name in np.unique(labels))
    if len(units) < 2 or units[-2] < 4:  # else more than a few resamples lack a class, or a pair of one
        return Estimate(None, len(maps), note="fewer than two classes with images of four groups")
    flat = consistency.normalised(maps).flatten(1).double().numpy()
    squares = (flat**2).sum(1)
    apart = np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0)
    same = (np.asarray(labels)[:, None] == np.asarray(labels)).astype(float)
    other = 1 - same
    np.fill_diagonal(same, 0)

    def statistic(_: np.ndarray, weights: np.ndarray) -> np.ndarray:
        def mean(pairs: np.ndarray) -> np.ndarray:
            return ((weights @ (apart * pairs)) * weights).sum(1) / ((weights @ pairs) * weights).sum(1)

        with np.errstate(invalid="ignore", divide="ignore"):  # a resample without a pair is left out
            return mean(same) / mean(other)

    return statistics.bootstrap(np.zeros(len(maps)), statistic, clusters, seed=seed)


def dispersion(maps: Tensor, labels: Tensor, right: np.ndarray) -> np.ndarray:
    """How far each map (N, h, w) is from the others of its kind: terms (N,) whose mean over a kind is its dispersion.

    A kind is a class of `labels` (N,) on one side of `right` (N,) bool. Its dispersion is the mean ‖a − b‖² over its
    pairs of maps, each divided by its norm; unlike in `distances`, no class mean takes part. Each map enters its own
    mean distance h and those of the others, so a mean over pairs varies with the images twice as much as the h do. The
    terms 2 h − (mean h of the kind) have the same mean and vary as it does (Hájek's projection): bootstrap these.
    NaN for the only map of a kind.
    """
    kinds = np.unique(np.stack([np.asarray(labels), right]), axis=1, return_inverse=True)[1]
    same = kinds[:, None] == kinds
    np.fill_diagonal(same, False)
    flat = consistency.normalised(maps).flatten(1).double().numpy()
    squares = (flat**2).sum(1)
    apart = squares[:, None] + squares - 2 * flat @ flat.T
    with np.errstate(invalid="ignore"):
        own = (apart * same).sum(1) / same.sum(1)
    return 2 * own - (np.bincount(kinds, own) / np.bincount(kinds))[kinds]


def several_pieces(maps: Tensor, side: int) -> np.ndarray:
    """Whether a map (N, h, w), upsampled to side × side, has several regions at or above half of its maximum."""
    return (localization.pieces(upsample(maps, (side, side))) > 1).numpy()


def energy(maps: Tensor, masks: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Share of each map (N, h, w) inside its mask (N, H, W), and the mask's share of the area, both (N,).

    A map without positive values says nothing and gets the area's share, as a uniform one does.
    """
    inside = localization.energy_inside(upsample(maps, masks.shape[1:]), masks).double().numpy()
    area = masks.double().mean((1, 2)).numpy()
    return np.where(np.isnan(inside), area, inside), area


def moved_onto_object(
    before: Judged, after: Judged, masks: Tensor | None, clusters: np.ndarray, seed: int
) -> dict[str, Estimate]:
    """Share of the map for the true class on the marked object: without the loss, with it, and gained (with − without).

    Args:
        before: what the network without the loss says of N images.
        after: what the one trained with the loss says of the same.
        masks: (N, H, W) bool or None; images with an empty mask are left out.
        clusters: what images share (N,), drawn as a whole for the interval.
        seed: of the bootstrap.

    Returns:
        inside_before, inside_after, inside_difference; not defined where no image has a mask.
    """
    marked = np.zeros(len(before.labels), bool) if masks is None else masks.any((1, 2)).numpy()
    one, other = (
        energy(found.true_maps[marked], masks[marked])[0] if marked.any() else np.zeros(0) for found in (before, after)
    )
    values = {"inside_before": one, "inside_after": other, "inside_difference": other - one}
    return {name: estimates.mean(shares, clusters[marked], seed) for name, shares in values.items()}
