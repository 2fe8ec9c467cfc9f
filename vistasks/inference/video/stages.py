"""The stages between a frame and its prediction: propose, batch, predict, track."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vistasks.inference.prediction import Picture
from vistasks.inference.video.network import Network, Shot
from vistasks.inference.video.pipeline import Stage
from vistasks.inference.video.protocols import FrameSource, Tracker
from vistasks.system.machine import cores


@dataclass(frozen=True, eq=False)
class Group:
    """Frames that go through the network at once, and the network's batch of them."""

    shots: Sequence[Shot]
    batch: Any


class Shots:
    """A source's frames, numbered from ``first`` and planned by the network."""

    def __init__(self, source: FrameSource, network: Network, *, first: int = 0) -> None:
        self._source, self._network, self._first = source, network, first

    def __iter__(self) -> Iterator[Shot]:
        for number, frame in enumerate(self._source, self._first):
            shot = Shot(number, Picture(frame.image, self._source.where, frame.seconds))
            self._network.plan(shot)
            yield shot

    def stop(self) -> None:
        """Passed on to the source."""
        self._source.stop()


def predicting_stages(
    network: Network, *, threads: int | None = None, tracker: Tracker | None = None
) -> list[Stage]:
    """propose (where objects are looked for) -> batch -> predict -> track (with a tracker); ``threads``
    propose, default: all cores."""

    def propose(shots: list[Shot]) -> list[Shot]:
        for shot in shots:
            network.propose(shot)
        return shots

    def batch(shots: list[Shot]) -> list[Group]:
        return [Group(shots, network.batch(shots))]

    def predict(groups: list[Group]) -> list[Shot]:
        for group in groups:
            network.predict(group.shots, group.batch)
        return [shot for group in groups for shot in group.shots]

    stages = [Stage("propose", propose, workers=threads or cores())] if network.computes_proposals else []
    stages += [
        Stage("batch", batch, size=network.predictor.batch_size),
        Stage("predict", predict, stops=True),
    ]
    return stages if tracker is None else [*stages, _tracking(tracker)]


def _tracking(tracker: Tracker) -> Stage:
    def track(shots: list[Shot]) -> list[Shot]:
        for shot in shots:
            shot.prediction = tracker.update(shot.found)
        return shots

    return Stage("track", track)
