"""Images and maps: grids, morphs, saliency beside its input, overlays."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from .style import ACCENT, DIVERGING, SEQUENTIAL, as_array, as_picture, as_png, show

if TYPE_CHECKING:
    from ipywidgets import VBox


def images(
    pictures: ArrayLike | Tensor,
    titles: Sequence[str] = (),
    columns: int = 10,
    title: str = "",
    scale: float = 1.0,
) -> Figure:
    """A grid of images (N, H, W), (N, 1, H, W) or (N, 3, H, W) in [0, 1], `titles` above them.

    `scale` enlarges the pictures, not the text; photographs are large files, so show many of them small.
    """
    pictures = [as_picture(p) for p in as_array(pictures)]
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    fig, axes = plt.subplots(
        rows, columns,
        figsize=(0.95 * columns * scale, (0.98 * scale + 0.22 * bool(len(titles))) * rows + 0.3 * bool(title)),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for index, ax in enumerate(axes.flat):
        if index < len(pictures):
            show(ax, pictures[index])
            ax.set_title(titles[index] if index < len(titles) else "", fontsize=8)
        else:
            ax.axis("off")
    fig.suptitle(title, fontsize=11)
    return fig


def morphs(
    inputs: ArrayLike | Tensor,
    frames: ArrayLike | Tensor,
    labels: Sequence[str] = (),
    odd: ArrayLike | None = None,
    title: str = "",
    numbers: Sequence[int] = (),
) -> Figure:
    """One row per input: the input, then its morph's frames D(z_0, l) … D(z_n, l), or some of them.

    Args:
        inputs: (N, C, H, W) images in [0, 1].
        frames: (N, n + 1, C, H, W) of `explain.morph`.
        labels: N row labels, for instance "1 → 2".
        odd: (N, n + 1) bool; such frames are outlined.
        title: of the whole figure.
        numbers: which i the frames are of, the first and the last among them; default: all, 0 … n.
    """
    inputs, frames = as_array(inputs), as_array(frames)
    n, steps = frames.shape[:2]
    fig, axes = plt.subplots(
        n, steps + 2, figsize=(1.15 * (steps + 1.35), 1.25 * n + 0.4 + 0.25 * bool(title)),
        squeeze=False, layout="constrained", width_ratios=[1, 0.35, *[1] * steps],
    )  # fmt: skip
    for row in range(n):
        show(axes[row, 0], as_picture(inputs[row]))
        axes[row, 0].set_ylabel(labels[row] if row < len(labels) else "", rotation=0, ha="right", va="center")
        axes[row, 1].axis("off")
        axes[row, 1].text(0.5, 0.5, "→", ha="center", va="center", fontsize=14, transform=axes[row, 1].transAxes)
        for step in range(steps):
            ax = axes[row, step + 2]
            show(ax, as_picture(frames[row, step]))
            if odd is not None and np.asarray(odd)[row, step]:
                for spine in ax.spines.values():
                    spine.set(visible=True, color=ACCENT, linewidth=2)
    axes[0, 0].set_title("input x", fontsize=9)
    for step, number in enumerate(numbers or range(steps)):
        name = {0: "$D(z_0, l)$", steps - 1: "$D(z_n, l)$"}.get(step, f"$z_{{{number}}}$")
        axes[0, step + 2].set_title(name, fontsize=9)
    fig.suptitle(title, fontsize=11)
    return fig


def saliency(
    image: ArrayLike | Tensor,
    maps: Mapping[str, ArrayLike | Tensor],
    title: str = "",
    quantity: str = "attribution",
) -> Figure:
    """The input and, at the same scale, each map (H, W) of `maps` with a colour bar of its own.

    A map with negative values gets the diverging palette centred on zero, any other the sequential one from zero.
    """
    fig, axes = plt.subplots(
        1, len(maps) + 1, figsize=(2.5 * (len(maps) + 1), 2.6), layout="constrained", squeeze=False
    )
    show(axes[0, 0], as_picture(as_array(image)))
    axes[0, 0].set_title("input")
    for ax, (name, values) in zip(axes[0, 1:], maps.items()):
        values = as_array(values)
        peak = float(np.abs(values).max()) or 1.0
        signed = values.min() < 0
        drawn = ax.imshow(values, cmap=DIVERGING if signed else SEQUENTIAL, vmin=-peak if signed else 0, vmax=peak)
        ax.set(title=name, xticks=[], yticks=[])
        bar = fig.colorbar(drawn, ax=ax, shrink=0.75)
        bar.set_label(quantity, fontsize=8)
        bar.ax.tick_params(labelsize=7)
    fig.suptitle(title, fontsize=11)
    return fig


def saliency_table(
    pictures: ArrayLike | Tensor,
    maps: Mapping[str, ArrayLike | Tensor],
    titles: Sequence[str] = (),
    title: str = "",
    outlines: ArrayLike | Tensor | None = None,
    together: bool = False,
) -> Figure:
    """Images (N, C, H, W) in the first row, then one row of maps (N, H, W) for each method.

    All maps share one palette: red above zero, white at zero, blue below. A map is scaled by the value that 99.5 % of
    its pixels do not exceed in size, so that single bright pixels do not make the rest white; with `together` by the
    largest of these in its column, so that the maps of one image can be compared. `outlines` (N, H, W) bool draws the
    border of the true region on the image.
    """
    pictures = as_array(pictures)
    maps = {name: as_array(values) for name, values in maps.items()}
    sizes = np.stack([np.quantile(np.abs(m).reshape(len(m), -1), 0.995, axis=1) for m in maps.values()])
    rows, n = len(maps) + 1, len(pictures)
    fig, axes = plt.subplots(
        rows, n, figsize=(1.3 * n + 2.4, 1.32 * rows + 0.5), squeeze=False, layout="constrained"
    )  # fmt: skip
    for column in range(n):
        show(axes[0, column], as_picture(pictures[column]))
        axes[0, column].set_title(titles[column] if column < len(titles) else "", fontsize=9)
        if outlines is not None:
            axes[0, column].contour(as_array(outlines)[column], levels=[0.5], colors=[ACCENT], linewidths=1.5)
        for row, values in enumerate(maps.values()):
            peak = float(sizes[:, column].max() if together else sizes[row, column]) or 1.0
            drawn = axes[row + 1, column].imshow(values[column] / peak, cmap=DIVERGING, vmin=-1, vmax=1)
            axes[row + 1, column].set(xticks=[], yticks=[])
            axes[row + 1, column].spines[:].set_visible(False)
    for ax, name in zip(axes[:, 0], ["image", *maps]):
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    bar = fig.colorbar(drawn, ax=axes, shrink=0.6, ticks=[-1, 0, 1], aspect=30)
    bar.set_label(f"map / its largest size{', of the column' * together}", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    fig.suptitle(title, fontsize=11)
    return fig


def tiles(
    rows: Mapping[str, ArrayLike | Tensor],
    titles: Sequence[str] = (),
    title: str = "",
    outlines: ArrayLike | Tensor | None = None,
    over: ArrayLike | Tensor | None = None,
    cmap: str = SEQUENTIAL,
) -> Figure:
    """Rows of large tiles, an image a column: pictures (N, C, H, W) as they are, maps (N, H, W) in one palette.

    Negative values of a map count as 0; its 99th percentile, and all above, gets the last colour. `over` (N, C, H, W)
    lies under the maps. `outlines` (N, H, W) bool draws the border of the true region, on pictures only. Every tile is
    1.04 inches wide; nothing is laid out by trial, which takes seconds for many tiles.
    """
    n, tile, mapped = max(map(len, rows.values())), 1.04, any(np.ndim(values) == 3 for values in rows.values())
    lines = max((text.count("\n") + 1 for text in titles), default=0)
    above = 0.1 + (0.3 + 0.18 * title.count("\n")) * bool(title) + 0.16 * lines
    width, height = 1.2 + 1.1 * n + 0.8 * mapped, above + 1.1 * len(rows) + 0.05
    places = {"left": 1.2 / width, "right": 1 - (0.06 + 0.8 * mapped) / width, "top": 1 - above / height}
    places |= {"bottom": 0.11 / height, "wspace": 0.06 / tile, "hspace": 0.06 / tile}
    fig, axes = plt.subplots(len(rows), n, figsize=(width, height), squeeze=False, gridspec_kw=places)
    for name, line in zip(rows, axes):
        for column, ax in enumerate(line[: len(rows[name])]):
            values = as_array(rows[name])[column]
            if values.ndim == 3:
                show(ax, as_picture(values))
                if outlines is not None and as_array(outlines)[column].any():
                    ax.contour(as_array(outlines)[column], levels=[0.5], colors=["white"], linewidths=1.2)
                continue
            show(ax, as_picture(as_array(over)[column]) if over is not None else np.zeros_like(values))
            values = values.clip(min=0)
            top = np.quantile(values, 0.99) or values.max() or 1.0
            drawn = ax.imshow(values / top, cmap=cmap, vmin=0, vmax=1, alpha=0.5 if over is not None else 1.0)
        for ax in line[len(rows[name]) :]:
            ax.axis("off")
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for ax, text in zip(axes[0], titles):
        ax.set_title(text, fontsize=9)
    if mapped:
        place = (1 - 0.7 / width, 0.11 / height, 0.12 / width, min(2.14, height - above - 0.11) / height)
        bar = fig.colorbar(drawn, cax=fig.add_axes(place), ticks=[0, 1])
        bar.set_label("map / its 99th percentile", fontsize=8)
    fig.suptitle(title, fontsize=11, y=1 - 0.03 / height, va="top")
    return fig


def overlays(
    pictures: ArrayLike | Tensor,
    maps: Mapping[str, ArrayLike | Tensor],
    titles: Sequence[str] = (),
    title: str = "",
    outlines: ArrayLike | Tensor | None = None,
) -> Figure:
    """Images (N, C, H, W) in the first row, then one row per method: its maps (N, H, W) laid over the images.

    Grad-CAM's usual picture: red high, blue low; see `tiles`.
    """
    return tiles({"image": pictures, **maps}, titles, title, outlines, over=pictures, cmap="jet")


def morph_slider(frames: ArrayLike | Tensor, labels: Sequence[str] = (), size: int = 168) -> "VBox":
    """A slider through the frames (n + 1, C, H, W) of one morph; shows what the static strip beside it shows."""
    from ipywidgets import HTML, Image, IntSlider, VBox

    pictures = [as_png(as_picture(frame), size) for frame in as_array(frames)]
    image = Image(value=pictures[0], format="png", width=size, height=size)
    caption = HTML(value=labels[0] if labels else "")
    slider = IntSlider(value=0, min=0, max=len(pictures) - 1, description="frame i")

    def turn(change: Mapping[str, int]) -> None:
        image.value = pictures[change["new"]]
        caption.value = labels[change["new"]] if labels else ""

    slider.observe(turn, names="value")
    return VBox([slider, image, caption])
