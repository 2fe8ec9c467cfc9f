"""How a run over frames went: counts, rate, latency, and which stage held up the others."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from vistasks.inference.video.network import FrameJob
from vistasks.inference.video.pipeline import FEED, Pipeline
from vistasks.inference.video.protocols import FrameSource

_LATENCIES = 10_000  # of the last so many frames


@dataclass
class VideoReport:
    """How a run over frames went.

    Attributes:
        frames: written in this run.
        resumed: frames that an interrupted run had written before.
        detections: in all frames, also those; None where none were looked for.
        dropped: frames that a live source left out.
        seconds: from the start until the last frame was written.
        latency: seconds from decoded to written: percentiles 50, 95, 99 of the last 10,000 frames.
        busy: each stage's share of the time in which it worked; a stage of several threads counts as all of
            them.
        stopped: the signal that ended it early ("SIGINT", "SIGTERM"), "viewer", or "".
        resumable: it ended early and can go on.
        warnings: what was wrong with the source.
    """

    frames: int = 0
    resumed: int = 0
    detections: int | None = None
    dropped: int = 0
    seconds: float = 0.0
    latency: dict[str, float] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)
    stopped: str = ""
    resumable: bool = False
    warnings: list[str] = field(default_factory=list)
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES), repr=False)

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def bottleneck(self) -> str:
        """The stage that worked the largest share of the time; "" before anything has."""
        return max(self.busy, key=lambda name: self.busy[name], default="")

    def count(self, job: FrameJob, seconds: float) -> None:
        """Adds a frame that has passed all stages, ``seconds`` after the start."""
        self.frames += 1
        self.seconds = seconds
        self._latencies.append(time.perf_counter() - job.born)
        if job.prediction.detections is not None:
            self.detections = (self.detections or 0) + len(job.prediction.detections)

    def end(self, pipeline: Pipeline, source: FrameSource) -> None:
        """Fills in what is known at the end."""
        self.seconds, self.dropped = pipeline.seconds, source.dropped
        self.warnings += source.warnings
        if self._latencies:
            values = np.percentile(np.array(self._latencies), [50, 95, 99])
            self.latency = {name: float(value) for name, value in zip(("p50", "p95", "p99"), values)}
        for clock in pipeline.clocks.values():
            if not (source.live and clock.name == FEED):  # which waits for the camera
                self.busy[clock.name] = clock.seconds / (pipeline.seconds or 1.0) / clock.workers

    def lines(self) -> list[str]:
        """The summary for people."""
        dropped = f", {self.dropped} dropped" if self.dropped else ""
        latency = ", ".join(f"{name} {value * 1000:.0f} ms" for name, value in self.latency.items())
        resumed = f"; {self.resumed} frames were there before" if self.resumed else ""
        busy = ", ".join(f"{name} {share:.0%}" for name, share in self.busy.items())
        return [
            f"{self.rate:.1f} frames/s over {self.seconds:.1f} s{dropped}; latency {latency}{resumed}",
            f"busy: {busy}; the bottleneck is {self.bottleneck}",
        ]
