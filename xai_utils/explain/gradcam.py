"""Class activation maps: L = Σ_k w_k A^k over the feature maps A^k of one layer.

Methods differ in the weights w_k only. `KINDS` holds them, one entry each; all else is shared.
"""

import difflib
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.forward import check_images, preserve_state, target_indices, target_scores


class Kind(NamedTuple):
    """How a method weights the feature maps, and whether it keeps the positive part of the sum only."""

    weights: Callable[[Tensor, Tensor], Tensor]  # features, gradients (N, K, h, w) -> w (N, K)
    relu: bool


def _mean(_features: Tensor, gradients: Tensor) -> Tensor:
    """w_k = (1/Z) Σ_ij ∂y/∂A^k_ij."""
    return gradients.mean((2, 3))


def _modulus(_features: Tensor, gradients: Tensor) -> Tensor:
    """|w_k|: maps that push the output down count as much as those that push it up."""
    return gradients.mean((2, 3)).abs()


def _plus_plus(features: Tensor, gradients: Tensor) -> Tensor:
    """w_k = Σ_ij α^k_ij ReLU(g^k_ij), α = g² / (2 g² + Σ_ab A^k_ab g³), with g² cancelled, so that 0 / 0 cannot occur.

    What is left of the denominator, 2 + Σ A · g, has no unit: the bound on it is relative. It acts for feature maps
    with negative values only.
    """
    positive = gradients.relu()
    rest = 2 + features.sum((2, 3), keepdim=True) * positive
    bound = torch.full_like(rest, 1e-6)
    return (positive / torch.where(rest.abs() < bound, bound, rest)).sum((2, 3))


KINDS = {
    "gradcam": Kind(_mean, relu=True),  # Selvaraju et al. 2017; paper 3, eq. (1) and (2)
    "gradcam++": Kind(_plus_plus, relu=True),  # Chattopadhay et al. 2018, eq. (19), of exp(logit)
    "gradram": Kind(_mean, relu=False),  # paper 2, eq. (3)
    "moram": Kind(_modulus, relu=False),  # paper 2, eq. (4)
}


