"""Many forward passes of one model: a private copy that runs faster, and the scores of changed images by it.

What masks or removes parts of images (RISE, insertion and deletion) is nothing but forward passes of an unchanging
model. BatchNorm is a constant there: the convolution before it takes it over.
"""

import copy
import itertools
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pickle import PicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .forward import (
    Output,
    Target,
    check_images,
    check_rows,
    choose_output,
    preserve_state,
    run_model,
    target_indices,
    target_scores,
)
from .scores import check_score, precise, refuse_probabilities

AGREEMENT = 1e-5  # of the copy's outputs with the model's, relative to the largest (or absolute, if that is below 1)
# how a foreign model fails as a copy: it cannot be copied or gains nothing (LookupError), or its forward pass asks for
# the modules, attributes or memory formats that it was written with
_NO_COPY = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, copy.Error, PicklingError)
IMAGES_224 = 8  # of 224×224 pixels that a processor takes best at once; larger batches only cost memory


@contextmanager
def scoring(
    model: nn.Module, inputs: Tensor, target: Target, score: str = "probability", output: Output = None
) -> Iterator[tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]]:
    """Yield the images, detached, and `scores(changed, which)`: the score (B,) of versions (B, C, H, W) of them.

    `which` (B,) says of which image each is a version, so about which target. The model runs in evaluation mode,
    without gradients, by its `fast_copy`, and is left as found. A model with a single output scores by that output.
    Scores of a half-precision model are float32.

    Args:
        model: returns logits (N, K), or (N, 1) or (N,) for a single output.
        inputs: the images themselves (N, C, H, W).
        target: class index (int or (N,)); None = the single output; a callable: outputs -> (B,) scores, as they are.
        score: "probability" of the target, after softmax; "sigmoid" of its output, for several labels at once; or
            "logit": the output as it is.
        output: which part of what the model returns; see `choose_output`.

    Raises:
        TypeError, ValueError: inputs, target or score that do not fit; probabilities asked of a model that ends in
            softmax or sigmoid already; outputs that are not finite.
    """
    check_score(score)
    images = check_images(inputs)
    with preserve_state(model), torch.no_grad():
        few = images[:4].clone()  # for models that write into their input
        read = partial(_read, target=target, output=output)
        outputs = read(run_model(model, few), n_images=len(few))
        if callable(target):
            indices, score = torch.zeros(len(images), dtype=torch.int64, device=images.device), "logit"
        else:
            indices = target_indices(outputs[:1].expand(len(images), *outputs.shape[1:]), target)
        probability = score == "probability" and outputs[:1].numel() > 1
        refuse_probabilities(model, images[:1], outputs, score, output)
        fast = fast_copy(model, few, outputs, partial(read, n_images=len(few)))

        def scores(changed: Tensor, which: Tensor) -> Tensor:
            with torch.no_grad():  # a forward may have switched gradients on
                outputs = precise(read(fast(changed), n_images=len(changed)), score)
            values = target_scores(outputs.softmax(1) if probability else outputs, indices[which])
            if not torch.isfinite(values).all():
                raise ValueError("the model's outputs hold NaN or infinite values for changed versions of the images")
            return values.detach()

        yield images, scores


def _read(returned: Any, target: Target, output: Output, n_images: int) -> Tensor:
    """Outputs (N, K) or (N,) of what a model returned; of a callable target its scores."""
    outputs = choose_output(returned, output)
    return target_scores(outputs, target, n_images) if callable(target) else check_rows(outputs, n_images)


def images_per_batch(inputs: Tensor, batch_size: int | None) -> int:
    """Return `batch_size`, or for None the number of images like `inputs` that one forward pass takes best.

    Raises:
        ValueError: a number that is not a positive integer.
    """
    if batch_size is None:
        images = IMAGES_224
        if inputs.device.type != "cpu":
            images *= 16
        elif torch.get_num_threads() == 1:  # oneDNN takes a 1×1 convolution on one thread from 16 images on only
            images *= 2
        return max(1, images * 224**2 // (inputs.shape[2] * inputs.shape[3]))
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size!r}; expected a positive integer, or None for the best one")
    return batch_size


