"""Hierarchical grouping (Uijlings et al. 2013, algorithm 1): join the two most similar neighbours until one
region is left.

Linear memory: each region keeps its neighbours in a linked list over one pool of nodes; joining two regions
joins their lists and drops what became double. A pair of neighbours belongs to the younger of the two, and
each region waits on a heap with the best of its pairs; where that neighbour is gone when the region comes up,
its next best takes its place."""

from __future__ import annotations

from functools import partial

import numpy as np

from vistasks.proposals.compiled import compiled
from vistasks.proposals.graph_segmentation import find_root
from vistasks.proposals.regions import COLOUR_BINS

FIXED_POINT = (
    1 << 29
)  # similarities, at most 4, become integers: the heap's order is exact and the same everywhere
REGION_BITS = 31
NONE, STALE = -1, -2  # instead of a region: there is none; the heap's entry was out of date


@compiled
def _push(heap: np.ndarray, used: int, entry: int) -> None:
    """Puts an entry on the binary max-heap of ``used`` entries."""
    place = used
    while place > 0:
        above = (place - 1) >> 1
        if heap[above] >= entry:
            break
        heap[place] = heap[above]
        place = above
    heap[place] = entry


@compiled
def _sink(heap: np.ndarray, used: int, place: int) -> None:
    """Restores the heap below ``place``."""
    entry = heap[place]
    child = 2 * place + 1
    while child < used:
        if child + 1 < used and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= entry:
            break
        heap[place] = heap[child]
        place = child
        child = 2 * place + 1
    heap[place] = entry


@partial(compiled, inline="always")
def _similarity(
    sizes: np.ndarray,
    boxes: np.ndarray,
    colours: np.ndarray,
    textures: np.ndarray,
    a: int,
    b: int,
    area: float,
    weights: np.ndarray,
) -> int:
    """Eq. 2, 4, 5 and 6 of the paper, summed with ``weights`` (4,) of colour, texture, size and fill; in
    fixed point.
    """
    total = np.float32(0)
    overlap = np.float32(0)
    for i in range(colours.shape[1]):
        overlap += min(colours[a, i], colours[b, i])
    total += weights[0] * overlap
    overlap = np.float32(0)
    for i in range(textures.shape[1]):  # from 0: a loop from elsewhere is not vectorised
        overlap += min(textures[a, i], textures[b, i])
    total += weights[1] * overlap
    both = np.float32(sizes[a]) + np.float32(sizes[b])
    total += weights[2] * (np.float32(1) - both / area)
    if weights[3] > 0:
        across = np.float32(max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0]))
        down = np.float32(max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1]))
        total += weights[3] * (np.float32(1) - (across * down - both) / area)
    return np.int64(max(total, np.float32(0)) * FIXED_POINT)


@compiled
def _join(
    sizes: np.ndarray, boxes: np.ndarray, colours: np.ndarray, textures: np.ndarray, a: int, b: int, t: int
) -> None:
    """Region t becomes the union of a and b (eq. 3 of the paper)."""
    sizes[t] = sizes[a] + sizes[b]
    boxes[t, 0] = min(boxes[a, 0], boxes[b, 0])
    boxes[t, 1] = min(boxes[a, 1], boxes[b, 1])
    boxes[t, 2] = max(boxes[a, 2], boxes[b, 2])
    boxes[t, 3] = max(boxes[a, 3], boxes[b, 3])
    share = np.float32(sizes[a]) / np.float32(sizes[t])
    rest = np.float32(1) - share
    for i in range(colours.shape[1]):
        colours[t, i] = share * colours[a, i] + rest * colours[b, i]
    for i in range(textures.shape[1]):
        textures[t, i] = share * textures[a, i] + rest * textures[b, i]


@compiled
def _lists(first: np.ndarray, second: np.ndarray, total: int) -> tuple[np.ndarray, ...]:
    """The linked lists of neighbours: (other, following) of each node, (head, tail) of each region; -1 ends a
    list.
    """
    pairs = first.size
    other = np.empty(2 * pairs, dtype=np.int32)
    following = np.empty(2 * pairs, dtype=np.int32)
    head = np.full(total, np.int32(-1), dtype=np.int32)
    tail = np.full(total, np.int32(-1), dtype=np.int32)
    for node in range(2 * pairs):
        pair = node >> 1
        region = first[pair] if node & 1 == 0 else second[pair]
        other[node] = second[pair] if node & 1 == 0 else first[pair]
        following[node] = head[region]
        if head[region] < 0:
            tail[region] = node
        head[region] = node
    return other, following, head, tail


