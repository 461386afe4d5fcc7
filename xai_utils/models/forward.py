"""A model as the subject of an explanation or a measurement: left as found, fed with images, asked for a score."""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Target = int | Tensor | Sequence[int] | np.ndarray | Callable[[Any], Tensor] | None  # see `target_scores`
Output = str | int | Callable[[Any], Any] | None  # see `choose_output`

_making = threading.Lock()
_locks: "weakref.WeakKeyDictionary[nn.Module, threading.RLock]" = weakref.WeakKeyDictionary()


def lock_of(model: nn.Module) -> threading.RLock:
    """The re-entrant lock of a model: whoever changes its mode, gradients or hooks holds it meanwhile.

    It is that of the first module with parameters, so that a network and one built around it have the same.
    """
    first = next((module for module in model.modules() if module._parameters), model)
    with _making:
        return _locks.setdefault(first, threading.RLock())


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[nn.Module]:
    """Run `model` in evaluation mode and leave it exactly as it was found, also after an error.

    Restored: `training` of every submodule, `requires_grad` and `.grad` of every parameter, and all buffers
    (BatchNorm statistics among them, which evaluation mode does not move in the first place).
    The body runs outside `torch.inference_mode`, so that gradients can be taken, also through a model that was made
    within it: ordinary copies stand in for its tensors. Other threads that explain or measure the same model wait for
    its end: each would see the other's mode and hooks.

    Raises:
        TypeError: `model` is not a torch module.
        ValueError: a BatchNorm without running statistics.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module (wrap a function in one)")
    _refuse_batch_statistics(model)
    with lock_of(model):
        yield from _preserved(model)


def _preserved(model: nn.Module) -> Iterator[nn.Module]:
    training = [(module, module.training) for module in model.modules()]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        for parameter, _, _ in parameters:
            parameter.grad = None  # the caller's gradients are out of reach meanwhile
        with torch.inference_mode(False), _ordinary_tensors(model):
            for module, _ in training:
                module.training = False  # not by eval(), which a model may have overridden
            yield model
    finally:
        for module, mode in training:
            module.training = mode
        for parameter, requires_grad, grad in parameters:
            if not parameter.is_inference():  # such a one was not in use, and must not be written to
                parameter.requires_grad_(requires_grad)
            parameter.grad = grad
        with torch.no_grad():
            for module, name, buffer, values in buffers:
                setattr(module, name, buffer)
                if not torch.equal(buffer, values):  # a needless write breaks graphs that saved the buffer
                    buffer.copy_(values)


@contextmanager
def _ordinary_tensors(model: nn.Module) -> Iterator[None]:
    """Let copies stand in for parameters and buffers that were made in inference mode; shared ones stay shared."""
    with ExitStack() as undo:
        copies: dict[int, Tensor] = {}
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if isinstance(tensor, Tensor) and tensor.is_inference():
                        undo.callback(tensors.__setitem__, name, tensor)
                        tensors[name] = copies.setdefault(id(tensor), _ordinary(tensor))
        yield


def _refuse_batch_statistics(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"model: {name!r} is a {type(module).__name__} without running statistics; it normalises by the batch, "
                "so that an image's result would depend on the images beside it. Expected running statistics: build it "
                "with track_running_stats=True and train it, or use GroupNorm"
            )


def _ordinary(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone()
    return nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy


def check_images(inputs: Tensor) -> Tensor:
    """Return a batch of images (N, C, H, W) detached from its graph.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: another rank, an empty batch, or values that are not finite.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(f"inputs: got {kind}; expected a floating-point tensor of images (N, C, H, W)")
    if inputs.ndim != 4 or 0 in inputs.shape:
        hint = "; add the batch dimension: inputs[None]" if inputs.ndim == 3 else ""
        raise ValueError(f"inputs: got shape {tuple(inputs.shape)}; expected images (N, C, H, W){hint}")
    if not torch.isfinite(inputs).all():
        bad = [i for i, image in enumerate(inputs) if not torch.isfinite(image).all()]
        raise ValueError(f"inputs: images {bad[:5]} hold NaN or infinite values; remove or repair them")
    with torch.inference_mode(False):  # a tensor made in inference mode can be used outside as a copy only
        return inputs.clone() if inputs.is_inference() else inputs.detach()


