"""From a model's outputs to a score: as they are, or as probabilities of one class among many, or of each by itself."""

import re
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from .forward import Output, run_model

SCORES = ("probability", "sigmoid", "logit")
_SQUASHING = ("Softmax", "Sigmoid", "Hardsigmoid", "Clamp")  # what PyTorch calls their nodes in a graph, begun so
_PASSING = {"View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Index", "Permute", "T", "Mean"}
_PASSING |= {"Transpose", "Expand", "Alias", "Clone", "ToCopy", "Cat", "Stack"}


def check_score(score: str) -> None:
    """Refuse what is not one of `SCORES`, with a ValueError."""
    if score not in SCORES:
        raise ValueError(f'score: got {score!r}; expected "probability", "sigmoid" or "logit"')


def precise(outputs: Tensor, score: str) -> Tensor:
    """Return outputs (N, K) or (N,) in float32 at least, for score="sigmoid" every output's own sigmoid.

    That is for several labels at once, or a binary classifier with one output.
    """
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    return outputs.sigmoid() if score == "sigmoid" else outputs


def are_probabilities(outputs: Any) -> bool:
    """Whether rows of outputs (N, K) are distributions over K > 1 classes: of no negative number, with the sum 1."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] == 1:
        return False
    tolerance = max(1e-4, torch.finfo(outputs.dtype).eps)
    return bool((outputs >= 0).all() & ((outputs.sum(1) - 1).abs() < tolerance).all())


def refuse_probabilities(model: nn.Module, image: Tensor, outputs: Tensor, score: str, output: Output = None) -> None:
    """Refuse outputs that are probabilities already where `score` would make some of them again.

    Those of a softmax have rows with the sum 1; those of a sigmoid are told from logits by the graph of one more
    forward pass of `image` (1, C, H, W), or warned of where there is none.

    Raises:
        ValueError: the model ends in softmax or sigmoid, and score is "probability" or "sigmoid".
    """
    if score == "logit":
        return
    advice = 'Pass a model that returns logits, or score="logit" to take its outputs as they are'
    if are_probabilities(outputs):
        raise ValueError(
            f"the model's outputs are probabilities already (softmax inside the model?): score={score!r} would "
            f"flatten them. {advice}"
        )
    squashed = score == "sigmoid" or outputs[:1].numel() > 1
    suspicious = all((squashed, ((outputs >= 0) & (outputs <= 1)).all()))
    graph = _graph(model, image, output)
    squashing, unknown = ends_in_squashing(graph), all((suspicious, graph is None))
    if suspicious and squashing:
        raise ValueError(
            f"the model's outputs are probabilities already (sigmoid inside the model?): score={score!r} would "
            f"flatten them. {advice}; of several labels at once, the logits go with score='sigmoid'"
        )
    if unknown:
        warnings.warn(
            "the model's outputs lie between 0 and 1. If they are probabilities already, "
            f"score={score!r} flattens them. {advice}",
            stacklevel=2,
        )


def _graph(model: nn.Module, image: Tensor, output: Output) -> Any:
    """The node of autograd's graph that made the outputs for an image; None where there is no graph."""
    try:
        with torch.enable_grad():
            return run_model(model, image.clone().requires_grad_() * 1, output).grad_fn
    except RuntimeError:  # a forward that allows no gradients
        return None


def ends_in_squashing(graph: Any = None) -> bool:
    """Whether a sigmoid, softmax or clamp made all of a tensor: its node of autograd's graph tells, if it has one."""
    if graph is None:
        return False
    return all(name.startswith(_SQUASHING) for name in _makers(graph))


def _makers(node: Any) -> set[str]:
    """Names of the operations that made a tensor, behind those that only move or join values."""
    name = re.sub(r"Backward\d*$", "", node.name())
    parents = [parent for parent, _ in node.next_functions if parent is not None]
    if name not in _PASSING:
        return {name}
    return set().union(*map(_makers, parents)) or {name}
