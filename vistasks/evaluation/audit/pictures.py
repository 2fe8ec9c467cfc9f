"""Crops of the places that an audit names: labels left, prediction right."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from vistasks.drawing.draw import draw, draw_tag
from vistasks.drawing.palette import model_colours
from vistasks.evaluation.audit.findings import Finding
from vistasks.inference.loaded import LoadedModel
from vistasks.loading.batching import collate, to_device
from vistasks.loading.loader import Pipeline
from vistasks.types import Detections, Prediction, Sample, SegmentationMap

HEIGHT, WIDEST = 230, 330  # pixels of a panel
AROUND, LEAST = 0.6, 60  # of the place's sides are shown around it; at least so many pixels a side are shown
SHOWN = 0.3  # detections with a smaller score are left out
_MARK = (255, 255, 255)


class Crops:
    """Reads pictures again and asks the model again, for the entries that are shown."""

    def __init__(self, loaded: LoadedModel, pipeline: Pipeline) -> None:
        self.loaded, self.pipeline, self.colours = loaded, pipeline, model_colours(loaded.classes)

    def of(self, entries: Sequence[Finding], *, batch_size: int) -> list[bytes]:
        """A JPEG of each entry, in their order."""
        numbers = list(dict.fromkeys(entry.index for entry in entries))
        drawn: dict[int, bytes] = {}
        for start in range(0, len(numbers), batch_size):
            chosen = numbers[start : start + batch_size]
            pairs = [self.pipeline[0, number] for number in chosen]
            samples, originals = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            sizes, divisor = [sample.size for sample in originals], self.loaded.model.divisor
            batch = to_device(
                collate(samples, sizes, classes=self.loaded.classes, divisor=divisor), self.loaded.device
            )
            with torch.inference_mode():
                predictions = self.loaded.model.predict(batch)
            for number, sample, prediction in zip(chosen, originals, predictions):
                for position, entry in enumerate(entries):
                    if entry.index == number:
                        drawn[position] = self._drawn(entry, sample, prediction)
        return [drawn[position] for position in range(len(entries))]

    def _drawn(self, entry: Finding, sample: Sample, prediction: Prediction) -> bytes:
        names = self.loaded.classes
        truth = Prediction(
            Detections(sample.boxes, np.ones(len(sample.boxes), np.float32), sample.labels, names.detection)
            if self.loaded.wants_proposals
            else None,
            None if sample.segmentation is None else SegmentationMap(sample.segmentation, names.segmentation),
        )
        found = prediction.detections
        if found is not None:
            kept = found.scores >= SHOWN
            found = Detections(found.boxes[kept], found.scores[kept], found.labels[kept], found.class_names)
        window = _window(entry, sample.size)
        panels = [self._panel(entry, sample.image, window, one, scores) for one, scores in
                  ((truth, False), (Prediction(found, prediction.segmentation), True))]  # fmt: skip
        gap = np.full((len(panels[0]), 6, 3), 255, np.uint8)
        sheet = np.concatenate([panels[0], gap, panels[1]], axis=1)
        return cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()

    def _panel(
        self,
        entry: Finding,
        image: np.ndarray,
        window: tuple[int, int, int, int],
        said: Prediction,
        scores: bool,
    ) -> np.ndarray:
        x1, y1, x2, y2 = window
        scale = min(HEIGHT / (y2 - y1), WIDEST / (x2 - x1))
        size = max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale))
        crop = np.asarray(cv2.resize(image[y1:y2, x1:x2], size, interpolation=cv2.INTER_CUBIC))
        labels = None
        if said.segmentation is not None:
            cut = cv2.resize(said.segmentation.labels[y1:y2, x1:x2], size, interpolation=cv2.INTER_NEAREST)
            labels = SegmentationMap(np.asarray(cut), said.segmentation.names)
        found = said.detections
        if found is not None:
            boxes = (found.boxes - np.array([x1, y1, x1, y1], np.float32)) * np.float32(scale)
            inside = (boxes[:, 0] < size[0]) & (boxes[:, 1] < size[1]) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
            found = Detections(boxes[inside], found.scores[inside], found.labels[inside], found.class_names)
        canvas = draw(crop, Prediction(found, labels), labels=False, legend=False, colours=self.colours)
        if found is not None:
            for box, name, score in zip(found.boxes, found.names, found.scores):
                draw_tag(canvas, box, f"{name} {score:.2f}" if scores else name)
        place = (entry.box - np.array([x1, y1, x1, y1], np.float32)) * np.float32(scale)
        _corners(canvas, place)
        return _centred(canvas)


def _window(entry: Finding, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of the pixels that are shown."""
    both = entry.box if entry.better is None else np.concatenate([
        np.minimum(entry.box[:2], entry.better[:2]), np.maximum(entry.box[2:], entry.better[2:])])  # fmt: skip
    centre, sides = (both[:2] + both[2:]) / 2, np.maximum((both[2:] - both[:2]) * (1 + 2 * AROUND), LEAST)
    low, high = np.floor(centre - sides / 2), np.ceil(centre + sides / 2)
    x1, y1 = (int(value) for value in np.clip(low, 0, None))
    return x1, y1, max(x1 + 1, min(size[1], int(high[0]))), max(y1 + 1, min(size[0], int(high[1])))


def _corners(canvas: np.ndarray, box: np.ndarray) -> None:
    """White corners around the place, with a dark edge, so that they are seen on any picture and hide no
    box.
    """
    height, width = canvas.shape[:2]
    x1, y1 = max(1, int(box[0]) - 4), max(1, int(box[1]) - 4)
    x2, y2 = min(width - 2, int(box[2]) + 4), min(height - 2, int(box[3]) + 4)
    arm = max(8, min(x2 - x1, y2 - y1) // 4)
    for colour, thickness in (((20, 20, 20), 5), (_MARK, 2)):
        for x, dx in ((x1, arm), (x2, -arm)):
            for y, dy in ((y1, arm), (y2, -arm)):
                cv2.line(canvas, (x, y), (x + dx, y), colour, thickness)
                cv2.line(canvas, (x, y), (x, y + dy), colour, thickness)


def _centred(canvas: np.ndarray) -> np.ndarray:
    """On paper of `HEIGHT` x `WIDEST`, so that figures line up."""
    height, width = canvas.shape[:2]
    paper = np.full((HEIGHT, WIDEST, 3), 245, np.uint8)
    top, left = (HEIGHT - height) // 2, (WIDEST - width) // 2
    paper[top : top + height, left : left + width] = canvas
    return paper
