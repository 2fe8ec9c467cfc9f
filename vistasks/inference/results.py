"""Predictions of images -> files: drawn images, masks, COCO results, csv; and what the files of videos share
with them.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from vistasks.inference.prediction import PicturePrediction
from vistasks.system.atomic import replacing, write_text
from vistasks.system.text import csv_cell, file_name
from vistasks.task import Task, answers, task_of
from vistasks.types import ClassNames

_QUALITY = 92  # of JPEG files


class PictureResults:
    """Writes the results of images into a folder; a context manager that completes the lists at the end.

    ``NAME.jpg`` with everything drawn, and what the tasks add: ``masks/NAME.png`` with class ids (8-bit
    palette, so that viewers show colours), ``colour_masks/NAME.png`` in RGB; ``results.json``, COCO results,
    whose ids ``images.json`` explains, a COCO ground-truth file without annotations; ``detections.csv``. The
    lists are written also after an error or Ctrl-C, with the images until then.

    Args:
        output: the folder.
        names: each image's name in the output, without suffix.
        inputs: each image's name in the lists.
        classes: the model's; a category's id is the class id + 1.
        tasks: the names of the tasks that are answered.
        labels: names on the boxes.
        crops: also write ``crops/CLASS/NAME_INDEX.jpg``, the part of the image of every detection.
    """

    def __init__(
        self,
        output: Path,
        *,
        names: dict[str, str],
        inputs: dict[str, str],
        classes: ClassNames,
        tasks: Sequence[str],
        labels: bool = True,
        crops: bool = False,
    ) -> None:
        self.output = output
        self._names, self._inputs, self._classes = names, inputs, classes
        self._labels, self._crops = labels, crops
        self._tasks = [task_of(task) for task in tasks]
        self._images: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self._rows: dict[str, list[list[str]]] = {task.name: [] for task in self._tasks if task.csv_file}
        output.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> PictureResults:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if any(task.writes_coco for task in self._tasks):
            write_text(self.output / "results.json", json.dumps(self._found))
            described = {
                "info": {},
                "images": self._images,
                "categories": coco_categories(self._tasks, self._classes),
                "annotations": [],
            }
            write_text(self.output / "images.json", json.dumps(described))
        for name, rows in self._rows.items():
            task = task_of(name)
            with (
                replacing(self.output / str(task.csv_file)) as temporary,
                temporary.open("w", newline="", encoding="utf-8") as file,
            ):
                csv.writer(file).writerows([["file", *task.csv_columns], *rows])

    def add(self, prediction: PicturePrediction) -> None:
        """Writes one image's files, then notes it for the lists."""
        name, listed = self._names[prediction.path], self._inputs[prediction.path]
        prediction.save(self.output / f"{name}.jpg", labels=self._labels)
        height, width = prediction.image.shape[:2]
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": listed, "height": height, "width": width})
        for task, answer in answers(prediction):
            task.save_files(answer, self.output, name, prediction.colours)
            if self._crops:
                save_crops(prediction.image, task.crops(answer), self.output / "crops", name)
            self._found += task.coco_results(answer, number)
            if task.csv_file:
                self._rows[task.name] += [[csv_cell(listed), *row] for row in task.csv_rows(answer)]


def save_crops(image: np.ndarray, crops: Sequence[tuple[str, np.ndarray]], folder: Path, name: str) -> None:
    """Writes the boxes' parts of an image as ``CLASS/NAME_INDEX.jpg`` below ``folder``."""
    for index, (label, box) in enumerate(crops):
        left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
        part = image[top : math.ceil(box[3]), left : math.ceil(box[2])]
        save_jpeg(part, folder / file_name(label) / f"{name}_{index}.jpg")


def save_jpeg(image: np.ndarray, path: Path) -> None:
    """Writes an image whole or not at all."""
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, quality=_QUALITY)


def coco_categories(tasks: Sequence[Task], classes: ClassNames) -> list[dict[str, Any]]:
    """COCO's categories of the task that writes COCO results."""
    names = next((classes.of(task.name) for task in tasks if task.writes_coco), ())
    return [{"id": number + 1, "name": name} for number, name in enumerate(names)]


def frame_facts(number: int, prediction: PicturePrediction) -> dict[str, Any]:
    """A frame's line in results.jsonl: its number, its time, each task's facts, and the tracker's."""
    facts: dict[str, Any] = {"frame": number, "seconds": prediction.seconds}
    for task, answer in sorted(answers(prediction), key=lambda one: -one[0].layer):
        facts |= task.facts(answer)
    return {**facts, **prediction.facts}
