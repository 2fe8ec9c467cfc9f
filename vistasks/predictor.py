"""The user's object: load a trained model, predict pictures, stream videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from vistasks.atomic import replacing
from vistasks.datasets.images import read_image
from vistasks.drawing.draw import draw
from vistasks.sources import list_pictures
from vistasks.types import Batch, ClassNames, Detections, Prediction
from vistasks.video.sources import SUFFIXES as VIDEO_SUFFIXES
from vistasks.video.sources import VideoReader

TASKS = ("detect", "segment")


class PredictorBackend(Protocol):
    """What a predictor drives; `vistasks.checkpoint.LoadedModel` is one."""

    model: Any
    classes: ClassNames

    def propose(self, image: np.ndarray) -> np.ndarray | None: ...

    def make_batch(self, images: Sequence[np.ndarray], proposals: Sequence[np.ndarray] | None) -> Batch: ...


@dataclass(frozen=True, eq=False)
class PicturePrediction(Prediction):
    """A `Prediction` with its picture: image (H, W, 3) uint8 RGB; path, "" for an array; seconds, of a video's frame."""

    image: np.ndarray = None  # type: ignore[assignment] # always given
    path: str = ""
    seconds: float | None = None

    def draw(self, *, labels: bool = True, legend: bool = True) -> np.ndarray:
        """The picture with boxes, names and class map drawn on it, (H, W, 3) uint8 RGB."""
        return draw(self.image, self, labels=labels, legend=legend)

    def save(self, path: str | Path) -> Path:
        """Writes `draw` to an image file; the suffix chooses the format. Returns the path."""
        path = Path(path)
        with replacing(path) as temporary:
            Image.fromarray(self.draw()).save(temporary, quality=92)
        return path

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """COCO results: ``category_id`` is the class id + 1, ``bbox`` x, y, width, height in pixels."""
        found = self.detections
        if found is None:
            return []
        return [
            {
                "image_id": image_id,
                "category_id": int(label) + 1,
                "bbox": [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])],
                "score": float(score),
            }
            for box, score, label in zip(found.boxes.astype(np.float64), found.scores, found.labels)
        ]

    def to_supervision(self) -> Any:
        """The detections as ``supervision.Detections`` with ``class_name`` data."""
        import supervision as sv

        found = self.detections
        if found is None:
            return sv.Detections.empty()
        names: dict[str, Any] = {"class_name": np.array(found.names, dtype=str)}
        return sv.Detections(xyxy=found.boxes, confidence=found.scores, class_id=found.labels, data=names)


class Predictor:
    """Predicts with a trained model.

    Args:
        backend: the loaded model.
        tasks: which of its answers are given: "detect", "segment". Without "detect" no proposals are computed.
        score: detections below this score are left out.
        batch_size: pictures that go through the network at once.
    """

    def __init__(
        self, backend: PredictorBackend, *, tasks: Sequence[str] = TASKS, score: float = 0.5, batch_size: int = 1
    ) -> None:
        unknown = sorted(set(tasks) - set(TASKS))
        if unknown or not tasks:
            raise ValueError(f"tasks are {' and '.join(TASKS)}; received: {', '.join(tasks) or 'none'}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; received {batch_size}")
        if not 0 <= score <= 1:
            raise ValueError(f"score must be from 0 to 1; received {score}")
        self.backend, self.tasks, self.score, self.batch_size = backend, tuple(tasks), score, batch_size

    @property
    def classes(self) -> ClassNames:
        """The class names of the two tasks."""
        return self.backend.classes

    def predict(self, source: Any) -> Any:
        """One `PicturePrediction` for a path or an array (H, W, 3) uint8 RGB, or a list of them for a list."""
        if isinstance(source, list | tuple):
            return list(self._batched(iter([_picture(item) for item in source])))
        return next(self._batched(iter([_picture(source)])))

    def stream(self, source: str | Path) -> Iterator[PicturePrediction]:
        """Predictions of a video file's frames, or of the pictures of a folder or a glob, in order and constant memory."""
        if Path(source).suffix.lower() in VIDEO_SUFFIXES:
            frames = ((f.image, str(source), f.seconds) for f in VideoReader(source))
            return self._batched(frames)
        return self._batched(_picture(path) for path in list_pictures(source))

    def _batched(self, pictures: Iterator[tuple[np.ndarray, str, float | None]]) -> Iterator[PicturePrediction]:
        while chunk := list(islice(pictures, self.batch_size)):
            images = [image for image, _, _ in chunk]
            proposals = None
            if "detect" in self.tasks:
                found = [self.backend.propose(image) for image in images]
                proposals = [boxes for boxes in found if boxes is not None] or None
            predictions = self.backend.model.predict(self.backend.make_batch(images, proposals))
            for (image, path, seconds), prediction in zip(chunk, predictions):
                detections = _above(prediction.detections, self.score) if "detect" in self.tasks else None
                segmentation = prediction.segmentation if "segment" in self.tasks else None
                yield PicturePrediction(detections, segmentation, image, path, seconds)


def _above(found: Detections | None, score: float) -> Detections | None:
    if found is None:
        return None
    kept = found.scores >= score
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept], found.class_names)


def _picture(source: Any) -> tuple[np.ndarray, str, float | None]:
    if isinstance(source, str | Path):
        return read_image(source), str(source), None
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            raise ValueError(f"expected an array (H, W, 3) uint8 in RGB order; received {source.shape} {source.dtype}")
        return source, "", None
    raise ValueError(f"expected a path, an array (H, W, 3) uint8 RGB, or a list of them; received {type(source).__name__}")


def load(
    path: str | Path, device: str = "auto", *, tasks: Sequence[str] = TASKS, score: float = 0.5, batch_size: int = 1
) -> Predictor:
    """A `Predictor` of a trained model.

    Args:
        path: a run folder (its best weights) or a checkpoint (.safetensors).
        device: "cpu", "cuda", or "auto": a GPU where there is one.
        tasks, score, batch_size: as `Predictor` has them.
    """
    from vistasks.checkpoint import load_model  # PyTorch and the rest are loaded with it

    return Predictor(load_model(path, device), tasks=tasks, score=score, batch_size=batch_size)
