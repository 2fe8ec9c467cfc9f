"""Boxes around the parts of a segmentation map, as region proposals that cost next to nothing."""

from __future__ import annotations

import cv2
import numpy as np

from vistasks.proposals.methods import clipped
from vistasks.types import SegmentationMap

_SMALLEST = 16  # pixels of a connected part of the class map that becomes a proposal


_GROWN = (0.0, 0.15)  # each part's box as it is, and with this share of its sides more on every side


def connected_parts(segmentation: SegmentationMap) -> np.ndarray:
    """(P, 4) float32 boxes around the 8-connected parts of each class but "background", the largest part
    first.

    Each comes as it is and a little larger: the map's edges are coarse.
    """
    labels, (height, width) = segmentation.labels, segmentation.labels.shape
    boxes, areas = [], []
    for number, name in enumerate(segmentation.names):
        if name == "background":
            continue
        count, _, stats, _ = cv2.connectedComponentsWithStats(
            (labels == number).astype(np.uint8), connectivity=8
        )
        if count > 1:
            x, y, w, h, area = stats[1:][stats[1:, cv2.CC_STAT_AREA] >= _SMALLEST].T
            boxes.append(np.stack([x, y, x + w, y + h], axis=1))
            areas.append(area)
    if not boxes:
        return np.zeros((0, 4), dtype=np.float32)
    found = np.concatenate(boxes)[np.argsort(-np.concatenate(areas), kind="stable")].astype(np.float64)
    sides = np.tile(found[:, 2:] - found[:, :2], 2) * [-1, -1, 1, 1]
    return clipped(np.stack([found + share * sides for share in _GROWN], axis=1), height, width)
