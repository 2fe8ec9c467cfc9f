"""What is right and wrong about one picture's boxes, in TIDE's words (Bolya et al., ECCV 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vistasks.metrics.detection_record import DetectionRecord
from vistasks.ops.box_arrays import overlaps

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU that finds an object; IoU under which a box is on background
KINDS = ("correct", "classification", "localisation", "both", "duplicate", "background")
MISSED = "missed"


@dataclass(frozen=True, eq=False)
class MatchedDetections:
    """The detections of one picture over a score, and its objects.

    kinds (D,) of `KINDS` indices; found (G,) bool, objects that a correct detection has; ignored (G,) bool,
    difficult and crowd objects, which are neither asked for nor punished; kept (D,) the detections' rows in
    the record."""

    kinds: np.ndarray
    found: np.ndarray
    ignored: np.ndarray
    kept: np.ndarray

    def counts(self) -> dict[str, int]:
        """How many of each kind, and how many objects were missed."""
        number = np.bincount(self.kinds[self.kinds >= 0], minlength=len(KINDS))
        return {**dict(zip(KINDS, number.tolist())), MISSED: int((~self.found & ~self.ignored).sum())}


def match_detections(record: DetectionRecord, score: float) -> MatchedDetections:
    """Each detection of at least ``score`` in order of score: which kind of right or wrong it is; -1 where it
    fell on an ignored object."""
    kept = np.flatnonzero(record.scores >= score)
    kept = kept[np.argsort(-record.scores[kept], kind="stable")]
    ignored = record.difficult | record.crowd
    found = np.zeros(len(record.boxes), bool)
    kinds = np.zeros(len(kept), np.int64)
    iou = overlaps(record.boxes, record.detected[kept]).T
    same = record.detected_labels[kept][:, None] == record.labels[None]
    for row in range(len(kept)):
        kinds[row] = _kind(iou[row], same[row], found, ignored)
    return MatchedDetections(kinds, found, ignored, kept)


def _kind(iou: np.ndarray, same: np.ndarray, found: np.ndarray, ignored: np.ndarray) -> int:
    """The kind of one detection; marks the object that it finds."""
    free = np.where(same & ~found & ~ignored & (iou >= FOREGROUND), iou, 0)
    if free.any():
        found[free.argmax()] = True
        return KINDS.index("correct")
    if (ignored & same & (iou >= FOREGROUND)).any():
        return -1
    if (same & (iou >= FOREGROUND)).any():
        return KINDS.index("duplicate")
    if (~same & ~ignored & (iou >= FOREGROUND)).any():
        return KINDS.index("classification")
    near = ~ignored & (iou >= BACKGROUND)
    if (same & near).any():
        return KINDS.index("localisation")
    return KINDS.index("both") if near.any() else KINDS.index("background")
