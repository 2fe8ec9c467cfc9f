"""The stages between a frame and its prediction: propose, batch, predict, track."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vistasks.predictor import Picture, PicturePrediction, Predictor
from vistasks.video.options import InferOptions
from vistasks.video.pipeline import Stage
from vistasks.video.protocols import Frame, FrameSource, Tracker


@dataclass(eq=False)
class Work:
    """One frame on its way; each stage adds what it found out.

    Attributes:
        frame: as the source gave it; ``picture`` is the same for the predictor.
        born: `time.perf_counter` when it had been decoded.
    """

    frame: Frame
    picture: Picture
    born: float = field(default_factory=time.perf_counter)
    proposals: np.ndarray | None = None
    prediction: PicturePrediction = None  # type: ignore[assignment] # from the stage "predict" on
    drawn: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Group:
    """Frames that go through the network at once, and the network's batch of them."""

    works: Sequence[Work]
    batch: Any


class Works:
    """A source's frames as `Work`."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source

    def __iter__(self) -> Iterator[Work]:
        for frame in self._source:
            yield Work(frame, Picture(frame.image, self._source.where, frame.seconds))

    def stop(self) -> None:
        """Passed on to the source."""
        self._source.stop()


def predicting_stages(predictor: Predictor, options: InferOptions, tracker: Tracker | None, *, threads: int) -> list[Stage]:
    """propose (where objects are looked for) -> batch -> predict -> track (with a tracker)."""
    detects = "detect" in predictor.tasks

    def propose(works: list[Work]) -> list[Work]:
        for work in works:
            work.proposals = predictor.backend.propose(work.picture.image)
        return works

    def batch(works: list[Work]) -> list[Group]:
        proposals = [work.proposals for work in works if work.proposals is not None] or None
        return [Group(works, predictor.backend.make_batch([work.picture.image for work in works], proposals))]

    def predict(groups: list[Group]) -> list[Work]:
        for group in groups:
            for work, found in zip(group.works, predictor.backend.model.predict(group.batch), strict=True):
                work.prediction = predictor.answer(work.picture, found)
        return [work for group in groups for work in group.works]

    stages = [Stage("propose", propose, workers=threads)] if detects else []
    stages += [Stage("batch", batch, size=predictor.batch_size), Stage("predict", predict)]
    return stages + ([Stage("track", _tracking(tracker))] if tracker is not None else [])


def _tracking(tracker: Tracker) -> Any:
    def track(works: list[Work]) -> list[Work]:
        for work in works:
            work.prediction = tracker.update(work.prediction)
        return works

    return track


def replay(tracker: Tracker, predictions: Iterable[PicturePrediction]) -> None:
    """Gives a new tracker what an interrupted run had found."""
    for prediction in predictions:
        tracker.update(prediction)
