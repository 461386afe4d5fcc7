"""Models that cannot be watched from outside, and models that switch gradients off on the way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn
from torch.overrides import TorchFunctionMode

_CHECKPOINT = torch.utils.checkpoint.CheckpointFunction


def refuse_compiled(model: nn.Module) -> None:
    """Refuse a model whose modules do not run as such, so that hooks on them would see nothing.

    Raises:
        TypeError: a part of it is compiled (torch.compile), traced or scripted (torch.jit).
    """
    for name, module in model.named_modules():
        forward = module.__dict__.get("forward")
        compiled = hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        compiled = compiled or hasattr(forward, "_torchdynamo_orig_callable")
        if compiled or isinstance(module, torch.jit.ScriptModule):
            where = f"its module {name!r}" if name else "it"
            raise TypeError(
                f"model: {where} is a {type(module).__name__} that torch.compile or torch.jit has made; expected the "
                "model as it was before torch.compile, torch.jit.trace or torch.jit.script, whose layers can be "
                "watched (of a compiled one: model._orig_mod). RISE, LIME and SHAP need no layers and take it as it is"
            )


class _NoSwitching(TorchFunctionMode):
    """Gradients are on within, whatever the code inside says."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return None if func is torch._C._set_grad_enabled else func(*args, **(kwargs or {}))


class _Straight:
    """In the place of reentrant checkpointing, whose segments are run without gradients: runs them as they are."""

    @staticmethod
    def apply(function: Callable, _preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args)


@contextmanager
def gradients_throughout() -> Iterator[None]:
    """Keep gradients on, though the forward switches them off (`no_grad`) or runs in reentrant checkpoints.

    `torch.inference_mode` in a forward cannot be undone. Checkpointing is off for the whole process meanwhile, which
    costs memory and changes no result.
    """
    torch.utils.checkpoint.CheckpointFunction = _Straight
    try:
        with torch.enable_grad(), _NoSwitching():
            yield
    finally:
        torch.utils.checkpoint.CheckpointFunction = _CHECKPOINT
