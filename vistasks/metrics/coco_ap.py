"""COCO's average precision and recall for boxes: the twelve numbers, and AP per class (Lin et al. 2014;
cocodataset.org).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from vistasks.metrics.coco_engines import ENGINES, engine_version
from vistasks.metrics.detection_record import (
    DetectionColumns,
    DetectionRecord,
    detection_columns,
    detection_record,
    of_classes,
)
from vistasks.metrics.metric import Metric
from vistasks.types import Prediction, Sample

TWELVE = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

# positions in the engines' arrays
_IOU_50, _IOU_75 = 0, 5
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_MAX_1, _MAX_10, _MAX_100 = range(3)


class CocoAveragePrecision(Metric[DetectionRecord]):
    """AP over IoU .50:.05:.95 with 101 recall levels, at most 100 detections per class and image, as
    pycocotools computes it.

    ``Sample.areas`` decides the size ranges (small < 32^2 <= medium < 96^2 <= large pixels) and
    ``Sample.crowd`` what is ignored as a crowd. COCO knows no difficult objects: ``difficult="ignore"``
    neither asks for them nor punishes a detection that matches one (by IoU, once); ``"count"`` takes them as
    ordinary objects.

    ``engine``: "hotcoco" (Rust), or "pycocotools", the referee; both get the same float64 numbers.
    """

    def __init__(
        self,
        class_names: tuple[str, ...],
        *,
        engine: Literal["hotcoco", "pycocotools"] = "hotcoco",
        difficult: Literal["ignore", "count"] = "ignore",
    ) -> None:
        super().__init__(class_names)
        if engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
        if difficult not in ("ignore", "count"):
            raise ValueError(f"difficult must be 'ignore' or 'count', not {difficult!r}")
        self.engine, self.difficult = engine, difficult

    def record(self, prediction: Prediction, sample: Sample) -> DetectionRecord | None:
        return detection_record(prediction, sample, self.class_names)

    def compute(self) -> dict[str, Any]:
        """{"protocol", the `TWELVE`, "per_class": {name: {"AP", "AP50", "AP75", "objects"}}}; None where
        there is no object.
        """
        columns = detection_columns(self.ordered_records())
        present = np.unique(columns.labels)  # time and memory grow with the classes; the others have no AP
        precision, recall = ENGINES[self.engine](
            of_classes(columns, present), max(1, len(present)), self.difficult == "ignore"
        )
        objects = self._objects(columns).tolist()
        place = {int(label): k for k, label in enumerate(present)}
        per_class = {
            name: {
                **_precisions(precision[:, :, place.get(k, 0) : place.get(k, -1) + 1]),
                "objects": objects[k],
            }
            for k, name in enumerate(self.class_names)
        }
        return {"protocol": self._protocol(), **_twelve(precision, recall), "per_class": per_class}

    def _objects(self, columns: DetectionColumns) -> np.ndarray:
        """(K,) how many objects are asked for."""
        ignored = columns.crowd | columns.difficult if self.difficult == "ignore" else columns.crowd
        return np.bincount(columns.labels[~ignored], minlength=len(self.class_names))

    def _protocol(self) -> str:
        difficult = "ignored" if self.difficult == "ignore" else "counted as objects"
        return (
            f"COCO box AP by {engine_version(self.engine)}: mean over IoU .50:.05:.95 and classes, 101-point interpolation, "
            f"maxDets 1/10/100 per class and image, crowds ignored, difficult objects {difficult}"
        )


def _mean(values: np.ndarray) -> float | None:
    """The mean of the entries that exist: -1 marks the others."""
    existing = values[values > -1]
    return float(existing.mean()) if existing.size else None


def _precisions(precision: np.ndarray) -> dict[str, float | None]:
    """AP, AP50, AP75 of the classes that ``precision`` (10, 101, K, 4, 3) holds."""
    best = precision[..., _ALL, _MAX_100]
    return {"AP": _mean(best), "AP50": _mean(best[_IOU_50]), "AP75": _mean(best[_IOU_75])}


def _twelve(precision: np.ndarray, recall: np.ndarray) -> dict[str, float | None]:
    sizes = {"s": _SMALL, "m": _MEDIUM, "l": _LARGE}
    limits = {"1": _MAX_1, "10": _MAX_10, "100": _MAX_100}
    return {
        **_precisions(precision),
        **{f"AP{name}": _mean(precision[..., size, _MAX_100]) for name, size in sizes.items()},
        **{f"AR{name}": _mean(recall[..., _ALL, limit]) for name, limit in limits.items()},
        **{f"AR{name}": _mean(recall[..., size, _MAX_100]) for name, size in sizes.items()},
    }
