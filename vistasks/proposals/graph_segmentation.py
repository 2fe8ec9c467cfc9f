"""Graph-based segmentation (Felzenszwalb and Huttenlocher, "Efficient graph-based image segmentation", IJCV
2004).

Pixels are the vertices; the 8-neighbourhood's edges weigh the Euclidean distance of the smoothed colours.
Edges are taken in order of weight and join two components C1, C2 when ``w <= min(Int(C1) + k / |C1|, Int(C2)
+ k / |C2|)``, where Int is the heaviest edge joined so far (eq. 3 to 5 of the paper). Components under
``min_size`` pixels are joined at last.

What makes it fast in selective search: weights become small integers, so that a counting sort orders all
edges in two passes; buckets are (weight, direction), so that an edge is only its first pixel; and the edges
that were refused, which is where the regions touch, are kept, so that joining small components, finding
neighbours and coarser segmentations never look at the picture again. `graph_segmentation` itself takes the
same path with exact weights."""

from __future__ import annotations

import cv2
import numpy as np

from vistasks.proposals.compiled import compiled

DIRECTIONS = ((0, 1), (1, -1), (1, 0), (1, 1))  # (down, across) of a pixel's four edges


@compiled
def _edge_weights(planes: np.ndarray, levels: float) -> np.ndarray:
    """Weights (4, H, W) uint16 of the edges to the right, lower left, lower and lower right neighbour of each
    pixel.
    """
    channels, height, width = planes.shape
    weights = np.empty((4, height, width), dtype=np.uint16)
    squares = np.empty(width, dtype=np.float32)
    scale = np.float32(levels)
    half = np.float32(0.5)
    for direction in range(4):
        down = 0 if direction == 0 else 1
        across = 1 if direction == 0 else direction - 2
        first = 1 if across < 0 else 0
        last = width - 1 if across > 0 else width
        for y in range(height - down):
            squares[:] = 0
            for c in range(channels):
                here = planes[c, y]
                there = planes[c, y + down]
                for x in range(first, last):
                    difference = here[x] - there[x + across]
                    squares[x] += difference * difference
            row = weights[direction, y]
            for x in range(first, last):
                row[x] = np.uint16(np.sqrt(squares[x]) * scale + half)
    return weights


