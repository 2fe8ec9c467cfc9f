"""Predictions -> files: drawn pictures, masks, COCO results, csv; for a video an .mp4 and one line a frame."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import cv2
import numpy as np
from PIL import Image

from vistasks.atomic import replacing, write_text
from vistasks.drawing.palette import Colour
from vistasks.predictor import PicturePrediction
from vistasks.types import ClassNames, SegmentationMap
from vistasks.video.protocols import FrameSource
from vistasks.video.sinks import VideoWriter

_COLUMNS = ("class", "score", "x1", "y1", "x2", "y2")


class PictureResults:
    """Writes the results of pictures into a folder; a context manager that completes the lists at the end.

    ``NAME.jpg`` with everything drawn; ``masks/NAME.png`` with class ids (8-bit palette, so that viewers show colours);
    ``colour_masks/NAME.png`` in RGB; ``results.json``, COCO results, whose ids ``images.json`` explains, a COCO ground-truth file
    without annotations; ``detections.csv``. The lists are written also after an error or Ctrl-C, with the pictures until then.

    Args:
        output: the folder.
        names: each picture's name in the output, without suffix.
        inputs: each picture's name in the lists.
        classes: the model's; a category's id is the class id + 1.
        detects: without, there are no lists.
    """

    def __init__(
        self, output: Path, *, names: dict[str, str], inputs: dict[str, str], classes: ClassNames, detects: bool
    ) -> None:
        self.output, self._names, self._inputs, self._classes, self._detects = output, names, inputs, classes, detects
        self._images: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self._rows: list[list[str]] = []
        output.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> PictureResults:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._detects:
            return
        categories = [{"id": number + 1, "name": name} for number, name in enumerate(self._classes.detection)]
        write_text(self.output / "results.json", json.dumps(self._found))
        described = {"info": {}, "images": self._images, "categories": categories, "annotations": []}
        write_text(self.output / "images.json", json.dumps(described))
        with replacing(self.output / "detections.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["file", *_COLUMNS], *self._rows])

    def add(self, prediction: PicturePrediction) -> None:
        """Writes one picture's files, then notes it for the lists."""
        name, listed = self._names[prediction.path], self._inputs[prediction.path]
        prediction.save(self.output / f"{name}.jpg")
        if prediction.segmentation is not None:
            write_mask(prediction.segmentation, self.output / "masks" / f"{name}.png", prediction.colours)
            write_colour_mask(prediction.segmentation, self.output / "colour_masks" / f"{name}.png", prediction.colours)
        height, width = prediction.image.shape[:2]
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": listed, "height": height, "width": width})
        self._found += prediction.to_coco(number)
        self._rows += [[listed, *row] for row in _rows(prediction)]


@contextmanager
def video_results(
    output: Path, source: FrameSource, *, detects: bool
) -> Iterator[Callable[[PicturePrediction, np.ndarray], None]]:
    """Gives a function that writes the next frame's results, and the frame as drawn, into a folder.

    ``NAME.mp4`` with everything drawn; ``results.jsonl``, one frame a line (`frame_facts`); with ``detects`` also
    ``detections.csv``. What was written until an error or Ctrl-C is completed and stays; without a frame there is no file.

    Raises a ``ValueError`` where NAME.mp4 would be the video that is read.
    """
    target = output / f"{source.name}.mp4"
    if target.resolve() == Path(source.where).resolve():
        raise ValueError(f"{target}: the result would overwrite the source; choose another output folder")
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        lines = files.enter_context(_kept(output / "results.jsonl"))
        rows = csv.writer(files.enter_context(_kept(output / "detections.csv"))) if detects else None
        video = files.enter_context(VideoWriter(target, rate=source.rate))
        numbers = count()

        def write(prediction: PicturePrediction, drawn: np.ndarray) -> None:
            number, seconds = next(numbers), prediction.seconds or 0.0
            video.write(drawn, seconds)
            lines.write(json.dumps(frame_facts(number, prediction)) + "\n")
            if rows is not None:
                header = [["frame", "seconds", *_COLUMNS]] if number == 0 else []
                rows.writerows([*header, *([str(number), f"{seconds:.3f}", *row] for row in _rows(prediction))])

        yield write


@contextmanager
def _kept(path: Path) -> Iterator[TextIO]:
    """A text file under a temporary name that gets its own at the end, also after an error, unless nothing was written."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            yield file
    finally:
        if temporary.stat().st_size:
            temporary.replace(path)
        else:
            temporary.unlink()


def frame_facts(number: int, prediction: PicturePrediction) -> dict[str, Any]:
    """A frame's number, time, detections (name, score, box x1, y1, x2, y2, the id of a tracked one), share of each class of the
    map, and what the tracker adds, for JSON."""
    facts: dict[str, Any] = {"frame": number, "seconds": prediction.seconds}
    found = prediction.detections
    if found is not None:
        facts["detections"] = [
            {"name": name, "score": round(float(score), 4), "box": [round(float(corner), 2) for corner in box]}
            for name, score, box in zip(found.names, found.scores, found.boxes)
        ]
        for entry, identity in zip(facts["detections"], () if found.ids is None else found.ids):
            entry["id"] = int(identity)
    if prediction.segmentation is not None:
        labels, names = prediction.segmentation.labels, prediction.segmentation.names
        shares = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel() / labels.size
        facts["pixel_share"] = {name: round(float(share), 5) for name, share in zip(names, shares)}
    return {**facts, **prediction.facts}


def write_mask(segmentation: SegmentationMap, path: Path, colours: Mapping[str, Colour]) -> None:
    """An 8-bit palette PNG: the values are class ids, and viewers show the colours."""
    image = Image.fromarray(segmentation.labels)
    image.putpalette([channel for name in segmentation.names for channel in colours[name]])
    with replacing(path) as temporary:
        image.save(temporary)


def write_colour_mask(segmentation: SegmentationMap, path: Path, colours: Mapping[str, Colour]) -> None:
    """An RGB PNG: each pixel has its class's colour."""
    table = np.zeros((256, 1, 3), dtype=np.uint8)
    table[: len(segmentation.names), 0] = [colours[name] for name in segmentation.names]
    image = Image.fromarray(np.asarray(cv2.applyColorMap(segmentation.labels, table)))
    with replacing(path) as temporary:
        image.save(temporary)


def _rows(prediction: PicturePrediction) -> list[list[str]]:
    """One row of `_COLUMNS` a detection."""
    found = prediction.detections
    if found is None:
        return []
    return [
        [name, f"{score:.4f}", *(f"{corner:.2f}" for corner in box)]
        for name, score, box in zip(found.names, found.scores, found.boxes)
    ]
