"""The feature maps of a layer, and the gradient of the score with respect to them, in one forward pass."""

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..models.forward import Output, Target, check_images, lock_of, run_model, target_scores
from ..models.gradients import gradients_on, is_of_checkpoint, refuse_compiled, without_checkpoints
from ..models.scores import are_probabilities, ends_in_squashing

Reshape = Callable[[Tensor], Tensor]  # a layer's output in its own layout -> (N, K, h, w)


class LayerGradients(NamedTuple):
    """A layer's feature maps A, ∂y/∂A, and the model's outputs, all of one forward pass."""

    features: Tensor  # (N, K, h, w)
    gradients: Tensor  # (N, K, h, w)
    outputs: Tensor  # (N, classes)


def features_and_gradients(
    model: nn.Module,
    layer: nn.Module | str,
    inputs: Tensor,
    target: Target = None,
    create_graph: bool = False,
    *,
    reshape: Reshape | None = None,
    output: Output = None,
) -> LayerGradients:
    """Feature maps of `layer`, and the gradient of the target's score (the logit) with respect to them.

    One forward pass, without gradients up to the layer, and one backward pass from the output down to the layer, for
    the whole batch. The model runs in the mode it is in: evaluation (`models.preserve_state`) for an explanation; for a
    loss in train mode note that BatchNorm couples the images. Where the forward switches gradients off behind the
    layer, or runs in reentrant checkpoints, there is a second pass in which it cannot.

    Args:
        model: its outputs are (N, classes), or (N, 1) or (N,) for a single one.
        layer: module of the model, or its qualified name; its output is (N, K, h, w).
        inputs: images (N, C, H, W).
        target: class index (int or (N,)); None = the model's single output; a callable: outputs -> (N,) scores.
        create_graph: keep the graph, the trunk's too, so that a loss of the result can train the model.
        reshape: brings a layer's output of another layout to (N, K, h, w); it may drop and move values, no more.
        output: which part of what the model returns, a key, field, index or callable; None = all of it.

    Raises:
        TypeError: a model that is compiled or traced.
        ValueError: a layer that is unknown, not reached, called several times, not of that shape, or without
            influence on the score; outputs that are probabilities; inputs or a target that do not fit.
    """
    module, name = find_layer(model, layer)
    images = check_images(inputs)
    run = partial(_one_pass, model, module, name, inputs if create_graph else images, target, create_graph)
    try:
        features, gradients, outputs = run(reshape, output)
    except _Cut:
        if create_graph:
            raise
        with gradients_on(), without_checkpoints():
            features, gradients, outputs = run(reshape, output)
    if not callable(target):
        _refuse_vanished(gradients, outputs)
    if reshape is None:
        return LayerGradients(features, gradients, outputs)
    maps = (_reshaped(reshape, part, name, len(images)) for part in (features, gradients))
    found = LayerGradients(*maps, outputs)
    if gradients.any() and not found.gradients.any():
        raise ValueError(
            f"layer {name!r}: the score depends only on what reshape leaves out (the class token?); choose an earlier "
            "layer, such as the first norm of the last block"
        )
    return found


class _Cut(ValueError):
    """No gradient leads from the score to the layer: it does not depend on it, or they were switched off between."""


def _one_pass(
    model: nn.Module,
    module: nn.Module,
    name: str,
    inputs: Tensor,
    target: Target,
    create_graph: bool,
    reshape: Reshape | None = None,
    output: Output = None,
) -> tuple[Tensor, Tensor, Any]:
    """The layer's output, ∂y/∂ of it, and the model's outputs; _Cut where no gradient comes from one to the other."""
    captured: list[Tensor] = []
    on_last_dimension: set[torch.Size] = set()  # shapes that layers make whose channels come last

    def note(part: nn.Module, _inputs: tuple, found: Any) -> None:
        if isinstance(found, Tensor) and found.shape[-1:] == _width(part):
            on_last_dimension.add(found.shape)

    def capture(_module: nn.Module, _inputs: tuple, found: Any) -> Tensor:
        if captured:
            raise ValueError(f"layer {name!r} is called several times in a forward pass; use one module per call")
        _check_layout(name, found, len(inputs), reshape)
        if not (create_graph and found.requires_grad):
            found = found.detach().requires_grad_()
        captured.append(found)
        torch.set_grad_enabled(True)  # from here to the output; undone by the context around the forward pass
        return found.clone()  # an in-place operation after the layer must not overwrite A

    watched = [part for part in model.modules() if _width(part)] if reshape is None else []
    with lock_of(model), torch.inference_mode(False), torch.set_grad_enabled(create_graph):
        handles = [part.register_forward_hook(note) for part in watched]
        handles.append(module.register_forward_hook(capture))
        try:
            outputs = run_model(model, inputs, output)
        finally:
            for handle in handles:
                handle.remove()
        if not captured:
            raise ValueError(f"layer {name!r} is not reached in the forward pass; choose one that is")
        _refuse_channels_last(name, captured[0].shape, on_last_dimension)
        if not callable(target) and are_probabilities(outputs):
            raise ValueError(
                "the model's outputs are probabilities (softmax inside the model?), behind which gradients vanish "
                "where the model is sure. Pass a model that returns logits, or a callable target: "
                "target=lambda outputs: outputs[:, 1].log()"
            )
        with torch.enable_grad():
            # images do not see each other: the gradient of the sum holds each image's own
            total = target_scores(outputs, target, len(inputs)).sum()
        options = {"create_graph": create_graph, "allow_unused": True}
        cut = f"the target's score does not depend on layer {name!r}, or not differentiably"
        if not total.requires_grad:
            raise _Cut(cut)
        try:
            gradients = torch.autograd.grad(total, captured[0], **options)[0]
        except RuntimeError as error:
            if is_of_checkpoint(error):
                raise _Cut(cut) from error
            raise
        if gradients is None:
            raise _Cut(cut)
    return captured[0], gradients, outputs


