"""Segmentation in the evaluation report and in comparisons: IoU, boundaries, confusions, panoptic quality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from vistasks.evaluation.reports.compared import Run, TaskComparison, by_difference, row
from vistasks.evaluation.reports.detection import CONFIDENCE
from vistasks.evaluation.reports.html import confusion_table, table
from vistasks.evaluation.reports.records import PictureRecords
from vistasks.evaluation.reports.section import Flaws, Section
from vistasks.evaluation.reports.segmentation import analyse_segmentation, resampled
from vistasks.evaluation.reports.svg import line_chart
from vistasks.metrics import MeanIoU
from vistasks.metrics.boundary import BoundaryQuality
from vistasks.types import IGNORE_INDEX, ClassNames, Prediction, Sample, SegmentationMap

CLASS_MAP = "segmentation map"  # the kind of error of a wrong map


def _segmentation_classes(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of IoU by class, and of each other run the intervals of the class map's headline numbers."""
    names = runs[0].records.classes.segmentation
    drawn = [np.array(list(_draws(run.records, len(names)))) for run in runs]  # (samples, 3 + S) each
    low, high = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
    known: list[dict[str, Any]] = []
    for other in drawn[1:]:
        keys = ["mIoU", "pixel_accuracy", "mean_class_accuracy", *(f"IoU {name}" for name in names)]
        columns = {key: column[np.isfinite(column)] for key, column in zip(keys, (other - drawn[0]).T)}
        known.append(
            {
                key: np.percentile(column, [low, high]).tolist()
                for key, column in columns.items()
                if len(column)
            }
        )
    rows = []
    for name in names:
        cells = [run.report["iou"]["per_class"][name] for run in runs]
        of_class = [bounds.get(f"IoU {name}") for bounds in known]
        rows.append(row(name, [cell["IoU"] for cell in cells], of_class, pixels=cells[0]["pixels"]))
    return by_difference(rows), known


def _draws(records: PictureRecords, classes: int) -> Iterator[np.ndarray]:
    """mIoU, pixel accuracy, mean class accuracy and each class's IoU of each resampled data set; NaN where a
    class is absent.
    """
    for matrix in resampled(records.confusions(), classes):
        hits, truth = np.diag(matrix), matrix.sum(axis=1)
        union = truth + matrix.sum(axis=0) - hits
        ious = np.divide(hits, union, out=np.full(classes, np.nan), where=union > 0)
        recalls = np.divide(hits, truth, out=np.full(classes, np.nan), where=truth > 0)
        total = max(1.0, matrix.sum())
        numbers = [np.nanmean(ious), hits.sum() / total, np.nanmean(recalls)] if union.any() else [np.nan] * 3
        yield np.array([*numbers, *ious])


def _wrong_share(records: PictureRecords) -> np.ndarray:
    """Of each picture: the share of its labelled pixels that have another class."""
    each = records.confusions()
    classes = len(records.classes.segmentation)
    right = each[:, :: classes + 1].sum(axis=1)
    return np.asarray(1 - right / np.maximum(each.sum(axis=1), 1))


def segmentation_html(content: Mapping[str, Any]) -> str:
    found, boundary, iou = (
        content["analysis"]["segmentation"],
        content["analysis"]["boundary"],
        content["iou"],
    )
    rows = [
        [
            name,
            values["IoU"],
            outline["boundary_IoU"],
            outline["boundary_F"],
            values["accuracy"],
            values["pixels"],
        ]
        for (name, values), outline in zip(iou["per_class"].items(), boundary["per_class"].values())
    ]
    rows.append(
        [
            "all classes",
            iou["mIoU"],
            boundary["boundary_mIoU"],
            boundary["boundary_F"],
            iou["mean_class_accuracy"],
            iou["pixels"],
        ]
    )
    pairs = [[f"{p['truth']} as {p['prediction']}", p["share"], p["pixels"]] for p in found["pairs"]]
    points = [(float(width), share) for width, share in boundary["trimap"].items() if share is not None]
    chart = line_chart(
        {"accuracy": points}, {"accuracy": "#2456c8"}, x="pixels from a boundary", y="pixel accuracy", x_range=(0, 32), dots=True,
        ticks=[width for width, _ in points],
    )  # fmt: skip
    return (
        "<h2>Segmentation map</h2>"
        f"{table(['class', 'IoU', 'boundary IoU', 'boundary F', 'accuracy', 'pixels'], rows)}"
        f'<p class="faint">{escape(boundary["protocol"])}</p>{_panoptic(content.get("panoptic"))}'
        f'<div class="row"><div><h3>Accuracy near boundaries (trimap)</h3>{chart}</div>'
        f"<div><h3>Most confused classes</h3>{table(['confusion', 'share of the class', 'pixels'], pairs)}</div></div>"
        f"<h3>Confusion matrix, pixels</h3>{confusion_table(found['confusion'])}"
    )


