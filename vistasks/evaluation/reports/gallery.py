"""The worst pictures of each kind of error, truth beside prediction, in bounded memory."""

from __future__ import annotations

import base64
import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vistasks.drawing.draw import draw, draw_tag
from vistasks.drawing.palette import Colour
from vistasks.evaluation.reports.matching import KINDS, MISSED, Judged
from vistasks.metrics.detection_record import DetectionRecord
from vistasks.types import Detections, Prediction, Sample, SegmentationMap

SIDE = 420  # pixels of the longer side of a picture in the gallery
CLASS_MAP = "class map"
TAGS = {
    "classification": "class",
    "localisation": "place",
    "both": "class+place",
    "duplicate": "twice",
    "background": "nothing there",
}


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture of the gallery: errors by kind, the class names that they are about, and a JPEG of truth |
    prediction.
    """

    path: str
    errors: dict[str, int]
    classes: tuple[str, ...]
    wrong_pixels: float | None
    jpeg: bytes

    def entry(self) -> dict[str, Any]:
        """For the page."""
        image = base64.b64encode(self.jpeg).decode()
        return {
            "path": self.path,
            "errors": self.errors,
            "classes": self.classes,
            "wrong_pixels": self.wrong_pixels,
            "image": image,
        }


class Gallery:
    """Keeps the ``each`` pictures with the most errors of every kind."""

    def __init__(self, each: int, colours: Mapping[str, Colour]) -> None:
        self.each, self.colours = each, colours
        self._heaps: dict[str, list[tuple[float, int, Shown]]] = {}
        self._offered = 0

    def offer(
        self,
        sample: Sample,
        prediction: Prediction,
        record: DetectionRecord | None,
        judged: Judged | None,
        wrong_pixels: float | None,
    ) -> None:
        """Considers one picture; it is drawn only if it is among the worst of a kind so far.

        Args:
            sample: the picture and its labels.
            prediction: in pixels of it.
            record: and ``judged``, its boxes as they were judged; None without a detector.
            wrong_pixels: share of the labelled pixels that have another class; None without a segmenter.
        """
        self._offered += 1
        counts = {k: n for k, n in judged.counts().items() if k != KINDS[0]} if judged is not None else {}
        badness: dict[str, float] = {kind: float(number) for kind, number in counts.items()}
        if wrong_pixels is not None:
            badness[CLASS_MAP] = wrong_pixels
        wanted = [kind for kind, value in badness.items() if value > 0 and self._has_room(kind, value)]
        if not wanted:
            return
        jpeg = _drawn(sample, prediction, record, judged, self.colours)
        errors = {kind: number for kind, number in counts.items() if number}
        shown = Shown(sample.path, errors, _classes(sample, prediction, record, judged), wrong_pixels, jpeg)
        for kind in wanted:
            heap = self._heaps.setdefault(kind, [])
            heapq.heappush(
                heap, (badness[kind], -self._offered, shown)
            )  # the number keeps ties from comparing pictures
            if len(heap) > self.each:
                heapq.heappop(heap)

    def _has_room(self, kind: str, value: float) -> bool:
        heap = self._heaps.get(kind, [])
        return len(heap) < self.each or value > heap[0][0]

    def pictures(self) -> list[Shown]:
        """Each picture once, the most errors first."""
        found = {shown.path: shown for heap in self._heaps.values() for _, _, shown in heap}
        return sorted(
            found.values(),
            key=lambda shown: (-sum(shown.errors.values()), -(shown.wrong_pixels or 0), shown.path),
        )


def _classes(
    sample: Sample, prediction: Prediction, record: DetectionRecord | None, judged: Judged | None
) -> tuple[str, ...]:
    """The names of the classes that something is wrong with."""
    names: set[str] = set()
    found = prediction.detections
    if record is not None and judged is not None and found is not None:
        missed = ~judged.found & ~judged.ignored
        names |= {found.class_names[label] for label in record.labels[missed]}
        names |= {found.class_names[label] for label in record.detected_labels[judged.kept[judged.kinds > 0]]}
    segmentation = prediction.segmentation
    if (
        segmentation is not None
        and sample.segmentation is not None
        and sample.segmentation.shape == segmentation.labels.shape
    ):
        truth = sample.segmentation
        wrong = truth[(truth != segmentation.labels) & (truth < len(segmentation.names))]
        counts = np.bincount(wrong, minlength=len(segmentation.names))
        names |= {segmentation.names[k] for k in np.flatnonzero(counts > 0.002 * truth.size)}
    return tuple(sorted(names))


def _drawn(
    sample: Sample,
    prediction: Prediction,
    record: DetectionRecord | None,
    judged: Judged | None,
    colours: Mapping[str, Colour],
) -> bytes:
    height, width = sample.size
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = np.asarray(cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA))
    factor = np.array([size[0] / width, size[1] / height] * 2, np.float32)
    found, segmentation = prediction.detections, prediction.segmentation
    truth_boxes = wrong_boxes = None
    if record is not None and judged is not None and found is not None:
        names = found.class_names
        truth_boxes = Detections(
            record.boxes * factor, np.ones(len(record.boxes), np.float32), record.labels, names
        )
        rows = judged.kept
        wrong_boxes = Detections(
            record.detected[rows] * factor, record.scores[rows], record.detected_labels[rows], names
        )
    truth_map = found_map = None
    if segmentation is not None:
        found_map = SegmentationMap(_shrunk(segmentation.labels, size), segmentation.names)
        if sample.segmentation is not None:
            truth_map = SegmentationMap(_shrunk(sample.segmentation, size), segmentation.names)
    panels = [
        draw(image, Prediction(boxes, labels), labels=False, legend=False, colours=colours)
        for boxes, labels in ((truth_boxes, truth_map), (wrong_boxes, found_map))
    ]
    if truth_boxes is not None and wrong_boxes is not None and judged is not None:
        for index in np.flatnonzero(~judged.found & ~judged.ignored):
            draw_tag(panels[0], truth_boxes.boxes[index], MISSED)
        for index in np.flatnonzero(judged.kinds > 0):
            draw_tag(panels[1], wrong_boxes.boxes[index], TAGS[KINDS[judged.kinds[index]]])
    gap = np.full((size[1], 6, 3), 255, np.uint8)
    _, encoded = cv2.imencode(
        ".jpg", np.concatenate([panels[0], gap, panels[1]], axis=1)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80]
    )
    return encoded.tobytes()


def _shrunk(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST))
