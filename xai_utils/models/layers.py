"""Sums and gates as modules, so that a walk over a model's modules sees every place where signals meet."""

import torch
from torch import Tensor, nn


class Add(nn.Module):
    """The sum of a residual block's output and its shortcut."""

    def forward(self, main: Tensor, skip: Tensor) -> Tensor:
        """Return main + skip, two tensors of one shape; nothing is broadcast.

        Raises:
            ValueError: shapes that differ.
        """
        if main.shape != skip.shape:
            raise ValueError(
                f"main and skip have shapes {tuple(main.shape)} and {tuple(skip.shape)}; expected one shape"
            )
        return main + skip


class Gate(nn.Module):
    """Feature maps weighted by an attention map: α ⊙ g (paper 5, eq. (1)), or (1 + α) ⊙ g (Fukui et al. 2019)."""

    def __init__(self, residual: bool = False) -> None:
        """Build a gate; `residual` keeps the features where the attention is zero: (1 + α) ⊙ g."""
        super().__init__()
        self.residual = residual

    def forward(self, features: Tensor, attention: Tensor) -> Tensor:
        """Return the features g (N, K, h, w), weighted by the attention map α (N, 1, h, w).

        The map may also have one factor a channel, (N, K, 1, 1), as squeeze-and-excitation has.

        Raises:
            ValueError: shapes that do not belong together.
        """
        fitting = (len(features), 1, *features.shape[2:]), (*features.shape[:2], 1, 1)
        if features.ndim != 4 or tuple(attention.shape) not in fitting:
            got = f"{tuple(features.shape)} and {tuple(attention.shape)}"
            expected = "(N, K, h, w), and (N, 1, h, w) or (N, K, 1, 1)"
            raise ValueError(f"features and attention have shapes {got}; expected {expected}")
        return features * (1 + attention if self.residual else attention)


class Concat(nn.Module):
    """Feature maps one after the other along the channels."""

    def forward(self, *features: Tensor) -> Tensor:
        """Return the features (N, K_i, …) as one tensor (N, ΣK_i, …)."""
        return torch.cat(features, 1)
