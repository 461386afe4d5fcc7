"""Keep `import torchvision` working beside a torch that its C++ operators were not built for.

The ordinary torchvision wheel is built for CUDA. Beside a CPU build of torch its extension cannot be loaded;
torchvision tolerates that, but then gives its `nms` and `qnms` a fake kernel, and without their schemas this fails:
`operator torchvision::nms does not exist`. With the two schemas declared, models, transforms and data sets work,
and calling an operator of `torchvision.ops` raises torchvision's own error. No matching pair of the two can be had from
the ordinary index for a machine without a GPU. The package itself imports torchvision nowhere: whoever does, beside it,
calls `make_torchvision_importable` first.
"""

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None  # the schemas live as long as this object


def make_torchvision_importable() -> bool:
    """Declare the two schemas where, and only where, `import torchvision` would fail without them.

    Call it before the first `import torchvision`. It does not import torchvision (1.2 s): it loads the extension as
    torchvision itself would, at no extra cost.

    Returns:
        True if the schemas were declared by this call.
    """
    global _library
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    if _declared() or _extension_loads(spec.submodule_search_locations[0]):
        return False
    # a fragment can stand beside another package's declaration in this namespace
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        _library.define(schema)
    return True


def _declared() -> bool:
    return hasattr(torch.ops.torchvision, "nms")


def _extension_loads(folder: str) -> bool:
    extension = FileFinder(folder, (ExtensionFileLoader, EXTENSION_SUFFIXES)).find_spec("_C")
    if extension is None:
        return False
    try:
        torch.ops.load_library(extension.origin)
    except (ImportError, OSError):
        return False
    return _declared()
