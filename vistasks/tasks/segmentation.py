"""Segmentation: the class of each pixel."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vistasks.drawing.draw import blend_map, draw_map_legend
from vistasks.drawing.masks import run_lengths, write_colour_mask, write_mask
from vistasks.loading.class_weights import numbers_instead_of_rule, rule_of
from vistasks.metrics import MeanIoU, PanopticQuality
from vistasks.proposals.connected_parts import connected_parts
from vistasks.registry import TASKS
from vistasks.task import Some, Task
from vistasks.tasks.segmentation_report import (
    SegmentationComparison,
    SegmentationSection,
    segmentation_html,
)
from vistasks.tasks.targets import labelled_flags
from vistasks.types import IGNORE_INDEX, Batch, ClassNames, Prediction, Sample, SegmentationMap


@TASKS.register("segmentation")
class SegmentationTask(Task):
    """What each pixel is: `vistasks.types.SegmentationMap`."""

    name = "segmentation"
    verb = "segment"
    unit = "pixels"
    layer = 0
    headline = {  # noqa: RUF012 - a constant
        name: ("iou", name) for name in ("mIoU", "pixel_accuracy", "mean_class_accuracy")
    }
    monitored = "mIoU"

    def resolved(self, head: Mapping[str, Any], dataset: Any) -> Mapping[str, Any]:
        return numbers_instead_of_rule(head, dataset)

    def taken_over(self, head: Mapping[str, Any], earlier: Mapping[str, Any]) -> Mapping[str, Any]:
        numbers = earlier.get("class_weights")
        if rule_of(head) is None or not isinstance(numbers, dict):
            return head
        return {**head, "class_weights": numbers}

    def check_sample(self, sample: Sample, classes: ClassNames) -> None:
        known = len(classes.segmentation)
        if not known or sample.segmentation is None:
            return
        strange = (sample.segmentation >= known) & (sample.segmentation != IGNORE_INDEX)
        if strange.any():
            value, count = int(sample.segmentation[strange].min()), int(strange.sum())
            raise ValueError(
                f"{sample.path}: the mask has the class id {value} ({count} pixels), but there are {known} classes and "
                f"{IGNORE_INDEX} = ignore; where an augmentation fills masks, its fill_mask must be one of these"
            )

    def batch_fields(
        self, samples: Sequence[Sample], size: tuple[int, int], classes: ClassNames
    ) -> dict[str, Any]:
        flags = [sample.labelled.segmentation for sample in samples]
        masks = torch.full((len(samples), *size), IGNORE_INDEX) if classes.segmentation else None
        for index, sample in enumerate(samples):
            if masks is not None and sample.segmentation is not None:
                height, width = sample.size
                masks.numpy()[index, :height, :width] = sample.segmentation
        return {
            "segmentation": masks,
            "segmentation_labelled": labelled_flags(flags, len(classes.segmentation)),
        }

    def labelled(self, batch: Batch) -> Tensor:
        return batch.segmentation_labelled

    def mapped(self, sample: Sample, ids: np.ndarray) -> Sample:
        if sample.segmentation is None:
            return sample
        table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        table[: len(ids)] = ids
        return replace(sample, segmentation=table[sample.segmentation])

    def counts(self, sample: Sample) -> np.ndarray:
        if sample.segmentation is None:
            return np.zeros(0, np.int64)
        counts = np.bincount(sample.segmentation.ravel(), minlength=256)[:IGNORE_INDEX]
        return counts[: int(np.flatnonzero(counts).max(initial=-1)) + 1]

    def truth(self, sample: Sample, classes: ClassNames) -> SegmentationMap | None:
        if sample.segmentation is None:
            return None
        return SegmentationMap(sample.segmentation, classes.segmentation)

    def answer(self, prediction: Prediction) -> SegmentationMap | None:
        return prediction.segmentation

    def with_answer(self, prediction: Some, answer: SegmentationMap | None) -> Some:
        return replace(prediction, segmentation=answer)

    def classes_of(self, answer: SegmentationMap) -> tuple[str, ...]:
        return answer.names

    def without(self, answer: SegmentationMap, hidden: set[str]) -> SegmentationMap:
        table = np.arange(256, dtype=np.uint8)
        table[[number for number, name in enumerate(answer.names) if name in hidden]] = IGNORE_INDEX
        return SegmentationMap(table[answer.labels], answer.names)

    def resized(
        self, answer: SegmentationMap, before: tuple[int, int], after: tuple[int, int]
    ) -> SegmentationMap:
        small = cv2.resize(answer.labels, after[::-1], interpolation=cv2.INTER_NEAREST)
        return SegmentationMap(np.asarray(small), answer.names)

    def regions(self, answer: SegmentationMap) -> np.ndarray:
        return connected_parts(answer)

    def summary(self, answer: SegmentationMap) -> str:
        present = [name for number, name in enumerate(answer.names) if (answer.labels == number).any()]
        return f"map of {', '.join(present)}"

    def metrics(self, classes: ClassNames, tasks: Sequence[str], engine: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"iou": MeanIoU(classes.segmentation)}
        if "detection" in tasks and set(classes.detection) & set(classes.segmentation):
            found["panoptic"] = PanopticQuality(classes.segmentation, boxes=classes.detection)
        return found

    def draw(
        self, canvas: np.ndarray, answer: SegmentationMap, colours: Mapping[str, Any], *, labels: bool
    ) -> np.ndarray:
        return blend_map(canvas, answer, [colours[name] for name in answer.names])

    def draw_legend(self, canvas: np.ndarray, answer: SegmentationMap, colours: Mapping[str, Any]) -> None:
        draw_map_legend(canvas, answer, colours)

    def save_files(
        self, answer: SegmentationMap, folder: Path, name: str, colours: Mapping[str, Any]
    ) -> None:
        write_mask(answer, folder / "masks" / f"{name}.png", colours)
        write_colour_mask(answer, folder / "colour_masks" / f"{name}.png", colours)

    def save_mask(self, answer: SegmentationMap, path: Path, colours: Mapping[str, Any]) -> None:
        write_mask(answer, path, colours)

    def run_lengths(self, answer: SegmentationMap) -> dict[str, Any]:
        return run_lengths(answer)

    def facts(self, answer: SegmentationMap) -> dict[str, Any]:
        labels, names = answer.labels, answer.names
        shares = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel() / labels.size
        return {"pixel_share": {name: round(float(share), 5) for name, share in zip(names, shares)}}

    def stored(self, answer: SegmentationMap) -> str:
        """A PNG of the class ids, base64."""
        return base64.b64encode(cv2.imencode(".png", answer.labels)[1].tobytes()).decode()

    def restored(self, stored: Any, classes: ClassNames) -> SegmentationMap:
        png = np.frombuffer(base64.b64decode(stored), np.uint8)
        return SegmentationMap(np.asarray(cv2.imdecode(png, cv2.IMREAD_UNCHANGED)), classes.segmentation)

    protocols = ("iou",)

    def report(self, classes: ClassNames, *, score: float) -> SegmentationSection:
        return SegmentationSection(classes)

    def report_html(self, content: Mapping[str, Any], colours: Mapping[str, str]) -> str:
        return segmentation_html(content)

    def comparison(self) -> SegmentationComparison:
        return SegmentationComparison()
