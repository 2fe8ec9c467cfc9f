"""Frames -> predictions, with what can be spared between neighbouring frames."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vistasks.inference.image_predictor import ImagePredictor
from vistasks.inference.prediction import Picture, PicturePrediction
from vistasks.inference.video.options import InferOptions
from vistasks.proposals.methods import clipped
from vistasks.task import Task, task_of
from vistasks.types import Prediction


@dataclass(eq=False)
class FrameJob:
    """One frame on its way; each stage adds what it found out.

    Attributes:
        number: of the frame, from 0.
        picture: its image, path and time.
        born: `time.perf_counter` when it had been decoded.
        proposals: (P, 4) float32; None where the last ones are used again, or none are needed.
        proposes, segments: whether proposals and class map are computed on it; else those of an earlier frame
            serve.
        found: what the network says; ``prediction`` is the same after the tracker.
        drawn: (H, W, 3) uint8 RGB; None where nobody needs it.
    """

    number: int
    picture: Picture
    born: float = field(default_factory=time.perf_counter)
    proposals: np.ndarray | None = None
    proposes: bool = True
    segments: bool = True
    found: PicturePrediction = field(default=None)  # type: ignore[arg-type, assignment] # until predicted
    prediction: PicturePrediction = field(default=None)  # type: ignore[arg-type, assignment]
    drawn: np.ndarray | None = None


class Network:
    """A predictor on consecutive frames.

    With ``propose_every=N`` proposals are computed on frames 0, N, 2N, ...; a frame between takes the last
    ones and, so that moving objects are not lost, the boxes of all detections of the frame before its batch.
    With ``segment_every=M`` a frame between takes the last answers of the tasks that need no proposals, such
    as the segmentation map. With ``proposals`` the name of such a task, the boxes that its answer suggests
    are the proposals, and no proposal method runs. A frame of another size than the one before is always
    computed afresh.

    What a frame gets depends only on the frames since the last one whose number divides by ``period``, so
    that a run that is continued there gives the same.

    Args:
        predictor: the model with its tasks and batch size.
        options: propose_every, proposals, segment_every.
        period: a multiple of `multiple`.

    Raises:
        ValueError: ``proposals`` names a task that the model has no head for, or the backend cannot spare work.
    """

    def __init__(self, predictor: ImagePredictor, options: InferOptions, *, period: int) -> None:
        self.predictor, self.options, self.period = predictor, options, period
        self._late = [task for task in map(task_of, predictor.tasks) if task.takes_proposals]
        self._early = [task for task in map(task_of, predictor.tasks) if not task.takes_proposals]
        self._giver: Task | None = None  # whose answer gives the proposals
        if options.proposals != "method" and self._late:
            self._giver = task_of(options.proposals)
            if self._giver.name not in predictor.backend.tasks:
                raise ValueError(
                    f"--proposals {options.proposals} needs a {options.proposals} head, and this "
                    "model has none"
                )
            if self._giver not in self._early:
                self._early.append(self._giver)
        self.computes_proposals = bool(self._late) and self._giver is None
        self._selects = predictor.backend.selects
        if not self._selects and (self._giver or options.segment_every > 1 or options.propose_every > 1):
            raise ValueError(
                "this model cannot reuse work between frames: leave out --proposals, --propose-every, --segment-every"
            )
        self._size: tuple[int, ...] | None = None
        self._boxes = np.zeros((0, 4), dtype=np.float32)
        self._extra = np.zeros((0, 4), dtype=np.float32)
        self._last: dict[str, Any] = {}  # of each task that takes no proposals, the last answer

    @staticmethod
    def multiple(predictor: ImagePredictor, options: InferOptions) -> int:
        """Batches, proposals and class maps all begin anew at frames whose number divides by this."""
        return math.lcm(predictor.batch_size, options.propose_every, options.segment_every)

    def plan(self, job: FrameJob) -> None:
        """Decides what is computed on a frame; called in order, before `propose`."""
        size = job.picture.image.shape
        job.proposes = job.number % self.options.propose_every == 0 or size != self._size
        job.segments = job.number % self.options.segment_every == 0 or size != self._size
        self._size = size

    def propose(self, job: FrameJob) -> None:
        """Computes a planned frame's proposals; keeps no state, so that several frames are worked on at
        once.
        """
        if job.proposes and self.computes_proposals:
            job.proposals = self.predictor.propose(job.picture.image)

    def batch(self, jobs: Sequence[FrameJob]) -> Any:
        """The network's batch; called in order."""
        boxes = [self._latest(job) for job in jobs] if self._late else None
        found = None if boxes is None else [each for each in boxes if each is not None]
        return self.predictor.backend.make_batch([job.picture.image for job in jobs], found or None)

    def _latest(self, job: FrameJob) -> np.ndarray | None:
        if self._giver is not None:
            return np.zeros((0, 4), dtype=np.float32)
        if job.proposals is not None:
            self._boxes = job.proposals
        return None if job.proposes and job.proposals is None else self._boxes

    def predict(self, jobs: Sequence[FrameJob], batch: Any) -> None:
        """Fills in the predictions of a batch; called in order."""
        if jobs[0].number % self.period == 0:
            self._extra = self._extra[:0]
        backend = self.predictor.backend
        if not self._selects:
            found = backend.predict(batch)
        else:
            rows: dict[str, Sequence[int]] = {task: [] for task in backend.tasks}
            fresh = [index for index, job in enumerate(jobs) if job.segments]
            rows |= {task.name: fresh for task in self._early}
            rows |= {task.name: range(len(jobs)) for task in self._late}
            adds = self._giver is not None or self.options.propose_every > 1
            regions = (lambda answers: self._regions(jobs, answers)) if adds else None
            found = backend.predict(batch, rows=rows, regions=regions)
        for job, prediction in zip(jobs, found, strict=True):
            self._answer(job, prediction)

    def _answer(self, job: FrameJob, prediction: Prediction) -> None:
        for task in self._early if self._selects else ():
            answer = task.answer(prediction)
            self._last[task.name] = answer = self._last.get(task.name) if answer is None else answer
            prediction = task.with_answer(prediction, answer)
        for task in self._late:
            if (answer := task.answer(prediction)) is not None:
                height, width = job.picture.image.shape[:2]
                boxes = task.regions(answer)
                self._extra = self._extra if boxes is None else clipped(boxes, height, width)
        job.found = job.prediction = self.predictor.answer(job.picture, prediction)

    def _regions(self, jobs: Sequence[FrameJob], answers: Sequence[Prediction]) -> list[np.ndarray]:
        """Further proposals of each frame of a batch, by what is known of it so far."""
        if self._giver is not None:
            return self._given(self._giver, answers)
        return [
            self._extra[:0] if job.proposes else clipped(self._extra, *job.picture.image.shape[:2])
            for job in jobs
        ]

    def _given(self, giver: Task, answers: Sequence[Prediction]) -> list[np.ndarray]:
        """The boxes that a task's answers suggest; a frame without one takes those of the frame before."""
        boxes: list[np.ndarray] = []
        latest, parts = self._last.get(giver.name), None
        for prediction in answers:
            answer = giver.answer(prediction)
            if answer is not None or parts is None:
                latest = latest if answer is None else answer
                assert latest is not None  # the first frame, and the first of each size, is computed
                parts = giver.regions(latest)
            boxes.append(np.zeros((0, 4), np.float32) if parts is None else parts)
        return boxes
