"""Graph-based segmentation (Felzenszwalb and Huttenlocher, "Efficient graph-based image segmentation", IJCV 2004).

Pixels are the vertices; the 8-neighbourhood's edges weigh the Euclidean distance of the smoothed colours. Edges are taken
in order of weight and join two components C1, C2 when ``w <= min(Int(C1) + k / |C1|, Int(C2) + k / |C2|)``, where Int is the
heaviest edge joined so far (eq. 3 to 5 of the paper). Components under ``min_size`` pixels are joined at last.

What makes it fast: weights are small integers, so that a counting sort orders all edges in two passes; buckets are (weight,
direction), so that an edge is only its first pixel; and the edges that were refused, which is where the regions touch, are
kept, so that joining small components, finding neighbours and coarser segmentations never look at the picture again.
"""

from __future__ import annotations

import cv2
import numpy as np

from vistasks.proposals.compiled import compiled

EXACT_LEVELS = 128  # weight levels per grey value of the public function: 441.7 * 128 fits in 16 bits


@compiled
def _edge_weights(planes: np.ndarray, levels: float) -> np.ndarray:
    """Weights (4, H, W) uint16 of the edges to the right, lower left, lower and lower right neighbour of each pixel."""
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
    highest = 0
    for direction in range(4):
        down = 0 if direction == 0 else 1
        across = 1 if direction == 0 else direction - 2
        for y in range(height - down):
            row = weights[direction, y]
            for x in range(1 if across < 0 else 0, width - 1 if across > 0 else width):
                highest = max(highest, np.int64(row[x]))
    starts = np.zeros(4 * (highest + 1) + 1, dtype=np.int64)
    for direction in range(4):
        down = 0 if direction == 0 else 1
        across = 1 if direction == 0 else direction - 2
        for y in range(height - down):
            row = weights[direction, y]
            for x in range(1 if across < 0 else 0, width - 1 if across > 0 else width):
                starts[4 * np.int64(row[x]) + direction + 1] += 1
    for bucket in range(1, starts.size):
        starts[bucket] += starts[bucket - 1]
    edges = np.empty(starts[-1], dtype=np.int32)
    fill = starts[:-1].copy()
    for direction in range(4):
        down = 0 if direction == 0 else 1
        across = 1 if direction == 0 else direction - 2
        for y in range(height - down):
            row = weights[direction, y]
            for x in range(1 if across < 0 else 0, width - 1 if across > 0 else width):
                bucket = 4 * np.int64(row[x]) + direction
                edges[fill[bucket]] = y * width + x
                fill[bucket] += 1
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
def _join_pixels(edges: np.ndarray, starts: np.ndarray, width: int, count: int, k: float) -> tuple[np.ndarray, ...]:
    """The paper's algorithm 1 over all pixels; ``k`` in weight levels.

    Returns (parent, size, internal, first, second, weight): the union-find forest, sizes and Int of the roots, and the
    refused edges in order of weight as pixel pairs.
    """
    parent = np.arange(count, dtype=np.int32)
    size = np.ones(count, dtype=np.int32)
    threshold = np.full(count, k, dtype=np.float32)
    first = np.empty(edges.size, dtype=np.int32)
    second = np.empty(edges.size, dtype=np.int32)
    weight = np.empty(edges.size, dtype=np.uint16)
    refused = 0
    offsets = (1, width - 1, width, width + 1)
    for bucket in range(starts.size - 1):
        level = np.float32(bucket >> 2)
        offset = offsets[bucket & 3]
        for position in range(starts[bucket], starts[bucket + 1]):
            pixel = np.int64(edges[position])
            a = np.int64(parent[pixel])
            b = np.int64(parent[pixel + offset])
            if a == b:
                continue
            a = find_root(parent, a)
            b = find_root(parent, b)
            if a == b:
                continue
            if level <= threshold[a] and level <= threshold[b]:
                if size[a] < size[b]:
                    a, b = b, a
                parent[b] = a
                size[a] += size[b]
                threshold[a] = level + np.float32(k) / np.float32(size[a])
            else:
                first[refused] = a
                second[refused] = b
                weight[refused] = bucket >> 2
                refused += 1
    for vertex in range(count):  # threshold -> Int
        threshold[vertex] -= np.float32(k) / np.float32(size[vertex])
    return parent, size, threshold, first[:refused], second[:refused], weight[:refused]


