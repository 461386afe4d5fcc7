"""The signature that all explainers share, so that a comparison is a loop over a dict."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from ..models.forward import Target


@runtime_checkable
class Explainer(Protocol):
    """Anything that explains a model's output for a batch of images.

    It leaves its model as found (mode, gradients, `requires_grad`, BatchNorm statistics, hooks), also when the
    forward pass fails; runs it in evaluation mode, also under `torch.no_grad()`; and draws random numbers from its
    own seed, never from the global generators.
    """

    def attribute(self, inputs: Tensor, target: Target = None) -> Tensor:
        """Return the maps (N, H, W) of images (N, C, H, W), at their resolution, dtype and device.

        Maps are raw, signed, not normalised, detached; positive speaks for the target. `target`: class index (int, or
        (N,) of a tensor, array or list); None = the model's single output, of a binary classifier the class of the
        higher outputs; or a callable: outputs -> (N,) scores, such as `lambda outputs: -outputs[:, 0]`.
        """
        ...
