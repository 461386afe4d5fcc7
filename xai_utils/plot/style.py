"""The house style: colours, fonts, sizes; how an array becomes a picture."""

import importlib.util
import logging
import textwrap
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

INK, ACCENT, SECOND, PALE = "#22313f", "#c8553d", "#2e6f95", "#e8ecef"
SEQUENTIAL, DIVERGING = "magma", "RdBu_r"  # positive saliency · signed saliency, centred on zero

_JAPANESE = ("IPAexGothic", "Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", "Meiryo", "MS Gothic", "TakaoGothic")
_STYLE = {
    "figure.dpi": 72,
    "savefig.dpi": 110,
    "savefig.bbox": "tight",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=[SECOND, ACCENT, "#6a994e", "#8e6c8a", "#bc8034", "#577590"]),
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "legend.frameon": False,
}


def use_style(dpi: int = 72) -> None:
    """Switch the house style on for this process; a notebook calls it once. `dpi` is that of figures on the screen."""
    plt.rcParams.update(_STYLE | {"figure.dpi": dpi, "font.family": _fonts()})


def _fonts() -> list[str]:
    """Matplotlib's own font, and behind it one for Japanese names: that of the notebook extra, or one that is there."""
    if (package := importlib.util.find_spec("matplotlib_fontja")) and package.origin:
        for file in Path(package.origin).parent.glob("fonts/*.ttf"):
            font_manager.fontManager.addfont(file)
    # The Japanese font has one weight; Matplotlib says so of every bold title, in a font nobody asked to be bold.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    there = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _JAPANESE if name in there)]


def banner(fig: Figure, text: str) -> Figure:
    """Write `text` across the top of a finished figure, outside its axes: what a reader must know before the maps.

    "" changes nothing. For instance `plot.banner(fig, run.competent("P3.1").warning)`.
    """
    if text:
        width = max(20, round(fig.get_figwidth() * 13))  # letters of this size in a line
        box = {"boxstyle": "square,pad=0.5", "facecolor": ACCENT, "edgecolor": "none"}
        place = {"x": 0.5, "y": 1.02, "ha": "center", "va": "bottom", "fontsize": 9, "color": "white"}
        fig.text(s=textwrap.fill(text, width), bbox=box, **place)
    return fig


def as_array(values: ArrayLike | Tensor) -> np.ndarray:
    """The numbers of an array or a tensor, on the CPU."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def as_picture(image: np.ndarray) -> np.ndarray:
    """(H, W), (1, H, W) or (3, H, W) -> (H, W) or (H, W, 3), clipped to [0, 1]."""
    image = np.clip(image, 0, 1)
    if image.ndim == 3:
        image = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    return image


def show(ax: Axes, picture: np.ndarray) -> None:
    """Draw a picture (H, W) or (H, W, 3) in [0, 1], without ticks or frame."""
    ax.imshow(picture, vmin=0, vmax=1, cmap="gray" if picture.ndim == 2 else None)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)


def as_png(picture: np.ndarray, size: int) -> bytes:
    """A picture (H, W) or (H, W, 3) in [0, 1], enlarged to size × size pixels, as PNG."""
    from PIL import Image as PillowImage

    buffer = BytesIO()
    image = PillowImage.fromarray((picture * 255).round().astype(np.uint8))
    image.resize((size, size), PillowImage.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()
