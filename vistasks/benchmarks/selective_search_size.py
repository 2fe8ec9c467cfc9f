"""How the time of selective search grows with the pixels of a picture and shrinks with threads."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vistasks.benchmarks.selective_search import labelled_pictures
from vistasks.proposals import selective_search
from vistasks.proposals.selective_search import MODES, Mode
from vistasks.system.machine import peak_bytes

MEGAPIXELS = (0.1, 0.3, 1.0, 3.0, 6.0, 12.0, 24.0)
TILES = 24  # different pictures in the mosaic


def mosaic(pictures: Sequence[np.ndarray], megapixels: float) -> np.ndarray:
    """(H, W, 3) uint8, 4:3, of so many million pixels: pictures laid side by side, so that all sizes have the
    same content.
    """
    height = max(1, round(math.sqrt(megapixels * 1e6 * 3 / 4)))
    width = max(1, round(height * 4 / 3))
    tile = min(p.shape[0] for p in pictures), min(p.shape[1] for p in pictures)
    down, across = -(-height // tile[0]), -(-width // tile[1])
    rows = [
        np.concatenate(
            [pictures[(y * 7 + x) % len(pictures)][: tile[0], : tile[1]] for x in range(across)], axis=1
        )
        for y in range(down)
    ]
    return np.ascontiguousarray(np.concatenate(rows)[:height, :width])


def benchmark(
    data: Path,
    *,
    split: str = "train",
    megapixels: Sequence[float] = MEGAPIXELS,
    threads: Sequence[int] = (1,),
    mode: Mode = "fast",
    rounds: int = 3,
) -> dict[str, Any]:
    """The best of some rounds for mosaics of real pictures of rising size.

    Args:
        data: a VOC or COCO data set's folder, whose pictures are laid side by side.
        split: its part.
        megapixels: sizes in millions of pixels.
        threads: numbers of threads.
        mode: of selective search.
        rounds: the fastest of so many is taken; one over 3 megapixels.

    Returns: "rows" of "megapixels", "threads", "seconds", "microseconds_per_pixel", "boxes", "peak_mb" (the
    largest resident size of the process so far); "exponent", the slope of log time over log pixels of each
    number of threads."""
    if (
        mode not in MODES
        or not megapixels
        or min(megapixels) <= 0
        or not threads
        or min(threads) < 1
        or rounds < 1
    ):
        raise ValueError(
            f"selective search size benchmark: expected a mode of {', '.join(MODES)}, sizes over 0, threads and rounds of at "
            f"least 1, not {mode!r}, {list(megapixels)}, {list(threads)}, {rounds}"
        )
    dataset = labelled_pictures(data, split)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(TILES, len(dataset))).astype(int)).tolist()
    pictures = [dataset[index].image for index in chosen]
    selective_search(pictures[0], mode)  # compiles, which is not measured
    rows = []
    for size in sorted(megapixels):
        image = mosaic(pictures, size)
        for count in threads:
            times = []
            for _ in range(rounds if size <= 3 else 1):
                start = time.perf_counter()
                boxes = selective_search(image, mode, threads=count)
                times.append(time.perf_counter() - start)
            pixels = image.shape[0] * image.shape[1]
            per_pixel = min(times) / pixels * 1e6
            timed = {
                "megapixels": pixels / 1e6,
                "threads": count,
                "seconds": min(times),
                "microseconds_per_pixel": per_pixel,
            }
            rows.append({**timed, "boxes": len(boxes), "peak_mb": peak_bytes() / 1e6})
    return {
        "data": str(data),
        "mode": mode,
        "rows": rows,
        "exponent": {str(n): _exponent(rows, n) for n in threads},
    }


def _exponent(rows: list[dict[str, Any]], threads: int) -> float | None:
    own = [row for row in rows if row["threads"] == threads]
    if len(own) < 2:
        return None
    slope = np.polyfit(
        np.log([row["megapixels"] for row in own]), np.log([row["seconds"] for row in own]), 1
    )[0]
    return float(slope)


def plot(result: dict[str, Any], path: Path) -> None:
    """Seconds against megapixels, both logarithmic, with a line of proportional growth, as a picture file."""
    from matplotlib.figure import Figure

    from vistasks.system.atomic import replacing

    axes = (figure := Figure(figsize=(6, 4), layout="constrained")).subplots()
    for count in dict.fromkeys(row["threads"] for row in result["rows"]):
        own = [row for row in result["rows"] if row["threads"] == count]
        sizes = [row["megapixels"] for row in own]
        axes.plot(
            sizes,
            [row["seconds"] for row in own],
            marker="o",
            label=f"{count} thread{'s' if count > 1 else ''}",
        )
    first = result["rows"][0]
    sizes = [row["megapixels"] for row in result["rows"]]
    linear = [first["seconds"] * size / first["megapixels"] for size in sizes]
    axes.plot(sizes, linear, linestyle=":", color="0.5", label="proportional to the smallest")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="megapixels",
        ylabel="seconds",
        title=f"selective search, {result['mode']}",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
