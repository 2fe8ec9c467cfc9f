"""Predictions of frames -> files: the drawn video, a line a frame, COCO results, csv, class maps, single
pictures.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from vistasks.inference.image_predictor import ImagePredictor
from vistasks.inference.prediction import PicturePrediction
from vistasks.inference.results import coco_categories, frame_facts, save_crops, save_jpeg
from vistasks.inference.video.joining import join_videos
from vistasks.inference.video.network import FrameJob
from vistasks.inference.video.options import WITHOUT_INFLUENCE, InferOptions
from vistasks.inference.video.parts import Part, PartFolder
from vistasks.inference.video.protocols import FrameSource
from vistasks.inference.video.sinks import TICKS, VideoWriter
from vistasks.system.atomic import replacing
from vistasks.task import answers, task_of
from vistasks.types import Detections


class FrameResults:
    """Writes the results of a run over frames into a folder, in parts that are joined at the end.

    ``NAME.mp4`` with everything drawn; ``results.jsonl``, one frame a line
    (`vistasks.inference.results.frame_facts`); where objects are looked for also ``results.json``, COCO
    results, with ``images.json``, their COCO ground-truth file without annotations, and ``detections.csv``;
    what the options add: ``masks/NUMBER.png`` or ``masks.jsonl``, ``frames/NUMBER.jpg``,
    ``crops/CLASS/NUMBER_INDEX.jpg``. The parts lie in the hidden folder ``.NAME.parts`` until the run is
    complete; after an error or an interruption the results of all frames until then are joined as well, and
    the complete parts stay for ``resume``.

    `encode`, `save` and `write` are called with each frame, `encode` and `write` in order and each from one
    thread at a time; a frame is encoded before it is written.

    Args:
        output: the folder.
        source: gives the names; a file's sound is copied.
        predictor: what the results depend on, with the options.
        period: frames of a part.
        keeps_found: keep what a tracker needs to go on in a resumed run.

    Raises:
        ValueError: NAME.mp4 would be the video that is read, or the interrupted run was another one.
    """

    def __init__(
        self,
        output: Path,
        source: FrameSource,
        predictor: ImagePredictor,
        options: InferOptions,
        *,
        period: int,
        keeps_found: bool = False,
    ) -> None:
        self.output, self.source, self.options, self.period = output, source, options, period
        self._keeps_found = keeps_found
        self._tasks = [task_of(task) for task in predictor.tasks]
        self._detects = any(task.writes_coco for task in self._tasks)
        self._classes = predictor.classes
        self._target = output / f"{source.name}.mp4"
        if options.video and self._target.resolve() == Path(source.where).resolve():
            raise ValueError(
                f"{self._target}: the result would overwrite the source; choose another output folder"
            )
        output.mkdir(parents=True, exist_ok=True)
        run = _described(source, predictor, options, period)
        self._folder = PartFolder(output / f".{source.name}.parts", run, resume=options.resume)
        self._video: VideoWriter | None = None
        self._lists: dict[str, TextIO] = {}
        self._number = -1  # of the part whose lists are open
        self._frames = self._detections = 0
        self._encoding = -1  # the part whose video is open
        self._videos: dict[int, VideoWriter] = {}  # of parts that are not complete yet

    @property
    def first(self) -> int:
        """How many frames the complete parts have: the first one to predict."""
        return sum(part.frames for part in self._folder.done)

    @property
    def detections(self) -> int | None:
        """In the complete parts; None where none are looked for."""
        return sum(part.detections for part in self._folder.done) if self._detects else None

    def earlier(self) -> Iterator[PicturePrediction]:
        """What the network found in the frames of the complete parts, for a tracker; the pictures are
        blank.
        """
        for number in range(len(self._folder.done)):
            with self._folder.file(number, "found.jsonl").open(encoding="utf-8") as lines:
                for line in lines:
                    yield _from_line(json.loads(line), self._classes.detection)

    def encode(self, job: FrameJob) -> None:
        """Adds the drawn frame to its part's video."""
        assert job.drawn is not None
        if job.number // self.period != self._encoding:
            self._begin_video(job.number // self.period)
        self._videos[self._encoding].write(job.drawn, job.picture.seconds)

    def _begin_video(self, number: int) -> None:
        before: VideoWriter | Part | None = self._folder.done[-1] if self._folder.done else None
        if self._encoding >= 0:
            before = self._videos[self._encoding]
            before.close()
        size, after = (before.size, before.last) if before is not None else (None, -1)
        self._videos[number] = VideoWriter(
            self._folder.file(number, "mp4"), rate=self.source.rate, size=size, after=after
        )
        self._encoding = number

    def save(self, job: FrameJob) -> None:
        """Writes the frame's own files; several frames may be at it at once."""
        name, prediction = f"{job.number:06d}", job.prediction
        if self.options.save_frames and job.drawn is not None:
            save_jpeg(job.drawn, self.output / "frames" / f"{name}.jpg")
        for task, answer in answers(prediction):
            if self.options.crop:
                save_crops(job.picture.image, task.crops(answer), self.output / "crops", name)
            if self.options.masks == "png":
                task.save_mask(answer, self.output / "masks" / f"{name}.png", prediction.colours)

    def write(self, job: FrameJob) -> None:
        """Adds the frame's lines to its part's lists."""
        if job.number // self.period != self._number:
            self._end_part(complete=True)
            self._number, self._frames, self._detections = job.number // self.period, 0, 0
        prediction = job.prediction
        self._line("results.jsonl", json.dumps(frame_facts(job.number, prediction)))
        if self._detects:
            height, width = job.picture.image.shape[:2]
            entry = {
                "id": job.number + 1,
                "file_name": f"{job.number:06d}.jpg",
                "height": height,
                "width": width,
            }
            self._line("images.jsonl", json.dumps(entry))
        at = [str(job.number), f"{job.picture.seconds or 0:.3f}"]
        for task, answer in answers(prediction):
            for result in task.coco_results(answer, job.number + 1):
                self._line("coco.jsonl", json.dumps(result))
            if task.csv_file:
                rows = [[*at, *row] for row in task.csv_rows(answer)]
                csv.writer(self._list(f"{task.name}.csv")).writerows(rows)
            if self.options.masks == "rle" and (codes := task.run_lengths(answer)) is not None:
                self._line("masks.jsonl", json.dumps({"frame": job.number, **codes}))
        if prediction.detections is not None:
            self._detections += len(prediction.detections)
        if self._keeps_found:
            self._line("found.jsonl", json.dumps(_to_line(job.found)))
        self._frames += 1

    def _list(self, suffix: str) -> TextIO:
        if suffix not in self._lists:
            self._lists[suffix] = self._folder.file(self._number, suffix).open(
                "w", newline="", encoding="utf-8"
            )
        return self._lists[suffix]

    def _line(self, suffix: str, text: str) -> None:
        self._list(suffix).write(text + "\n")

    def _end_part(self, *, complete: bool) -> None:
        """Closes the lists of the open part, whose video is closed; it counts from then on if it is
        ``complete``.
        """
        for file in self._lists.values():
            file.close()
        self._lists = {}
        if complete and self._number >= 0:
            part = Part(self._frames, self._detections)
            if self.options.video:
                video = self._videos.pop(self._number)
                part = Part(self._frames, self._detections, video.first, video.last, video.size)
            self._folder.complete(part)

    def finish(self, *, complete: bool) -> list[str]:
        """Joins everything; called once, when all stages have ended. Returns what could not be done, in
        words.

        Args:
            complete: the source came to its end; else the complete parts stay for a resumed run.
        """
        for video in self._videos.values():
            video.close()
        self._end_part(complete=complete)
        problem = self._join_videos(complete) if self.options.video else None
        self._join_lists()
        if complete or not self._folder.done:
            self._folder.remove()
        else:
            self._folder.drop_incomplete()
        return [problem] if problem else []

    def _join_videos(self, complete: bool) -> str | None:
        parts: list[Part | VideoWriter] = [
            *self._folder.done,
            *(self._videos[number] for number in sorted(self._videos)),
        ]
        found = [
            (self._folder.file(number, "mp4"), part) for number, part in enumerate(parts) if part.first >= 0
        ]
        if not found:
            return None
        until = None if complete else found[-1][1].last / TICKS + float(1 / self.source.rate)
        where = Path(self.source.where)
        sound = where if where.is_file() else None
        return join_videos(
            [(path, part.first) for path, part in found], self._target, sound=sound, until=until
        )

    def _join_lists(self) -> None:
        self._join("results.jsonl", "results.jsonl")
        self._join("masks.jsonl", "masks.jsonl")
        if self._detects and self._join(
            "images.jsonl", "images.json", '{"info": {}, "images": [\n', self._categories(), between=",\n"
        ):
            self._join("coco.jsonl", "results.json", "[\n", "\n]\n", between=",\n", always=True)
        for task in self._tasks:
            if task.csv_file and (self._folder.done or self._number >= 0):
                header = ",".join(["frame", "seconds", *task.csv_columns]) + "\r\n"
                self._join(f"{task.name}.csv", task.csv_file, header, always=True)

    def _categories(self) -> str:
        categories = coco_categories(self._tasks, self._classes)
        return f'\n], "categories": {json.dumps(categories)}, "annotations": []}}\n'

    def _join(
        self,
        suffix: str,
        name: str,
        before: str = "",
        after: str = "",
        *,
        between: str = "\n",
        always: bool = False,
    ) -> bool:
        """Joins the parts' lists of one suffix into the output's file ``name``, without holding them; whether
        it was written.
        """
        count = max(len(self._folder.done), self._number + 1)
        paths = [path for number in range(count) if (path := self._folder.file(number, suffix)).is_file()]
        if not paths and not always:
            return False
        with (
            replacing(self.output / name) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as joined,
        ):
            joined.write(before)
            first = True
            for path in paths:
                with path.open(newline="", encoding="utf-8") as lines:
                    for line in lines:
                        joined.write(
                            line
                            if between == "\n"
                            else line.rstrip("\n")
                            if first
                            else between + line.rstrip("\n")
                        )
                        first = False
            joined.write(after)
        return True


def _described(
    source: FrameSource, predictor: ImagePredictor, options: InferOptions, period: int
) -> dict[str, Any]:
    """What the results depend on; a resumed run must have the same."""
    chosen = {name: value for name, value in asdict(options).items() if name not in WITHOUT_INFLUENCE}
    return {
        "source": _file_facts(Path(source.where)),
        "weights": [_file_facts(path) for path in predictor.backend.paths],
        "--tasks": list(predictor.tasks),
        "--score": predictor.score,
        "--batch": predictor.batch_size,
        "frames of a part": period,
        **{f"--{name.replace('_', '-')}": value for name, value in chosen.items()},
    }


def _file_facts(path: Path) -> list[Any]:
    facts = path.stat() if path.exists() else None
    return [str(path.resolve()), facts.st_size if facts else 0, facts.st_mtime_ns if facts else 0]


def _to_line(prediction: PicturePrediction) -> dict[str, Any]:
    """What a tracker needs, exactly: float32 survives JSON's decimal numbers."""
    found = prediction.detections
    line: dict[str, Any] = {
        "path": prediction.path,
        "seconds": prediction.seconds,
        "size": prediction.image.shape[:2],
    }
    if found is not None:
        line |= {
            "boxes": found.boxes.tolist(),
            "scores": found.scores.tolist(),
            "labels": found.labels.tolist(),
        }
    return line


def _from_line(line: Mapping[str, Any], names: tuple[str, ...]) -> PicturePrediction:
    found = None
    if "boxes" in line:
        boxes = np.array(line["boxes"], dtype=np.float32).reshape(-1, 4)
        scores, labels = np.array(line["scores"], dtype=np.float32), np.array(line["labels"], dtype=np.int64)
        found = Detections(boxes, scores, labels, names)
    blank = np.broadcast_to(np.zeros((1, 1, 1), dtype=np.uint8), (*line["size"], 3))
    return PicturePrediction(found, image=blank, path=line["path"], seconds=line["seconds"])
