"""What a model is worth: update(prediction, sample) per image, then compute() -> a dict that json can hold.

One file per metric, and one import line here; a task names its own (`vistasks.task.Task.metrics`). `metric.py`
holds what they share, `tables.py` shows their results."""

from __future__ import annotations

from vistasks.metrics.boundary import BoundaryQuality
from vistasks.metrics.coco_ap import CocoAveragePrecision
from vistasks.metrics.mean_iou import MeanIoU
from vistasks.metrics.metric import Metric
from vistasks.metrics.panoptic import PanopticQuality
from vistasks.metrics.tables import detection_table, report_tables, segmentation_table
from vistasks.metrics.voc_ap import VocAveragePrecision

__all__ = [
    "BoundaryQuality",
    "CocoAveragePrecision",
    "MeanIoU",
    "Metric",
    "PanopticQuality",
    "VocAveragePrecision",
    "detection_table",
    "report_tables",
    "segmentation_table",
]
