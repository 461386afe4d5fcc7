"""Explaining image models: five papers reproduced, and the methods behind them.

`import xai_utils` loads nothing that is heavy, not even torch; the parts (`xai_utils.explain`, `xai_utils.data`, …)
are loaded when they are first used. It also makes a later `import torchvision` work: see `_torchvision_guard`.
"""

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class _BeforeTorchvision(MetaPathFinder):
    """Has the guard installed when torchvision is first looked for, so that torch is not loaded before it is needed."""

    done = False

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name == "torchvision" and not self.done:
            self.done = True  # the guard looks for torchvision, too
            importlib.import_module(f"{__name__}._torchvision_guard").install()


sys.meta_path.insert(0, _BeforeTorchvision())


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
