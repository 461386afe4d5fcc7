"""Realism of generated images, independent of the model that made them."""

from collections.abc import Callable

import torch
from torch import Tensor

from xai_utils.models.forward import check_images

_BATCH = 256  # images given to a feature function at once
_QUANTILE = 0.95  # of the leave-one-out distances: the end of the band


def _nearest(queries: Tensor, references: Tensor, memory_mib: float, leave_one_out: bool = False) -> Tensor:
    """Euclidean distance (Q,) of each query (Q, D) to its nearest reference (R, D), by blocks of queries.

    |q − r|² = |q|² − 2q·r + |r|² loses its small values to cancellation. So it only chooses the neighbour (|q|² is
    not needed for that), in coordinates centred on the references; the distance to it is then taken directly.
    """
    centre = references.mean(dim=0)
    centred = references - centre
    squares = centred.square().sum(dim=1)
    bytes_per_query = queries.element_size() * (len(references) + 3 * queries.shape[1])
    rows = max(1, int(memory_mib * 2**20 / bytes_per_query))
    distances = []
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows]
        scores = torch.addmm(squares, block - centre, centred.T, alpha=-2)
        if leave_one_out:  # by index: another image with the same pixels is a neighbour at distance 0
            own = torch.arange(len(block), device=block.device)
            scores[own, start + own] = torch.inf
        distances.append((block - references[scores.argmin(dim=1)]).norm(dim=1))
    return torch.cat(distances)


class RealismBand:
    """How far images lie from the nearest training image of a class, beside the class's own images.

    The measure for claims P1.3 and P1.4. A class's scale is its leave-one-out distances: each training image to its
    nearest neighbour in the class. Realism = distance / their median (1: as near as a typical real image); odd =
    distance above their 95 % quantile. Smooth images lie near to everything in pixel space: a small distance there says
    "not far off", not "sharp"; a feature function, (b, C, H, W) -> (b, …) and in evaluation mode, gives another space.
    `leave_one_out`, `median` and `limit` map a class to its distances (n,), their median and their quantile.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, features: Callable[[Tensor], Tensor] | None = None, memory_mib: float = 64
    ) -> None:
        """Fit on training images (N, C, H, W), floating point, and their classes (N,), integers.

        One copy of the images (or of their features) is kept; a block of distances takes `memory_mib`.
        Another type is a TypeError; another shape, non-finite values or a class of one image a ValueError.
        """
        self._features, self._memory_mib, self._shape = features, memory_mib, None
        vectors, labels = self._vectors(images, labels)
        self._shape = tuple(images.shape[1:])
        self._train = {label: vectors[labels == label] for label in labels.unique().tolist()}
        self.leave_one_out, self.median, self.limit = {}, {}, {}
        for label, own in self._train.items():
            if len(own) < 2:
                raise ValueError(f"class {label} has 1 training image; leave-one-out distances need at least 2")
            distances = _nearest(own, own, memory_mib, leave_one_out=True)
            shares = torch.tensor([0.5, _QUANTILE], dtype=torch.float64, device="cpu")
            ends = torch.quantile(distances.cpu().double(), shares)
            self.leave_one_out[label], (self.median[label], self.limit[label]) = distances, ends.tolist()

    def _vectors(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        images = check_images(images)
        if self._shape is not None and tuple(images.shape[1:]) != self._shape:
            raise ValueError(f"images of shape {tuple(images.shape[1:])}; the training images have {self._shape}")
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
            raise TypeError(f"labels: got {getattr(labels, 'dtype', type(labels))}; expected a tensor of integers")
        if labels.shape != (len(images),):
            raise ValueError(f"labels: got shape {tuple(labels.shape)}; expected ({len(images)},), one per image")
        vectors = images.flatten(1)
        if self._features is not None:
            with torch.no_grad():
                vectors = torch.cat([self._features(batch).flatten(1) for batch in images.split(_BATCH)])
            if len(vectors) != len(images) or not torch.isfinite(vectors).all():
                raise ValueError(f"features gave {len(vectors)} vectors for {len(images)} images, or non-finite ones")
        return vectors.to(torch.promote_types(vectors.dtype, torch.float32)), labels.to(vectors.device)

    def _measure(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distance (N,) to the nearest training image of the label, and that class's median and limit (N,)."""
        vectors, labels = self._vectors(images, labels)
        distances, medians, limits = vectors.new_empty(3, len(vectors))
        for label in labels.unique().tolist():
            if label not in self._train:
                raise ValueError(f"label {label} has no training images; the classes are {sorted(self._train)}")
            here, own = labels == label, self._train[label]
            distances[here] = _nearest(vectors[here].to(own), own, self._memory_mib).to(distances)
            medians[here], limits[here] = self.median[label], self.limit[label]
        return distances, medians, limits

    def distance(self, images: Tensor, labels: Tensor) -> Tensor:
        """Distance (N,) of each image to the nearest training image of its label; 0 for a training image."""
        return self._measure(images, labels)[0]

    def realism(self, images: Tensor, labels: Tensor) -> Tensor:
        """Distance (N,) divided by the median leave-one-out distance of the label: about 1 for a real image."""
        distances, medians, _ = self._measure(images, labels)
        if not medians.all():
            label = labels[medians.argmin().item()].item()
            raise ValueError(f"class {label}: most training images are duplicates, the median distance is 0; use odd()")
        return distances / medians

    def odd(self, images: Tensor, labels: Tensor) -> Tensor:
        """Whether (N,) each image lies outside the band of its label: farther than `limit`."""
        distances, _, limits = self._measure(images, labels)
        return distances > limits
