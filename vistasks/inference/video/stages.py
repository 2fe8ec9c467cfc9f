"""The stages between a frame and its prediction: propose, batch, predict, track."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vistasks.inference.prediction import Picture
from vistasks.inference.video.network import FrameJob, Network
from vistasks.inference.video.pipeline import Stage
from vistasks.inference.video.protocols import FrameSource, Tracker
from vistasks.system.machine import cores


@dataclass(frozen=True, eq=False)
class Group:
    """Frames that go through the network at once, and the network's batch of them."""

    jobs: Sequence[FrameJob]
    batch: Any


class FrameJobs:
    """A source's frames, numbered from ``first`` and planned by the network."""

    def __init__(self, source: FrameSource, network: Network, *, first: int = 0) -> None:
        self._source, self._network, self._first = source, network, first

    def __iter__(self) -> Iterator[FrameJob]:
        for number, frame in enumerate(self._source, self._first):
            job = FrameJob(number, Picture(frame.image, self._source.where, frame.seconds))
            self._network.plan(job)
            yield job

    def stop(self) -> None:
        """Passed on to the source."""
        self._source.stop()


def predicting_stages(
    network: Network, *, threads: int | None = None, tracker: Tracker | None = None
) -> list[Stage]:
    """propose (where objects are looked for) -> batch -> predict -> track (with a tracker); ``threads``
    propose, default: all cores."""

    def propose(jobs: list[FrameJob]) -> list[FrameJob]:
        for job in jobs:
            network.propose(job)
        return jobs

    def batch(jobs: list[FrameJob]) -> list[Group]:
        return [Group(jobs, network.batch(jobs))]

    def predict(groups: list[Group]) -> list[FrameJob]:
        for group in groups:
            network.predict(group.jobs, group.batch)
        return [job for group in groups for job in group.jobs]

    stages = [Stage("propose", propose, workers=threads or cores())] if network.computes_proposals else []
    stages += [
        Stage("batch", batch, size=network.predictor.batch_size),
        Stage("predict", predict, stops=True),
    ]
    return stages if tracker is None else [*stages, _tracking(tracker)]


def _tracking(tracker: Tracker) -> Stage:
    def track(jobs: list[FrameJob]) -> list[FrameJob]:
        for job in jobs:
            job.prediction = tracker.update(job.found)
        return jobs

    return Stage("track", track)
