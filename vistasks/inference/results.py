"""Predictions of pictures -> files: drawn pictures, masks, COCO results, csv; and what the files of videos
share with them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vistasks.drawing.palette import Colour
from vistasks.inference.prediction import PicturePrediction
from vistasks.system.atomic import replacing, write_text
from vistasks.system.text import csv_cell
from vistasks.types import ClassNames, SegmentationMap

CSV_COLUMNS = ("class", "score", "x1", "y1", "x2", "y2")


class PictureResults:
    """Writes the results of pictures into a folder; a context manager that completes the lists at the end.

    ``NAME.jpg`` with everything drawn; ``masks/NAME.png`` with class ids (8-bit palette, so that viewers show
    colours); ``colour_masks/NAME.png`` in RGB; ``results.json``, COCO results, whose ids ``images.json``
    explains, a COCO ground-truth file without annotations; ``detections.csv``. The lists are written also
    after an error or Ctrl-C, with the pictures until then.

    Args:
        output: the folder.
        names: each picture's name in the output, without suffix.
        inputs: each picture's name in the lists.
        classes: the model's; a category's id is the class id + 1.
        detects: without, there are no lists.
    """

    def __init__(
        self,
        output: Path,
        *,
        names: dict[str, str],
        inputs: dict[str, str],
        classes: ClassNames,
        detects: bool,
    ) -> None:
        self.output, self._names, self._inputs, self._classes, self._detects = (
            output,
            names,
            inputs,
            classes,
            detects,
        )
        self._images: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self._rows: list[list[str]] = []
        output.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> PictureResults:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._detects:
            return
        categories = [{"id": number + 1, "name": name} for number, name in enumerate(self._classes.detection)]
        write_text(self.output / "results.json", json.dumps(self._found))
        described = {"info": {}, "images": self._images, "categories": categories, "annotations": []}
        write_text(self.output / "images.json", json.dumps(described))
        with (
            replacing(self.output / "detections.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows([["file", *CSV_COLUMNS], *self._rows])

    def add(self, prediction: PicturePrediction) -> None:
        """Writes one picture's files, then notes it for the lists."""
        name, listed = self._names[prediction.path], self._inputs[prediction.path]
        prediction.save(self.output / f"{name}.jpg")
        if prediction.segmentation is not None:
            write_mask(prediction.segmentation, self.output / "masks" / f"{name}.png", prediction.colours)
            write_colour_mask(
                prediction.segmentation, self.output / "colour_masks" / f"{name}.png", prediction.colours
            )
        height, width = prediction.image.shape[:2]
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": listed, "height": height, "width": width})
        self._found += prediction.to_coco(number)
        self._rows += [[csv_cell(listed), *row] for row in csv_rows(prediction)]


def frame_facts(number: int, prediction: PicturePrediction) -> dict[str, Any]:
    """A frame's number, time, detections (name, score, box x1, y1, x2, y2, the id of a tracked one), share of
    each class of the map, and what the tracker adds, for JSON."""
    facts: dict[str, Any] = {"frame": number, "seconds": prediction.seconds}
    found = prediction.detections
    if found is not None:
        facts["detections"] = [
            {
                "name": name,
                "score": round(float(score), 4),
                "box": [round(float(corner), 2) for corner in box],
            }
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


def csv_rows(prediction: PicturePrediction) -> list[list[str]]:
    """One row of `CSV_COLUMNS` a detection."""
    found = prediction.detections
    if found is None:
        return []
    return [
        [csv_cell(name), f"{score:.4f}", *(f"{corner:.2f}" for corner in box)]
        for name, score, box in zip(found.names, found.scores, found.boxes)
    ]