@compiled
def _join_small(parent: np.ndarray, size: np.ndarray, first: np.ndarray, second: np.ndarray, min_size: int) -> None:
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
    of_root = np.full(parent.size, -1, dtype=np.int32)
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
def _boundary_edges(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The refused edges that still lie between two regions, as (label, label, weight), in order of weight."""
    kept = 0
    for edge in range(first.size):
        a = labels[first[edge]]
        b = labels[second[edge]]
        if a != b:
            first[kept] = a
            second[kept] = b
            weight[kept] = weight[edge]
            kept += 1
    return first[:kept], second[:kept], weight[:kept]


@compiled
def coarser(
    size: np.ndarray, internal: np.ndarray, first: np.ndarray, second: np.ndarray, weight: np.ndarray, k: float, min_size: int
) -> tuple[np.ndarray, int]:
    """The same algorithm continued on a region graph with a larger ``k``.

    size (n,) int32 pixels, internal (n,) float32 Int of the regions; edges in order of weight. Returns the (n,) int32
    coarse label of each region, and how many there are.
    """
    count = size.size
    parent = np.arange(count).astype(np.int32)
    size = size.copy()
    threshold = np.empty(count, dtype=np.float32)
    for region in range(count):
        threshold[region] = internal[region] + np.float32(k) / np.float32(size[region])
    for edge in range(first.size):
        a = find_root(parent, first[edge])
        b = find_root(parent, second[edge])
        if a == b:
            continue
        level = np.float32(weight[edge])
        if level <= threshold[a] and level <= threshold[b]:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
            threshold[a] = level + np.float32(k) / np.float32(size[a])
    _join_small(parent, size, first, second, min_size)
    labels, roots = _number(parent)
    return labels, roots.size


@compiled
def segment(planes: np.ndarray, k: float, min_size: int, levels: float) -> tuple[np.ndarray, ...]:
    """Segments smoothed planes (C, H, W) float32 in 0 .. 255.

    Returns (labels (H*W,) int32, size (n,) int32, internal (n,) float32 in weight levels, first, second, weight), the last
    three being the edges between regions in order of weight (see `coarser`).
    """
    _, height, width = planes.shape
    edges, starts = _sorted_edges(_edge_weights(planes, levels))
    parent, size, internal, first, second, weight = _join_pixels(edges, starts, width, height * width, k * levels)
    _join_small(parent, size, first, second, min_size)
    labels, roots = _number(parent)
    first, second, weight = _boundary_edges(labels, first, second, weight)
    return labels, size[roots], internal[roots], first, second, weight


def smoothed_planes(planes: np.ndarray, sigma: float) -> np.ndarray:
    """(C, H, W) uint8 -> (C, H, W) float32, each plane smoothed by a Gaussian of ``sigma`` pixels (0 = not at all)."""
    result = np.empty(planes.shape, dtype=np.float32)
    for source, target in zip(planes, result, strict=True):
        target[:] = source
        if sigma > 0:
            cv2.GaussianBlur(target, (0, 0), sigma, dst=target, borderType=cv2.BORDER_REPLICATE)
    return result


def graph_segmentation(image: np.ndarray, k: float, sigma: float, min_size: int) -> np.ndarray:
    """Regions of similar colour.

    Args:
        image: (H, W) or (H, W, C) uint8.
        k: scale of observation in grey values times pixels; larger gives larger regions.
        sigma: standard deviation in pixels of the Gaussian that smooths the picture first; the paper takes 0.8.
        min_size: the smallest region in pixels.

    Returns: (H, W) int32 labels 0 .. n-1, in the order in which a raster scan meets them.
    """
    planes = np.ascontiguousarray(np.moveaxis(np.atleast_3d(image), 2, 0))
    labels = segment(smoothed_planes(planes, sigma), k, min_size, EXACT_LEVELS)[0]
    return labels.reshape(image.shape[:2])
