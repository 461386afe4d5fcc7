"""Explaining image models: five papers reproduced, and the methods behind them.

`import xai_utils` loads nothing that is heavy, not even torch; the parts (`xai_utils.explain`, `xai_utils.data`, …)
are loaded when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
