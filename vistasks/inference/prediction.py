"""An image with what the model found in it: drawn, saved, converted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from vistasks.datasets.images import IMAGE_SUFFIXES
from vistasks.drawing.draw import draw
from vistasks.drawing.palette import Colour, model_colours
from vistasks.system.atomic import replacing
from vistasks.system.text import few
from vistasks.task import answers
from vistasks.types import ClassNames, Detections, Prediction


class Picture(NamedTuple):
    """What is predicted: image (H, W, 3) uint8 RGB; the file's path, "" for an array; the time of a video's
    frame.
    """

    image: np.ndarray
    path: str = ""
    seconds: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class PicturePrediction(Prediction):
    """A `Prediction` with its picture: image (H, W, 3) uint8 RGB; path, "" for an array; seconds, of a
    video's frame.

    ``classes`` are the model's; they choose the colours. ``overlays`` are drawn on top of everything (see
    `Overlay`), ``facts`` go into the frame's line of results.jsonl; a tracker adds
    both."""

    image: np.ndarray = None  # type: ignore[assignment] # always given
    path: str = ""
    seconds: float | None = None
    classes: ClassNames = field(default_factory=ClassNames)
    overlays: tuple[Overlay, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        facts = [self.path or "array", f"{width}x{height}"]
        facts += [f"{self.seconds:.3f} s"] if self.seconds is not None else []
        facts += [task.summary(answer) for task, answer in reversed(list(answers(self)))]
        return f"<{'; '.join(facts)}>"

    @property
    def colours(self) -> dict[str, Colour]:
        """The (red, green, blue) of each class name."""
        return model_colours(self.classes)

    def draw(
        self, *, labels: bool = True, legend: bool = True, colours: Mapping[str, Colour] | None = None
    ) -> np.ndarray:
        """The picture with boxes, names and class map drawn on it, (H, W, 3) uint8 RGB; see
        `vistasks.drawing.draw.draw`.
        """
        canvas = draw(
            self.image, self, labels=labels, legend=legend, colours={**self.colours, **(colours or {})}
        )
        for overlay in self.overlays:
            overlay(canvas)
        return canvas

    def save(self, path: str | Path, *, labels: bool = True) -> Path:
        """Writes `draw` to an image file, whole or not at all; the suffix chooses the format. Returns the
        path. ``labels``: names on the boxes.
        """
        path = Path(path)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(
                f"{path}: the name must end in an image format's suffix: {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        with replacing(path) as temporary:
            Image.fromarray(self.draw(labels=labels)).save(temporary, quality=92)
        return path

    def to_coco(
        self, image_id: int = 1, *, category_ids: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """The detections as COCO results: ``bbox`` is x, y, width, height in pixels. None found, or none
        looked for: [].

        Args:
            image_id: the picture's id in the ground truth.
            category_ids: of class names; default: class id + 1. A ``ValueError`` where one is missing.
        """
        return [] if self.detections is None else coco_results(self.detections, image_id, category_ids)

    def to_supervision(self) -> Any:
        """The detections as ``supervision.Detections`` with ``class_name`` data, and ``tracker_id`` where
        they are tracked.
        """
        import supervision as sv

        found = self.detections
        if found is None:
            return sv.Detections.empty()
        names: dict[str, Any] = {"class_name": np.array(found.names, dtype=str)}
        return sv.Detections(
            xyxy=found.boxes, confidence=found.scores, class_id=found.labels, tracker_id=found.ids, data=names
        )


class Overlay(Protocol):
    """What is drawn over a frame's boxes; a snapshot: what it draws never changes after it was made."""

    def __call__(self, canvas: np.ndarray) -> None:
        """Draws onto a picture (H, W, 3) uint8 RGB in place."""
        ...

    def without(self, hidden: Collection[str]) -> Overlay:
        """The same without what belongs to these classes."""
        ...


def coco_results(
    found: Detections, image_id: int, category_ids: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """Detections as COCO results; see `PicturePrediction.to_coco`."""
    if category_ids is None:
        category_ids = {name: number + 1 for number, name in enumerate(found.class_names)}
    missing = sorted(set(found.names) - set(category_ids))
    if missing:
        raise ValueError(f"category_ids has no id for {few(missing)}; it has {few(category_ids) or 'none'}")
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[name],
            "bbox": [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])],
            "score": float(score),
        }
        for box, score, name in zip(found.boxes.astype(np.float64), found.scores, found.names)
    ]
