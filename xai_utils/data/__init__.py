"""Data sets with checksums: `load` reads them, `fetch` downloads them, `python -m xai_utils.data` is the command."""

import lazy_loader

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
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["FAMILIES"]
