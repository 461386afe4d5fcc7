"""Explaining more images than fit into one pass."""

import torch
from torch import Tensor

from ..models.forward import Target, split_target
from .explainer import Explainer


def in_batches(
    explainer: Explainer, images: Tensor, target: Target = None, *, size: int = 64, device: str | torch.device = "cpu"
) -> Tensor:
    """Maps (N, H, W), on the CPU, of images (N, C, H, W), `size` at a time on `device`; `target` as in `Explainer`."""
    pairs = zip(images.split(size), split_target(target, len(images), size), strict=True)
    return torch.cat([explainer.attribute(batch.to(device), part).cpu() for batch, part in pairs])
