"""Collects what the page needs while a model is evaluated; writes ``report.html``, ``report.json``,
``pictures.safetensors``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vistasks.drawing.palette import model_colours
from vistasks.evaluation.reports.detection import analyse_detection
from vistasks.evaluation.reports.gallery import Gallery
from vistasks.evaluation.reports.matching import judge
from vistasks.evaluation.reports.page import page
from vistasks.evaluation.reports.records import FILE, PictureRecords
from vistasks.evaluation.reports.segmentation import analyse_segmentation
from vistasks.metrics import CocoAveragePrecision, MeanIoU
from vistasks.metrics.boundary import BoundaryQuality
from vistasks.metrics.detection_record import detection_record
from vistasks.proposals.recall import overlaps
from vistasks.system.atomic import write_text
from vistasks.system.machine import peak_bytes
from vistasks.types import IGNORE_INDEX, ClassNames, Prediction, Sample

PICTURES = 6  # of each kind of error


class EvaluationReport:
    """Fed like a metric, after the metrics; memory grows with the numbers of objects, not with pictures.

    Args:
        classes: the model's class names.
        tasks: of "detection" and "segmentation".
        score: what counts as a detection in the gallery and the confusion matrix.
    """

    def __init__(self, classes: ClassNames, tasks: list[str], *, score: float = 0.5) -> None:
        self.classes, self.tasks, self.score = classes, tasks, score
        self.gallery = Gallery(PICTURES, model_colours(classes))
        self.boundary = BoundaryQuality(classes.segmentation) if "segmentation" in tasks else None
        self._proposed: dict[str, np.ndarray] = {}
        self._paths: dict[str, str] = {}
        self._records = PictureRecords(classes, {})

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Adds one picture; ``sample.proposals``, if there, are in its own pixels."""
        self._paths[sample.image_id] = sample.path
        record = judged = wrong = None
        if "detection" in self.tasks:
            record = detection_record(prediction, sample, self.classes.detection)
            if record is not None:
                judged = judge(record, self.score)
                if sample.proposals is not None:
                    self._proposed[sample.image_id] = overlaps(record.boxes, sample.proposals).max(
                        axis=1, initial=0
                    )
        if self.boundary is not None and sample.labelled.segmentation:
            self.boundary.update(prediction, sample)
            truth, found = sample.segmentation, prediction.segmentation
            if truth is not None and found is not None:
                counted = truth != IGNORE_INDEX
                wrong = float((truth != found.labels)[counted].mean()) if counted.any() else None
        self.gallery.offer(sample, prediction, record, judged, wrong)

    def compute(self, report: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
        """The whole content of the page: the ``report`` of `vistasks.evaluation.loop.evaluate`, and
        "analysis": what was collected.

        Args:
            report: the metrics' results by key.
            metrics: the metrics themselves.
        """
        found: dict[str, Any] = {}
        coco, iou = metrics.get("coco"), metrics.get("iou")
        if isinstance(coco, CocoAveragePrecision):
            records = coco.ordered()
            proposed = [self._proposed.get(image_id) for image_id in records]
            found["detection"] = analyse_detection(
                list(records.values()), self.classes.detection, proposed, score=self.score
            )
            self._records = replace(self._records, detections=records)
        if isinstance(iou, MeanIoU) and self.boundary is not None:
            found["segmentation"] = analyse_segmentation(iou.ordered_records(), self.classes.segmentation)
            found["boundary"] = self.boundary.compute()
            self._records = replace(self._records, pixels=iou.ordered())
        return {**report, "peak_megabytes": peak_bytes() / 1e6 or None, "analysis": found}

    def write(self, folder: Path, content: Mapping[str, Any]) -> Path:
        """``report.json``, ``report.html`` and what was found in each picture, in ``folder``; returns the
        page's path.
        """
        replace(self._records, paths=self._paths).write(folder / FILE)
        write_text(folder / "report.json", json.dumps(content, indent=1))
        path = folder / "report.html"
        write_text(path, page(content, self.classes, [shown.entry() for shown in self.gallery.pictures()]))
        return path