@compiled
def _sorted_edges(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counting sort of all edges.

    Returns (edges, starts): ``edges`` int32 first pixels; bucket ``4 * weight + direction`` is
    ``edges[starts[bucket] : starts[bucket + 1]]``, in raster order.
    """
    _, height, width = weights.shape
    counts = np.zeros((4, 1 << 16), dtype=np.int32)
    for direction in range(4):
        down = 0 if direction == 0 else 1
        across = 1 if direction == 0 else direction - 2
        for y in range(height - down):
            for x in range(1 if across < 0 else 0, width - 1 if across > 0 else width):
                counts[direction, weights[direction, y, x]] += 1
    highest = (1 << 16) - 1
    while (
        highest > 0 and counts[0, highest] + counts[1, highest] + counts[2, highest] + counts[3, highest] == 0
    ):
        highest -= 1
    starts = np.empty(4 * (highest + 1) + 1, dtype=np.int32)
    total = np.int32(0)
    for level in range(highest + 1):
        for direction in range(4):
            starts[4 * level + direction] = total
            total += counts[direction, level]
            counts[direction, level] = starts[4 * level + direction]
    starts[4 * (highest + 1)] = total
    edges = np.empty(total, dtype=np.int32)
    for direction in range(4):
        down = 0 if direction == 0 else 1
        across = 1 if direction == 0 else direction - 2
        for y in range(height - down):
            for x in range(1 if across < 0 else 0, width - 1 if across > 0 else width):
                level = weights[direction, y, x]
                edges[counts[direction, level]] = y * width + x
                counts[direction, level] += 1
    return edges, starts


@compiled
def find_root(parent: np.ndarray, vertex: int) -> int:
    """The representative of a vertex's component, halving the path on the way."""
    above = parent[vertex]
    while above != vertex:
        further = parent[above]
        parent[vertex] = further
        vertex = further
        above = parent[vertex]
    return vertex


@compiled
def _join_pixels(
    edges: np.ndarray,
    starts: np.ndarray,
    levels: np.ndarray,
    directions: np.ndarray,
    width: int,
    count: int,
    k: float,
) -> tuple[np.ndarray, ...]:
    """The paper's algorithm 1 over all pixels.

    Bucket b holds the edges of weight ``levels[b]`` (float32, rising) and direction ``directions[b]`` (uint8)
    that begin at the pixels ``edges[starts[b] : starts[b + 1]]``. ``k`` is in the unit of the weights.

    Returns (parent, size, internal, first, second, weight): the union-find forest, sizes and Int of the
    roots, and the refused edges in order of weight as pixel pairs."""
    parent = np.arange(count).astype(np.int32)
    size = np.ones(count, dtype=np.int32)
    threshold = np.full(count, np.float32(k), dtype=np.float32)
    largest = 0
    for bucket in range(starts.size - 1):
        largest = max(largest, starts[bucket + 1] - starts[bucket])
    waiting = np.empty(largest + 1, dtype=np.int32)
    first = np.empty(edges.size, dtype=np.int32)
    second = np.empty(edges.size, dtype=np.int32)
    weight = np.empty(edges.size, dtype=np.float32)
    recent = np.full(
        1024, -1, dtype=np.int64
    )  # pairs that were refused lately: most of a boundary repeats them
    refused = 0
    joined = 0
    for bucket in range(starts.size - 1):
        if 8 * joined > count:  # shorter paths: more edges are seen to be inside a component at a glance
            joined = 0
            for vertex in range(count):
                parent[vertex] = parent[parent[vertex]]
        level = levels[bucket]
        direction = np.int64(directions[bucket])
        offset = 1 if direction == 0 else width + direction - 2
        # most edges lie inside one component: they go without a branch that would be mispredicted
        used = 0
        for position in range(starts[bucket], starts[bucket + 1]):
            pixel = edges[position]
            waiting[used] = pixel
            used += parent[pixel] != parent[pixel + offset]
        for position in range(used):
            pixel = waiting[position]
            a = find_root(parent, pixel)
            b = find_root(parent, pixel + offset)
            if a == b:
                continue
            if level <= threshold[a] and level <= threshold[b]:
                if size[a] < size[b]:
                    a, b = b, a
                parent[b] = a
                joined += 1
                size[a] += size[b]
                threshold[a] = level + np.float32(k) / np.float32(size[a])
            else:
                key = (np.int64(a) << 32) | np.int64(b)
                slot = (a * 31 + b) & 1023
                if recent[slot] != key:
                    recent[slot] = key
                    first[refused] = a
                    second[refused] = b
                    weight[refused] = level
                    refused += 1
    for vertex in range(count):  # threshold -> Int
        threshold[vertex] -= np.float32(k) / np.float32(size[vertex])
    return parent, size, threshold, first[:refused], second[:refused], weight[:refused]


@compiled
def _join_small(
    parent: np.ndarray, size: np.ndarray, first: np.ndarray, second: np.ndarray, min_size: int
) -> None:
    """Joins components under ``min_size`` vertices along the lightest refused edges, in place."""
    for edge in range(first.size):
        a = find_root(parent, first[edge])
        b = find_root(parent, second[edge])
        if a != b and (size[a] < min_size or size[b] < min_size):
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]