def run_model(
    model: nn.Module, images: Tensor, output: Output = None, call: Callable[[Tensor], Any] | None = None
) -> Any:
    """Return what `model`, or `call`, a method of it, returns for images (N, C, H, W), or the part that `output` names.

    Every explainer and metric asks its model through here. The grad mode stays as it is, whatever the forward does.

    Raises:
        ValueError: the forward fails, and the images' dtype or device is not that of the model's parameters; an
            `output` that is not there.
    """
    try:
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            returned = (call or model)(images)
    except RuntimeError as error:
        parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
        if parameters and (
            images.dtype not in {p.dtype for p in parameters} or images.device not in {p.device for p in parameters}
        ):
            expected = f"{parameters[0].dtype} on {parameters[0].device}"
            raise ValueError(
                f"inputs: got {images.dtype} on {images.device}, but the model's parameters are {expected}; expected "
                "both alike: bring the images to the model (inputs.to), or the model to the images (model.to)"
            ) from error
        raise
    return choose_output(returned, output)


def choose_output(returned: Any, output: Output = None) -> Any:
    """Return the part of what a model returned that `output` names, all of it for None.

    Args:
        returned: a tensor, or a tuple, list, dict, named tuple or dataclass of what else.
        output: a key or field, an index, or a callable: returned -> the part.

    Raises:
        ValueError: there is no such part.
    """
    if output is None:
        return returned
    if callable(output):
        return output(returned)
    by_name = isinstance(output, str) and not isinstance(returned, Mapping)
    try:
        if not isinstance(returned, Tensor):
            return getattr(returned, output) if by_name else returned[output]
    except (AttributeError, LookupError, TypeError):
        pass
    raise ValueError(
        f"output: got {output!r}, but the model returned {_described(returned)}; expected a key, field or index of it, "
        "a callable: returned -> tensor, or None for a model that returns one tensor"
    )


def _described(returned: Any) -> str:
    if isinstance(returned, Tensor):
        return str(tuple(returned.shape))
    kind = type(returned).__name__
    if isinstance(returned, Mapping):
        return f"{kind} with keys {', '.join(map(repr, returned))}"
    names = getattr(returned, "_fields", None) or getattr(returned, "__dataclass_fields__", None)
    if names:
        return f"{kind} with fields {', '.join(names)}"
    return kind


def target_indices(outputs: Tensor, target: Target, n_images: int | None = None) -> Tensor:
    """Return the output column (N,) that each image's explanation is about.

    Args:
        outputs: (N, K) scores, or (N,) for a model with a single output.
        target: class index for all images, (N,) indices (tensor, array or list), or None = the model's single output.
        n_images: N; None = as many as `outputs` has rows.

    Raises:
        TypeError: a target that is not an integer.
        ValueError: outputs of another shape; no target for several outputs; one out of range or of wrong length.
    """
    if check_rows(outputs, n_images).ndim > 2:
        hint = "make one score per image of them: target=lambda outputs: outputs[:, 1].mean((1, 2))"
        raise ValueError(f"the model returned {_described(outputs)}; expected scores (N, K), or (N,): {hint}")
    n_images, n_outputs = len(outputs), 1 if outputs.ndim == 1 else outputs.shape[1]
    classes = f"the model has {n_outputs} classes, 0 … {n_outputs - 1}"
    if target is None and n_outputs != 1:
        raise ValueError(f"target: got None, but {classes}; give the one to explain")
    target = _indices(0 if target is None else target)
    if target.shape not in ((), (n_images,)):
        raise ValueError(f"target: got shape {tuple(target.shape)}; expected one index, or {n_images}")
    indices = target.to(outputs.device, torch.int64).expand(n_images)
    wrong = indices[(indices < 0) | (indices >= n_outputs)]
    if len(wrong) and n_outputs == 1:
        raise ValueError(
            f"target: got {wrong[0].item()}, but the model has a single output, which is target 0, or None. In a "
            "binary classifier it speaks for the class of the higher outputs, as a probability with score='sigmoid' "
            "where an explainer has a score; for the other class pass target=lambda outputs: -outputs.flatten()"
        )
    if len(wrong):
        raise ValueError(f"target: got {wrong[0].item()}, but {classes}")
    return indices