def _refuse_vanished(gradients: Tensor, outputs: Tensor) -> None:
    empty, squashed = ~gradients.flatten(1).any(1), ends_in_squashing(outputs.grad_fn)
    if squashed and empty.any():
        raise ValueError(
            f"the model ends in a sigmoid or the like, behind which gradients vanish where it is sure, here for images "
            f"{empty.nonzero()[:5, 0].tolist()}. Pass a model that returns logits"
        )


def _width(part: nn.Module) -> tuple[int, ...]:
    """The channels that a module puts last; () for one that does not work on the last dimension."""
    if isinstance(part, nn.Linear):
        return (part.out_features,)
    if isinstance(part, (nn.LayerNorm, nn.RMSNorm)):
        return tuple(part.normalized_shape) if len(part.normalized_shape) == 1 else ()
    return ()


def _check_layout(name: str, found: Any, n_images: int, reshape: Reshape | None = None) -> None:
    if not isinstance(found, Tensor):
        raise ValueError(f"layer {name!r} returns {type(found).__name__}; expected one tensor: choose a layer inside")
    if reshape is not None:
        return
    got = f"layer {name!r} returns {tuple(found.shape)}"
    if found.ndim == 3:
        how = "lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(2, (14, 14)), for a class token and a 14×14 grid"
        raise ValueError(f"{got}; expected (N, K, h, w): for tokens (N, L, K) pass reshape={how}")
    if found.ndim != 4 or len(found) != n_images:
        way = "choose a convolution, or pass reshape=, which makes that of it"
        raise ValueError(f"{got}; expected (N, K, h, w) for the {n_images} images: {way}")


def _refuse_channels_last(name: str, shape: torch.Size, channels_last: set[torch.Size]) -> None:
    if shape in channels_last:
        raise ValueError(
            f"layer {name!r} returns {tuple(shape)}, as a LayerNorm or Linear makes it whose channels come last, "
            "(N, h, w, K); expected (N, K, h, w): pass reshape=lambda maps: maps.permute(0, 3, 1, 2), or "
            "lambda maps: maps if K comes first after all"
        )


def _reshaped(reshape: Reshape, features: Tensor, name: str, n_images: int) -> Tensor:
    found = reshape(features)
    if not isinstance(found, Tensor) or found.ndim != 4 or len(found) != n_images:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        what = f"{tuple(features.shape)}, which layer {name!r} returns for {n_images} images"
        raise ValueError(f"reshape: made {got} of {what}; expected (N, K, h, w)")
    return found


def find_layer(model: nn.Module, layer: nn.Module | str, what: str = "layer") -> tuple[nn.Module, str]:
    """Return a module of the model, given as such or by its qualified name, and that name.

    Raises:
        TypeError: a model that is compiled or traced. ValueError: no such module.
    """
    refuse_compiled(model)
    modules = dict(model.named_modules())
    if isinstance(layer, str):
        if layer in modules:
            return modules[layer], layer
        close = difflib.get_close_matches(layer, modules) or [name for name in modules if name][-8:]
        raise ValueError(f"{what}: the model has no module {layer!r}; close candidates: {', '.join(close)}")
    for name, module in modules.items():
        if module is layer:
            return module, name
    raise ValueError(f"{what}: this {type(layer).__name__} is not part of the model; pass a module of it, or its name")
