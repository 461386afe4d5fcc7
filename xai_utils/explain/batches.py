"""Explaining more images than fit into one pass."""

import torch
from torch import Tensor

from xai_utils.explain.explainer import Explainer


def in_batches(
    explainer: Explainer, images: Tensor, target: Tensor, *, size: int = 64, device: str | torch.device = "cpu"
) -> Tensor:
    """Maps (N, H, W), on the CPU, of images (N, C, H, W) for classes (N,), `size` images at a time on `device`."""
    pairs = zip(images.split(size), target.split(size), strict=True)
    return torch.cat([explainer.attribute(batch.to(device), classes.to(device)).cpu() for batch, classes in pairs])
