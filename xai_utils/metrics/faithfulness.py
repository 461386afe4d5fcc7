"""Insertion and deletion: whether the pixels that a map ranks first are those that the score depends on."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.folded import images_per_batch, scoring
from ..models.forward import Output, Target
from ..seeds import generator

BASELINES = ("zero", "black", "blur", "mean")
TIES = ("reading", "random", "together")
FEWEST = 16  # pictures of a batch
Normalization = tuple[Sequence[float] | Tensor | float, Sequence[float] | Tensor | float]


class Faithfulness(NamedTuple):
    """Curves of N images over S + 1 fractions of their pixels, and the areas under them."""

    fractions: Tensor  # (S + 1,): share of the pixels inserted or deleted, from 0 to 1
    insertion: Tensor  # (N, S + 1): the target's score with the first pixels inserted into the baseline; high is good
    deletion: Tensor  # (N, S + 1): with the first pixels replaced by the baseline; low is good
    insertion_auc: Tensor  # (N,)
    deletion_auc: Tensor  # (N,)
    id_score: Tensor  # (N,): insertion_auc - deletion_auc; high is good
    tied: Tensor  # (N,): share of the map's pixels whose value another pixel has, too; above 0, `ties` matters


class PixelOrder(NamedTuple):
    """When the pixels of N images come in (insertion), or go (deletion); see `pixel_order`."""

    entry: Tensor  # (N, H, W), integer: the step, from 1 to S, at which each pixel does
    first: Tensor  # (S + 1,): k_s, the pixels that have been asked for after s steps, from 0 to H·W
    tied: Tensor  # (N,), float64: share of the map's pixels whose value another pixel has, too


def insertion_deletion(
    model: nn.Module,
    inputs: Tensor,
    saliency: Tensor,
    target: Target = None,
    *,
    steps: int = 50,
    baseline: str | Tensor = "zero",
    normalization: Normalization | None = None,
    ties: str = "reading",
    seed: int = 0,
    score: str = "probability",
    output: Output = None,
    batch_size: int | None = None,
) -> Faithfulness:
    """Insertion and deletion curves (Petsiuk et al. 2018; paper 5, eq. (7) and (8)), and the ID score.

    Pixels in order of falling saliency; at step s of S the first k_s = round(s·P/S) of the P pixels (half to even). A
    curve's area is by trapezoids over the fractions k_s / P. Both curves share their end points, the baseline and the
    image. The scale of the result depends on the baseline: state it.

    Where many pixels are equal, the result depends on their order, too: state `ties`, and `tied` beside it. Take a map
    that is 1 at one pixel and 0 elsewhere (or blank), and more than one pixel a step. In reading order the image comes
    in from the top left, line by line, whatever it shows, and the ID score is that of reading order. Together, the
    first step already takes all the zeros: the whole image is in (or gone) at once, and the ID score is
    (1 − k_1/P) (full − empty), about the most that any map can have. The map says nothing.

    Args:
        model: returns logits (N, K), or a single output, which is then the score. Left as found.
        inputs: images (N, C, H, W).
        saliency: maps (N, H, W), of any scale.
        target: class index (int or (N,)); None = the single output; a callable: outputs -> (B,) scores, as they are.
        steps: S, at most the number of pixels.
        baseline: "zero" in the images' own units (paper 5); "black", 0 before `normalization`; "blur", a Gaussian of 11
            pixels and σ = 5, reflected at the borders; "mean", each image's mean colour; or values that broadcast to
            (N, C, H, W).
        normalization: mean and standard deviation per channel that the images were normalised with; "black" needs it.
        ties: how equal pixels are ordered. "reading": from the top left, line by line (eq. (7) by the letter, which
            says nothing of equal values). "random": shuffled, an order for each image. "together": at step s every
            pixel that is at least as high as the k_s-th one, which may be many more than k_s (as the later public code
            of paper 5's authors has it); the fractions remain k_s / P, what was asked for.
        seed: of the order with ties="random"; image n of a call has the n-th order.
        score: "probability" of the target; "sigmoid" of its output, for several labels at once; or "logit" for the
            model's output as it is.
        output: which part of what the model returns, a key, field, index or callable; None = all of it.
        batch_size: images per forward pass, across images and steps; None = what runs best.

    Raises:
        TypeError, ValueError: arguments that do not fit together; see `scoring` for those about the model.
    """
    order = pixel_order(saliency, steps, ties=ties, seed=seed)
    options = {"baseline": baseline, "normalization": normalization, "score": score, "output": output}
    return score_orders(model, inputs, [order], target, **options, batch_size=batch_size)[0]


def pixel_order(saliency: Tensor, steps: int = 50, *, ties: str = "reading", seed: int = 0) -> PixelOrder:
    """Order of falling saliency in `steps` steps, of maps (N, H, W): what `insertion_deletion` follows, with its ties.

    Raises:
        ValueError: maps of another shape, or with NaN; a number of steps, or a name of an order, that is not allowed.
    """
    if not isinstance(saliency, Tensor) or saliency.ndim != 3:
        got = tuple(saliency.shape) if isinstance(saliency, Tensor) else type(saliency).__name__
        raise ValueError(f"saliency: got {got}; expected a tensor (N, H, W), one map per image and of its size")
    if saliency.isnan().any():
        bad = saliency.isnan().flatten(1).any(1).nonzero()[:5, 0].tolist()
        raise ValueError(f"saliency: maps {bad} hold NaN; remove or repair them")
    if ties not in TIES:
        raise ValueError(f"ties: got {ties!r}; expected reading, random or together")
    values = saliency.detach().flatten(1)
    asked = _first_pixels(steps, values.shape[1]).to(values.device)
    if ties == "random":  # the sort is stable: shuffled before it, equal pixels come out shuffled
        drawn = torch.rand(values.shape, generator=generator(seed, "ties"), dtype=torch.float64, device="cpu")
        mixed = drawn.argsort(1).to(values.device)
        values = values.gather(1, mixed)
    order = values.argsort(dim=1, descending=True, stable=True)
    falling = values.gather(1, order)
    if ties == "random":
        order = mixed.gather(1, order)
    first = torch.ones_like(order, dtype=torch.bool)  # whether a place is the first one of its value
    first[:, 1:] = falling[:, 1:] != falling[:, :-1]
    tied = (~(first & first.roll(-1, 1))).double().mean(1)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    if ties == "together":  # equal pixels share the place of the first of them
        places = places.where(first, 0).cummax(1).values
    entered = torch.searchsorted(asked, places.contiguous(), right=True)
    entered = entered.to((torch.int32, torch.uint8)[steps < 256])  # a byte a pixel: many orders fit into memory
    return PixelOrder(torch.empty_like(entered).scatter_(1, order, entered).view(saliency.shape), asked, tied)


def score_orders(
    model: nn.Module,
    inputs: Tensor,
    orders: Sequence[PixelOrder],
    target: Target = None,
    *,
    baseline: str | Tensor = "zero",
    normalization: Normalization | None = None,
    score: str = "probability",
    output: Output = None,
    batch_size: int | None = None,
) -> list[Faithfulness]:
    """`insertion_deletion` of many orders of the same images, each picture scored once, whatever orders show it.

    So all orders share the baseline and the image, and the orders of a map's equal pixels share every step that these
    do not lie across. The results are those of one order at a time, to the bit: a last batch of fewer than `FEWEST`
    pictures is filled up, as below that a convolution's last bits depend on their number (measured on the CPU).

    `orders` are of the images' pixels, all with the same number of steps; see `insertion_deletion` for the rest.

    Raises:
        TypeError, ValueError: as `insertion_deletion`; orders with another number of images, pixels or steps.
    """
    with scoring(model, inputs, target, score, output) as (images, scores):
        expected = (len(images), *images.shape[2:])
        for order in orders:
            if order.entry.shape != expected:
                got = f"saliency: got {tuple(order.entry.shape)}"
                raise ValueError(f"{got}; expected a tensor {expected}, one map per image and of its size")
        if len({len(order.first) for order in orders}) != 1:
            got = [len(order.first) - 1 for order in orders]
            raise ValueError(f"orders: got {got} steps; expected one order or more, of the same number of steps")
        hidden = _baseline(baseline, images, normalization)
        steps, entries = len(orders[0].first) - 1, [order.entry.cpu() for order in orders]
        # what a picture shows of the image: the pixels that enter after this step, up to that one
        shown = [(0, 0), (0, steps), *((0, s) for s in range(1, steps)), *((s, steps) for s in range(1, steps))]
        pictures, places = _distinct([entry.numpy() for entry in entries], shown)
        size, values = images_per_batch(images, batch_size), []
        lacking = max(0, FEWEST - size + -len(pictures) % size) * (size >= FEWEST)
        for batch in torch.cat([pictures, pictures[-1:].expand(lacking, -1)]).split(size):
            n = batch[:, 0].to(images.device)
            entry = torch.stack([entries[order][image] for image, order, _, _ in batch.tolist()]).to(images.device)
            start, end = batch[:, 2:, None, None].to(images.device).unbind(1)
            inside = (entry > start) & (entry <= end)
            values.append(scores(torch.where(inside[:, None], images[n], hidden[n]), n))
    values = torch.cat(values)[places.to(images.device)].view(len(images), len(orders), len(shown))
    return [_curves(*pair) for pair in zip(values.unbind(1), orders, strict=True)]


def _distinct(entries: Sequence[np.ndarray], shown: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Each picture of an image once: (U, 4), its image, an order and the steps; and which it is for all (N·M·R,)."""
    pictures, places = [], []
    for n in range(len(entries[0])):
        seen: dict[bytes, int] = {}
        for order, entry in enumerate(entries):
            for start, end in shown:
                bits = np.packbits((entry[n] > start) & (entry[n] <= end))
                known = seen.setdefault(blake2b(bits, digest_size=16).digest(), len(pictures))
                if known == len(pictures):
                    pictures.append((n, order, start, end))
                places.append(known)
    return torch.tensor(pictures, device="cpu"), torch.tensor(places, device="cpu")


def _curves(values: Tensor, order: PixelOrder) -> Faithfulness:
    """Curves and areas from the scores (N, 2 S) of the empty and the full image, of insertion and of deletion."""
    steps = len(order.first) - 1
    empty, full, inserted, deleted = values.split([1, 1, steps - 1, steps - 1], 1)
    fractions = (order.first.double() / order.entry[0].numel()).to(empty)
    insertion, deletion = torch.cat([empty, inserted, full], 1), torch.cat([full, deleted, empty], 1)
    areas = torch.trapezoid(insertion, fractions), torch.trapezoid(deletion, fractions)
    return Faithfulness(fractions, insertion, deletion, *areas, areas[0] - areas[1], order.tied.to(empty))


def _first_pixels(steps: int, pixels: int) -> Tensor:
    """k_s = round(s·P/S), s = 0 … S: (S + 1,)."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= pixels:
        raise ValueError(f"steps: got {steps!r}; expected an integer from 1 to the number of pixels, {pixels}")
    return torch.from_numpy(np.rint(np.arange(steps + 1) * pixels / steps)).long()


def _baseline(baseline: str | Tensor, images: Tensor, normalization: Normalization | None) -> Tensor:
    """Pixels that hide those of the images: (N, C, H, W)."""
    if isinstance(baseline, Tensor):
        try:
            values = baseline.detach().to(images).broadcast_to(images.shape)
        except RuntimeError:
            got, expected = tuple(baseline.shape), tuple(images.shape)
            raise ValueError(f"baseline: got shape {got}; expected one that broadcasts to {expected}") from None
        if not torch.isfinite(values).all():
            raise ValueError("baseline: holds NaN or infinite values; expected finite ones")
        return values
    if baseline not in BASELINES:
        raise ValueError(f"baseline: got {baseline!r}; expected {', '.join(BASELINES)} or a tensor")
    if baseline == "zero":
        return torch.zeros_like(images)
    if baseline == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    return _black(images, normalization) if baseline == "black" else _blurred(images)


def _black(images: Tensor, normalization: Normalization | None) -> Tensor:
    channels = images.shape[1]
    if normalization is None:
        raise ValueError('normalization: got None; baseline "black" needs the (mean, std) that images were divided by')
    try:
        mean, std = (
            torch.as_tensor(part, dtype=torch.float64, device="cpu").to(images).broadcast_to((channels,))
            for part in normalization
        )
    except (RuntimeError, TypeError, ValueError):
        expected = f"(mean, std), each a number or {channels} of them"
        raise ValueError(f"normalization: got {normalization!r}; expected {expected}") from None
    if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
        raise ValueError(f"normalization: got {normalization!r}; expected finite means and positive deviations")
    return (-mean / std)[:, None, None].expand_as(images)


def _blurred(images: Tensor, length: int = 11, sigma: float = 5.0) -> Tensor:
    reach, channels = length // 2, images.shape[1]
    if min(images.shape[2:]) <= reach:
        expected = f"at least {reach + 1} pixels per side"
        raise ValueError(f'baseline: got "blur" for images of {tuple(images.shape[2:])}; expected {expected}')
    offsets = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, length)
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    with torch.autocast(images.device.type, enabled=False):
        return F.conv2d(F.conv2d(padded, kernel, groups=channels), kernel.mT, groups=channels)
