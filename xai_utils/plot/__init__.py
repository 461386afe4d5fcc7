"""Every figure of the suite, in one style: inputs beside their maps, one palette, named colour bars.

Functions take arrays or tensors, return a matplotlib `Figure` and never call `plt.show()`.
"""

from .charts import agreement, curves, distributions, flow, history, intervals, latent_path
from .pictures import images, morph_slider, morphs, overlays, saliency, saliency_table, tiles
from .style import ACCENT, DIVERGING, INK, PALE, SECOND, SEQUENTIAL, banner, use_style

__all__ = [
    "ACCENT", "DIVERGING", "INK", "PALE", "SECOND", "SEQUENTIAL",
    "agreement", "banner", "curves", "distributions", "flow", "history", "images", "intervals", "latent_path",
    "morph_slider", "morphs", "overlays", "saliency", "saliency_table", "tiles", "use_style",
]  # fmt: skip
