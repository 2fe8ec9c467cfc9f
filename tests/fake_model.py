"""A "model" that finds the same in every picture, and pictures for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vistasks.inference.backend import Backend as BackendBase
from vistasks.types import ClassNames, Detections, Prediction, SegmentationMap

CLASSES = ClassNames(("cat", "dog"), ("background", "cat", "dog"))


class Backend(BackendBase):
    """A "model" that finds one cat and one unsure dog in every picture; it counts what it is asked."""

    def __init__(self, classes: ClassNames = CLASSES) -> None:
        self.classes = classes
        self.batches: list[int] = []
        self.proposed = 0

    def propose(self, image: np.ndarray) -> np.ndarray | None:
        self.proposed += 1
        return np.array([[0, 0, 4, 4]], dtype=np.float32)

    def make_batch(
        self, images: Sequence[np.ndarray], proposals: Sequence[np.ndarray] | None
    ) -> list[np.ndarray]:
        self.batches.append(len(images))
        return list(images)

    def predict(self, batch: list[np.ndarray], *, rows: Any = None, regions: Any = None) -> list[Prediction]:
        return [self._one(image) for image in batch]

    def _one(self, image: np.ndarray) -> Prediction:
        boxes = np.array([[1, 2, 11, 22], [3, 3, 9, 9]], dtype=np.float32)
        scores = np.array([0.9, 0.3], dtype=np.float32)
        found = Detections(boxes, scores, np.array([0, 1]), self.classes.detection)
        labels = np.zeros(image.shape[:2], dtype=np.uint8)
        labels[:5] = 2
        return Prediction(found, SegmentationMap(labels, self.classes.segmentation))


def save_picture(path: Path, value: int = 100, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path