def cam(features: Tensor, gradients: Tensor, kind: str = "gradcam", relu: bool | None = None) -> Tensor:
    """Class activation maps (N, h, w), on the layer's grid, of features A (N, K, h, w) and gradients ∂y/∂A.

    Differentiable in both: the same code explains and serves as a training loss. `kind` names a method of `KINDS`;
    `relu` keeps the positive part only (None = as the method does).

    Raises:
        ValueError: unknown kind, or shapes that do not belong together.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}; expected one of {', '.join(KINDS)}")
    if features.ndim != 4 or features.shape != gradients.shape:
        got = f"{tuple(features.shape)} and {tuple(gradients.shape)}"
        raise ValueError(f"features and gradients have shapes {got}; expected (N, K, h, w) for both")
    method = KINDS[kind]
    maps = _weighted(features, method.weights(features, gradients))
    return maps.relu() if (method.relu if relu is None else relu) else maps


class LayerGradients(NamedTuple):
    """A layer's feature maps A, ∂y/∂A, and the model's outputs, all of one forward pass."""

    features: Tensor  # (N, K, h, w)
    gradients: Tensor  # (N, K, h, w)
    outputs: Tensor  # (N, classes)


def features_and_gradients(
    model: nn.Module,
    layer: nn.Module | str,
    inputs: Tensor,
    target: Tensor | int | None = None,
    create_graph: bool = False,
) -> LayerGradients:
    """Feature maps of `layer`, and the gradient of the target's score (the logit) with respect to them.

    One forward pass, without gradients up to the layer, and one backward pass from the output down to the layer, for
    the whole batch. The model runs in the mode it is in: evaluation (`models.preserve_state`) for an explanation; for a
    loss in train mode note that BatchNorm couples the images.

    Args:
        model: its outputs are (N, classes), or (N, 1) or (N,) for a single one.
        layer: module of the model, or its qualified name; its output is (N, K, h, w).
        inputs: images (N, C, H, W).
        target: class index (int or (N,)); None = the model's single output.
        create_graph: keep the graph, the trunk's too, so that a loss of the result can train the model.

    Raises:
        ValueError: a layer that is unknown, not reached, called several times, not of that shape, or without
            influence on the score; inputs or a target that do not fit.
    """
    module, name = _find_layer(model, layer)
    checked = check_images(inputs)
    captured: list[Tensor] = []

    def capture(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        if captured:
            raise ValueError(f"layer {name!r} is called several times in a forward pass; use one module per call")
        if not isinstance(output, Tensor) or output.ndim != 4:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"layer {name!r} returns {got}; expected (N, K, h, w): choose a convolution")
        if not (create_graph and output.requires_grad):
            output = output.detach().requires_grad_()
        captured.append(output)
        torch.set_grad_enabled(True)  # from here to the output; undone by the context around the forward pass
        return output.clone()  # an in-place operation after the layer must not overwrite A

    with torch.inference_mode(False), torch.set_grad_enabled(create_graph):
        handle = module.register_forward_hook(capture)
        try:
            outputs = model(inputs if create_graph else checked)
        finally:
            handle.remove()
        if not captured:
            raise ValueError(f"layer {name!r} is not reached in the forward pass; choose one that is")
        scores = target_scores(outputs, target)
        gradients = None
        if scores.requires_grad:
            # images do not see each other: the gradient of the sum holds each image's own
            (gradients,) = torch.autograd.grad(scores.sum(), captured[0], create_graph=create_graph, allow_unused=True)
        if gradients is None:
            raise ValueError(f"the target's score does not depend on layer {name!r}, or not differentiably")
    return LayerGradients(captured[0], gradients, outputs)


class _LayerMap:
    """A map on the grid of one layer, and its upsampled form. A model in train mode is run in evaluation mode."""

    kind: str

    def __init__(self, model: nn.Module, layer: nn.Module | str, *, upsampling: str = "bilinear") -> None:
        """Explain `model` by the feature maps of `layer`, a module of it or its qualified name.

        `upsampling` is the mode of `upsample` by which `attribute` reaches the images' size.
        """
        _find_layer(model, layer)
        self.model, self.layer, self.upsampling = model, layer, upsampling

    def attribute(self, inputs: Tensor, target: Tensor | int | None = None) -> Tensor:
        """Return the maps (N, H, W), upsampled to the images' size; see `Explainer`."""
        return upsample(self.attribute_layer(inputs, target), inputs.shape[2:], self.upsampling)

    def attribute_layer(self, inputs: Tensor, target: Tensor | int | None = None) -> Tensor:
        """Return the raw maps (N, h, w) on the layer's own grid, where the method's identities hold."""
        with preserve_state(self.model):
            maps = self._map(features_and_gradients(self.model, self.layer, inputs, target), target).detach()
        if not torch.isfinite(maps).all():
            raise ValueError("the map holds NaN or infinite values: weights or feature maps are not finite")
        return maps.to(inputs)

    def _map(self, found: LayerGradients, target: Tensor | int | None) -> Tensor:
        return cam(found.features, found.gradients, self.kind)


class GradCAM(_LayerMap):
    """Grad-CAM (Selvaraju et al. 2017; paper 3, eq. (1) and (2)) of the target's logit, before any softmax."""

    kind = "gradcam"


class GradCAMPlusPlus(_LayerMap):
    """Grad-CAM++ (Chattopadhay et al. 2018, eq. (19)) of exp(logit); the factor common to a whole map is left out."""

    kind = "gradcam++"


class GradRAM(_LayerMap):
    """Grad-RAM (paper 2, eq. (3)) of a regression's output, at any layer of any CNN: Grad-CAM without the ReLU."""

    kind = "gradram"


