"""Charts: curves, histories, structures, distributions, intervals."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from numpy.typing import ArrayLike
from torch import Tensor

from .style import ACCENT, INK, PALE, SECOND, as_array

if TYPE_CHECKING:
    from xai_utils.metrics.statistics import Estimate


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
    x = as_array(x)
    for ax, (name, lines) in zip(axes[0], panels.items()):
        for label, values in lines.items():
            values = as_array(values)
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
    truth, predicted = as_array(truth), as_array(predicted)
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
    codes, labels = as_array(codes), as_array(labels)
    centre = codes.mean(axis=0)
    axes_2d = np.linalg.svd(codes - centre, full_matrices=False)[2][:2].T
    fig, ax = plt.subplots(figsize=(4.8, 3.7), layout="constrained")
    points = (codes - centre) @ axes_2d
    names, rank = np.unique(labels, return_inverse=True)
    palette = plt.get_cmap("tab10", 10).resampled(len(names)) if len(names) <= 10 else plt.get_cmap("turbo", len(names))
    cloud = ax.scatter(*points.T, c=rank, cmap=palette, vmin=-0.5, vmax=len(names) - 0.5, s=6, alpha=0.6, linewidths=0)
    for (name, path), style in zip(paths.items(), ("o-", "s--", "^:")):
        path = (as_array(path) - centre) @ axes_2d
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
