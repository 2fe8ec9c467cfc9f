"""How well a class map follows the outlines: Boundary IoU, boundary F, and accuracy in a band around the
outlines (trimap).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vistasks.metrics.mean_iou import MeanIoU
from vistasks.metrics.metric import Metric, mean_or_none
from vistasks.types import IGNORE_INDEX, Prediction, Sample

BAND = 0.02  # of the picture's diagonal: depth of the region that Boundary IoU compares (Cheng et al. 2021)
TOLERANCE = 0.0075  # of the diagonal: how far a boundary pixel may be off for boundary F (Csurka et al. 2013)
TRIMAP = (1, 2, 4, 8, 16, 32)  # pixels: half widths of the bands


@dataclass(frozen=True, eq=False)
class BoundaryCounts:
    """One picture's part: intersection and union (K,) pixels; f (K,) boundary F, NaN where the class is not
    in the truth; trimap (2, len(TRIMAP)) right and all pixels of each band."""

    intersection: np.ndarray
    union: np.ndarray
    f: np.ndarray
    trimap: np.ndarray


class BoundaryQuality(Metric[BoundaryCounts]):
    """Boundary IoU (Cheng et al., CVPR 2021), summed over the data set per class; boundary F (Csurka et al.,
    BMVC 2013), the mean over the pictures whose truth has the class; pixel accuracy near outlines (Kohli et
    al. 2009). Truth 255 counts nowhere."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        super().__init__(class_names)
        self._checked = MeanIoU(class_names)

    def record(self, prediction: Prediction, sample: Sample) -> BoundaryCounts | None:
        """Raises what `MeanIoU.record` raises."""
        if (
            self._checked.record(prediction, sample) is None
            or sample.segmentation is None
            or prediction.segmentation is None
        ):
            return None
        return boundary_counts(sample.segmentation, prediction.segmentation.labels, len(self.class_names))

    def compute(self) -> dict[str, Any]:
        """{"protocol", "boundary_mIoU", "boundary_F", "per_class": {name: {"boundary_IoU", "boundary_F"}},
        "trimap": {half width: accuracy}}; None where a class is absent."""
        records = self.ordered_records()
        classes = len(self.class_names)
        inter = sum((r.intersection for r in records), np.zeros(classes, np.int64))
        union = sum((r.union for r in records), np.zeros(classes, np.int64))
        f = np.stack([r.f for r in records]) if records else np.full((0, classes), np.nan)
        trimap = sum((r.trimap for r in records), np.zeros((2, len(TRIMAP)), np.int64))
        ious = [int(i) / int(u) if u else None for i, u in zip(inter, union)]
        fs = [float(np.nanmean(f[:, k])) if np.isfinite(f[:, k]).any() else None for k in range(classes)]
        return {
            "protocol": f"Boundary IoU at {BAND:g} of the diagonal, over the data set; boundary F at {TOLERANCE:g} of "
            "the diagonal, mean over images with the class; pixels marked 255 ignored",
            "boundary_mIoU": mean_or_none([v for v in ious if v is not None]),
            "boundary_F": mean_or_none([v for v in fs if v is not None]),
            "per_class": {
                n: {"boundary_IoU": ious[k], "boundary_F": fs[k]} for k, n in enumerate(self.class_names)
            },
            "trimap": {
                str(w): int(trimap[0, i]) / int(trimap[1, i]) if trimap[1, i] else None
                for i, w in enumerate(TRIMAP)
            },
        }


def boundary_counts(truth: np.ndarray, found: np.ndarray, classes: int) -> BoundaryCounts:
    """The counts of one picture: truth (H, W) with 255 = ignore, found (H, W), ids 0 .. classes - 1."""
    valid = truth != IGNORE_INDEX
    diagonal = float(np.hypot(*truth.shape))
    depth, tolerance = max(1, round(BAND * diagonal)), max(1.0, TOLERANCE * diagonal)
    intersection, union = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    f = np.full(classes, np.nan)
    for k in np.union1d(np.unique(truth[valid]), np.unique(found[valid])).tolist():
        masks = [((values == k) & valid).astype(np.uint8) for values in (truth, found)]
        bands = [_band(mask, depth) for mask in masks]
        intersection[k] = (bands[0] & bands[1]).sum()
        union[k] = (bands[0] | bands[1]).sum()
        if masks[0].any():
            f[k] = _f_measure(_band(masks[0], 1), _band(masks[1], 1), tolerance)
    return BoundaryCounts(intersection, union, f, _trimap(truth, found, valid))


def _band(mask: np.ndarray, depth: int) -> np.ndarray:
    """The pixels of a mask (H, W) uint8 within ``depth`` of its outline; the picture's edge is an outline
    too.
    """
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=depth)
    return np.asarray(mask - inner[1:-1, 1:-1])


def _f_measure(truth: np.ndarray, found: np.ndarray, tolerance: float) -> float:
    """F of two outlines (H, W) uint8, the first not empty."""
    if not found.any():
        return 0.0
    precision = (_distance(truth)[found > 0] <= tolerance).mean()
    recall = (_distance(found)[truth > 0] <= tolerance).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _distance(marked: np.ndarray) -> np.ndarray:
    """Of each pixel to the nearest marked one."""
    return np.asarray(cv2.distanceTransform(1 - marked, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def _trimap(truth: np.ndarray, found: np.ndarray, valid: np.ndarray) -> np.ndarray:
    edge = np.zeros(truth.shape, np.uint8)
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        differ = (truth[a] != truth[b]) & valid[a] & valid[b]
        edge[a] |= differ
        edge[b] |= differ
    counts = np.zeros((2, len(TRIMAP)), np.int64)
    if edge.any():
        distance = np.where(valid, _distance(edge), np.inf)
        for i, width in enumerate(TRIMAP):
            near = distance < width
            counts[:, i] = (near & (truth == found)).sum(), near.sum()
    return counts
