"""A model as the subject of an explanation or a measurement: left as found, fed with images, asked for a score."""

import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[nn.Module]:
    """Run `model` in evaluation mode and leave it exactly as it was found, also after an error.

    Restored: `training` of every submodule, `requires_grad` and `.grad` of every parameter, and all buffers
    (BatchNorm statistics among them, which evaluation mode does not move in the first place).
    The body runs outside `torch.inference_mode`, so that gradients can be taken.

    Raises:
        TypeError: `model` is not a torch module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module (wrap a function in one)")
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
        with torch.inference_mode(False):
            yield model.eval()
    finally:
        for module, mode in training:
            module.training = mode
        for parameter, requires_grad, grad in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
        with torch.no_grad():
            for module, name, buffer, values in buffers:
                setattr(module, name, buffer)
                if not torch.equal(buffer, values):  # a needless write breaks graphs that saved the buffer
                    buffer.copy_(values)


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


def target_indices(outputs: Tensor, target: Tensor | int | None) -> Tensor:
    """Return the output column (N,) that each image's explanation is about.

    Args:
        outputs: (N, K) scores, or (N,) for a model with a single output.
        target: class index for all images, (N,) indices, or None = the model's single output (regression).

    Raises:
        TypeError: a target that is not an integer.
        ValueError: outputs of another shape; no target for several outputs; one out of range or of wrong length.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim not in (1, 2):
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"the model returned {got}; expected one tensor of scores (N, K), or (N,)")
    n_images, n_outputs = len(outputs), 1 if outputs.ndim == 1 else outputs.shape[1]
    classes = f"the model has {n_outputs} classes, 0 … {n_outputs - 1}"
    if target is None and n_outputs != 1:
        raise ValueError(f"target: got None, but {classes}; give the one to explain")
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise TypeError(f"target: got a tensor of {target.dtype}; expected integer class indices")
        if target.shape not in ((), (n_images,)):
            raise ValueError(f"target: got shape {tuple(target.shape)}; expected one index, or {n_images}")
        indices = target.to(outputs.device, torch.int64).expand(n_images)
    else:
        if isinstance(target, bool) or not (target is None or hasattr(target, "__index__")):
            raise TypeError(f"target: got {target!r}; expected a class index, a tensor of them, or None")
        index = 0 if target is None else operator.index(target)
        indices = torch.full((n_images,), index, device=outputs.device)
    wrong = indices[(indices < 0) | (indices >= n_outputs)]
    if len(wrong):
        raise ValueError(f"target: got {wrong[0].item()}, but {classes}")
    return indices


def target_scores(outputs: Tensor, target: Tensor | int | None) -> Tensor:
    """Return the target's score of each image, (N,): the column of `outputs` that `target_indices` names."""
    indices = target_indices(outputs, target)
    return outputs.reshape(len(outputs), -1).gather(1, indices[:, None])[:, 0]
