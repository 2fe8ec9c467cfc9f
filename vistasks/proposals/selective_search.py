"""Selective search (Uijlings, van de Sande, Gevers and Smeulders, "Selective search for object recognition",
IJCV 2013).

picture -> colour spaces -> graph segmentation at several k -> region features -> hierarchical grouping by
several combinations of similarities -> boxes, ranked by the randomised hierarchy rank.

What differs from the paper, each measured in docs/selective_search.md: pictures over `FULL_SIZE` pixels are
segmented at up to half their resolution; in a colour space the picture is segmented once, at the smallest k,
and the larger k continue on that segmentation's region graph; gradients are one-pixel differences, binned by
orientation and strength together; near duplicates are dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import cv2
import numpy as np

from vistasks.proposals.colour import COLOUR_SPACES
from vistasks.proposals.compiled import compiled
from vistasks.proposals.graph_segmentation import coarser, segment, smoothed_planes, touching
from vistasks.proposals.grouping import group
from vistasks.proposals.regions import describe, gather

VERSION = 5  # of the algorithm: part of every cache key; raise it when any box changes
SIGMA = 0.8  # of the smoothing before segmentation, as in the paper
LEVELS = 4.0  # edge weight levels per grey value
FULL_SIZE = (
    47_000  # pictures up to so many pixels are worked on whole, larger ones at down to half their resolution
)
LARGE = 80_000  # working sizes of more pixels have larger initial regions, by the square root; else a photograph has 400,000
NEAR = 0.08  # boxes whose sides and centres agree to about so much of their sides are near duplicates
MAX_PIXELS = 1 << 28

Mode = Literal["single", "fast", "quality"]
Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Strategies:
    """What a mode combines: every colour space with every k with every combination of similarities.

    ``similarities`` are words of C (colour), T (texture), S (size), F (fill), as in the paper's table 3.
    ``min_size`` is in pixels of the picture as it is worked on, and so is ``k``'s scale."""

    colour_spaces: tuple[str, ...]
    k: tuple[float, ...]
    similarities: tuple[str, ...]
    min_size: int


MODES: dict[str, Strategies] = {
    "single": Strategies(("HSV",), (50,), ("CTSF", "F"), 20),
    "fast": Strategies(("HSV", "Lab", "I"), (50, 100), ("CTSF", "TSF", "F"), 20),
    "quality": Strategies(("HSV", "Lab", "rgI", "H", "I"), (50, 100), ("CTSF", "TSF", "F", "S"), 20),
}


@dataclass(frozen=True, eq=False)
class Regions:
    """The initial regions of one hierarchy: see `grouping.group` for the arrays."""

    size: np.ndarray
    box: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    second: np.ndarray
    area: int
    planes: int


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 from grey, RGB or RGBA of uint8, uint16 or bool; alpha is dropped."""
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"selective_search: expected an (H, W, 3) uint8 RGB array, not {type(image).__name__}"
        )
    grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if not grey and (image.ndim != 3 or image.shape[2] not in (3, 4)):
        raise ValueError(
            f"selective_search: expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {image.shape}"
        )
    if min(image.shape[:2]) < 1:
        raise ValueError(f"selective_search: the image is empty: {image.shape}")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise ValueError(
            f"selective_search: {image.shape} is more than {MAX_PIXELS} pixels; scale the image down first"
        )
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    elif image.dtype == np.bool_:
        image = image.astype(np.uint8) * np.uint8(255)
    elif image.dtype != np.uint8:
        raise ValueError(
            f"selective_search: expected uint8 (or uint16 or bool) values, not {image.dtype}; scale to 0 .. 255 first"
        )
    if grey:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def _working_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) at which a picture is worked on: from `FULL_SIZE` pixels on smaller, to half of each
    side.
    """
    scale = min(1.0, max(0.5, (FULL_SIZE / (height * width)) ** 0.5))
    return max(1, round(height * scale)), max(1, round(width * scale))


def prepared(image: np.ndarray, mode: Mode, min_size: int | None = None) -> tuple[np.ndarray, int]:
    """The picture as it is worked on, (h, w, 3) uint8 RGB, and the smallest initial region in its pixels."""
    rgb = _as_rgb(image)
    working = _working_size(*rgb.shape[:2])
    if working != rgb.shape[:2]:
        rgb = cv2.resize(rgb, working[::-1], interpolation=cv2.INTER_AREA)
    return rgb, min_size or round(MODES[mode].min_size * max(1.0, (working[0] * working[1] / LARGE) ** 0.5))


def initial_regions(rgb: np.ndarray, space: str, k: tuple[float, ...], min_size: int) -> list[Regions]:
    """The initial regions of one colour space for each k in rising order (section 3.1 of the paper)."""
    area = rgb.shape[0] * rgb.shape[1]
    planes = COLOUR_SPACES[space](rgb)
    labels, size, internal, first, second, weight = segment(
        smoothed_planes(planes, SIGMA), min(k), min_size, LEVELS
    )
    box, counts = describe(planes, labels, size.size)
    found = [Regions(size, box, counts, first, second, area, len(planes))]
    for larger in sorted(k)[1:]:
        merged, count = coarser(size, internal, first, second, weight, larger * LEVELS, min_size)
        ends = touching(merged, first, second, weight, count)
        sizes, boxes, sums = gather(merged, count, size, box, counts)
        found.append(Regions(sizes, boxes, sums, ends[0], ends[1], area, len(planes)))
    return found


