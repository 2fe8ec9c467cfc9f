"""PASCAL VOC's average precision by the rules of its development kit (Everingham et al. 2010, section 4.2).

The kit counts pixels inclusively (width = xmax - xmin + 1) on 1-based corners. Our readers turn these corners
into half-open boxes (x1 = xmin - 1, x2 = xmax), so our x2 - x1 *is* the kit's width with its +1, and overlaps
are equal without any +1."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from vistasks.metrics.detection_record import (
    DetectionColumns,
    DetectionRecord,
    detection_columns,
    detection_record,
)
from vistasks.metrics.metric import Metric, mean_or_none
from vistasks.ops.box_arrays import iou
from vistasks.types import Prediction, Sample


class VocAveragePrecision(Metric[DetectionRecord]):
    """AP per class at one IoU, and their mean.

    Detections of a class over the whole data set, best score first: each is held against the object it
    overlaps most. Below ``iou`` it is a false positive; if that object is difficult (or a crowd) it counts
    neither way; if the object was found before it is a false positive; else it is found. ``form``: "11-point"
    (VOC 2007: the mean of the best precision at recall >= 0, .1, ..., 1) or "area" (from VOC 2010 on: the
    area under the monotone precision curve)."""

    def __init__(
        self, class_names: tuple[str, ...], *, iou: float = 0.5, form: Literal["11-point", "area"] = "area"
    ) -> None:
        super().__init__(class_names)
        if not 0 < iou <= 1:
            raise ValueError(f"iou must be in (0, 1], not {iou!r}")
        if form not in ("11-point", "area"):
            raise ValueError(f"form must be '11-point' or 'area', not {form!r}")
        self.iou, self.form = iou, form

    def record(self, prediction: Prediction, sample: Sample) -> DetectionRecord | None:
        return detection_record(prediction, sample, self.class_names)

    def compute(self) -> dict[str, Any]:
        """{"protocol", "mAP", "per_class": {name: {"AP", "objects"}}}; None for a class without objects,
        which mAP skips.
        """
        columns = detection_columns(self.ordered_records())
        per_class = {name: self._one_class(columns, label) for label, name in enumerate(self.class_names)}
        return {
            "protocol": self._protocol(),
            "mAP": mean_or_none([row["AP"] for row in per_class.values() if row["AP"] is not None]),
            "per_class": per_class,
        }

    def _one_class(self, columns: DetectionColumns, label: int) -> dict[str, Any]:
        truth = columns.labels == label
        ignored = (columns.difficult | columns.crowd)[truth]
        objects = int((~ignored).sum())
        if not objects:
            return {"AP": None, "objects": 0}
        rows = np.flatnonzero(columns.detected_labels == label)
        rows = rows[np.argsort(-columns.scores[rows], kind="stable")]
        boxes, image = columns.boxes[truth], columns.image[truth]
        overlap, match = best_overlaps(columns.detected[rows], columns.detected_image[rows], boxes, image)
        found, wrong = true_positives(overlap >= self.iou, match, ignored)
        average = eleven_point_ap if self.form == "11-point" else area_ap
        return {"AP": average(np.cumsum(found), np.cumsum(wrong), objects), "objects": objects}

    def _protocol(self) -> str:
        form = (
            "11-point interpolation (VOC 2007)"
            if self.form == "11-point"
            else "area under the monotone curve (VOC 2010)"
        )
        return f"VOC box AP at IoU >= {self.iou:g}: {form}, difficult objects ignored, mean over classes"


def best_overlaps(
    detected: np.ndarray, detected_image: np.ndarray, boxes: np.ndarray, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each detection's greatest IoU with an object of its image, and that object's row (the first of equals).

    detected (D, 4), detected_image (D,), boxes (G, 4), image (G,) ascending -> (D,) float64, -1 where the
    image holds no object, and (D,) int64."""
    start = np.searchsorted(image, detected_image, side="left")
    count = np.searchsorted(image, detected_image, side="right") - start
    overlap, match = np.full(len(detected), -1.0), np.zeros(len(detected), np.int64)
    some = np.flatnonzero(count)
    if not len(some):
        return overlap, match
    # all (detection, object) pairs in one row, a detection's pairs side by side: P pairs, `first` where each
    # one's begin
    sizes = count[some]
    first = np.cumsum(sizes) - sizes
    pair = (
        np.arange(sizes.sum()) - np.repeat(first, sizes) + np.repeat(start[some], sizes)
    )  # (P,) rows of boxes
    wide, objects = detected[some].astype(np.float64), boxes.astype(np.float64)
    ious = iou(np.repeat(wide, sizes, axis=0), objects[pair])
    best = np.maximum.reduceat(ious, first)
    is_best = np.flatnonzero(ious == np.repeat(best, sizes))
    overlap[some] = best
    match[some] = pair[is_best[np.searchsorted(is_best, first)]]
    return overlap, match


def true_positives(
    overlaps: np.ndarray, match: np.ndarray, ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Detections, best first -> (D,) bool true positive, (D,) bool false positive; neither if the object is
    ignored.

    overlaps (D,) bool: enough; match (D,) int64 rows of ignored (G,) bool.
    """
    counted = np.flatnonzero(overlaps & ~ignored[match])
    found = np.zeros(len(overlaps), bool)
    found[counted[np.unique(match[counted], return_index=True)[1]]] = True
    wrong = ~overlaps
    wrong[counted] = ~found[counted]
    return found, wrong


def eleven_point_ap(found: np.ndarray, wrong: np.ndarray, objects: int) -> float:
    """The mean over recall levels 0, .1, ..., 1 of the best precision at that recall or more (Everingham et
    al. 2010, eq. 1-2).

    found, wrong (D,) cumulated counts. The levels are the floating-point numbers that py-faster-rcnn and its
    descendants compare with, so that published figures are met: 3, 6 and 7 times .1 lie a hair above 3/10,
    6/10 and 7/10."""
    precision = _monotone(found, wrong)
    reached = np.searchsorted(found / objects, np.arange(11) * 0.1)  # the first detection at each level
    return float(np.append(precision, 0.0)[reached].sum() / 11)


def area_ap(found: np.ndarray, wrong: np.ndarray, objects: int) -> float:
    """The area under precision made monotone, over recall; found, wrong (D,) cumulated counts."""
    gained = np.diff(found, prepend=0)
    return float((gained * _monotone(found, wrong)).sum() / objects)


def _monotone(found: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """(D,) the best precision from each detection on."""
    precision = found / np.maximum(found + wrong, 1)
    return np.maximum.accumulate(precision[::-1])[::-1]
