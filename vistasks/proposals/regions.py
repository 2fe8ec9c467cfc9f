"""What selective search knows of a region: size, box, colour and texture histograms (Uijlings et al. 2013,
section 3.2.2).
"""

from __future__ import annotations

import numpy as np

from vistasks.proposals.compiled import compiled

COLOUR_BINS = 25  # per plane, as in the paper
ORIENTATIONS = 8
STRENGTHS = 4  # gradient strength, in steps that double
TEXTURE_BINS = ORIENTATIONS * STRENGTHS


@compiled
def describe(planes: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and histograms of all regions in one pass over the picture.

    planes (C, H, W) uint8, labels (H*W,) int32 in 0 .. count-1. Returns boxes (count, 4) int32 x1, y1, x2, y2
    and counts (count, C * (COLOUR_BINS + TEXTURE_BINS)) float32: the colour histograms of all planes, then
    the texture histograms."""
    channels, height, width = planes.shape
    boxes = np.empty((count, 4), dtype=np.int32)
    boxes[:, 0] = width
    boxes[:, 1] = height
    boxes[:, 2] = 0
    boxes[:, 3] = 0
    textures = channels * COLOUR_BINS
    counts = np.zeros((count, textures + channels * TEXTURE_BINS), dtype=np.float32)
    one = np.float32(1)
    bins = np.empty(width, dtype=np.int32)
    for y in range(height):
        row = labels[y * width : (y + 1) * width]
        x = 0
        while x < width:
            label = row[x]
            start = x
            while x < width and row[x] == label:
                x += 1
            box = boxes[label]
            box[0] = min(box[0], start)
            box[1] = min(box[1], y)
            box[2] = max(box[2], x)
            box[3] = y + 1
        for c in range(channels):
            plane = planes[c]
            here = plane[y]
            above = plane[max(y - 1, 0)]
            below = plane[min(y + 1, height - 1)]
            for x in range(width):
                bins[x] = (np.int32(here[x]) * COLOUR_BINS) >> 8
            for x in range(width):
                counts[row[x], c * COLOUR_BINS + bins[x]] += one
            for x in range(width):
                dx = np.int32(here[min(x + 1, width - 1)]) - np.int32(here[max(x - 1, 0)])
                dy = np.int32(below[x]) - np.int32(above[x])
                ax = abs(dx)
                ay = abs(dy)
                strength = max(ax, ay)
                step = np.int32(strength > 4) + np.int32(strength > 12) + np.int32(strength > 36)
                bins[x] = (
                    np.int32(dx >= 0) + 2 * np.int32(dy >= 0) + 4 * np.int32(ax >= ay)
                ) * STRENGTHS + step
            for x in range(width):
                counts[row[x], textures + c * TEXTURE_BINS + bins[x]] += one
    return boxes, counts


@compiled
def gather(
    labels: np.ndarray, count: int, size: np.ndarray, boxes: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, boxes and histograms of coarser regions; ``labels`` (n,) maps each region to one of ``count``
    coarser ones.
    """
    sizes = np.zeros(count, dtype=np.int32)
    outer = np.empty((count, 4), dtype=np.int32)
    outer[:, :2] = np.iinfo(np.int32).max
    outer[:, 2:] = 0
    sums = np.zeros((count, counts.shape[1]), dtype=np.float32)
    for region in range(labels.size):
        target = labels[region]
        sizes[target] += size[region]
        box, own = outer[target], boxes[region]
        box[0] = min(box[0], own[0])
        box[1] = min(box[1], own[1])
        box[2] = max(box[2], own[2])
        box[3] = max(box[3], own[3])
        total, part = sums[target], counts[region]
        for i in range(part.size):
            total[i] += part[i]
    return sizes, outer, sums
