"""Outputs of a model for more images than fit into one forward pass."""

import torch
from torch import Tensor, nn

from .forward import Output, check_rows, preserve_state, run_model


def predict(model: nn.Module, images: Tensor, batch_size: int = 256, output: Output = None) -> Tensor:
    """Outputs (N, …) of `model` in evaluation mode, on the CPU; batches are moved to the model's device.

    Of a model that returns a tuple, dict or dataclass, `output` says which part: a key, field, index or callable.

    Raises:
        ValueError: no images, or a batch size below 1; images of another dtype than the model; outputs that are not one
            tensor with a row for every image.
    """
    if len(images) == 0 or batch_size < 1:
        raise ValueError(f"got {len(images)} images, batch_size {batch_size}; expected at least one image and 1")
    device = next((parameter.device for parameter in model.parameters()), images.device)
    with preserve_state(model), torch.no_grad():
        parts = []
        for batch in images.split(batch_size):
            found = run_model(model, batch.to(device), output)
            parts.append(check_rows(found, len(batch)).cpu())
        return torch.cat(parts)
