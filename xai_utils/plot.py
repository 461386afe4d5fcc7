"""Every figure of the suite, in one style: inputs beside their maps, one palette, named colour bars.

Functions take arrays or tensors, return a matplotlib `Figure` and never call `plt.show()`.
"""

import importlib.util
import logging
import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from numpy.typing import ArrayLike
from torch import Tensor

if TYPE_CHECKING:
    from ipywidgets import VBox

    from xai_utils.metrics.statistics import Estimate

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
    pictures = [_picture(p) for p in _array(pictures)]
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    fig, axes = plt.subplots(
        rows, columns,
        figsize=(0.95 * columns * scale, (0.98 * scale + 0.22 * bool(len(titles))) * rows + 0.3 * bool(title)),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for index, ax in enumerate(axes.flat):
        if index < len(pictures):
            _show(ax, pictures[index])
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
    inputs, frames = _array(inputs), _array(frames)
    n, steps = frames.shape[:2]
    fig, axes = plt.subplots(
        n, steps + 2, figsize=(1.15 * (steps + 1.35), 1.25 * n + 0.4 + 0.25 * bool(title)),
        squeeze=False, layout="constrained", width_ratios=[1, 0.35, *[1] * steps],
    )  # fmt: skip
    for row in range(n):
        _show(axes[row, 0], _picture(inputs[row]))
        axes[row, 0].set_ylabel(labels[row] if row < len(labels) else "", rotation=0, ha="right", va="center")
        axes[row, 1].axis("off")
        axes[row, 1].text(0.5, 0.5, "→", ha="center", va="center", fontsize=14, transform=axes[row, 1].transAxes)
        for step in range(steps):
            ax = axes[row, step + 2]
            _show(ax, _picture(frames[row, step]))
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
    _show(axes[0, 0], _picture(_array(image)))
    axes[0, 0].set_title("input")
    for ax, (name, values) in zip(axes[0, 1:], maps.items()):
        values = _array(values)
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
    pictures = _array(pictures)
    maps = {name: _array(values) for name, values in maps.items()}
    sizes = np.stack([np.quantile(np.abs(m).reshape(len(m), -1), 0.995, axis=1) for m in maps.values()])
    rows, n = len(maps) + 1, len(pictures)
    fig, axes = plt.subplots(
        rows, n, figsize=(1.3 * n + 2.4, 1.32 * rows + 0.5), squeeze=False, layout="constrained"
    )  # fmt: skip
    for column in range(n):
        _show(axes[0, column], _picture(pictures[column]))
        axes[0, column].set_title(titles[column] if column < len(titles) else "", fontsize=9)
        if outlines is not None:
            axes[0, column].contour(_array(outlines)[column], levels=[0.5], colors=[ACCENT], linewidths=1.5)
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
            values = _array(rows[name])[column]
            if values.ndim == 3:
                _show(ax, _picture(values))
                if outlines is not None and _array(outlines)[column].any():
                    ax.contour(_array(outlines)[column], levels=[0.5], colors=["white"], linewidths=1.2)
                continue
            _show(ax, _picture(_array(over)[column]) if over is not None else np.zeros_like(values))
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


def curves(
    x: ArrayLike | Tensor,
    panels: Mapping[str, Mapping[str, ArrayLike | Tensor]],
    axis: tuple[str, str],
    title: str = "",
) -> Figure:
    """Mean curves of (N, T) values over x (T,), one panel per entry; the band holds the middle half of the images.

    `axis` names the two axes. A curve with a single row is drawn as a thin grey line without a band: a reference.
    """
    fig, axes = plt.subplots(
        1, len(panels), figsize=(2.6 * len(panels) + 0.3, 3.1), sharey=True, squeeze=False, layout="constrained"
    )
    x = _array(x)
    for ax, (name, lines) in zip(axes[0], panels.items()):
        for label, values in lines.items():
            values = _array(values)
            if len(values) == 1:
                ax.plot(x, values[0], color="#9aa5ad", linewidth=1, linestyle=":" if "uniform" in label else "-.",
                        label=label)  # fmt: skip
                continue
            (line,) = ax.plot(x, values.mean(axis=0), label=label)
            low, high = np.quantile(values, [0.25, 0.75], axis=0)
            ax.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        ax.set(xlabel=axis[0], title=name)
    axes[0, 0].set_ylabel(axis[1])
    axes[0, -1].legend(fontsize=8)
    fig.suptitle(title, fontsize=11)
    return fig


def agreement(
    truth: ArrayLike | Tensor, predicted: ArrayLike | Tensor, axis: tuple[str, str], title: str = ""
) -> Figure:
    """Predictions over true values, one dot an image, with the diagonal on which they agree."""
    truth, predicted = _array(truth), _array(predicted)
    fig, ax = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    ax.plot(ends, ends, color=ACCENT, linewidth=1)
    ax.scatter(truth, predicted, s=5, alpha=0.35, color=SECOND, linewidths=0)
    ax.set(xlabel=axis[0], ylabel=axis[1], title=title, aspect="equal")
    return fig


def history(table: pd.DataFrame, columns: Sequence[str] = ("loss",), title: str = "", unit: str = "") -> Figure:
    """Training and validation curves of `training.fit`'s table; the best epoch is marked where it is known."""
    fig, axes = plt.subplots(1, len(columns), figsize=(3.2 * len(columns), 2.5), layout="constrained", squeeze=False)
    for ax, column in zip(axes[0], columns):
        for part, colour, style in (("train", SECOND, "-"), ("val", ACCENT, "--")):
            if f"{part}_{column}" in table:
                ax.plot(table["epoch"], table[f"{part}_{column}"], style, color=colour, label=part)
        best = table.attrs.get("best_epoch")
        if best is not None:
            ax.axvline(best, color=INK, linewidth=0.8, linestyle=":")
        ax.set(xlabel="epoch", ylabel=f"{column} ({unit})" if unit else column)
        ax.legend()
    fig.suptitle(title, fontsize=11)
    return fig


def flow(
    boxes: Mapping[str, tuple[float, float, str]], arrows: Sequence[tuple[str, str, str]], title: str = ""
) -> Figure:
    """A drawn structure: `boxes` name -> (x, y, text) in units of one box, `arrows` (from, to, text)."""
    xs, ys = [b[0] for b in boxes.values()], [b[1] for b in boxes.values()]
    fig, ax = plt.subplots(
        figsize=(1.75 * (max(xs) - min(xs) + 1), 1.15 * (max(ys) - min(ys) + 1)), layout="constrained"
    )
    for x, y, text in boxes.values():
        ax.add_patch(
            FancyBboxPatch((x - 0.36, y - 0.28), 0.72, 0.56, boxstyle="round,pad=0.03", facecolor=PALE, edgecolor=INK)
        )
        ax.text(x, y, text, ha="center", va="center", fontsize=9)
    for source, goal, text in arrows:
        start, end = np.array(boxes[source][:2], dtype=float), np.array(boxes[goal][:2], dtype=float)
        way = end - start
        edge = way * min(0.39 / abs(way[0]) if way[0] else np.inf, 0.31 / abs(way[1]) if way[1] else np.inf)
        ax.add_patch(
            FancyArrowPatch(
                start + edge, end - edge, shrinkA=0, shrinkB=0, arrowstyle="-|>", mutation_scale=12, color=INK
            )
        )  # fmt: skip
        ax.text(*((start + end) / 2 + [0, 0.06]), text, ha="center", va="bottom", fontsize=8, color=ACCENT)
    ax.set(xlim=(min(xs) - 0.5, max(xs) + 0.5), ylim=(min(ys) - 0.45, max(ys) + 0.45), aspect="auto")
    ax.axis("off")
    fig.suptitle(title, fontsize=11)
    return fig


def latent_path(
    codes: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    paths: Mapping[str, ArrayLike | Tensor],
    title: str = "",
) -> Figure:
    """Encodings (M, f) in their first two principal components, coloured by label, with `paths` (n + 1, f)."""
    codes, labels = _array(codes), _array(labels)
    centre = codes.mean(axis=0)
    axes_2d = np.linalg.svd(codes - centre, full_matrices=False)[2][:2].T
    fig, ax = plt.subplots(figsize=(4.8, 3.7), layout="constrained")
    points = (codes - centre) @ axes_2d
    names, rank = np.unique(labels, return_inverse=True)
    palette = plt.get_cmap("tab10", 10).resampled(len(names)) if len(names) <= 10 else plt.get_cmap("turbo", len(names))
    cloud = ax.scatter(*points.T, c=rank, cmap=palette, vmin=-0.5, vmax=len(names) - 0.5, s=6, alpha=0.6, linewidths=0)
    for (name, path), style in zip(paths.items(), ("o-", "s--", "^:")):
        path = (_array(path) - centre) @ axes_2d
        ax.plot(*path.T, style, color=INK if style == "o-" else ACCENT, markersize=4, linewidth=1.2, label=name)
        for text, end in (("$z_0$", path[0]), ("$z_n$", path[-1])):
            ax.annotate(text, end, xytext=(6, 4), textcoords="offset points", fontweight="bold")
    ax.set(xlabel="first principal component of E(x)", ylabel="second")
    bar = fig.colorbar(cloud, ax=ax, label="label")
    bar.set_ticks(range(len(names)), labels=[str(name) for name in names])
    ax.legend(loc="best")
    fig.suptitle(title, fontsize=11)
    return fig


def distributions(
    values: Mapping[str, ArrayLike], quantity: str, bound: float | None = None, title: str = ""
) -> Figure:
    """One horizontal box per entry of `values`, with every value as a dot; `bound` is drawn as a line.

    Up to four entries have one size: whether there is a box for a rare outcome differs between processors.
    """
    fig, ax = plt.subplots(figsize=(6.2, 0.55 * max(4, len(values)) + 1.0), layout="constrained")
    data = [np.asarray(v, dtype=float) for v in values.values()]
    places = np.arange(len(data), 0, -1)
    ax.boxplot(
        data, positions=places, orientation="horizontal", widths=0.55, showfliers=False,
        medianprops={"color": ACCENT, "linewidth": 2}, boxprops={"color": INK}, whiskerprops={"color": INK},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for place, row in zip(places, data):
        ax.scatter(row, place + rng.uniform(-0.18, 0.18, len(row)), s=6, color=SECOND, alpha=0.5, linewidths=0)
    if bound is not None:
        ax.axvline(bound, color=ACCENT, linestyle=":", linewidth=1)
    ax.set_yticks(places, list(values))
    ax.set_xlabel(quantity)
    fig.suptitle(title, fontsize=11)
    return fig


def intervals(panels: Mapping[str, Mapping[str, "Estimate"]], references: Sequence[float], title: str = "") -> Figure:
    """A panel an entry of `panels` (its name: the axis), a row an estimate: a dot, its interval, n beside its name.

    `references` are the values that mean "no effect", one a panel. An estimate that is not defined is said to be so.
    """
    heights = [0.8 + 0.36 * len(rows) for rows in panels.values()]
    fig, axes = plt.subplots(
        len(panels), 1, figsize=(7, sum(heights) + 0.3), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for ax, (quantity, rows), reference in zip(axes[:, 0], panels.items(), references, strict=True):
        ax.axvline(reference, color=INK, linestyle=":", linewidth=1)
        for place, found in enumerate(rows.values()):
            if found.value is None:
                ax.text(reference, place, " not defined: too few images", va="center", fontsize=8)
            else:
                ax.plot([found.low, found.high], [place, place], color=SECOND, linewidth=2)
                ax.plot(found.value, place, "o", color=ACCENT)
        ax.set(xlabel=quantity, ylim=(len(rows) - 0.4, -0.6))
        ax.set_yticks(range(len(rows)), [f"{name} (n = {found.n})" for name, found in rows.items()])
    fig.suptitle(title, fontsize=11)
    return fig


def morph_slider(frames: ArrayLike | Tensor, labels: Sequence[str] = (), size: int = 168) -> "VBox":
    """A slider through the frames (n + 1, C, H, W) of one morph; shows what the static strip beside it shows."""
    from ipywidgets import HTML, Image, IntSlider, VBox

    pictures = [_png(_picture(frame), size) for frame in _array(frames)]
    image = Image(value=pictures[0], format="png", width=size, height=size)
    caption = HTML(value=labels[0] if labels else "")
    slider = IntSlider(value=0, min=0, max=len(pictures) - 1, description="frame i")

    def turn(change: Mapping[str, int]) -> None:
        image.value = pictures[change["new"]]
        caption.value = labels[change["new"]] if labels else ""

    slider.observe(turn, names="value")
    return VBox([slider, image, caption])


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


def _array(values: ArrayLike | Tensor) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _picture(image: np.ndarray) -> np.ndarray:
    """(H, W), (1, H, W) or (3, H, W) -> (H, W) or (H, W, 3), clipped to [0, 1]."""
    image = np.clip(image, 0, 1)
    if image.ndim == 3:
        image = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    return image


def _show(ax: Axes, picture: np.ndarray) -> None:
    ax.imshow(picture, vmin=0, vmax=1, cmap="gray" if picture.ndim == 2 else None)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _png(picture: np.ndarray, size: int) -> bytes:
    from PIL import Image as PillowImage

    buffer = BytesIO()
    image = PillowImage.fromarray((picture * 255).round().astype(np.uint8))
    image.resize((size, size), PillowImage.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()