def hierarchy(regions: Regions, similarities: str) -> tuple[np.ndarray, np.ndarray]:
    """The n initial regions, then each join in order; the last is the whole picture.

    Returns boxes (2n - 1, 4) int32 and joins (n - 1, 2) int32, the regions that became number n, n + 1, ...
    """
    weights = np.array([letter in similarities for letter in "CTSF"], dtype=np.float32)
    r = regions
    boxes, joins = group(r.size, r.box, r.counts, r.first, r.second, np.float32(r.area), r.planes, weights)
    return boxes, joins


@compiled
def _first_of_each(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Indices, in order, of the boxes (N, 4) int32 that no earlier box resembles.

    Boxes resemble one another when their logarithmic sides and their centres, in units of the sides, round to
    the same multiples of `NEAR`; a table of what was seen makes this linear."""
    capacity = 64
    while capacity < 3 * len(boxes):
        capacity *= 2
    table = np.full(capacity, np.int64(-1), dtype=np.int64)
    kept = np.empty(len(boxes), dtype=np.int64)
    used = 0
    columns = np.int64(width / NEAR) + 2
    rows = np.int64(height / NEAR) + 2
    for index in range(len(boxes)):
        x1, y1, x2, y2 = boxes[index, 0], boxes[index, 1], boxes[index, 2], boxes[index, 3]
        across = np.int64(np.log(np.float64(x2 - x1)) / NEAR + 0.5)
        down = np.int64(np.log(np.float64(y2 - y1)) / NEAR + 0.5)
        x = np.int64(0.5 * (x1 + x2) / (NEAR * np.exp(across * NEAR)) + 0.5)
        y = np.int64(0.5 * (y1 + y2) / (NEAR * np.exp(down * NEAR)) + 0.5)
        key = ((across * 256 + down) * columns + x) * rows + y
        slot = (key * 0x9E3779B1 >> 12) & (capacity - 1)
        while table[slot] != -1 and table[slot] != key:
            slot = (slot + 1) & (capacity - 1)
        if table[slot] == -1:
            table[slot] = key
            kept[used] = index
            used += 1
    return kept[:used].copy()


def _ranked(hierarchies: list[np.ndarray], seed: int, height: int, width: int) -> np.ndarray:
    """All boxes, best first, without duplicates and near duplicates.

    The rank is the paper's (section 3.2.3): the position in the hierarchy, 1 for the whole picture, times a
    random number; lowest first."""
    positions = np.concatenate([np.arange(len(boxes), 0, -1) for boxes in hierarchies])
    order = np.argsort(positions * np.random.default_rng(seed).random(len(positions)), kind="stable")
    boxes = np.concatenate(hierarchies)[order]
    return boxes[_first_of_each(boxes, height, width)]


def _scaled(boxes: np.ndarray, working: tuple[int, int], full: tuple[int, int]) -> np.ndarray:
    """(N, 4) int32 from the working size to the picture's, both (height, width), as float32 whole pixels."""
    factors = np.array([full[1] / working[1], full[0] / working[0]] * 2)
    return np.floor(boxes * factors + 0.5).astype(np.float32)


def _mapped(
    work: Callable[[Argument], Result], arguments: Iterable[Argument], pool: ThreadPoolExecutor | None
) -> list[Result]:
    return list(pool.map(work, arguments)) if pool else [work(argument) for argument in arguments]


def selective_search(
    image: np.ndarray,
    mode: Mode = "fast",
    *,
    max_boxes: int | None = None,
    min_size: int | None = None,
    min_side: int = 1,
    seed: int = 0,
    threads: int = 1,
) -> np.ndarray:
    """Boxes that probably hold whole objects, whatever their class.

    Args:
        image: (H, W, 3) RGB, (H, W) grey or (H, W, 4) RGBA; uint8, uint16 or bool.
        mode: "single", "fast" or "quality": more strategies find more objects and take longer; see `MODES`.
        max_boxes: keep only the best so many.
        min_size: the smallest initial region, in pixels of the working size (`FULL_SIZE`); None takes the
            mode's (`LARGE`).
        min_side: boxes with a side of fewer pixels are left out.
        seed: of the random part of the rank.
        threads: strategies are worked on side by side; the result does not depend on it.

    Returns: (N, 4) float32 x1, y1, x2, y2, best first, no box twice or nearly so (`NEAR`); empty only where
    ``min_side`` is larger than the picture."""
    if mode not in MODES:
        raise ValueError(f"selective_search: unknown mode {mode!r}; expected one of: {', '.join(MODES)}")
    for name, value, least in (
        ("max_boxes", max_boxes, 1),
        ("min_size", min_size, 1),
        ("min_side", min_side, 1),
        ("threads", threads, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"selective_search: {name} must be at least {least}, not {value}")
    strategies = MODES[mode]
    rgb, smallest = prepared(image, mode, min_size)
    full, working = image.shape[:2], rgb.shape[:2]
    pool = ThreadPoolExecutor(threads) if threads > 1 else None
    try:
        spaces = _mapped(
            lambda space: initial_regions(rgb, space, strategies.k, smallest), strategies.colour_spaces, pool
        )
        tasks = [(regions, word) for space in spaces for regions in space for word in strategies.similarities]
        hierarchies = _mapped(lambda task: hierarchy(*task)[0], tasks, pool)
    finally:
        if pool:
            pool.shutdown()
    boxes = _scaled(_ranked(hierarchies, seed, *working), working, full)
    if min_side > 1:
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= min_side).all(axis=1)]
    return boxes[:max_boxes]
