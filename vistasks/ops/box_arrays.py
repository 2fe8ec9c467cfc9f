"""Boxes as NumPy arrays, (..., 4) ``x1, y1, x2, y2`` in pixels; `vistasks.ops.boxes` has the same for tensors."""

from __future__ import annotations

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """(..., 4) -> (...)."""
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))


def intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The areas that boxes share: (..., 4), (..., 4) -> (...), shapes broadcast."""
    corner = np.maximum(a[..., :2], b[..., :2])
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - corner, 0, None)
    return np.asarray(sides[..., 0] * sides[..., 1])


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union: (..., 4), (..., 4) -> (...), shapes broadcast; 0 for a pair of empty boxes."""
    shared = intersections(a, b)
    union = areas(a) + areas(b) - shared
    return np.asarray(shared / np.maximum(union, np.finfo(union.dtype).tiny))


def overlaps(objects: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The IoU of each pair: (M, 4), (P, 4) -> (M, P)."""
    return iou(objects[:, None], boxes[None])