@compiled
def _number(parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0 .. n-1 in the order of their first vertex, and each label's root."""
    labels = np.empty(parent.size, dtype=np.int32)
    roots = np.empty(parent.size, dtype=np.int32)
    of_root = np.full(parent.size, np.int32(-1), dtype=np.int32)
    count = 0
    for vertex in range(parent.size):
        root = find_root(parent, vertex)
        if of_root[root] < 0:
            of_root[root] = count
            roots[count] = root
            count += 1
        labels[vertex] = of_root[root]
    return labels, roots[:count].copy()


@compiled
def touching(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, weight: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pair of touching regions once, with its lightest edge: (first, second, weight), lightest first.

    The edges come in order of weight; ``labels`` maps their ends to ``count`` regions. Only the lightest edge
    of a pair can ever join it: once an edge was refused, one of its components is final."""
    capacity = 64
    while capacity < 8 * count:
        capacity *= 2
    table = np.full(capacity, np.int64(-1), dtype=np.int64)
    mask = capacity - 1
    one = np.empty(first.size, dtype=np.int32)
    two = np.empty(first.size, dtype=np.int32)
    level = np.empty(first.size, dtype=np.float32)
    used = 0
    last = np.int64(-1)
    for edge in range(first.size):
        a = np.int64(labels[first[edge]])
        b = np.int64(labels[second[edge]])
        if a == b:
            continue
        if a > b:
            a, b = b, a
        key = (a << 32) | b
        if key == last:
            continue
        last = key
        slot = ((a * 0x9E3779B1 + b * 0x85EBCA77) >> 7) & mask
        while table[slot] != -1 and table[slot] != key:
            slot = (slot + 1) & mask
        if table[slot] == -1:
            table[slot] = key
            one[used] = a
            two[used] = b
            level[used] = weight[edge]
            used += 1
    return one[:used].copy(), two[:used].copy(), level[:used].copy()


@compiled
def coarser(
    size: np.ndarray,
    internal: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    weight: np.ndarray,
    k: float,
    min_size: int,
) -> tuple[np.ndarray, int]:
    """The same algorithm continued on a region graph with a larger ``k``.

    size (n,) int32 pixels, internal (n,) float32 Int of the regions; edges in order of weight. Returns the
    (n,) int32 coarse label of each region, and how many there are."""
    count = size.size
    parent = np.arange(count).astype(np.int32)
    size = size.copy()
    threshold = np.empty(count, dtype=np.float32)
    for region in range(count):
        threshold[region] = internal[region] + np.float32(k) / np.float32(size[region])
    for edge in range(first.size):
        a = find_root(parent, first[edge])
        b = find_root(parent, second[edge])
        level = weight[edge]
        if a != b and level <= threshold[a] and level <= threshold[b]:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
            threshold[a] = level + np.float32(k) / np.float32(size[a])
    _join_small(parent, size, first, second, min_size)
    labels, roots = _number(parent)
    return labels, roots.size


def segment(planes: np.ndarray, k: float, min_size: int, levels: float) -> tuple[np.ndarray, ...]:
    """Segments smoothed planes (C, H, W) float32 in 0 .. 255; weights are rounded to 1 / ``levels`` grey
    values.

    Returns (labels (H*W,) int32, size (n,) int32, internal (n,) float32 in weight levels, first, second,
    weight), the last three being the pairs of touching regions, lightest first (see `touching` and
    `coarser`)."""
    edges, starts = _sorted_edges(_edge_weights(planes, levels))
    buckets = np.arange(len(starts) - 1)
    heights, directions = (buckets >> 2).astype(np.float32), (buckets & 3).astype(np.uint8)
    shape = planes.shape[1], planes.shape[2]
    return _regions(edges, starts, heights, directions, shape, k * levels, min_size)


def _regions(
    edges: np.ndarray,
    starts: np.ndarray,
    levels: np.ndarray,
    directions: np.ndarray,
    shape: tuple[int, int],
    k: float,
    min_size: int,
) -> tuple[np.ndarray, ...]:
    height, width = shape
    joined = _join_pixels(edges, starts, levels, directions, width, height * width, k)
    parent, size, internal, first, second, weight = joined
    _join_small(parent, size, first, second, min_size)
    labels, roots = _number(parent)
    first, second, weight = touching(labels, first, second, weight, roots.size)
    return labels, size[roots], internal[roots], first, second, weight


def _exact_edges(planes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Every edge a bucket of its own, in order of its float32 weight: (edges, starts, levels, directions) of
    `_join_pixels`.
    """
    _, height, width = planes.shape
    pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    edges, weights, directions = [], [], []
    for direction, (down, across) in enumerate(DIRECTIONS):
        left, right = max(0, -across), width - max(0, across)
        here = planes[:, : height - down, left:right]
        there = planes[:, down:, left + across : right + across]
        weights.append(np.sqrt(np.square(here - there).sum(axis=0)).ravel())
        edges.append(pixels[: height - down, left:right].ravel())
        directions.append(np.full(weights[-1].size, direction, dtype=np.uint8))
    weight = np.concatenate(weights)
    order = np.argsort(weight, kind="stable")
    starts = np.arange(len(order) + 1, dtype=np.int32)
    return np.concatenate(edges)[order], starts, weight[order], np.concatenate(directions)[order]


def smoothed_planes(planes: np.ndarray, sigma: float) -> np.ndarray:
    """(C, H, W) uint8 -> (C, H, W) float32, each plane smoothed by a Gaussian of ``sigma`` pixels (0 = not at
    all).
    """
    result = np.empty(planes.shape, dtype=np.float32)
    for source, target in zip(planes, result, strict=True):
        target[:] = source
        if sigma > 0:
            cv2.GaussianBlur(target, (0, 0), sigma, dst=target, borderType=cv2.BORDER_REFLECT)
    return result


def graph_segmentation(image: np.ndarray, k: float, sigma: float, min_size: int) -> np.ndarray:
    """Regions of similar colour.

    Args:
        image: (H, W) or (H, W, C) uint8.
        k: scale of observation in grey values times pixels; larger gives larger regions.
        sigma: standard deviation in pixels of the Gaussian that smooths the picture first; the paper takes
            0.8.
        min_size: the smallest region in pixels.

    Returns: (H, W) int32 labels 0 .. n-1, in the order in which a raster scan meets them.
    """
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or image.size == 0
    ):
        got = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(
            f"graph_segmentation: expected an (H, W) or (H, W, C) uint8 array with at least one pixel, not {got}"
        )
    if k < 0 or sigma < 0 or min_size < 0:
        raise ValueError(
            f"graph_segmentation: k, sigma and min_size must be >= 0, not {k}, {sigma} and {min_size}"
        )
    planes = smoothed_planes(np.ascontiguousarray(np.moveaxis(np.atleast_3d(image), 2, 0)), sigma)
    shape = image.shape[0], image.shape[1]
    edges, starts, levels, directions = _exact_edges(planes)
    return _regions(edges, starts, levels, directions, shape, k, min_size)[0].reshape(shape)
