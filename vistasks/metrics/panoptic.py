"""Panoptic quality (Kirillov et al., CVPR 2019) from boxes and class map, where nobody has labelled single
objects' pixels.

The approximation: in the truth as in the prediction a pixel of a class that has boxes belongs to the smallest
box of that class which contains it. Pixels of the class in no box are nobody's. Of two detections that cover
each other by half or more only the better one is a segment. Other classes of the map are stuff: one segment a
picture, as in the paper; "background" is no class, and what is found on it is wrong. Where objects of one
class overlap, pixels may go to the wrong one, alike on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vistasks.metrics.mean_iou import MeanIoU
from vistasks.metrics.metric import Metric, mean_or_none
from vistasks.ops.box_arrays import overlaps
from vistasks.types import IGNORE_INDEX, Prediction, Sample

MATCHED = 0.5  # IoU of segments above which they are one: at most one pair can be (section 4.1)
LEAST_SCORE = 0.5  # of a detection that becomes a segment
TWICE = 0.5  # IoU with a better detection of its class from which on a detection is the same object again


@dataclass(frozen=True, eq=False)
class PanopticCounts:
    """One picture's part, over the classes of the map: true positives, false positives, false negatives (S,)
    int64, and the sum of the true positives' IoU (S,) float64."""

    found: np.ndarray
    false: np.ndarray
    missed: np.ndarray
    iou: np.ndarray


class PanopticQuality(Metric[PanopticCounts]):
    """PQ, SQ and RQ over the classes of the map, from approximate segments (see the module). Not among the
    registered metrics, which are built from one task's class names.

    Args:
        class_names: the class map's.
        boxes: the detector's class names; those that the map has, too, are things.
        score: detections with a smaller one are no segments.
    """

    def __init__(
        self, class_names: tuple[str, ...], *, boxes: tuple[str, ...], score: float = LEAST_SCORE
    ) -> None:
        super().__init__(class_names)
        self.boxes, self.score = boxes, score
        self.things = [name in boxes for name in class_names]
        self.stuff = [name not in boxes and name != "background" for name in class_names]
        self._checked = MeanIoU(class_names)

    def record(self, prediction: Prediction, sample: Sample) -> PanopticCounts | None:
        """None where boxes or class map are not labelled throughout; raises what `MeanIoU.record` raises."""
        whole = len(sample.labelled.detection) == len(self.boxes) and len(
            sample.labelled.segmentation
        ) == len(self.class_names)
        found = prediction.detections
        if not whole or found is None or self._checked.record(prediction, sample) is None:
            return None
        if sample.segmentation is None or prediction.segmentation is None:
            return None
        columns = np.array(
            [self.class_names.index(name) if name in self.class_names else -1 for name in self.boxes]
        )
        hard = np.asarray(sample.difficult) | np.asarray(sample.crowd)
        truth = segments(sample.segmentation, sample.boxes, columns[sample.labels], self.stuff)
        kept = _once(found.boxes, found.labels, found.scores, self.score)
        other = segments(
            prediction.segmentation.labels, found.boxes[kept], columns[found.labels[kept]], self.stuff
        )
        ignored = np.concatenate([hard, np.zeros(len(self.class_names), bool)])
        return panoptic_counts(
            truth, other, sample.segmentation == IGNORE_INDEX, ignored, len(self.class_names)
        )

    def compute(self) -> dict[str, Any]:
        """{"protocol", "PQ", "SQ", "RQ", "PQ_things", "PQ_stuff", "per_class": {name: {"PQ", "SQ", "RQ",
        "segments"}}}; None where a class, or everything, is absent."""
        records = self.ordered_records()
        zero = np.zeros(len(self.class_names))
        found, false, missed, iou = (
            sum((getattr(record, name) for record in records), zero)
            for name in ("found", "false", "missed", "iou")
        )
        per_class: dict[str, dict[str, float | int | None]] = {}
        for k, name in enumerate(self.class_names):
            size = float(found[k] + (false[k] + missed[k]) / 2)
            per_class[name] = {
                "PQ": float(iou[k]) / size if size else None,
                "SQ": float(iou[k]) / float(found[k]) if found[k] else (0.0 if size else None),
                "RQ": float(found[k]) / size if size else None,
                "segments": int(found[k] + missed[k]),
            }
        result: dict[str, Any] = {"protocol": self._protocol()}
        for number in ("PQ", "SQ", "RQ"):
            result[number] = _mean([row[number] for row in per_class.values()])
        for name, kind in (("PQ_things", self.things), ("PQ_stuff", self.stuff)):
            result[name] = _mean([row["PQ"] for row, mine in zip(per_class.values(), kind) if mine])
        return {**result, "per_class": per_class}

    def _protocol(self) -> str:
        return (
            "approximate, from boxes and segmentation map: a pixel belongs to the smallest box of its class around it "
            f"(labelled, or detected with a score of {self.score:g} or more); classes without boxes are one segment per image; "
            "matched above IoU .5; mean over the classes that occur"
        )


