"""Selective search (Uijlings, van de Sande, Gevers and Smeulders, IJCV 2013).

picture -> colour spaces -> graph segmentation at several k -> region features -> hierarchical grouping by several
combinations of similarities -> boxes, ranked by the randomised hierarchy rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vistasks.proposals.colour import COLOUR_SPACES
from vistasks.proposals.graph_segmentation import coarser, segment, smoothed_planes, touching
from vistasks.proposals.grouping import group
from vistasks.proposals.regions import describe, gather

VERSION = 1  # of the algorithm: part of every cache key; raise it when any box changes
SIGMA = 0.8
LEVELS = 4.0  # edge weight levels per grey value

Mode = Literal["single", "fast", "quality"]


@dataclass(frozen=True)
class Strategies:
    """What a mode combines: every colour space with every k with every combination of similarities.

    ``similarities`` are words of C (colour), T (texture), S (size), F (fill), as in the paper's table 3.
    """

    colour_spaces: tuple[str, ...]
    k: tuple[float, ...]
    similarities: tuple[str, ...]
    min_size: int


MODES: dict[str, Strategies] = {
    "single": Strategies(("HSV",), (100,), ("CTSF",), 50),
    "fast": Strategies(("HSV", "Lab"), (50, 100), ("CTSF", "TSF"), 50),
    "quality": Strategies(("HSV", "Lab", "rgI", "H", "I"), (50, 100, 150, 300), ("CTSF", "TSF", "F", "S"), 50),
}


def _hierarchies(rgb: np.ndarray, space: str, strategies: Strategies, min_size: int) -> list[np.ndarray]:
    """The boxes (2n - 1, 4) int32 of every hierarchy of one colour space, the whole picture last."""
    height, width = rgb.shape[:2]
    planes = COLOUR_SPACES[space](rgb)
    finest = min(strategies.k)
    labels, size, internal, first, second, weight = segment(smoothed_planes(planes, SIGMA), finest, min_size, LEVELS)
    box, counts = describe(planes, labels, len(size))
    result = []
    for k in strategies.k:
        if k == finest:
            sizes, boxes, sums, one, two = size, box, counts, first, second
        else:
            merged, count = coarser(size, internal, first, second, weight, k * LEVELS, min_size)
            sizes, boxes, sums = gather(merged, count, size, box, counts)
            one, two, _ = touching(merged, first, second, weight, count)
        for word in strategies.similarities:
            weights = np.array([letter in word for letter in "CTSF"], dtype=np.float32)
            result.append(group(sizes, boxes, sums, one, two, np.float32(height * width), len(planes), weights))
    return result


def _ranked(hierarchies: Iterable[np.ndarray], seed: int, height: int, width: int) -> np.ndarray:
    """All boxes of all hierarchies, best first, each once (section 3.2.3: position in its hierarchy times a random number)."""
    boxes, ranks = [], []
    for index, hierarchy in enumerate(hierarchies):
        positions = np.arange(len(hierarchy), 0, -1)
        boxes.append(hierarchy)
        ranks.append(positions * np.random.default_rng([seed, index]).random(len(hierarchy)))
    together = np.concatenate(boxes)
    together = together[np.argsort(np.concatenate(ranks), kind="stable")]
    pixels = height * width
    wide = together.astype(np.uint64)
    keys = (wide[:, 1] * width + wide[:, 0]) * pixels + (wide[:, 3] - 1) * width + (wide[:, 2] - 1)
    _, once = np.unique(keys, return_index=True)
    return together[np.sort(once)]


def selective_search(
    image: np.ndarray,
    mode: Mode = "fast",
    *,
    max_boxes: int | None = None,
    min_size: int | None = None,
    seed: int = 0,
    threads: int = 1,
) -> np.ndarray:
    """Boxes that probably hold whole objects, whatever their class.

    Args:
        image: (H, W, 3) uint8 RGB.
        mode: which strategies are combined; more of them find more objects and take longer.
        max_boxes: keep only the best so many.
        min_size: the smallest initial region in pixels; None takes the mode's.
        seed: of the random part of the rank.
        threads: colour spaces are worked on side by side; the result does not depend on it.

    Returns: (N, 4) float32 x1, y1, x2, y2, best first, no box twice.
    """
    strategies = MODES[mode]
    smallest = strategies.min_size if min_size is None else min_size
    height, width = image.shape[:2]

    def work(space: str) -> list[np.ndarray]:
        return _hierarchies(image, space, strategies, smallest)

    if threads > 1:
        with ThreadPoolExecutor(min(threads, len(strategies.colour_spaces))) as pool:
            found = list(pool.map(work, strategies.colour_spaces))
    else:
        found = [work(space) for space in strategies.colour_spaces]
    ranked = _ranked([hierarchy for part in found for hierarchy in part], seed, height, width)
    return ranked[:max_boxes].astype(np.float32)
