"""A few fixed pictures of an evaluation on one sheet: labels left, prediction right."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np

from vistasks.drawing.draw import draw, draw_tag
from vistasks.drawing.lettering import put_text
from vistasks.drawing.palette import model_colours
from vistasks.system.text import printable
from vistasks.types import ClassNames, Detections, Prediction, Sample, SegmentationMap

HEIGHT, WIDTH = 240, 320  # pixels that each panel is fitted into
GAP, CAPTION = 8, 20
LEAST_SCORE = 0.3  # of detections that are drawn
_PAPER, _INK = (24, 26, 30), (235, 235, 235)


class SampleSheet:
    """Fed like a metric; draws the pictures whose ids were asked for as they come, and keeps nothing else of
    them.

    Args:
        ids: of the pictures; the sheet has them in this order.
        classes: the model's class names, which choose the colours.
    """

    def __init__(self, ids: Collection[str], classes: ClassNames) -> None:
        self.ids, self.classes, self.colours = list(ids), classes, model_colours(classes)
        self._panels: dict[str, np.ndarray] = {}

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Draws one picture if it is among those asked for."""
        if sample.image_id in self.ids:
            self._panels[sample.image_id] = self._pair(prediction, sample)

    def sheet(self) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB, two pictures a row; None where none came."""
        pairs = [self._panels[image_id] for image_id in self.ids if image_id in self._panels]
        if not pairs:
            return None
        columns = min(2, len(pairs))
        blank = np.full_like(pairs[0], _PAPER)
        pairs += [blank] * (-len(pairs) % columns)
        return np.concatenate(
            [
                np.concatenate(pairs[start : start + columns], axis=1)
                for start in range(0, len(pairs), columns)
            ]
        )

    def _pair(self, prediction: Prediction, sample: Sample) -> np.ndarray:
        boxes = self._labelled(sample) if prediction.detections is not None else None
        mask = sample.segmentation if prediction.segmentation is not None else None
        truth = Prediction(boxes, None if mask is None else SegmentationMap(mask, self.classes.segmentation))
        pair = np.full((HEIGHT + CAPTION + GAP, 2 * (WIDTH + GAP), 3), _PAPER, np.uint8)
        for number, (said, scores) in enumerate(((truth, False), (_likely(prediction), True))):
            panel = self._panel(sample.image, said, scores=scores)
            height, width = panel.shape[:2]
            top, left = GAP + (HEIGHT - height) // 2, number * (WIDTH + GAP) + GAP // 2 + (WIDTH - width) // 2
            pair[top : top + height, left : left + width] = panel
        put_text(pair, printable(sample.image_id)[-48:], (GAP, HEIGHT + GAP + 15), 0.42, _INK)
        return pair

    def _labelled(self, sample: Sample) -> Detections:
        return Detections(
            sample.boxes, np.ones(len(sample.boxes), np.float32), sample.labels, self.classes.detection
        )

    def _panel(self, image: np.ndarray, said: Prediction, *, scores: bool) -> np.ndarray:
        scale = min(HEIGHT / image.shape[0], WIDTH / image.shape[1])
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        small = np.asarray(
            cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        )
        found, mask = said.detections, said.segmentation
        if mask is not None:
            mask = SegmentationMap(
                np.asarray(cv2.resize(mask.labels, size, interpolation=cv2.INTER_NEAREST)), mask.names
            )
        if found is not None:
            factor = np.array([size[0] / image.shape[1], size[1] / image.shape[0]] * 2, np.float32)
            found = Detections(found.boxes * factor, found.scores, found.labels, found.class_names)
        canvas = draw(small, Prediction(found, mask), labels=False, legend=False, colours=self.colours)
        if found is not None:
            for box, name, score in zip(found.boxes, found.names, found.scores):
                draw_tag(canvas, box, f"{name} {score:.2f}" if scores else name)
        return canvas


def _likely(prediction: Prediction) -> Prediction:
    found = prediction.detections
    if found is None:
        return prediction
    kept = found.scores >= LEAST_SCORE
    likely = Detections(found.boxes[kept], found.scores[kept], found.labels[kept], found.class_names)
    return Prediction(likely, prediction.segmentation)
