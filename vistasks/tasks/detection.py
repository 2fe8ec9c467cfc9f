"""Detection: boxes with a class and a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vistasks.datasets.annotations import Annotation
from vistasks.drawing.draw import draw_boxes
from vistasks.inference.prediction import coco_results
from vistasks.metrics import CocoAveragePrecision, VocAveragePrecision
from vistasks.registry import TASKS
from vistasks.system.text import csv_cell
from vistasks.task import Some, Task
from vistasks.tasks.detection_report import (
    DetectionComparison,
    DetectionSection,
    detection_html,
)
from vistasks.tasks.targets import labelled_flags
from vistasks.types import Batch, ClassNames, Detections, Prediction, Sample


@TASKS.register("detection")
class DetectionTask(Task):
    """What is where: `vistasks.types.Detections`."""

    name = "detection"
    verb = "detect"
    unit = "objects"
    takes_proposals = True
    layer = 10
    headline = {  # noqa: RUF012 - a constant
        "AP": ("coco", "AP"),
        "AP50": ("coco", "AP50"),
        "AP75": ("coco", "AP75"),
        "VOC2007_mAP": ("voc_2007", "mAP"),
        "VOC_mAP": ("voc_area", "mAP"),
    }
    monitored = "AP"

    def check_config(self, head: Mapping[str, Any], config: Any) -> None:
        lacks = head.get("name") == "region_classifier" and head.get("rpn") is None
        if lacks and _asks_for_rpn(config.proposals.method):
            raise ValueError(
                "proposals.method 'rpn' needs a region proposal network in the detection head: set "
                "model.heads.detection.rpn={stride: [8, 16, 32]}, or name a trained run in proposals.method.weights"
            )

    def check_sample(self, sample: Sample, classes: ClassNames) -> None:
        known = len(classes.detection)
        if len(sample.labels) and sample.labels.max() >= known:
            raise ValueError(
                f"{sample.path}: an object has the class id {sample.labels.max()}, but there are {known} classes"
            )

    def batch_fields(
        self, samples: Sequence[Sample], size: tuple[int, int], classes: ClassNames
    ) -> dict[str, Any]:
        real = [~(sample.difficult | sample.crowd) for sample in samples]
        flags = [sample.labelled.detection for sample in samples]
        return {
            "boxes": tuple(torch.from_numpy(s.boxes[r]) for s, r in zip(samples, real)),
            "labels": tuple(torch.from_numpy(s.labels[r]) for s, r in zip(samples, real)),
            "ignored": tuple(torch.from_numpy(s.boxes[~r]) for s, r in zip(samples, real)),
            "detection_labelled": labelled_flags(flags, len(classes.detection)),
        }

    def labelled(self, batch: Batch) -> Tensor:
        return batch.detection_labelled

    def mapped(self, sample: Sample, ids: np.ndarray) -> Sample:
        return replace(sample, labels=ids[sample.labels]) if len(sample.labels) else sample

    def mapped_annotation(self, annotation: Annotation, ids: np.ndarray) -> Annotation:
        return replace(annotation, labels=ids[annotation.labels]) if len(annotation.labels) else annotation

    def counts(self, sample: Sample) -> np.ndarray:
        return np.bincount(sample.labels)

    def truth(self, sample: Sample, classes: ClassNames) -> Detections:
        ones = np.ones(len(sample.boxes), np.float32)
        return Detections(sample.boxes, ones, sample.labels, classes.detection)

    def answer(self, prediction: Prediction) -> Detections | None:
        return prediction.detections

    def with_answer(self, prediction: Some, answer: Detections | None) -> Some:
        return replace(prediction, detections=answer)

    def classes_of(self, answer: Detections) -> tuple[str, ...]:
        return answer.class_names

    def kept(self, answer: Detections, score: float) -> Detections:
        return answer.rows(answer.scores >= score)

    def without(self, answer: Detections, hidden: set[str]) -> Detections:
        return answer.rows(np.array([name not in hidden for name in answer.names], dtype=bool))

    def resized(self, answer: Detections, before: tuple[int, int], after: tuple[int, int]) -> Detections:
        factor = np.array([after[1] / before[1], after[0] / before[0]] * 2, np.float32)
        return replace(answer, boxes=answer.boxes * factor)

    def regions(self, answer: Detections) -> np.ndarray:
        return answer.boxes

    def summary(self, answer: Detections) -> str:
        counts = Counter(answer.names)
        return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "no detections"

    def metrics(self, classes: ClassNames, tasks: Sequence[str], engine: Any) -> dict[str, Any]:
        return {
            "coco": CocoAveragePrecision(classes.detection, engine=engine),
            "voc_2007": VocAveragePrecision(classes.detection, form="11-point"),
            "voc_area": VocAveragePrecision(classes.detection, form="area"),
        }

    def draw(
        self, canvas: np.ndarray, answer: Detections, colours: Mapping[str, Any], *, labels: bool
    ) -> np.ndarray:
        if not len(answer):
            return canvas
        return draw_boxes(canvas, answer, [colours[name] for name in answer.class_names], labels=labels)

    writes_coco = True
    csv_file = "detections.csv"
    csv_columns = ("class", "score", "x1", "y1", "x2", "y2")
    tracked = True

    def coco_results(self, answer: Detections, image_id: int) -> list[dict[str, Any]]:
        return coco_results(answer, image_id)

    def csv_rows(self, answer: Detections) -> list[list[str]]:
        return [
            [csv_cell(name), f"{score:.4f}", *(f"{corner:.2f}" for corner in box)]
            for name, score, box in zip(answer.names, answer.scores, answer.boxes)
        ]

    def crops(self, answer: Detections) -> list[tuple[str, np.ndarray]]:
        return list(zip(answer.names, answer.boxes))

    def facts(self, answer: Detections) -> dict[str, Any]:
        entries: list[dict[str, Any]] = [
            {"name": name, "score": round(float(score), 4), "box": [round(float(side), 2) for side in box]}
            for name, score, box in zip(answer.names, answer.scores, answer.boxes)
        ]
        for entry, identity in zip(entries, () if answer.ids is None else answer.ids):
            entry["id"] = int(identity)
        return {"detections": entries}

    def stored(self, answer: Detections) -> list[list[float]]:
        """Rows of x1, y1, x2, y2, score, label: float32 survives JSON's decimal numbers."""
        columns = answer.boxes.tolist(), answer.scores.tolist(), answer.labels.tolist()
        return [[*box, score, label] for box, score, label in zip(*columns)]

    def restored(self, stored: Any, classes: ClassNames) -> Detections:
        rows = np.array(stored, np.float64).reshape(-1, 6)
        boxes, scores = rows[:, :4].astype(np.float32), rows[:, 4].astype(np.float32)
        return Detections(boxes, scores, rows[:, 5].astype(np.int64), classes.detection)

    protocols = ("coco", "voc_2007", "voc_area")

    def report(self, classes: ClassNames, *, score: float) -> DetectionSection:
        return DetectionSection(classes, score=score)

    def report_html(self, content: Mapping[str, Any], colours: Mapping[str, str]) -> str:
        return detection_html(content, colours)

    def comparison(self) -> DetectionComparison:
        return DetectionComparison()


def _asks_for_rpn(method: Mapping[str, Any]) -> bool:
    parts = method.get("methods")
    if isinstance(parts, list) and any(isinstance(part, dict) and _asks_for_rpn(part) for part in parts):
        return True
    return method.get("name") == "rpn" and method.get("weights") is None