@compiled
def _described(
    size: np.ndarray, box: np.ndarray, counts: np.ndarray, planes: int, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(sizes, boxes, colours, textures) with room for all regions, filled for the initial ones; histograms
    sum to 1.
    """
    initial = size.size
    total = 2 * initial - 1
    sizes = np.empty(total, dtype=np.int32)
    boxes = np.empty((total, 4), dtype=np.int32)
    # what a combination does not look at is not carried along
    last_colour = planes * COLOUR_BINS
    colours = np.empty((total, last_colour if weights[0] > 0 else 0), dtype=np.float32)
    textures = np.empty((total, counts.shape[1] - last_colour if weights[1] > 0 else 0), dtype=np.float32)
    sizes[:initial] = size
    boxes[:initial] = box
    for i in range(initial):
        scale = np.float32(1) / (np.float32(size[i]) * np.float32(planes))
        for j in range(colours.shape[1]):
            colours[i, j] = counts[i, j] * scale
        for j in range(textures.shape[1]):
            textures[i, j] = counts[i, j + last_colour] * scale
    return sizes, boxes, colours, textures


@compiled
def _heap_of_best(best: np.ndarray, key: np.ndarray, initial: int) -> tuple[np.ndarray, int]:
    """The heap of the initial regions that have a neighbour, and how many they are."""
    heap = np.empty(best.size, dtype=np.int64)
    used = 0
    for region in range(initial):
        if best[region] >= 0:
            _push(heap, used, (key[best[region]] << REGION_BITS) | region)
            used += 1
    return heap, used


@compiled
def _compare(
    t: int,
    other: np.ndarray,
    following: np.ndarray,
    head: np.ndarray,
    tail: np.ndarray,
    key: np.ndarray,
    seen: np.ndarray,
    parent: np.ndarray,
    sizes: np.ndarray,
    boxes: np.ndarray,
    colours: np.ndarray,
    textures: np.ndarray,
    area: float,
    weights: np.ndarray,
) -> int:
    """Drops from the list of region t who is in it twice, compares t with the others, returns the most
    similar's node or -1.
    """
    best = -1
    seen[t] = t
    before = -1
    node = np.int64(head[t])
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
            key[node] = _similarity(sizes, boxes, colours, textures, region, t, area, weights)
            if best < 0 or key[node] > key[best]:
                best = node
        node = np.int64(following[node])
    tail[t] = before
    return best


@compiled
def _next_best(
    region: int,
    other: np.ndarray,
    following: np.ndarray,
    head: np.ndarray,
    key: np.ndarray,
    parent: np.ndarray,
) -> int:
    """The node of a region's most similar neighbour that still lives and is older than it, or -1."""
    best = -1
    node = head[region]
    while node >= 0:
        neighbour = other[node]
        if parent[neighbour] == neighbour and key[node] >= 0 and (best < 0 or key[node] > key[best]):
            best = node
        node = following[node]
    return best


@compiled
def _partner(
    a: int,
    best: np.ndarray,
    other: np.ndarray,
    following: np.ndarray,
    head: np.ndarray,
    key: np.ndarray,
    parent: np.ndarray,
) -> int:
    """The region that ``a``, first on the heap, is to be joined with.

    NONE where a is gone or has no older neighbour; STALE where its best neighbour is gone and ``best`` now
    has the next one."""
    if parent[a] != a:
        return NONE
    b = other[best[a]]
    if parent[b] == b:
        return b
    best[a] = _next_best(a, other, following, head, key, parent)
    return STALE if best[a] >= 0 else NONE


@compiled
def group(
    size: np.ndarray,
    box: np.ndarray,
    counts: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    area: float,
    planes: int,
    weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """All boxes of one hierarchy, and what it joined.

    Args: size (n,) int32, box (n, 4) int32, counts (n, D) float32 of the initial regions (see
    `regions.describe`); first and second (m,) int32, the pairs of neighbours, each once; area of the picture
    in pixels; planes of the colour space; weights (4,) float32 of the colour, texture, size and fill
    similarities.

    Returns: boxes (2n - 1, 4) int32, the initial regions first and the whole picture last; joins (n - 1, 2)
    int32, the two regions that became region n, n + 1, ..."""
    initial = size.size
    sizes, boxes, colours, textures = _described(size, box, counts, planes, weights)
    total = sizes.size
    joins = np.empty((total - initial, 2), dtype=np.int32)
    parent = np.arange(total).astype(np.int32)
    other, following, head, tail = _lists(first, second, total)
    # each pair belongs to the younger of its regions, and a region waits on the heap once, with its best pair
    key = np.full(other.size, np.int64(-1), dtype=np.int64)
    best = np.full(total, np.int64(-1), dtype=np.int64)
    for pair in range(first.size):
        a, b = first[pair], second[pair]
        node = 2 * pair + (b > a)
        key[node] = _similarity(sizes, boxes, colours, textures, a, b, area, weights)
        region = max(a, b)
        if best[region] < 0 or key[node] > key[best[region]]:
            best[region] = node
    heap, used = _heap_of_best(best, key, initial)
    seen = np.full(total, np.int32(-1), dtype=np.int32)
    made = initial
    while used > 0:
        a = heap[0] & ((1 << REGION_BITS) - 1)
        b = _partner(a, best, other, following, head, key, parent)
        if b == STALE:
            heap[0] = (key[best[a]] << REGION_BITS) | a
            _sink(heap, used, 0)
            continue
        if b == NONE:
            used -= 1
            heap[0] = heap[used]
            _sink(heap, used, 0)
            continue
        t = made
        made += 1
        joins[t - initial, 0] = a
        joins[t - initial, 1] = b
        parent[a] = t
        parent[b] = t
        _join(sizes, boxes, colours, textures, a, b, t)
        head[t] = head[a]
        following[tail[a]] = head[b]
        best[t] = _compare(
            t, other, following, head, tail, key, seen, parent, sizes, boxes, colours, textures, area, weights
        )
        # the new region takes the place of a on the heap
        if best[t] >= 0:
            heap[0] = (key[best[t]] << REGION_BITS) | t
        else:
            used -= 1
            heap[0] = heap[used]
        _sink(heap, used, 0)
    return boxes[:made], joins[: made - initial]
