"""How alike the maps of a class are, as a measure and as a training loss (paper 4).

Maps are (N, h, w), on the layer's own grid or upsampled. What serves as a loss is differentiable, keeps the graph, and
computes half-precision maps in float32: `normalised`, `distance_to_class_mean`, `consistency_loss`, `attention_spread`
and `attention_area`. Class means are constants: no gradient flows through them.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

NORMALISATIONS = ("none", "sum", "norm")


class ClassMeans(NamedTuple):
    """Mean maps of the classes, how many maps each was taken from, and how those were normalised."""

    maps: Tensor  # (K, h, w), detached; NaN for a class without any map
    counts: Tensor  # (K,)
    normalise: str

    @property
    def empty(self) -> list[int]:
        """Classes without any map."""
        return (self.counts == 0).nonzero()[:, 0].tolist()


class Consistency(NamedTuple):
    """What `cam_consistency` measures; N maps, K classes."""

    distance: Tensor  # (N,) to the mean of the map's class; NaN where that class has no mean
    correlation: Tensor  # (N,) mean correlation with the other maps of the class; NaN for the only map of a class
    spread: Tensor  # (N,), see attention_spread
    centroid: Tensor  # (N, 2) row and column, in units of the sides
    class_correlation: Tensor  # (K,) mean over the pairs of a class; NaN below two maps
    centroid_scatter: Tensor  # (K,) standard deviation of the centroids, in units of the sides; NaN below two maps
    counts: Tensor  # (K,) maps of each class


def normalised(maps: Tensor, how: str = "norm") -> Tensor:
    """Maps (N, h, w) brought to one size, differentiably.

    The paper does not name the normalisation. What each does:

    - "none": as they are. The distance then has the unit of the logit and grows with confidence, and a training can
      lower it by merely shrinking all maps.
    - "sum": divided by Σ|L|, for a map without negative values its sum: a distribution. Broad maps then have small
      values and small distances, so that as a loss it also rewards a broad attention.
    - "norm": divided by √ΣL². The distance of two maps is then 2 − 2 cos, between 0 and 2 for maps without negative
      values, whatever their size and extent: hence the default.

    A flat map stays flat. An all-zero one (largest |value| below the type's smallest normal number) is zero, with zero
    gradient. The gradient grows as 1 / size for "sum" and "norm": clip it where maps almost vanish.

    Raises:
        TypeError: maps that are not a floating-point tensor.
        ValueError: another shape, NaN or infinite values, an unknown `how`.
    """
    maps = _checked(maps)
    if how not in NORMALISATIONS:
        raise ValueError(f"normalise: got {how!r}; expected one of {', '.join(NORMALISATIONS)}")
    if how == "none":
        return maps
    largest = maps.detach().abs().amax((1, 2), keepdim=True)
    seen = largest >= torch.finfo(maps.dtype).tiny
    scaled = maps / torch.where(seen, largest, 1)  # squares neither overflow nor vanish; no effect on the gradient
    size = (scaled.abs() if how == "sum" else scaled.square()).sum((1, 2), keepdim=True)
    size = torch.where(seen, size, 1)
    return torch.where(seen, scaled / (size if how == "sum" else size.sqrt()), 0)


def class_means(maps: Tensor, labels: Tensor, correct: Tensor, n_classes: int, normalise: str = "norm") -> ClassMeans:
    """Mean of the normalised maps of each class, over its correctly classified images (paper 4, "representative").

    Args:
        maps: (N, h, w), raw.
        labels: true classes (N,), integers.
        correct: (N,) bool; only these count.
        n_classes: K.
        normalise: see `normalised`; the result remembers it, so that maps are compared with it in the same way.

    Returns:
        Means (K, h, w), detached, and counts (K,). A class without a correct image has NaN and count 0: see
        `ClassMeans.empty`, and `updated_means` to keep its last mean.

    Raises:
        TypeError, ValueError: types, shapes or classes that do not fit.
    """
    values = normalised(maps.detach() if isinstance(maps, Tensor) else maps, normalise)
    labels = _checked_labels(labels, values, n_classes)
    if not isinstance(correct, Tensor) or correct.dtype != torch.bool:
        kind = correct.dtype if isinstance(correct, Tensor) else type(correct).__name__
        raise TypeError(f"correct: got {kind}; expected a tensor of bool (N,), such as predictions == labels")
    if correct.shape != labels.shape:
        raise ValueError(
            f"correct: got shape {tuple(correct.shape)}; expected one value for each of {len(values)} maps"
        )
    correct = correct.to(values.device)
    means, counts = _mean_by_class(values[correct], labels[correct], n_classes)
    return ClassMeans(means.to(values), counts, normalise)


def updated_means(last: ClassMeans, new: ClassMeans, momentum: float = 0.0) -> ClassMeans:
    """The means to train with next: momentum × last + (1 − momentum) × new; 0 takes the new ones as they are.

    A class that is empty in `new` keeps its last mean and count (`new.empty` names them, to be said); one that was
    empty in `last` takes the new mean whole.

    Raises:
        ValueError: another grid, number of classes or normalisation; a momentum outside [0, 1).
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum: got {momentum!r}; expected a number from 0 to below 1")
    for name, before, after in (
        ("shape", tuple(last.maps.shape), tuple(new.maps.shape)),
        ("normalise", last.normalise, new.normalise),
    ):
        if before != after:
            raise ValueError(f"class means: {name} was {before!r} and is now {after!r}; compute both in the same way")
    share = (last.counts > 0)[:, None, None].to(new.maps) * momentum
    mixed = share * last.maps.nan_to_num() + (1 - share) * new.maps
    kept = new.counts == 0
    return ClassMeans(
        torch.where(kept[:, None, None], last.maps, mixed), torch.where(kept, last.counts, new.counts), new.normalise
    )


def distance_to_class_mean(maps: Tensor, labels: Tensor, means: ClassMeans) -> Tensor:
    """‖CAM(x_i) − mean CAM_c‖²₂ (N,), c = labels[i]: the paper's L_cam, a sum over the grid, image by image.

    Differentiable in the maps, which are normalised as the means were. NaN where the class has no mean. For wrong
    predictions the labels decide whose mean is meant: the true class's, or the predicted one's.

    Raises:
        TypeError, ValueError: types, shapes or classes that do not fit.
    """
    values = normalised(maps, means.normalise)
    labels = _checked_labels(labels, values, len(means.counts))
    if means.maps.shape[1:] != values.shape[1:]:
        got, expected = tuple(values.shape[1:]), tuple(means.maps.shape[1:])
        raise ValueError(f"maps: got a grid of {got}, but the class means have {expected}; take both from one layer")
    return (values - means.maps.to(values)[labels]).square().sum((1, 2))


def consistency_loss(maps: Tensor, labels: Tensor, means: ClassMeans) -> Tensor:
    """L_cam of a batch: the mean of `distance_to_class_mean` over the images whose class has a mean; 0 without any.

    Raises as `distance_to_class_mean` does.
    """
    filled = means._replace(maps=means.maps.nan_to_num())  # NaN would reach the gradient
    distances = distance_to_class_mean(maps, labels, filled)
    known = (means.counts > 0).to(distances)
    counted = known[labels.to(known.device, torch.int64)]
    return (distances * counted).sum() / counted.sum().clamp(min=1)


def attention_spread(maps: Tensor) -> Tensor:
    """Second moment (N,) of each map's positive part about its centroid, coordinates in units of the sides.

    0 for a single pixel, (1 − 1/h²)/12 + (1 − 1/w²)/12 ≈ 1/6 for a uniform map, 1/2 at most (two opposite corners).
    An all-zero map counts as uniform, with zero gradient, so that one which vanishes does not pass for concentrated.
    The paper names the losses "less spread" and "more spread" without a formula: its mean, with + or −, is our choice.
    Raises as `normalised` does.
    """
    return _moments(maps)[1]


def attention_area(maps: Tensor) -> Tensor:
    """Share (N,) of the grid that each map's positive part covers in effect: (Σv)² / (h w Σv²), in (0, 1].

    k pixels of one value cover k / (h w); where they lie does not matter, unlike for `attention_spread`. An all-zero
    map counts as uniform: 1, with zero gradient. As a loss, its mean is our choice for the paper's "smaller attention
    region", which has no formula. Raises as `normalised` does.
    """
    weights = _attention(maps)
    return 1 / (weights.square().sum((1, 2)) * weights[0].numel())


def pairwise_correlation(maps: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Mean Pearson correlation (N,) of each map with the other maps of its class; NaN for the only one.

    The mean of a class's values is the mean over its pairs. A flat map (to rounding) correlates with none: 0. Grey
    images in place of maps give the similarity of composition. Raises as `class_means` does.
    """
    maps = _checked(maps).detach()
    values = maps.double()
    labels = _checked_labels(labels, values, n_classes)
    extent = values.amax((1, 2), keepdim=True) - values.amin((1, 2), keepdim=True)
    flat = extent <= 8 * torch.finfo(maps.dtype).eps * values.abs().amax((1, 2), keepdim=True)
    centred = torch.where(flat, 0, values - values.mean((1, 2), keepdim=True))
    unit = normalised(centred, "norm")
    sums, counts = _sum_by_class(unit, labels, n_classes)
    total = (unit * (sums[labels] - unit)).sum((1, 2))
    others = counts[labels] - 1
    return torch.where(others > 0, total / others, torch.nan).to(maps)


def cam_consistency(maps: Tensor, labels: Tensor, means: ClassMeans) -> Consistency:
    """Spatial consistency of maps (N, h, w) of one kind, such as those of correct or those of wrong predictions.

    Args:
        maps: raw; normalised as the means were. Correlation, spread and centroids do not depend on it.
        labels: class (N,) that each map is compared within: the true or the predicted one.
        means: of other images than these (held out), see `class_means`.

    Returns:
        A `Consistency`, detached. Correlation and scatter (with n − 1) do not depend on the number of maps, so a small
        group can be compared with a large one.

    Raises:
        TypeError, ValueError: types, shapes or classes that do not fit.
    """
    maps = _checked(maps).detach()
    distance = distance_to_class_mean(maps, labels, means)
    n_classes = len(means.counts)
    labels = _checked_labels(labels, maps, n_classes)
    centroid, spread = _moments(maps)
    middle, counts = _mean_by_class(centroid, labels, n_classes)
    off_centre = (centroid - middle[labels]).square().sum(1)
    variance = _sum_by_class(off_centre, labels, n_classes)[0] / (counts - 1)
    several = counts > 1
    correlation = pairwise_correlation(maps, labels, n_classes)
    return Consistency(
        distance=distance,
        correlation=correlation,
        spread=spread,
        centroid=centroid,
        class_correlation=_mean_by_class(correlation, labels, n_classes)[0].to(maps),
        centroid_scatter=torch.where(several, variance, torch.nan).sqrt().to(maps),
        counts=counts,
    )


def between_class_distance(means: ClassMeans) -> float:
    """Mean over the pairs of classes of ‖mean CAM_a − mean CAM_b‖²₂; NaN with fewer than two classes that have one.

    Beside the distance to the class mean, in the same unit: if both go to 0, all maps have become one.
    """
    maps = means.maps[means.counts > 0].double()
    if len(maps) < 2:
        return float("nan")
    # Σ over pairs |a − b|² = K Σ |a − mean|²
    return 2 * (maps - maps.mean(0)).square().sum().item() / (len(maps) - 1)


def _checked(maps: Any) -> Tensor:
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        kind = maps.dtype if isinstance(maps, Tensor) else type(maps).__name__
        raise TypeError(f"maps: got {kind}; expected a floating-point tensor of maps (N, h, w)")
    if maps.ndim != 3 or 0 in maps.shape:
        hint = "; add the batch dimension: maps[None]" if maps.ndim == 2 else ""
        raise ValueError(f"maps: got shape {tuple(maps.shape)}; expected one or more maps (N, h, w){hint}")
    finite = torch.isfinite(maps.detach()).flatten(1).all(1)
    if not finite.all():
        hint = "; compute the map in float32" if maps.dtype in (torch.float16, torch.bfloat16) else ""
        raise ValueError(f"maps: maps {(~finite).nonzero()[:5, 0].tolist()} hold NaN or infinite values{hint}")
    return maps if maps.dtype in (torch.float32, torch.float64) else maps.float()


def _checked_labels(labels: Any, values: Tensor, n_classes: int) -> Tensor:
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels: got {kind}; expected a tensor of integer classes (N,)")
    if labels.shape != values.shape[:1]:
        raise ValueError(f"labels: got shape {tuple(labels.shape)}; expected ({len(values)},), one for each row")
    wrong = labels[(labels < 0) | (labels >= n_classes)]
    if len(wrong):
        raise ValueError(f"labels: got {wrong[0].item()}; expected classes from 0 to {n_classes - 1}")
    return labels.to(values.device, torch.int64)


def _sum_by_class(values: Tensor, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Sums (K, …), in float64, and counts (K,) of values (N, …)."""
    sums = torch.zeros(n_classes, *values.shape[1:], dtype=torch.float64, device=values.device)
    return sums.index_add(0, labels, values.double()), labels.bincount(minlength=n_classes)


def _mean_by_class(values: Tensor, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Means (K, …), in float64, NaN where the count is 0, and counts (K,)."""
    sums, counts = _sum_by_class(values, labels, n_classes)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1)), counts


def _attention(maps: Tensor) -> Tensor:
    """Positive parts of the maps as distributions (N, h, w); uniform for a map without any."""
    weights = normalised(_checked(maps).clamp(min=0), "sum")
    return torch.where(weights.detach().sum((1, 2), keepdim=True) > 0, weights, 1 / weights[0].numel())


def _moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Centroids (N, 2) and second moments about them (N,)."""
    weights = _attention(maps)
    centroids, moments = [], []
    for along in (weights.sum(2), weights.sum(1)):  # by row, by column
        length = along.shape[1]
        places = (torch.arange(length, device=along.device, dtype=along.dtype) + 0.5) / length
        centroids.append((along * places).sum(1))
        moments.append((along * (places - centroids[-1][:, None]).square()).sum(1))
    return torch.stack(centroids, 1), moments[0] + moments[1]