class MoRAM(_LayerMap):
    """MoRAM (paper 2, eq. (4)): L = Σ_k |w_k| A^k with the weights of Grad-RAM.

    Weights of both signs cannot cancel, so a place matters whichever way it moves the output. After a ReLU (A ≥ 0) the
    map is never negative on the layer's grid.
    """

    kind = "moram"


class RAM(_LayerMap):
    """RAM (paper 2, eq. (1) and (2)): L = Σ_k w_k A^k with the weights of the linear output after GAP.

    It needs the model to be layer → global average pooling → `head`, and checks that on every call:
    mean of the map + bias = output. For any other model use `GradRAM` or `MoRAM`.
    """

    def __init__(
        self, model: nn.Module, layer: nn.Module | str, head: nn.Module | str, *, upsampling: str = "bilinear"
    ) -> None:
        """Explain `model` by the feature maps of `layer` and the weights of `head`, an nn.Linear of it, or their names.

        Raises:
            ValueError: an unknown layer or head. TypeError: a head that is not an nn.Linear.
        """
        super().__init__(model, layer, upsampling=upsampling)
        self.head, name = _find_layer(model, head, "head")
        if not isinstance(self.head, nn.Linear):
            raise TypeError(f"head: {name!r} is a {type(self.head).__name__}; RAM reads its weights from an nn.Linear")

    def _map(self, found: LayerGradients, target: Tensor | int | None) -> Tensor:
        needs = "RAM needs layer → global average pooling → head → output; GradRAM and MoRAM do not"
        channels, head, n_outputs = found.features.shape[1], self.head, found.outputs[0].numel()
        if (head.in_features, head.out_features) != (channels, n_outputs):
            got = f"head takes {head.in_features} values and gives {head.out_features}"
            raise ValueError(f"{got}; the layer has {channels} channels, the model {n_outputs} outputs: {needs}")
        row = target_indices(found.outputs, target)
        weights, bias = head.weight[row], head.bias[row] if head.bias is not None else 0.0
        means, scores = found.features.mean((2, 3)), target_scores(found.outputs, target)
        terms = weights * means
        apart = (terms.sum(1) + bias - scores).abs()
        scale = terms.abs().sum(1) + scores.abs()
        if (apart > 1e4 * torch.finfo(scores.dtype).eps * scale).any():
            worst = apart.argmax()
            got = f"w · GAP(A) + b differs from the output by {apart[worst].item():.3g} ({scores[worst].item():.3g})"
            raise ValueError(f"{got}: something stands between layer and head. {needs}")
        return _weighted(found.features, weights)


def upsample(maps: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Bring maps (N, h, w) to `size` (H, W); pixels are areas, so corners are not aligned.

    "lanczos" is paper 2's (§4): Pillow's filter, to float32 rounding. It overshoots: a map without negative values gets
    some beside steep edges. Neither it nor "bilinear" keeps the mean exactly, as maps end at the border.

    Raises:
        ValueError: a mode other than bilinear, bicubic, lanczos or nearest.
    """
    corners = {"align_corners": False}
    modes = {"bilinear": corners, "bicubic": corners, "lanczos": {"antialias": True}, "nearest": {}}
    if mode not in modes:
        raise ValueError(f"mode: got {mode!r}; expected one of {', '.join(modes)}")
    return F.interpolate(maps[:, None], tuple(size), mode=mode, **modes[mode])[:, 0]


def normalize(maps: Tensor) -> Tensor:
    """Scale every map (…, H, W) to [0, 1] by its own minimum and maximum; a flat map becomes zeros, never NaN."""
    if not torch.isfinite(maps).all():
        raise ValueError("maps hold NaN or infinite values; expected finite maps (…, H, W)")
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, torch.ones_like(high))


def _weighted(features: Tensor, weights: Tensor) -> Tensor:
    return (weights[:, :, None, None] * features).sum(1)


def _find_layer(model: nn.Module, layer: nn.Module | str, what: str = "layer") -> tuple[nn.Module, str]:
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
