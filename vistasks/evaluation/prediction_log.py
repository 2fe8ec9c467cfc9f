"""Predictions on the disk while an evaluation runs, so that one that was killed goes on where it was.

``predictions.jsonl`` has a first line that says what is evaluated, then a line a batch, synced before the
next is predicted. A line that was cut off is made again. Boxes are numbers that read back as the same
float32, class maps PNGs: enough to compute every metric and report again, to the digit, without the network
and the proposal method."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vistasks.datasets import Dataset
from vistasks.ops.box_arrays import overlaps
from vistasks.task import answers, task_of
from vistasks.types import ClassNames, Prediction, Sample


class Step(NamedTuple):
    """A batch of an evaluation: predictions of samples, and the seconds that the model took for them."""

    predictions: Sequence[Prediction]
    samples: Sequence[Sample]
    seconds: float


class PredictionLog:
    """Reads what an earlier session has left (`replay`, to its end) and then adds to it (`append`).

    Args:
        path: the file.
        facts: all that the predictions depend on, as texts and numbers by name.
        batch_size: pictures of a batch.
        resume: go on with a file that is there; else it is begun anew.

    Attributes:
        batches: how many are done.
        skipped: of each picture that was left out, path -> what was wrong.

    Raises:
        ValueError: the file is of another evaluation; it is said what has changed.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], *, batch_size: int, resume: bool) -> None:
        self.path, self.batch_size, self.batches = path, batch_size, 0
        self.skipped: dict[str, str] = {}
        self._pictures = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        header = json.dumps({"facts": facts}).encode() + b"\n"
        found = _first_line(path) if resume else None
        if found is not None:
            _refuse_changes(path, found, json.loads(header)["facts"])
        else:
            path.write_bytes(header)
        self._file = path.open("r+b")
        self._end = len(self._file.readline())

    def replay(self, data: Dataset, classes: ClassNames) -> Iterator[Step]:
        """The batches that are there, with their samples read again; a sample's proposals are those that
        cover its objects best.

        A ``ValueError`` where the data set does not have the pictures.
        """
        self._file.seek(self._end)
        for line in self._file:
            try:
                stored = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                stored = None
            if stored is None:  # cut off: this and what comes after it is made again
                break
            self.skipped |= stored["skipped"]
            places = range(
                self._pictures,
                min(len(data), self._pictures + len(stored["pictures"]) + len(stored["skipped"])),
            )
            yield self._restored(
                stored, [index for index in places if data.paths[index] not in self.skipped], data, classes
            )
            self._end += len(line)
            self._count(len(stored["pictures"]) + len(stored["skipped"]))

    def append(self, step: Step, skipped: Mapping[str, str]) -> None:
        """Adds a batch; ``skipped`` are all pictures that were left out so far."""
        new = {path: text for path, text in skipped.items() if path not in self.skipped}
        pictures = [_stored(prediction, sample) for prediction, sample in zip(step.predictions, step.samples)]
        line = json.dumps({"seconds": step.seconds, "skipped": new, "pictures": pictures}).encode() + b"\n"
        self._file.seek(self._end)
        self._file.truncate()
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._end += len(line)
        self.skipped |= new
        self._count(len(pictures) + len(new))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _count(self, pictures: int) -> None:
        self._pictures += pictures
        self.batches = math.ceil(self._pictures / self.batch_size)

    def _restored(
        self, stored: Mapping[str, Any], places: Sequence[int], data: Dataset, classes: ClassNames
    ) -> Step:
        ids = [picture["id"] for picture in stored["pictures"]]
        if ids != [data.ids[index] for index in places]:
            raise ValueError(
                f"{self.path}: the data set does not have its images {', '.join(ids[:3])}... in this order"
            )
        samples = [
            replace(data[index], proposals=_array(picture["proposals"]))
            for index, picture in zip(places, stored["pictures"])
        ]
        predictions = [_prediction(picture, classes) for picture in stored["pictures"]]
        return Step(predictions, samples, stored["seconds"])


def _stored(prediction: Prediction, sample: Sample) -> dict[str, Any]:
    said = {task.name: task.stored(answer) for task, answer in answers(prediction)}
    return {"id": sample.image_id, "answers": said, "proposals": _covering(sample)}


def _covering(sample: Sample) -> list[list[float]] | None:
    """The proposal that covers each object best: all that an evaluation asks of proposals."""
    if sample.proposals is None:
        return None
    if not len(sample.proposals) or not len(sample.boxes):
        return []
    best = np.unique(overlaps(sample.boxes, sample.proposals).argmax(axis=1))
    covering: list[list[float]] = sample.proposals[best].tolist()
    return covering


def _prediction(stored: Mapping[str, Any], classes: ClassNames) -> Prediction:
    prediction = Prediction()
    for name, answer in stored["answers"].items():
        task = task_of(name)
        prediction = task.with_answer(prediction, task.restored(answer, classes))
    return prediction


def _array(boxes: list[list[float]] | None) -> np.ndarray | None:
    return None if boxes is None else np.array(boxes, np.float32).reshape(-1, 4)


def _first_line(path: Path) -> dict[str, Any] | None:
    """The facts of the file; None where there is no file, or not even its first line is whole."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        line = file.readline()
    try:
        facts: dict[str, Any] | None = json.loads(line)["facts"] if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not the predictions of an evaluation, which --resume needs") from None
    return facts


def _refuse_changes(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    keys = dict.fromkeys([*before, *now])
    changed = [
        f"  {key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)
    ]
    if changed:
        lines = "\n".join(changed)
        raise ValueError(
            f"--resume: {path} belongs to a different evaluation; changed since:\n{lines}\n"
            "Restore it, or start again without --resume"
        )


def data_facts(data: Dataset) -> dict[str, Any]:
    """What tells one data set from another: its pictures' files (name, size, time of change) and objects, as
    checksums.
    """
    files, objects = hashlib.sha256(), hashlib.sha256()
    for index, path in enumerate(data.paths):
        facts = Path(path).stat() if Path(path).exists() else None
        files.update(
            f"{path} {facts and (facts.st_size, facts.st_mtime_ns)}\n".encode(errors="surrogateescape")
        )
        found = data.annotation(index)
        labelled = [sorted(ids) for ids in found.labelled.by_task().values()]
        objects.update(f"{data.ids[index]} {labelled}\n".encode(errors="surrogateescape"))
        for values in (found.boxes, found.labels, found.difficult, found.crowd, found.areas):
            objects.update(np.ascontiguousarray(values).tobytes())
    return {
        "pictures": len(data),
        "picture files": files.hexdigest()[:16],
        "annotations": objects.hexdigest()[:16],
    }


def file_digest(path: Path) -> str:
    """The beginning of the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
