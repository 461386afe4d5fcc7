"""Outputs of a model for more images than fit into one forward pass."""

import torch
from torch import Tensor, nn

from .forward import preserve_state


def predict(model: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Outputs (N, …) of `model` in evaluation mode, on the CPU; batches are moved to the model's device.

    Raises:
        ValueError: no images, or a batch size below 1.
    """
    if len(images) == 0 or batch_size < 1:
        raise ValueError(f"got {len(images)} images, batch_size {batch_size}; expected at least one image and 1")
    device = next((parameter.device for parameter in model.parameters()), images.device)
    with preserve_state(model), torch.no_grad():
        return torch.cat([model(batch.to(device)).cpu() for batch in images.split(batch_size)])
