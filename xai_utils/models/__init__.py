"""Models, and how a model is run as the subject of an explanation or a measurement. Loaded on first use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
