"""LIME, SHAP and integrated gradients: thin adapters over lime, shap and captum with the explainers' one signature.

They explain the target's logit, or its probability. Images are explained one by one with the same seed, so that a map
depends neither on its place in the batch nor on the other images. The libraries are imported on first use.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..models.forward import (
    Output,
    Target,
    check_images,
    check_rows,
    preserve_state,
    run_model,
    target_indices,
    target_scores,
)
from ..models.gradients import gradients_on, is_of_checkpoint, without_checkpoints
from ..models.scores import check_score, precise, refuse_probabilities
from ..progress import bar

_numpy_global = threading.RLock()
Score = Callable[[Tensor], Tensor]  # images (B, C, H, W) -> the target's score (B,)


@dataclass(eq=False, repr=False)
class _Baseline:
    model: nn.Module
    _: KW_ONLY
    score: str = "logit"  # or "probability", after softmax; "sigmoid", of several labels at once
    output: Output = None  # which part of what the model returns: a key, field, index or callable
    seed: int = 0
    batch_size: int = 128  # perturbed images per forward pass

    def __post_init__(self) -> None:
        check_score(self.score)
        counts = ("batch_size", "n_samples", "max_evals", "steps")
        for name, least in [("seed", 0)] + [(name, 1) for name in counts if hasattr(self, name)]:
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)!r}; expected an integer of {least} or more")

    def attribute(self, inputs: Tensor, target: Target = None) -> Tensor:
        """Return the maps (N, H, W); see `Explainer`."""
        images = check_images(inputs)
        with preserve_state(self.model), torch.no_grad():
            first = run_model(self.model, images[:1], self.output)
            targets = [target] * len(images)
            if callable(target):
                target_scores(first, target, 1)
            else:  # the number of outputs decides which are valid
                rows = check_rows(first, 1).expand(len(images), *first.shape[1:])
                targets = target_indices(rows, target).tolist()
                if self.score == "probability" and first.numel() == 1:
                    raise ValueError('score: got "probability" for a model with one output; use "logit" or "sigmoid"')
                refuse_probabilities(self.model, images[:1], first, self.score, self.output)
            passes = next(getattr(self, name) for name in ("n_samples", "max_evals", "steps") if hasattr(self, name))
            with bar(passes * len(images), "changed image") as done:  # shap may take a few more or less
                score = partial(self._score, done=done)
                maps = [self._map(image, partial(score, target=targets[i]), i) for i, image in enumerate(images)]
        result = torch.stack(maps).to(inputs)
        if not torch.isfinite(result).all():
            raise ValueError("the map holds NaN or infinite values: the model's outputs near an image are not finite")
        return result

    def _score(self, images: Tensor, target: Target, done: tqdm) -> Tensor:
        outputs = run_model(self.model, images, self.output)
        done.update(len(images))
        if callable(target):
            return target_scores(outputs, target, len(images))
        outputs = precise(outputs, self.score)
        return target_scores(outputs.softmax(1) if self.score == "probability" else outputs, target, len(images))

    def _scores(self, rows: Tensor, score: Score) -> np.ndarray:
        return np.concatenate([score(batch).detach().double().cpu().numpy() for batch in rows.split(self.batch_size)])

    def _masked_scores(
        self, shown: np.ndarray, *, image: Tensor, hidden: Tensor, labels: Tensor, score: Score
    ) -> np.ndarray:
        """Scores (B,) of the image with the segments where `shown` (B, segments) is 0 replaced by `hidden`."""
        rows = torch.from_numpy(shown > 0).to(image.device)
        return self._scores(rows, lambda on: score(torch.where(on[:, labels][:, None], image, hidden)))

    def _map(self, image: Tensor, score: Score, i: int) -> Tensor:
        raise NotImplementedError  # the map (H, W) of image i (C, H, W)


@dataclass(eq=False, repr=False, kw_only=True)
class Lime(_Baseline):
    """LIME (Ribeiro et al. 2016) by the `lime` library: ridge regression of the score on which segments are shown.

    A pixel gets its segment's coefficient. Sampling, distance, kernel and regression are the library's own.

    Attributes:
        segments: cells per side of a regular grid, or labels (H, W) or (N, H, W).
        baseline: value of a hidden pixel; None = the mean of its segment.
        alpha, kernel_width: ridge penalty, and width of the kernel over cosine distances.
    """

    n_samples: int = 1000
    segments: int | Tensor = 7
    baseline: float | None = None
    alpha: float = 1.0
    kernel_width: float = 0.25

    def _map(self, image: Tensor, score: Score, i: int) -> Tensor:
        from lime.lime_image import LimeImageExplainer
        from sklearn.linear_model import Ridge

        if len(image) not in (1, 3):
            raise ValueError(f"inputs: got {len(image)} channels; LIME takes images of one or three")
        labels = _segments(self.segments, image, i)
        random = _random_state(self.seed)
        lime = LimeImageExplainer(self.kernel_width, feature_selection="none", random_state=random)

        def sample(_: np.ndarray, hidden: np.ndarray, *_args: object, **_options: object) -> tuple:
            shown = random.randint(0, 2, (self.n_samples, int(labels.max()) + 1))
            shown[0] = 1  # the image itself
            hidden = torch.from_numpy(hidden).to(image).permute(2, 0, 1)[: len(image)]
            scores = self._masked_scores(shown, image=image, hidden=hidden, labels=labels, score=score)
            return shown, scores[:, None]

        lime.data_labels = sample  # the numbers of lime's own, without its progress bar and copies of the image
        result = lime.explain_instance(
            _pixels(image.expand(3, -1, -1)),
            classifier_fn=None,
            labels=(0,),
            top_labels=None,
            hide_color=self.baseline,
            segmentation_fn=lambda _: labels.cpu().numpy(),
            model_regressor=Ridge(alpha=self.alpha),
        )
        weights = dict(result.local_exp[0])
        values = [weights[segment] for segment in range(len(weights))]
        return torch.tensor(values, dtype=torch.float64, device="cpu")[labels.cpu()]


@dataclass(eq=False, repr=False, kw_only=True)
class KernelShap(_Baseline):
    """Kernel SHAP (Lundberg & Lee 2017) by the `shap` library: Shapley values of segments.

    A segment's value is spread evenly over its pixels: a map sums to f(image) − f(baseline).

    Attributes:
        n_samples: masked images per image, at least twice the number of segments.
        segments: cells per side of a regular grid, or labels (H, W) or (N, H, W).
        baseline: value of a hidden pixel, or an image (C, H, W).
    """

    n_samples: int = 1000
    segments: int | Tensor = 7
    baseline: float | Tensor = 0.0

    def _map(self, image: Tensor, score: Score, i: int) -> Tensor:
        import shap

        labels, hidden = _segments(self.segments, image, i), _hidden(self.baseline, image)
        sizes = torch.bincount(labels.flatten()).cpu()
        least = 2 * len(sizes)
        if self.n_samples < least:
            raise ValueError(f"n_samples: got {self.n_samples} for {len(sizes)} segments; expected at least {least}")
        f = partial(self._masked_scores, image=image, hidden=hidden, labels=labels, score=score)
        with _numpy_seeded(self.seed):
            explainer = shap.KernelExplainer(f, np.zeros((1, len(sizes))))
            shown = np.ones((1, len(sizes)))
            values = explainer.shap_values(shown, nsamples=self.n_samples, l1_reg=False, silent=True)
        return (torch.from_numpy(values[0]) / sizes)[labels.cpu()]


@dataclass(eq=False, repr=False, kw_only=True)
class ShapPartition(_Baseline):
    """Owen values by `shap.PartitionExplainer`: the image is halved again and again where that matters most.

    A map sums to f(image) − f(baseline).

    Attributes:
        max_evals: masked images per image.
        baseline: value of a hidden pixel, or an image (C, H, W).
    """

    max_evals: int = 500
    baseline: float | Tensor = 0.0

    def _map(self, image: Tensor, score: Score, i: int) -> Tensor:
        import shap

        def f(pixels: np.ndarray) -> np.ndarray:  # (B, H, W, C)
            return self._scores(torch.from_numpy(pixels).to(image).permute(0, 3, 1, 2), score)

        pixels, hidden = _pixels(image), _pixels(_hidden(self.baseline, image))
        with _numpy_seeded(self.seed):  # it decides which of two equally important parts is halved first
            explainer = shap.PartitionExplainer(f, shap.maskers.Image(hidden, pixels.shape))
            result = explainer(pixels[None], max_evals=self.max_evals, batch_size=self.batch_size, silent=True)
        return torch.from_numpy(result.values[0].sum(2))


@dataclass(eq=False, repr=False, kw_only=True)
class IntegratedGradients(_Baseline):
    """Integrated gradients (Sundararajan et al. 2017) by captum, summed over channels; nothing in it is random.

    A map sums to f(image) − f(baseline), up to the error of the integration.

    Attributes:
        steps: points of the Gauss-Legendre rule.
        baseline: value of a pixel where the path starts, or an image (C, H, W).
    """

    steps: int = 50
    baseline: float | Tensor = 0.0

    def _map(self, image: Tensor, score: Score, i: int) -> Tensor:
        from captum.attr import IntegratedGradients as Captum

        start, device = _hidden(self.baseline, image)[None], torch.get_default_device()
        options = {"n_steps": self.steps, "internal_batch_size": self.batch_size}

        def watched(images: Tensor) -> Tensor:  # the model has the caller's default device, captum the usual one
            with gradients_on(), nullcontext() if device.type == "cpu" else device:
                return score(images)

        with nullcontext() if device.type == "cpu" else torch.device("cpu"):
            try:
                found = Captum(watched).attribute(image[None], start, **options)
            except RuntimeError as error:
                if not is_of_checkpoint(error):
                    raise
                with without_checkpoints():
                    found = Captum(watched).attribute(image[None], start, **options)
            return found[0].detach().sum(0)


def _segments(segments: int | Tensor, image: Tensor, i: int) -> Tensor:
    """Labels (H, W) of image i, from 0 without gaps."""
    height, width = image.shape[1:]
    if not isinstance(segments, Tensor):
        if not 1 <= segments <= min(height, width):
            raise ValueError(f"segments: got {segments}; expected 1 … {min(height, width)} cells per side, or labels")
        rows, columns = (torch.arange(n, device=image.device) * segments // n for n in (height, width))
        return rows[:, None] * segments + columns
    labels = segments[i] if segments.ndim == 3 and i < len(segments) else segments
    if labels.is_floating_point() or labels.shape != (height, width):
        got = f"{segments.dtype} of shape {tuple(segments.shape)}"
        raise ValueError(f"segments: got {got}; expected integers ({height}, {width}), for all or for each image")
    return labels.to(image.device).unique(return_inverse=True)[1]


def _hidden(baseline: float | Tensor, image: Tensor) -> Tensor:
    value = torch.as_tensor(baseline, dtype=image.dtype, device=image.device)
    if value.shape not in ((), image.shape) or not torch.isfinite(value).all():
        got = f"shape {tuple(value.shape)}" if value.ndim else float(value)
        raise ValueError(f"baseline: got {got}; expected a finite value or an image of shape {tuple(image.shape)}")
    return value.expand(image.shape)


def _pixels(image: Tensor) -> np.ndarray:
    return image.double().permute(1, 2, 0).cpu().numpy()


def _random_state(seed: int) -> np.random.RandomState:
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which shap draws from, and put its state back; one thread at a time."""
    with _numpy_global:
        state = np.random.get_state()
        np.random.set_state(_random_state(seed).get_state())
        try:
            yield
        finally:
            np.random.set_state(state)
