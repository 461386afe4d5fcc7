"""Models that cannot be watched from outside, and models that switch gradients off on the way."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn
from torch.overrides import TorchFunctionMode

_checkpoints = threading.RLock()


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


@contextmanager
def gradients_on() -> Iterator[None]:
    """Keep gradients on, though the forward switches them off; `torch.inference_mode` in it cannot be undone."""
    with torch.enable_grad(), _NoSwitching():
        yield


def is_of_checkpoint(error: RuntimeError) -> bool:
    """Whether an error says that a reentrant checkpoint stands in the way of `torch.autograd.grad`."""
    return "torch.utils.checkpoint" in str(error)


class _Straight:
    """In the place of reentrant checkpointing, whose segments are run without gradients: runs them as they are."""

    @staticmethod
    def apply(function: Callable, _preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args)


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Run reentrant checkpoints as if they were none; one thread at a time.

    They are off for the whole process meanwhile, which costs memory and changes no result.
    """
    with _checkpoints:
        kept = torch.utils.checkpoint.CheckpointFunction
        torch.utils.checkpoint.CheckpointFunction = _Straight
        try:
            yield
        finally:
            torch.utils.checkpoint.CheckpointFunction = kept
