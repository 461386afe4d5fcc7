"""Data sets with checksums: `load` reads them, `fetch` downloads them, `python -m xai_utils.data` is the command."""

from importlib import import_module
from typing import Any

# what `load` reads: `load_<name>` of the module of that name. It stands here, and not beside `load`, so that a new
# family leaves the code unchanged that made the records of the others.
FAMILIES = (
    "digits",
    "mnist",
    "rectangles",
    "rotated_digits",
    "surface_defects",
    "magnetic_tiles",
    "radiographs",
    "chest_xrays",
    "road_views",
    "stanford_cars",
    "cifar10",
    "road_patches",
    "road_cracks",
    "crackforest",
    "folder",
    "target_folder",
    "rdc",
)
_HOME = {
    "ImageSet": "imageset",
    "fetch": "store",
    "load": "imageset",
    "repository_root": "store",
    "stratified_split": "imageset",
}
__all__ = ["FAMILIES", "ImageSet", "fetch", "load", "repository_root", "stratified_split"]


def __getattr__(name: str) -> Any:
    """Load the module that holds `name` on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
