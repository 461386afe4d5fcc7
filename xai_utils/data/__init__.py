"""Data sets with checksums: `load` reads them, `fetch` builds them, `python -m xai_utils.data` is the command."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
