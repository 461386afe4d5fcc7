"""Measures of explanations and of what they are judged by; each takes arrays or images, wherever they come from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
