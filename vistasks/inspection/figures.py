"""The pictures of ``vistasks inspect``, drawn without pyplot, so that no display or global state is
touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vistasks.system.atomic import replacing
from vistasks.system.text import plot_label


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(plot_label(title))
    return figure


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def tiled(tiles: np.ndarray, columns: int, *, gap: int = 1) -> np.ndarray:
    """(N, h, w[, 3]) -> one picture with ``columns`` tiles a row; each tile is stretched to 0 .. 1 by itself.

    The gaps are white, which in a picture of one channel is NaN.
    """
    low = tiles.min(axis=(1, 2), keepdims=True)
    high = tiles.max(axis=(1, 2), keepdims=True)
    if tiles.ndim == 4:  # one range for the three colours, or the tile would be white-balanced
        low, high = low.min(axis=3, keepdims=True), high.max(axis=3, keepdims=True)
    scaled = (tiles - low) / np.maximum(high - low, 1e-12)
    count, height, width = tiles.shape[:3]
    rows = math.ceil(count / columns)
    shape = rows * (height + gap) + gap, columns * (width + gap) + gap, *tiles.shape[3:]
    sheet = np.full(shape, 1 if tiles.ndim == 4 else np.nan, dtype=np.float32)
    for index, tile in enumerate(scaled):
        y, x = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        sheet[y : y + height, x : x + width] = tile
    return sheet


def save_sheets(path: Path, sheets: Mapping[str, np.ndarray], title: str) -> None:
    """Sheets (h, w) or (h, w, 3) from 0 to 1 under one another, each under its name."""
    heights = [11 * sheet.shape[0] / sheet.shape[1] + 0.4 for sheet in sheets.values()]
    figure = _figure(11.5, sum(heights) + 0.5, title)
    panels = figure.subplots(len(sheets), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (name, sheet) in zip(panels, sheets.items()):
        axes.imshow(
            sheet, cmap="viridis" if sheet.ndim == 2 else None, vmin=0, vmax=1, interpolation="nearest"
        )
        axes.set_title(plot_label(name), fontsize="medium")
        axes.axis("off")
    _save(figure, path)


def save_heat(
    path: Path,
    image: np.ndarray,
    heat: np.ndarray,
    title: str,
    *,
    box: np.ndarray | None = None,
    point: tuple[int, int] | None = None,
    unit: str = "",
) -> None:
    """The picture, and the picture under a heat map of its size; a box x1, y1, x2, y2 and a point x, y where
    given.
    """
    height, width = image.shape[:2]
    figure = _figure(11, 5.5 * height / width + 0.6, title)
    panels = figure.subplots(1, 2)
    for axes in panels:
        axes.imshow(image)
        axes.axis("off")
        if box is not None:
            corner = (box[0], box[1])
            axes.add_patch(
                Rectangle(
                    corner, box[2] - box[0], box[3] - box[1], fill=False, edgecolor="white", linewidth=2
                )
            )
        if point is not None:
            axes.plot(
                *point, "o", markersize=9, markerfacecolor="none", markeredgecolor="white", markeredgewidth=2
            )
    shown = panels[1].imshow(
        heat, cmap="inferno", alpha=0.6, extent=(0, width, height, 0), interpolation="bilinear"
    )
    figure.colorbar(shown, ax=panels[1], shrink=0.8, label=unit)
    _save(figure, path)


def save_scatter(
    path: Path, clouds: Mapping[str, np.ndarray], labels: Sequence[str], colours: Mapping[str, Any]
) -> None:
    """Point clouds (N, 2) side by side, coloured by the N labels."""
    figure = _figure(6 * len(clouds), 5.5, "features of the regions, coloured by the likeliest class")
    names = np.array(labels)
    for axes, (title, points) in zip(figure.subplots(1, len(clouds), squeeze=False)[0], clouds.items()):
        for name in dict.fromkeys(labels):
            mine = points[names == name]
            colour = np.array(colours.get(name, (170, 170, 170))) / 255
            axes.scatter(
                mine[:, 0],
                mine[:, 1],
                s=14,
                color=colour,
                label=plot_label(f"{name} ({len(mine)})"),
                linewidths=0,
            )
        axes.set(title=title, xticks=[], yticks=[])
        axes.legend(fontsize="small")
    _save(figure, path)