@torch.no_grad()
def fast_copy(
    model: nn.Module, images: Tensor, outputs: Tensor, read: Callable[[Any], Tensor] = lambda returned: returned
) -> Callable[[Tensor], Any]:
    """Return a faster equal of `model`, which is in evaluation mode, or `model` itself where there is none.

    Each BatchNorm2d that takes a Conv2d's output is folded into a copy of that convolution; in float32 on the CPU the
    convolutions also run channels last. The pairs are found by running the copy on one image, so the model may be
    written in any way. The copy is used only if its outputs for `images` (what `read` makes of what it returns) agree
    with `outputs`, the model's own, to `AGREEMENT`; the model itself runs for a batch that takes another path through
    the copy, or whose memory format it does not allow. Running out of memory is no such failure: it is raised. The copy
    shares the model's parameters but the convolutions'.
    """
    for channels_last in (True, False) if images.dtype == torch.float32 and images.device.type == "cpu" else (False,):
        try:
            copied = _FoldedCopy(model, images[:1], channels_last)
            found = read(copied(images))
            difference = (found - outputs).abs().max()
        except _NO_COPY as error:
            if _out_of_memory(error):
                raise
            continue
        if found.dtype == outputs.dtype and difference <= AGREEMENT * outputs.abs().max().clamp(min=1):
            return lambda batch, copied=copied: _or_else(copied, model, batch)
    return model


def _or_else(first: Callable[[Tensor], Any], second: Callable[[Tensor], Any], batch: Tensor) -> Any:
    try:
        return first(batch)
    except RuntimeError as error:  # _Rerouted, or what channels-last memory does not allow, such as a view
        if _out_of_memory(error):
            raise
        return second(batch)


def _out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; on the CPU PyTorch raises a plain RuntimeError then."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class _Rerouted(RuntimeError):
    """A folded convolution's output goes elsewhere than to its BatchNorm."""


class _TakenOver(nn.Module):
    """In the place of a BatchNorm that a convolution has taken over: passes that convolution's output, no other."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.waiting: weakref.ref[Tensor] | None = None  # the convolution's output, on its way here
        convolution.register_forward_hook(self._remember)

    def _remember(self, _module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        self.waiting = weakref.ref(output)

    def forward(self, features: Tensor) -> Tensor:
        if self.waiting is None or self.waiting() is not features:
            raise _Rerouted
        self.waiting = None
        return features


class _FoldedCopy:
    def __init__(self, model: nn.Module, image: Tensor, channels_last: bool) -> None:
        shared = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
        self.model = copy.deepcopy(model, shared)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        norms = _batch_norms(self.model, image)
        convolutions = [module for module in self.model.modules() if type(module) is nn.Conv2d]
        if not (norms or (channels_last and convolutions)):
            raise LookupError("nothing to gain")
        for convolution in convolutions:
            weight, bias = convolution.weight, convolution.bias
            if (norm := norms.get(convolution)) is not None:
                moments = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
                weight, bias = fuse_conv_bn_weights(weight, bias, *moments)
            weight = weight.detach().contiguous(memory_format=self.memory_format)
            convolution.weight = nn.Parameter(weight, requires_grad=False)
            convolution.bias = bias
        taken_over = {norm: _TakenOver(convolution) for convolution, norm in norms.items()}
        for parent in list(self.model.modules()):
            for name, child in parent.named_children():
                if child in taken_over:
                    setattr(parent, name, taken_over[child])
        self.taken_over = list(taken_over.values())

    def __call__(self, images: Tensor) -> Any:
        outputs = self.model(images.contiguous(memory_format=self.memory_format))
        if any(norm.waiting for norm in self.taken_over):
            raise _Rerouted
        return outputs


def _batch_norms(model: nn.Module, image: Tensor) -> dict[nn.Conv2d, nn.BatchNorm2d]:
    """The BatchNorm2d that takes each Conv2d's output, unchanged, where both are called once for `image`."""
    calls: Counter[nn.Module] = Counter()
    made: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}  # id of an output -> its convolution, itself, its version
    pairs: dict[nn.Conv2d, nn.BatchNorm2d] = {}

    def note(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        calls[module] += 1
        if type(module) is nn.Conv2d:
            made[id(output)] = module, output, output._version
        elif id(inputs[0]) in made:
            convolution, features, version = made[id(inputs[0])]
            if features._version == version:  # no ReLU in place between the two
                pairs[convolution] = module

    handles = [module.register_forward_hook(note) for module in model.modules() if _foldable(module)]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return {convolution: norm for convolution, norm in pairs.items() if calls[convolution] == calls[norm] == 1}


def _foldable(module: nn.Module) -> bool:
    if module._forward_hooks or module._forward_pre_hooks:  # someone else's, which see or change what passes
        return False
    return type(module) is nn.Conv2d or (type(module) is nn.BatchNorm2d and module.running_mean is not None)