def check_rows(outputs: Any, n_images: int | None = None) -> Tensor:
    """Return outputs (N, …) as they are; ValueError for what is no tensor with a row for every one of N images."""
    if isinstance(outputs, Tensor) and outputs.ndim and n_images in (None, len(outputs)):
        return outputs
    hint = 'say which part of it is meant: output="logits", output=0, or a callable'
    if isinstance(outputs, Tensor):
        hint = "take out the flatten, squeeze or mean that goes across images"
    got = _described(outputs) + ("" if n_images is None else f" for {n_images} images")
    raise ValueError(f"the model returned {got}; expected one tensor with a row for every image: {hint}")


def _indices(target: Any) -> Tensor:
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise TypeError(f"target: got a tensor of {target.dtype}; expected integer class indices")
        return target
    if isinstance(target, (list, tuple)):
        target = [index.item() if isinstance(index, Tensor) and index.numel() == 1 else index for index in target]
    try:
        array = np.asarray(target)
    except ValueError:  # of lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"target: got {target!r}; expected a class index, one for each image (tensor, array or list), None, or a "
            "callable: outputs -> (N,) scores"
        )
    return torch.from_numpy(array.astype(np.int64))


def check_batch_size(batch_size: int | None, otherwise: str = "all images at once") -> None:
    """Refuse, with a ValueError, what is neither a positive integer nor None, which stands for `otherwise`."""
    wrong = isinstance(batch_size, bool) or not isinstance(batch_size, int | None)
    if wrong or (batch_size is not None and batch_size < 1):
        raise ValueError(f"batch_size: got {batch_size!r}; expected a positive integer, or None for {otherwise}")


def in_parts(inputs: Tensor, target: Target, size: int) -> Iterator[tuple[Tensor, Target]]:
    """Yield the images `size` at a time, each batch with its target; one for all, or a callable, stays as it is.

    Raises:
        TypeError: a target that is not an integer. ValueError: indices of another number than images.
    """
    targets = _one_for_each(len(inputs), target)
    for part, batch in enumerate(inputs.split(size)):
        yield batch, targets[part * size :][: len(batch)] if isinstance(targets, Tensor) else targets


def _one_for_each(n_images: int, target: Target = None) -> Target:
    """Indices (N,) as a tensor; what holds for all images as it is."""
    if target is None or callable(target):
        return target
    indices = _indices(target)
    if indices.ndim == 0:
        return indices.item()
    if indices.shape != (n_images,):
        raise ValueError(f"target: got shape {tuple(indices.shape)}; expected one index, or {n_images}")
    return indices


def target_scores(outputs: Any, target: Target, n_images: int | None = None) -> Tensor:
    """Return the score of each image, (N,), that an explanation is about.

    Args:
        outputs: (N, K) scores, or (N,); for a callable target whatever the model returns.
        target: as in `target_indices`, or a callable: outputs -> (N,) scores, which treats every image alike.
        n_images: N; None = as many as `outputs` has rows.

    Raises:
        TypeError, ValueError: as `target_indices`; a callable that does not return (N,) floating-point scores.
    """
    if not callable(target):
        indices = target_indices(outputs, target, n_images)
        return outputs.reshape(len(outputs), -1).gather(1, indices[:, None])[:, 0]
    scores = target(outputs)
    if n_images is None and isinstance(outputs, Tensor):
        n_images = len(outputs)
    if not isinstance(scores, Tensor) or scores.ndim != 1 or n_images not in (None, len(scores)):
        raise ValueError(
            f"target: the callable returned {_described(scores)} for {n_images} images and outputs "
            f"{_described(outputs)}; expected a tensor with one score per image, ({n_images},)"
        )
    if not scores.is_floating_point():
        raise TypeError(f"target: the callable returned {scores.dtype}; expected floating-point scores")
    return scores
