"""Paper 1: what the morphs of misclassified images show, measured beside controls (claims P1.3 and P1.4).

z_n, and so D(z_n, l), is the same picture for every input of predicted class l, and even frame 0 is decoded with l.
"The end of the path looks like the class" therefore proves nothing: only the frames between are measured, by a
classifier and a realism band that never saw the ID-CVAE.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_utils.data.imageset import ImageSet
from xai_utils.explain.morphing import ConditionalAutoencoder, decode_path, path_along_data
from xai_utils.metrics import estimates, statistics
from xai_utils.metrics.statistics import Estimate
from xai_utils.seeds import numpy_rng


class Realism(Protocol):
    """`metrics.realism.RealismBand`: how far an image is from the training images of a class."""

    def realism(self, images: Tensor, labels: Tensor) -> Tensor:
        """Distance to the nearest training image of the class over the class's median: (N,)."""

    def odd(self, images: Tensor, labels: Tensor) -> Tensor:
        """Whether that distance lies outside the class's 95 % band: (N,) bool."""


def layers(model: nn.Module) -> list[tuple[str, str, str, int]]:
    """Fig. 5 as rows (part, layer, output shape, parameters) of an `IDCVAE`, in the order of the forward pass."""
    rows, hooks = [], []

    def note(part: str) -> Callable:
        def hook(layer: nn.Module, _inputs: tuple, output: Tensor) -> None:
            shape = "×".join(map(str, output.shape[1:]))
            rows.append((part, type(layer).__name__, shape, sum(p.numel() for p in layer.parameters())))

        return hook

    for name, layer in model.named_modules():
        if not list(layer.children()):
            hooks.append(layer.register_forward_hook(note(name.split(".")[0])))
    try:
        with torch.no_grad():
            model(torch.zeros(1, *model.image_shape, device=next(model.parameters()).device), 0)
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def shifted(batch: tuple[Tensor, Tensor], generator: torch.Generator, pixels: int) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) moved by up to `pixels` each way, zeros behind; each image by its own draw."""
    images, labels = batch
    n, channels, height, width = images.shape
    dy, dx = torch.randint(0, 2 * pixels + 1, (2, n, 1, 1, 1), generator=generator).to(images.device)
    rows = torch.arange(height, device=images.device)[:, None] + dy
    columns = torch.arange(width, device=images.device) + dx
    which = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return F.pad(images, (pixels,) * 4)[which, channel, rows, columns], labels


@torch.no_grad()
def in_batches(network: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """The network's outputs (N, …) of images (N, C, H, W), `batch_size` at a time."""
    return torch.cat([network(part) for part in images.split(batch_size)])


