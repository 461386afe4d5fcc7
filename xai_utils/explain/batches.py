"""Explaining more images than fit into one pass."""

import torch
from torch import Tensor

from ..models.forward import Target, in_parts
from .explainer import Explainer


def in_batches(
    explainer: Explainer, images: Tensor, target: Target = None, *, size: int = 64, device: str | torch.device = "cpu"
) -> Tensor:
    """Maps (N, H, W), on the CPU, of images (N, C, H, W), `size` at a time on `device`; `target` as in `Explainer`."""
    parts = in_parts(images, target, size)
    return torch.cat([explainer.attribute(batch.to(device), part).cpu() for batch, part in parts])
