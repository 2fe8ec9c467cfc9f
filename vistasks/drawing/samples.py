"""A few fixed pictures of an evaluation on one sheet: labels left, prediction right."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np

from vistasks.drawing.draw import draw, draw_tag
from vistasks.drawing.lettering import put_text
from vistasks.drawing.palette import model_colours
from vistasks.system.text import printable
from vistasks.task import answers
from vistasks.types import ClassNames, Prediction, Sample

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
        truth = Prediction()
        for task, _ in answers(prediction):
            truth = task.with_answer(truth, task.truth(sample, self.classes))
        pair = np.full((HEIGHT + CAPTION + GAP, 2 * (WIDTH + GAP), 3), _PAPER, np.uint8)
        for number, (said, scores) in enumerate(((truth, False), (_likely(prediction), True))):
            panel = self._panel(sample.image, said, scores=scores)
            height, width = panel.shape[:2]
            top, left = GAP + (HEIGHT - height) // 2, number * (WIDTH + GAP) + GAP // 2 + (WIDTH - width) // 2
            pair[top : top + height, left : left + width] = panel
        put_text(pair, printable(sample.image_id)[-48:], (GAP, HEIGHT + GAP + 15), 0.42, _INK)
        return pair

    def _panel(self, image: np.ndarray, said: Prediction, *, scores: bool) -> np.ndarray:
        scale = min(HEIGHT / image.shape[0], WIDTH / image.shape[1])
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        small = np.asarray(
            cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        )
        shown = Prediction()
        for task, answer in answers(said):
            shown = task.with_answer(shown, task.resized(answer, image.shape[:2], small.shape[:2]))
        canvas = draw(small, shown, labels=False, legend=False, colours=self.colours)
        found = shown.detections
        if found is not None:
            for box, name, score in zip(found.boxes, found.names, found.scores):
                draw_tag(canvas, box, f"{name} {score:.2f}" if scores else name)
        return canvas


def _likely(prediction: Prediction) -> Prediction:
    likely = Prediction()
    for task, answer in answers(prediction):
        likely = task.with_answer(likely, task.kept(answer, LEAST_SCORE))
    return likely
