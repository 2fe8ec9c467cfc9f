"""Hierarchical grouping (Uijlings et al. 2013, algorithm 1): join the two most similar neighbours until one region is left.

Linear memory: each region keeps its neighbours in a linked list over one pool of nodes; joining two regions joins their
lists and drops what became double. Similarities wait in one heap; an entry whose regions have been joined is dropped when
it comes up, and the heap is swept when dead entries fill it.
"""

from __future__ import annotations

import numpy as np

from vistasks.proposals.compiled import compiled
from vistasks.proposals.graph_segmentation import find_root


@compiled
def _push(keys: np.ndarray, lows: np.ndarray, highs: np.ndarray, used: int, key: float, low: int, high: int) -> int:
    """Puts an entry on the binary max-heap; equal keys come up in the order of their regions."""
    place = used
    while place > 0:
        above = (place - 1) >> 1
        if keys[above] > key or (keys[above] == key and (lows[above], highs[above]) <= (low, high)):
            break
        keys[place] = keys[above]
        lows[place] = lows[above]
        highs[place] = highs[above]
        place = above
    keys[place] = key
    lows[place] = low
    highs[place] = high
    return used + 1


@compiled
def _sink(keys: np.ndarray, lows: np.ndarray, highs: np.ndarray, used: int, place: int) -> None:
    """Restores the heap below ``place``."""
    key, low, high = keys[place], lows[place], highs[place]
    while True:
        child = 2 * place + 1
        if child >= used:
            break
        other = child + 1
        if other < used and (
            keys[other] > keys[child]
            or (keys[other] == keys[child] and (lows[other], highs[other]) < (lows[child], highs[child]))
        ):
            child = other
        if key > keys[child] or (key == keys[child] and (low, high) <= (lows[child], highs[child])):
            break
        keys[place] = keys[child]
        lows[place] = lows[child]
        highs[place] = highs[child]
        place = child
    keys[place] = key
    lows[place] = low
    highs[place] = high


@compiled
def _similarity(
    sizes: np.ndarray, boxes: np.ndarray, histograms: np.ndarray, a: int, b: int, area: float, colours: int, weights: np.ndarray
) -> float:
    """Eq. 2, 4, 5 and 6 of the paper, summed with ``weights`` (4,) of colour, texture, size and fill."""
    total = np.float32(0)
    ours, theirs = histograms[a], histograms[b]
    if weights[0] > 0:
        overlap = np.float32(0)
        for i in range(colours):
            overlap += min(ours[i], theirs[i])
        total += weights[0] * overlap
    if weights[1] > 0:
        overlap = np.float32(0)
        for i in range(colours, ours.size):
            overlap += min(ours[i], theirs[i])
        total += weights[1] * overlap
    both = np.float32(sizes[a]) + np.float32(sizes[b])
    total += weights[2] * (np.float32(1) - both / area)
    if weights[3] > 0:
        p, q = boxes[a], boxes[b]
        hull = np.float32(max(p[2], q[2]) - min(p[0], q[0])) * np.float32(max(p[3], q[3]) - min(p[1], q[1]))
        total += weights[3] * (np.float32(1) - (hull - both) / area)
    return total


@compiled
def group(
    size: np.ndarray, box: np.ndarray, counts: np.ndarray, pairs: np.ndarray, area: float, colours: int, weights: np.ndarray
) -> np.ndarray:
    """All boxes of one hierarchy.

    Args: size (n,) int32, box (n, 4) int32, counts (n, D) float32 of the initial regions (see `regions`), of which the first
    ``colours`` columns are colour; pairs (m, 2) int32 neighbours, each once; area of the picture in pixels; weights (4,)
    float32 of the colour, texture, size and fill similarities.

    Returns: (2n - 1, 4) int32, the initial regions first and the whole picture last.
    """
    initial = size.size
    total = 2 * initial - 1
    sizes = np.empty(total, dtype=np.int32)
    boxes = np.empty((total, 4), dtype=np.int32)
    histograms = np.empty((total, counts.shape[1]), dtype=np.float32)
    sizes[:initial] = size
    boxes[:initial] = box
    colour_planes = np.float32(colours // 25)
    for i in range(initial):
        scale = np.float32(1) / (np.float32(size[i]) * colour_planes)
        for j in range(counts.shape[1]):
            histograms[i, j] = counts[i, j] * scale
    parent = np.arange(total).astype(np.int32)
    # linked lists of neighbours: nodes 2p and 2p + 1 belong to pair p
    other = np.empty(2 * len(pairs), dtype=np.int32)
    following = np.empty(2 * len(pairs), dtype=np.int32)
    head = np.full(total, -1, dtype=np.int32)
    tail = np.full(total, -1, dtype=np.int32)
    capacity = 8 * len(pairs) + 64
    keys = np.empty(capacity, dtype=np.float32)
    lows = np.empty(capacity, dtype=np.int32)
    highs = np.empty(capacity, dtype=np.int32)
    used = 0
    for p in range(len(pairs)):
        for end in range(2):
            node = 2 * p + end
            region = pairs[p, end]
            other[node] = pairs[p, 1 - end]
            following[node] = head[region]
            if head[region] < 0:
                tail[region] = node
            head[region] = node
        a, b = pairs[p, 0], pairs[p, 1]
        key = _similarity(sizes, boxes, histograms, a, b, area, colours, weights)
        used = _push(keys, lows, highs, used, key, a, b)
    seen = np.full(total, -1, dtype=np.int32)
    made = initial
    while used > 0:
        a, b = np.int64(lows[0]), np.int64(highs[0])
        used -= 1
        keys[0], lows[0], highs[0] = keys[used], lows[used], highs[used]
        if used > 0:
            _sink(keys, lows, highs, used, 0)
        if parent[a] != a or parent[b] != b:
            continue
        t = made
        made += 1
        parent[a] = t
        parent[b] = t
        sizes[t] = sizes[a] + sizes[b]
        boxes[t, 0] = min(boxes[a, 0], boxes[b, 0])
        boxes[t, 1] = min(boxes[a, 1], boxes[b, 1])
        boxes[t, 2] = max(boxes[a, 2], boxes[b, 2])
        boxes[t, 3] = max(boxes[a, 3], boxes[b, 3])
        share = np.float32(sizes[a]) / np.float32(sizes[t])
        rest = np.float32(1) - share
        for j in range(counts.shape[1]):
            histograms[t, j] = share * histograms[a, j] + rest * histograms[b, j]
        if head[a] < 0:
            head[t] = head[b]
        else:
            head[t] = head[a]
            following[tail[a]] = head[b]
        seen[t] = t
        before = -1
        node = head[t]
        while node >= 0:
            region = find_root(parent, other[node])
            if seen[region] == t:
                if before < 0:
                    head[t] = following[node]
                else:
                    following[before] = following[node]
            else:
                seen[region] = t
                other[node] = region
                before = node
                key = _similarity(sizes, boxes, histograms, region, t, area, colours, weights)
                if used == capacity:
                    kept = 0
                    for i in range(used):
                        if parent[lows[i]] == lows[i] and parent[highs[i]] == highs[i]:
                            keys[kept], lows[kept], highs[kept] = keys[i], lows[i], highs[i]
                            kept += 1
                    used = kept
                    for i in range(used // 2 - 1, -1, -1):
                        _sink(keys, lows, highs, used, i)
                used = _push(keys, lows, highs, used, key, region, t)
            node = following[node]
        tail[t] = before
    return boxes[:made]
