"""Collects what the page needs while a model is evaluated; writes ``report.html``, ``report.json``,
``pictures.safetensors``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vistasks.drawing.palette import model_colours
from vistasks.evaluation.reports.gallery import Gallery
from vistasks.evaluation.reports.page import page
from vistasks.evaluation.reports.records import FILE, PictureRecords
from vistasks.evaluation.reports.section import Section
from vistasks.system.atomic import write_text
from vistasks.system.machine import peak_bytes
from vistasks.task import task_of
from vistasks.types import ClassNames, Prediction, Sample

PICTURES = 6  # of each kind of error


class EvaluationReport:
    """Fed like a metric, after the metrics; memory grows with the numbers of objects, not with images.

    Args:
        classes: the model's class names.
        tasks: the names of the model's tasks.
        score: what counts as a detection in the gallery and the confusion matrix.
    """

    def __init__(self, classes: ClassNames, tasks: Sequence[str], *, score: float = 0.5) -> None:
        self.classes = classes
        self.gallery = Gallery(PICTURES, model_colours(classes))
        found = {task: task_of(task).report(classes, score=score) for task in tasks}
        self.sections: dict[str, Section] = {task: part for task, part in found.items() if part is not None}
        self._paths: dict[str, str] = {}

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Adds one image; ``sample.proposals``, if there, are in its own pixels."""
        self._paths[sample.image_id] = sample.path
        flaws = {task: section.update(prediction, sample) for task, section in self.sections.items()}
        self.gallery.offer(sample, {task: own for task, own in flaws.items() if own is not None})

    def compute(self, report: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
        """The whole content of the page: the ``report`` of `vistasks.evaluation.loop.evaluate`, and
        "analysis": what was collected.

        Args:
            report: the metrics' results by key.
            metrics: the metrics themselves.
        """
        found: dict[str, Any] = {}
        for section in self.sections.values():
            found |= section.compute(metrics)
        return {**report, "peak_megabytes": peak_bytes() / 1e6 or None, "analysis": found}

    def write(self, folder: Path, content: Mapping[str, Any]) -> Path:
        """``report.json``, ``report.html`` and what was found in each picture, in ``folder``; returns the
        page's path.
        """
        records = {
            name: part for section in self.sections.values() for name, part in section.records().items()
        }
        PictureRecords(self.classes, self._paths, **records).write(folder / FILE)
        write_text(folder / "report.json", json.dumps(content, indent=1))
        path = folder / "report.html"
        write_text(path, page(content, self.classes, [shown.entry() for shown in self.gallery.pictures()]))
        return path
