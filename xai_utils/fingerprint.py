"""What a training computes with besides its arguments: the code that it reaches, the packages' versions, the threads.

A checkpoint holds this: from one that other code, another version or another number of threads has made, nothing goes
on. Code is taken as it is in memory, by its bytecode: docstrings, comments and layout do not count.
"""

import functools
import hashlib
import importlib.metadata
import platform
import re
import sys
from collections.abc import Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "scikit-image", "pandas", "pillow")


def environment() -> dict[str, Any]:
    """Python, the packages that make numbers, and PyTorch's threads."""
    return {"python": platform.python_version(), "packages": _versions(), "threads": torch.get_num_threads()}


@functools.cache
def _versions() -> str:
    """Names and versions of the packages that are installed."""
    found = {str(one.name).lower(): one.version for one in importlib.metadata.distributions()}
    return " ".join(f"{name} {found[name]}" for name in PACKAGES if name in found)


def code_of(*roots: Any) -> str:
    """Hash (16 hex digits) of functions, classes, models, and of all code of this package or the caller's they reach.

    Followed are the names that a function reads, its defaults and closure, a class's methods and bases, a model's
    parts. Plain values, arrays and tensors count by value; code of installed packages by its name.
    """
    digest, queue, met = hashlib.sha256(), list(roots), 0
    seen: dict[int, tuple[int, Any]] = {}  # id → when first met, and the value, so that no other one gets its id
    while queue:
        value = queue.pop()
        first, _ = seen.setdefault(id(value), (met, value))
        text, more = _described(value) if first == met else (f"again {first}", [])
        met += 1
        digest.update(f"{text}\n".encode(errors="surrogatepass"))
        queue += more
    return digest.hexdigest()[:16]


def _described(value: Any) -> tuple[str, list[Any]]:
    """What is told of a value itself, and what it leads to."""
    if isinstance(value, FunctionType):
        return f"function {_code(value.__code__, value.__doc__)}", _reached(value) if _is_own(value) else []
    if isinstance(value, functools.partial):
        return "partial", [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return "method", [value.__func__, type(value.__self__)]
    if isinstance(value, type):
        inner = [getattr(part, "fget", getattr(part, "__func__", part)) for _, part in sorted(vars(value).items())]
        made = [part for part in inner if isinstance(part, FunctionType)]
        return f"class {value.__module__}.{value.__qualname__}", [*value.__bases__, *made] if _is_own(value) else []
    if isinstance(value, nn.Module):
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value)), list(dict.fromkeys(map(type, value.modules())))
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # of any number format
        return f"tensor {value.dtype} {tuple(value.shape)} {hashlib.sha256(content.numpy()).hexdigest()}", []
    if isinstance(value, np.ndarray):
        content = b"" if value.dtype.hasobject else value.tobytes()
        return f"array {value.dtype} {value.shape} {hashlib.sha256(content).hexdigest()}", []
    if isinstance(value, Mapping):
        return f"mapping {sorted(map(str, value))}", [value[key] for key in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        return f"sequence of {len(value)}", list(value)
    if isinstance(value, str | int | float | None):
        return f"{type(value).__name__} {value!r}", []
    return "one of", [type(value)]


def _reached(function: FunctionType) -> list[Any]:
    """What a function's code names, in its order, and what it holds."""
    found = [function.__defaults__, function.__kwdefaults__]
    names = list(dict.fromkeys(_names(function.__code__)))
    for name in names:
        known = function.__globals__.get(name)
        if isinstance(known, ModuleType):
            parts = [_attribute(known, attribute) for attribute in names] if _is_own(known) else []
            found += [part for part in parts if isinstance(part, FunctionType | type)]
        else:
            found.append(known)
    for cell in function.__closure__ or ():
        found.append(_content(cell))
    return found


def _names(code: CodeType) -> list[str]:
    inner = [name for part in code.co_consts if isinstance(part, CodeType) for name in _names(part)]
    return [*code.co_names, *inner]


def _attribute(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name, None)
    except ImportError:  # a module that loads its parts when they are wanted, and an extra is not installed
        return None


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _code(code: CodeType, text: str | None) -> str:
    """A code object's content but for its places in files and its docstring, which is its first constant, or None."""
    parts = [part for number, part in enumerate(code.co_consts) if number or part != text]
    told = [_code(p, None) if isinstance(p, CodeType) else _constant(p) for p in parts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {told}"


def _constant(value: Any) -> str:
    return f"{sorted(map(repr, value))}" if isinstance(value, frozenset) else repr(value)


def _is_own(value: Any) -> bool:
    """Whether it is code of this package or of who calls it: neither Python's own nor an installed package's."""
    name = value.__name__ if isinstance(value, ModuleType) else value.__module__ or ""
    top = name.partition(".")[0]
    place = getattr(sys.modules.get(name), "__file__", None) or ""
    return top == "xai_utils" or (top not in {*sys.stdlib_module_names, "builtins"} and "site-packages" not in place)
