"""Explaining image models: five papers reproduced, and the methods behind them.

`import xai_utils` loads torch and nothing else that is heavy; the parts (`xai_utils.explain`, `xai_utils.data`, …)
are loaded when they are first used.
"""

import importlib
import pkgutil
from types import ModuleType

from . import _torchvision_guard

_torchvision_guard.install()


def __getattr__(name: str) -> ModuleType:
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted(part.name for part in pkgutil.iter_modules(__path__) if not part.name.startswith("_"))
