"""How well proposals cover objects: recall, average best overlap, average recall; whatever method made
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vistasks.ops.box_arrays import overlaps
from vistasks.types import Sample

BUDGETS = (10, 30, 100, 300, 1000, 2000, 5000)  # numbers of best boxes that are judged; and all of them
THRESHOLDS = (0.5, 0.7, 0.9)
AVERAGED = np.arange(0.5, 1.0, 0.05)  # COCO's IoU thresholds, of average recall


def best_overlaps(objects: np.ndarray, boxes: np.ndarray, budgets: Sequence[int] = BUDGETS) -> np.ndarray:
    """(M, B + 1): the best IoU of each object among the first ``budgets[i]`` boxes, and among all; 0 without
    boxes.
    """
    if not len(objects) or not len(boxes):
        return np.zeros((len(objects), len(budgets) + 1), dtype=np.float32)
    so_far = np.maximum.accumulate(overlaps(objects, boxes), axis=1)
    last = [min(budget, len(boxes)) - 1 for budget in budgets]
    return so_far[:, [*last, len(boxes) - 1]]


class ProposalRecall:
    """Collects pictures with `update`; `compute` gives the numbers.

    Difficult objects and crowds are left out, as detection metrics leave them out.
    """

    protocol = "recall and best overlap over all objects but difficult ones and crowds; ABO per class, MABO its mean over classes"

    def __init__(self, classes: tuple[str, ...], budgets: Sequence[int] = BUDGETS) -> None:
        self.classes = classes
        self.budgets = tuple(budgets)
        self._best: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._counts: list[int] = []

    def update(self, sample: Sample, boxes: np.ndarray) -> None:
        """One picture with its proposals (P, 4), best first."""
        counted = ~(sample.difficult | sample.crowd)  # type: ignore[operator]  # filled in by Sample
        self._best.append(best_overlaps(sample.boxes[counted], boxes, self.budgets))
        self._labels.append(sample.labels[counted])
        self._counts.append(len(boxes))

    def compute(self) -> dict[str, Any]:
        """Per budget ("10", ..., "all"): "recall" by threshold, "mean_best_overlap", "mabo",
        "average_recall".

        Of all boxes also, by class: "abo", and "recall_by_class" by threshold.
        """
        best = np.concatenate([*self._best, np.zeros((0, len(self.budgets) + 1), np.float32)])
        labels = np.concatenate([*self._labels, np.zeros(0, np.int64)])
        names = [*map(str, self.budgets), "all"]
        result = {name: self._judged(best[:, column], labels) for column, name in enumerate(names)}
        return {
            "pictures": len(self._counts),
            "objects": len(labels),
            "boxes": float(np.mean(self._counts)) if self._counts else 0.0,
            "budgets": result,
            "abo": self._per_class(best[:, -1], labels),
            "recall_by_class": {str(t): self._per_class(best[:, -1] >= t, labels) for t in THRESHOLDS},
            "protocol": self.protocol,
        }

    def _per_class(self, best: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        found = {name: best[labels == label] for label, name in enumerate(self.classes)}
        return {name: float(values.mean()) for name, values in found.items() if len(values)}

    def _judged(self, best: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        if not len(best):
            return {
                "recall": dict.fromkeys(map(str, THRESHOLDS)),
                "mean_best_overlap": None,
                "mabo": None,
                "average_recall": None,
            }
        return {
            "recall": {str(threshold): float((best >= threshold).mean()) for threshold in THRESHOLDS},
            "mean_best_overlap": float(best.mean()),
            "mabo": float(np.mean(list(self._per_class(best, labels).values()))),
            "average_recall": float((best[:, None] >= AVERAGED - 1e-9).mean()),
        }