def _mean(values: list[float | int | None]) -> float | None:
    return mean_or_none([float(value) for value in values if value is not None])


def _once(boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray, least: float) -> np.ndarray:
    """Which detections become segments, best first: sure enough, and not one object again."""
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable").tolist():
        if scores[row] < least:
            break
        same = [other for other in kept if labels[other] == labels[row]]
        if not same or overlaps(boxes[row : row + 1], boxes[same]).max() < TWICE:
            kept.append(row)
    return np.array(kept, np.int64)


@dataclass(frozen=True, eq=False)
class Segments:
    """ids (H, W) int64: which segment a pixel belongs to, -1 for none; labels (N,) the class of each segment,
    some of which may have no pixel. The first are those of the boxes, in their order; then comes one for each
    class."""

    ids: np.ndarray
    labels: np.ndarray


def segments(labels: np.ndarray, boxes: np.ndarray, classes: np.ndarray, stuff: list[bool]) -> Segments:
    """Approximate segments of a class map.

    Args:
        labels: (H, W) class ids, `IGNORE_INDEX` for nothing.
        boxes: (N, 4) in pixels.
        classes: (N,) their class ids, -1 for a class that the map does not have.
        stuff: which classes are one segment each.
    """
    height, width = labels.shape
    ids = np.full((height, width), -1, np.int64)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    for row in np.argsort(-sides.prod(axis=1), kind="stable").tolist():  # small ones later, over large ones
        x1, y1 = (max(0, round(float(value))) for value in boxes[row, :2])
        x2, y2 = min(width, round(float(boxes[row, 2]))), min(height, round(float(boxes[row, 3])))
        part = ids[y1:y2, x1:x2]
        part[labels[y1:y2, x1:x2] == classes[row]] = row
    for label in np.flatnonzero(stuff).tolist():
        ids[labels == label] = len(boxes) + label
    return Segments(ids, np.concatenate([classes, np.arange(len(stuff))]).astype(np.int64))


def panoptic_counts(
    truth: Segments, found: Segments, void: np.ndarray, ignored: np.ndarray, classes: int
) -> PanopticCounts:
    """The matches of one picture.

    Args:
        truth: and ``found``, the segments of one size (H, W).
        void: (H, W) bool, pixels whose truth nobody knows: they count nowhere, and a found segment that lies
            there or on ignored segments of its class by more than half is not false (section 4.1 of the
            paper).
        ignored: (N,) bool, labelled segments that are neither asked for nor punished: crowds and difficult
            objects.
        classes: how many there are.
    """
    rows, columns = len(truth.labels), len(found.labels)
    left = np.where(void, -1, found.ids)
    pairs = np.bincount(
        ((truth.ids + 1) * (columns + 1) + left + 1)[~void], minlength=(rows + 1) * (columns + 1)
    )
    shared = pairs.reshape(rows + 1, columns + 1).astype(np.int64)
    asked, given = shared.sum(axis=1)[1:], shared.sum(axis=0)[1:]
    common = shared[1:, 1:]
    union = asked[:, None] + given[None] - common
    same = (truth.labels[:, None] == found.labels[None]) & ~ignored[:, None]
    iou = np.where(same & (union > 0), common / np.maximum(union, 1), 0.0)
    match = iou > MATCHED
    excusing = ignored[:, None] & (truth.labels[:, None] == found.labels[None])
    outside = np.bincount((found.ids + 1)[void], minlength=columns + 1)[1:] + np.where(
        excusing, common, 0
    ).sum(axis=0)
    excused = outside > 0.5 * np.maximum(np.bincount((found.ids + 1).ravel(), minlength=columns + 1)[1:], 1)
    false = (given > 0) & ~match.any(axis=0) & ~excused
    missed = (asked > 0) & ~match.any(axis=1) & ~ignored
    hits, partners = np.nonzero(match)
    return PanopticCounts(
        found=np.bincount(truth.labels[hits], minlength=classes)[:classes],
        false=_count(found.labels[false], classes),
        missed=_count(truth.labels[missed], classes),
        iou=np.bincount(truth.labels[hits], iou[hits, partners], minlength=classes)[:classes],
    )


def _count(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(labels[labels >= 0], minlength=classes)