def label_ranking(losses: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted label (eq. 1) and runner-up of `IDCVAE.label_losses` (N, n_classes): two (N,) tensors."""
    first, second = losses.topk(2, dim=1, largest=False).indices.unbind(dim=1)
    return first, second


def clearest_mistake(losses: Tensor, true: Tensor, pair: tuple[int, int]) -> int:
    """Row of the misclassified image whose predicted label redraws it best, compared with its true label.

    Args:
        losses: (N, n_classes) of `IDCVAE.label_losses`, misclassified images only.
        true: (N,) their labels.
        pair: (true, predicted) label; preferred where such a mistake exists.
    """
    if not len(losses):
        raise ValueError("no misclassified image: figures 1, 2 and 6 need one; take fewer epochs or more test images")
    margin = losses.gather(1, true[:, None])[:, 0] - losses.amin(dim=1)
    preferred = (true == pair[0]) & (losses.argmin(dim=1) == pair[1])
    return int(torch.where(preferred | ~preferred.any(), margin, -torch.inf).argmax())


@torch.no_grad()
def data_paths(
    model: ConditionalAutoencoder,
    prototypes: Tensor,
    x: Tensor,
    label: Tensor,
    training: tuple[Tensor, Tensor],
    steps: int,
    neighbours: int,
) -> Tensor:
    """`path_along_data` for a mixed batch, class by class: (N, steps + 1, f).

    Args:
        model: a trained ID-CVAE.
        prototypes: (n_classes, f) of `class_prototypes`.
        x: (N, C, H, W) inputs and `label` (N,) their predicted classes.
        label: see x.
        training: images and labels of the training set, whose encodings the paths follow.
        steps: n of eq. (2).
        neighbours: edges per training code.
    """
    start = model.encode(x)[0]
    images, labels = training
    paths = torch.empty(len(x), steps + 1, start.shape[1], dtype=start.dtype, device=start.device)
    for each in label.unique().tolist():
        members = images[labels == each]
        codes = torch.cat([model.encode(part.to(start.device))[0] for part in members.split(1000)])
        inputs = label == each
        paths[inputs] = path_along_data(start[inputs], prototypes[each], codes, steps, neighbours)
    return paths


@torch.no_grad()
def morph_measures(
    model: ConditionalAutoencoder,
    judge: Callable[[Tensor], Tensor],
    features: Callable[[Tensor], Tensor],
    band: Realism,
    x: Tensor,
    paths: Tensor,
    true: Tensor,
    predicted: Tensor,
    runner_up: Tensor,
) -> pd.DataFrame:
    """One row per input: the measures (a)–(c) of claims P1.3 and P1.4.

    (a) distance_predicted, distance_true: from x to D(z_0, predicted label) and to D(z_0, true label), Euclidean
    in `features`. (b) probability_morph: the judge's probability of the predicted class, and realism_morph: the
    distance to the class's nearest training image over the class's own median, both averaged over the frames
    between the ends; odd_frames: how many of those lie outside the class's 95 % band; worst_realism. (c) controls:
    the same path decoded with the true (…_true_label) and the runner-up label (…_runner_up), and a pixel blend
    from x to D(z_n, predicted label) (…_blend).

    Args:
        model: a trained ID-CVAE.
        judge: images (N, C, H, W) -> logits (N, n_classes) of an independent classifier.
        features: images -> (N, d) features of an independent classifier.
        band: realism fitted on the training images.
        x: (N, C, H, W) inputs.
        paths: (N, n + 1, f) latents from E(x) to the prototype of the predicted class, n ≥ 2.
        true: (N,) labels; with `predicted` and `runner_up` of `label_ranking`.
        predicted: see true.
        runner_up: see true.
    """
    if paths.shape[1] < 3:
        raise ValueError(f"paths have {paths.shape[1]} latents: at least 3 are needed for a frame between the ends")
    frames = {
        "morph": decode_path(model, paths, predicted),
        "true_label": decode_path(model, paths, true),
        "runner_up": decode_path(model, paths, runner_up),
    }
    share = torch.linspace(0, 1, paths.shape[1], dtype=x.dtype, device=x.device)[:, None, None, None]
    frames["blend"] = torch.lerp(x[:, None], frames["morph"][:, -1:], share)

    def distance(images: Tensor) -> Tensor:
        return (features(images) - features(x)).flatten(1).norm(dim=1)

    columns = {
        "true": true,
        "predicted": predicted,
        "runner_up": runner_up,
        "distance_predicted": distance(frames["morph"][:, 0]),
        "distance_true": distance(frames["true_label"][:, 0]),
    }
    for name, images in frames.items():
        between = images[:, 1:-1]
        labels = predicted.repeat_interleave(between.shape[1])
        flat = between.flatten(0, 1)
        probability = judge(flat).softmax(dim=1).gather(1, labels[:, None])
        columns[f"probability_{name}"] = probability.view(len(x), -1).mean(dim=1)
        realism = band.realism(flat, labels).view(len(x), -1)
        columns[f"realism_{name}"] = realism.mean(dim=1)
        if name == "morph":
            columns["worst_realism"] = realism.amax(dim=1)
            columns["odd_frames"] = band.odd(flat, labels).view(len(x), -1).sum(dim=1)
    return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})


def odd_frames(band: Realism, frames: Tensor, labels: Tensor) -> Tensor:
    """Which of the frames (N, n + 1, C, H, W) lie outside the band of their row's class: (N, n + 1) bool."""
    n, steps = frames.shape[:2]
    return band.odd(frames.flatten(0, 1), labels.repeat_interleave(steps)).view(n, steps)


def study_sheet(images: Sequence[str], methods: Sequence[str], raters: int, seed: int) -> pd.DataFrame:
    """A rating sheet for the half of P1.3 that needs people: each rater sees each image once with each method.

    The order is random, and another one for every rater. Returns columns rater, trial, image, method and an empty
    rating (1 = explains the decision not at all … 5 = fully).
    """
    trials = [(image, method) for image in images for method in methods]
    rows = []
    for rater in range(1, raters + 1):
        order = numpy_rng(seed, "study", rater).permutation(len(trials))
        rows += [(rater, number, *trials[index], pd.NA) for number, index in enumerate(order, start=1)]
    return pd.DataFrame(rows, columns=["rater", "trial", "image", "method", "rating"])


def share(hits: np.ndarray, images: ImageSet, seed: int) -> Estimate:
    """Share of `hits` (N,) bool of N images: Wilson's interval, or over their groups where these are known."""
    if images.groups is not None:
        return estimates.mean(hits, images.groups, seed)
    return statistics.proportion(int(hits.sum()), len(hits))


def mean_over(images: ImageSet, seed: int, values: np.ndarray) -> Estimate:
    """Mean of values (N,) of N images with its bootstrap interval, over their groups where these are known."""
    try:
        return statistics.bootstrap(values, clusters=images.groups, seed=seed)
    except ValueError as error:  # of one image or group nothing can be told
        return Estimate(None, len(values), note=str(error))