def _panoptic(found: Mapping[str, Any] | None) -> str:
    """Panoptic quality, where a model has both heads."""
    if found is None:
        return ""
    numbers = ("PQ", "SQ", "RQ", "segments")
    rows = [
        [name, *(values[key] for key in numbers)]
        for name, values in found["per_class"].items()
        if values["PQ"] is not None
    ]
    rows.append(["all classes", found["PQ"], found["SQ"], found["RQ"], sum(row[-1] for row in rows)])
    text = "SQ, segmentation quality: mean IoU of matched segments. RQ, recognition quality: F1 score. PQ: their product."
    shown = table(["class", "PQ", "SQ", "RQ", "segments"], rows)
    return f'<h3>Panoptic quality</h3><p>{text}</p>{shown}<p class="faint">{escape(found["protocol"])}</p>'


class SegmentationSection(Section):
    """Segmentation maps in the evaluation report."""

    def __init__(self, classes: ClassNames) -> None:
        self.names = classes.segmentation
        self.boundary = BoundaryQuality(self.names)
        self._pixels: Mapping[str, Any] = {}

    def update(self, prediction: Prediction, sample: Sample) -> Flaws | None:
        if not sample.labelled.segmentation:
            return None
        self.boundary.update(prediction, sample)
        truth, found = sample.segmentation, prediction.segmentation
        if truth is None or found is None:
            return None
        counted = truth != IGNORE_INDEX
        if not counted.any():
            return None
        wrong = (truth != found.labels) & counted
        share = float(wrong[counted].mean())
        counts = np.bincount(truth[wrong & (truth < len(found.names))], minlength=len(found.names))
        return Flaws(
            badness={CLASS_MAP: share},
            share=share,
            classes=frozenset(found.names[k] for k in np.flatnonzero(counts > 0.002 * truth.size)),
            truth=SegmentationMap(truth, found.names),
            found=found,
        )

    def compute(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        iou = metrics.get("iou")
        if not isinstance(iou, MeanIoU):
            return {}
        self._pixels = iou.ordered()
        found = analyse_segmentation(iou.ordered_records(), self.names)
        return {"segmentation": found, "boundary": self.boundary.compute()}

    def records(self) -> dict[str, Any]:
        return {"pixels": self._pixels} if self._pixels else {}


class SegmentationComparison(TaskComparison):
    """Runs by their segmentation maps."""

    errors_title = "share of wrong pixels"
    classes_title = "Segmentation map by class: IoU"
    pictures_title = "Images gained and lost: segmentation map"
    count = "pixels"

    def pictures(self, records: PictureRecords) -> Mapping[str, Any]:
        return records.pixels

    def other_labels(self, one: PictureRecords, other: PictureRecords) -> list[str]:
        size = len(one.classes.segmentation)
        truths = [
            np.array([np.bincount(cells // size, counts, size) for cells, counts in records.pixels.values()])
            for records in (one, other)
        ]
        ids = list(one.pixels)
        return [ids[index] for index in np.flatnonzero((truths[0] != truths[1]).any(axis=1))]

    def classes(self, runs: Sequence[Run], samples: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return _segmentation_classes(runs)

    def errors(self, records: PictureRecords) -> np.ndarray:
        return _wrong_share(records)
