"""Explanation by morphing (paper 1, §3): from the input to the typical image of its predicted class."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from scipy.sparse.csgraph import dijkstra
from sklearn.neighbors import NearestNeighbors, kneighbors_graph
from torch import Tensor


class ConditionalAutoencoder(Protocol):
    """What a model needs to explain itself by morphing; `IDCVAE` is one."""

    latent_dim: int
    n_classes: int

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) -> mean and log variance (N, latent_dim)."""

    def decode(self, z: Tensor, label: Tensor | int) -> Tensor:
        """Latents (N, latent_dim) and labels (N,) -> images (N, C, H, W)."""


@torch.no_grad()
def class_prototypes(model: ConditionalAutoencoder, loader: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Centroid of the encodings of each class's training images, z_n of eq. (2): (n_classes, latent_dim).

    `loader` gives batches (images, labels) once; D(centroid, l) is the class's typical image. Sums are float64.

    Raises:
        ValueError: a class has no image: it has no prototype.
    """
    device = next(iter(model.parameters())).device
    total = torch.zeros(model.n_classes, model.latent_dim, dtype=torch.float64, device="cpu")
    count = torch.zeros(model.n_classes, dtype=torch.int64, device="cpu")
    dtype = torch.float32
    for images, labels in loader:
        mean = model.encode(images.to(device))[0]
        dtype = mean.dtype
        total.index_add_(0, labels.cpu(), mean.double().cpu())
        count += torch.bincount(labels.cpu(), minlength=model.n_classes)
    if (count == 0).any():
        empty = torch.nonzero(count == 0).flatten().tolist()
        raise ValueError(
            f"no training image for class(es) {empty}: a prototype is the mean of a class's encodings (eq. 2); "
            "give images of every class, or build the model with fewer classes"
        )
    return (total / count[:, None]).to(device, dtype)


def straight_path(start: Tensor, goal: Tensor, steps: int) -> Tensor:
    """Eq. (2): z_i = z_0 + (i/n)(z_n − z_0) for i = 0 … n: (N, steps + 1, f), for latents start, goal (N, f)."""
    if steps < 1:
        raise ValueError(f"steps = {steps}: a morph needs at least 1 step (n of eq. 2), which gives 2 images")
    share = torch.linspace(0, 1, steps + 1, dtype=start.dtype, device=start.device)[:, None]
    return torch.lerp(start[:, None], goal[:, None], share)


def path_along_data(start: Tensor, goal: Tensor, codes: Tensor, steps: int, neighbours: int = 10) -> Tensor:
    """A path from each start to `goal` that stays near the class's training encodings: (N, steps + 1, f).

    Not in the paper: its future work asks for fewer odd images, and a straight line may cross latents where the
    class has no data. Shortest path through the `neighbours`-nearest-neighbour graph of `codes`, edges weighted
    by squared distance so that many short steps beat a jump; then points evenly spaced along its length. Both
    ends join the graph by their own nearest codes, so z_0 and z_n stay as eq. (2) has them.

    Args:
        start: (N, f) encodings of inputs predicted as one class.
        goal: (f,) that class's prototype.
        codes: (M, f) encodings of that class's training images, M > neighbours.
        steps: n of eq. (2).
        neighbours: edges per node.
    """
    if len(codes) <= neighbours:
        raise ValueError(
            f"{len(codes)} training encodings for {neighbours} neighbours: give more codes or fewer neighbours"
        )
    nodes = torch.cat([codes, goal[None]]).double().cpu().numpy()  # the goal is the last node
    inputs = start.double().cpu().numpy()
    graph = kneighbors_graph(nodes, neighbours, mode="distance")
    graph.data **= 2  # squared: many short steps beat one jump
    to_goal, next_node = dijkstra(graph, directed=False, indices=len(codes), return_predecessors=True)
    distance, near = NearestNeighbors(n_neighbors=neighbours).fit(nodes).kneighbors(inputs)
    entry = near[np.arange(len(near)), (distance**2 + to_goal[near]).argmin(axis=1)]
    paths = np.empty((len(inputs), steps + 1, nodes.shape[1]))
    for row, node in enumerate(entry):
        chain = [inputs[row]]
        while node >= 0:  # −9999 behind the goal, and where no way leads to it
            chain.append(nodes[node])
            node = next_node[node]
        paths[row] = _evenly_spaced(np.stack([*chain, nodes[-1]]), steps)
    return torch.from_numpy(paths).to(start.device, start.dtype)


def _evenly_spaced(points: np.ndarray, steps: int) -> np.ndarray:
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    wanted = np.linspace(0, lengths[-1], steps + 1)
    return np.stack([np.interp(wanted, lengths, column) for column in points.T], axis=1)


@torch.no_grad()
def decode_path(model: ConditionalAutoencoder, path: Tensor, label: Tensor | int) -> Tensor:
    """{D(z_i, l)}: images (N, n + 1, C, H, W) of latents `path` (N, n + 1, f), every frame decoded with l."""
    n, frames, _ = path.shape
    labels = torch.as_tensor(label, device=path.device).expand(n).repeat_interleave(frames)
    return model.decode(path.flatten(0, 1), labels).unflatten(0, (n, frames))


@torch.no_grad()
def morph(model: ConditionalAutoencoder, x: Tensor, label: Tensor | int, prototype: Tensor, steps: int = 9) -> Tensor:
    """The explanation of §3: n + 1 images from D(E(x), l) to the class's typical image D(z_n, l), eq. (2).

    Args:
        model: a trained ID-CVAE.
        x: (N, C, H, W) images in [0, 1].
        label: (N,) or one label l, normally `model.predict(x)`.
        prototype: (n_classes, latent_dim) of `class_prototypes`.
        steps: n; the paper does not say, 9 gives ten images.

    Returns:
        (N, steps + 1, C, H, W) in [0, 1].
    """
    if not torch.isfinite(x).all():
        raise ValueError("images hold NaN or infinite values; expected finite numbers in [0, 1]")
    if tuple(prototype.shape) != (model.n_classes, model.latent_dim):
        raise ValueError(
            f"prototype has shape {tuple(prototype.shape)}; expected {(model.n_classes, model.latent_dim)}, one row a "
            "class, as class_prototypes(model, loader) gives"
        )
    start = model.encode(x)[0]
    labels = torch.as_tensor(label, device=start.device).expand(len(start))
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < model.n_classes:
        raise ValueError(f"labels {labels.unique().tolist()}: expected 0 … {model.n_classes - 1}")
    return decode_path(model, straight_path(start, prototype[labels], steps), labels)
