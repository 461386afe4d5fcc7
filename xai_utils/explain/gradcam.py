"""Class activation maps: L = Σ_k w_k A^k over the feature maps A^k of one layer.

Methods differ in the weights w_k only. `KINDS` holds them, one entry each; all else is shared.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.forward import (
    Output,
    Target,
    check_batch_size,
    check_images,
    in_parts,
    preserve_state,
    target_indices,
    target_scores,
)
from .layer_gradients import LayerGradients, Reshape, features_and_gradients, find_layer


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


class _LayerMap:
    """A map on the grid of one layer, and its upsampled form. A model in train mode is run in evaluation mode."""

    kind: str

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str | Sequence[nn.Module | str],
        *,
        upsampling: str = "bilinear",
        reshape: Reshape | None = None,
        output: Output = None,
        batch_size: int | None = None,
    ) -> None:
        """Explain `model` by the feature maps of `layer`, a module of it or its qualified name.

        Of several layers in a list the map is the mean of theirs. `upsampling` is the mode of `upsample` by which
        `attribute` reaches the images' size; `output` says which part of what the model returns is meant, a key, field,
        index or callable; `batch_size` how many images go through the model at once (None: all of a call). `reshape`
        brings another layout to (N, K, h, w), as in torchvision's

            ConvNeXt:  GradCAM(convnext_tiny(), "features.7")
            Swin:      GradCAM(swin_t(), "features.7", reshape=lambda maps: maps.permute(0, 3, 1, 2))
            ViT:       GradCAM(vit_b_16(), "encoder.layers.encoder_layer_11.ln_1",
                               reshape=lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(2, (14, 14)))

        (of a ViT not the last block's own output: behind it only the class token counts).
        """
        if isinstance(layer, (list, tuple)) and not layer:
            raise ValueError("layer: got an empty list; expected one layer or more")
        for one in layer if isinstance(layer, (list, tuple)) else [layer]:
            find_layer(model, one)
        check_batch_size(batch_size)
        self.model, self.layer, self.upsampling = model, layer, upsampling
        self.reshape, self.output, self.batch_size = reshape, output, batch_size

    def attribute(self, inputs: Tensor, target: Target = None) -> Tensor:
        """Return the maps (N, H, W), upsampled to the images' size; see `Explainer`."""
        if isinstance(self.layer, (list, tuple)):
            return torch.stack([one.attribute(inputs, target) for one in _of_each_layer(self)]).mean(0)
        return upsample(self.attribute_layer(inputs, target), inputs.shape[2:], self.upsampling)

    def attribute_layer(self, inputs: Tensor, target: Target = None) -> Tensor:
        """Return the raw maps (N, h, w) on the layer's own grid, where the method's identities hold."""
        if isinstance(self.layer, (list, tuple)):
            return _mean_on_one_grid([one.attribute_layer(inputs, target) for one in _of_each_layer(self)])
        if self.batch_size is not None:
            parts = in_parts(check_images(inputs), target, self.batch_size)
            return torch.cat([_whole(self).attribute_layer(*part) for part in parts])
        found = partial(features_and_gradients, reshape=self.reshape, output=self.output)
        with preserve_state(self.model):
            maps = self._map(found(self.model, self.layer, inputs, target), target).detach()
        if not torch.isfinite(maps).all():
            raise ValueError("the map holds NaN or infinite values: weights or feature maps are not finite")
        return maps.to(inputs)

    def _map(self, found: LayerGradients, target: Target) -> Tensor:
        return cam(found.features, found.gradients, self.kind)


def _of_each_layer(explainer: _LayerMap) -> Iterator[_LayerMap]:
    for layer in explainer.layer:
        one = copy.copy(explainer)
        one.layer = layer
        yield one


def _whole(explainer: _LayerMap) -> _LayerMap:
    """The explainer as it is, but for all images of a call at once."""
    one = copy.copy(explainer)
    one.batch_size = None
    return one


def _mean_on_one_grid(maps: list[Tensor]) -> Tensor:
    if len({one.shape for one in maps}) > 1:
        grids = ", ".join(f"{one.shape[1]}×{one.shape[2]}" for one in maps)
        raise ValueError(f"layer: the layers' grids are {grids}; expected one grid, or use attribute, which upsamples")
    return torch.stack(maps).mean(0)


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
    map is never negative on the layer's grid. Negative activations (no ReLU, or GELU, SiLU) do cancel; of them a
    warning says so, and `features="modulus"` is L = Σ_k |w_k| |A^k|, which is not in the paper.
    """

    kind = "moram"

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str | Sequence[nn.Module | str],
        *,
        features: str = "signed",
        **options: Any,
    ) -> None:
        """As the other methods by feature maps; `features` is "signed", A as it is, or "modulus", |A|."""
        super().__init__(model, layer, **options)
        if features not in ("signed", "modulus"):
            raise ValueError(f'features: got {features!r}; expected "signed" or "modulus"')
        self.features = features

    def _map(self, found: LayerGradients, target: Target) -> Tensor:
        if self.features == "modulus":
            return super()._map(found._replace(features=found.features.abs()), target)
        _warn_of_negative(found.features)
        return super()._map(found, target)


def _warn_of_negative(features: Tensor) -> None:
    lowest = features.amin()
    negative = bool(lowest < 0)
    if negative:
        warnings.warn(
            f"MoRAM: the layer's features go down to {lowest:.3g}; |w| A is meant for features of at least 0, "
            'as after a ReLU: choose such a layer, or features="modulus" for Σ |w| |A|',
            stacklevel=2,
        )


class RAM(_LayerMap):
    """RAM (paper 2, eq. (1) and (2)): L = Σ_k w_k A^k with the weights of the linear output after GAP.

    It needs the model to be layer → global average pooling → `head`, and checks that on every call:
    mean of the map + bias = output. For any other model use `GradRAM` or `MoRAM`.
    """

    def __init__(self, model: nn.Module, layer: nn.Module | str, head: nn.Module | str, **options: Any) -> None:
        """Explain `model` by the feature maps of `layer` and the weights of `head`, an nn.Linear of it, or their names.

        `options` are those of the other methods by feature maps.

        Raises:
            ValueError: an unknown layer or head. TypeError: a head that is not an nn.Linear.
        """
        super().__init__(model, layer, **options)
        if isinstance(layer, (list, tuple)):
            raise ValueError(f"layer: got {len(layer)} layers; expected one: RAM reads the weights behind it")
        self.head, name = find_layer(model, head, "head")
        if not isinstance(self.head, nn.Linear):
            raise TypeError(f"head: {name!r} is a {type(self.head).__name__}; RAM reads its weights from an nn.Linear")

    def _map(self, found: LayerGradients, target: Target) -> Tensor:
        needs = "RAM needs layer → global average pooling → head → output; GradRAM and MoRAM do not"
        if callable(target):
            raise ValueError(f"target: got a callable; expected an output, whose weights RAM reads: {needs}")
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
        if (apart > min(1e4 * torch.finfo(scores.dtype).eps, 0.05) * scale).any():  # of half precision 5 %
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
    precise = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return F.interpolate(precise[:, None], tuple(size), mode=mode, **modes[mode])[:, 0].to(maps.dtype)


def normalize(maps: Tensor, signed: bool = False) -> Tensor:
    """Scale every map (…, H, W) to [0, 1] by its own minimum and maximum; a flat map becomes zeros, never NaN.

    So the lowest value becomes 0, though a negative one may be the strongest (LRP of a negative logit is negative
    everywhere): a warning says so. `signed` scales such maps around zero instead, to [−1, 1] by their largest modulus:
    0 stays 0, and what speaks against the target stays negative.
    """
    if not torch.isfinite(maps).all():
        raise ValueError("maps hold NaN or infinite values; expected finite maps (…, H, W)")
    if signed:
        largest = maps.abs().amax((-2, -1), keepdim=True)
        return maps / torch.where(largest > 0, largest, torch.ones_like(largest))
    _warn_of_signs(maps)
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, torch.ones_like(high))


def _warn_of_signs(maps: Tensor) -> None:
    negative = bool((maps < 0).any())
    if negative:
        warnings.warn(
            "normalize: maps hold negative values, the lowest of which becomes 0, as if nothing were there; "
            "signed=True scales them around zero",
            stacklevel=3,
        )


def _weighted(features: Tensor, weights: Tensor) -> Tensor:
    return (weights[:, :, None, None] * features).sum(1)
