"""A source of frames through the whole pipeline into files."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vistasks.predictor import PicturePrediction, Predictor
from vistasks.results import video_results
from vistasks.types import Detections
from vistasks.video.opening import build_publishers, build_tracker
from vistasks.video.options import InferOptions
from vistasks.video.pipeline import FEED, Pipeline, Stage
from vistasks.video.protocols import FrameSource, Publisher
from vistasks.video.stages import Work, Works, predicting_stages

_LATENCIES = 10_000  # of the last so many frames


@dataclass
class VideoReport:
    """How a run over frames went.

    Attributes:
        frames: written.
        detections: in all of them; None where none were looked for.
        dropped: frames that a live source left out.
        seconds: from the first frame's decoding to the last one's writing.
        latency: seconds from decoded to written: percentiles 50, 95, 99 of the last 10,000 frames.
        busy: each stage's share of the time in which it worked; a stage of several threads counts as all of them.
        stopped: the signal that ended it early ("SIGINT", "SIGTERM"), "viewer", or "".
        warnings: what was wrong with the source.
    """

    frames: int = 0
    detections: int | None = None
    dropped: int = 0
    seconds: float = 0.0
    latency: dict[str, float] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)
    stopped: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def bottleneck(self) -> str:
        """The stage that worked the largest share of the time; "" before anything has."""
        return max(self.busy, key=lambda name: self.busy[name], default="")


def live_stats(report: VideoReport, work: Work, source: FrameSource) -> dict[str, Any]:
    """What a publisher is told with each frame: ``frame`` (number), ``seconds`` (its time), ``rate`` (frames per second so far),
    ``latency`` (seconds since it was decoded), ``dropped`` (so far), ``classes`` (names that can be hidden), ``facts`` (the
    tracker's)."""
    classes = work.prediction.classes
    return {
        "frame": work.frame.number,
        "seconds": work.frame.seconds,
        "rate": report.rate,
        "latency": time.perf_counter() - work.born,
        "dropped": source.dropped,
        "classes": list(dict.fromkeys([*classes.detection, *classes.segmentation])),
        "facts": dict(work.prediction.facts),
    }


def infer_frames(
    predictor: Predictor,
    source: FrameSource,
    output: Path,
    options: InferOptions,
    *,
    shown: Callable[[VideoReport], None] = lambda report: None,
) -> VideoReport:
    """Predicts every frame of ``source`` and writes into ``output`` what `vistasks.results.video_results` says.

    Ctrl-C and SIGTERM end it in order: no more frames are taken, those on their way are written, every file is completed. An
    error in a stage ends it too, after the frames before it have been written.

    Args:
        shown: called after each frame, for a progress bar.
    """
    report, latencies = VideoReport(), deque[float](maxlen=_LATENCIES)
    with ExitStack() as files:
        tracker = build_tracker(options, source, predictor)
        publishers = build_publishers(options, source, predictor)
        for publisher in publishers:
            files.callback(publisher.close)
        write = files.enter_context(video_results(output, source, detects="detect" in predictor.tasks))
        stages = predicting_stages(predictor, options, tracker, threads=options.threads or _cores())
        stages += _writing_stages(options, write)
        threaded = [publisher for publisher in publishers if not publisher.needs_main_thread]
        if threaded:
            stages.append(Stage("publish", lambda works: _publish(works, threaded, report, source, pipeline)))
        pipeline = Pipeline(Works(source), stages, live=source.live)
        windows = [publisher for publisher in publishers if publisher.needs_main_thread]
        try:
            with _stopped_by_signals(pipeline, report):
                for work in pipeline:
                    _count(report, work, pipeline)
                    latencies.append(time.perf_counter() - work.born)
                    if windows:
                        _publish([work], windows, report, source, pipeline)
                    shown(report)
        finally:
            _finish(report, pipeline, source, latencies)
    return report


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _writing_stages(options: InferOptions, write: Callable[[PicturePrediction, np.ndarray], None]) -> list[Stage]:
    def draw(works: list[Work]) -> list[Work]:
        for work in works:
            work.drawn = work.prediction.draw(labels=not options.hide_labels)
        return works

    def encode(works: list[Work]) -> list[Work]:
        for work in works:
            assert work.drawn is not None
            write(work.prediction, work.drawn)
        return works

    return [Stage("draw", draw), Stage("encode", encode)]


def _count(report: VideoReport, work: Work, pipeline: Pipeline) -> None:
    report.frames += 1
    report.seconds = pipeline.seconds
    if work.prediction.detections is not None:
        report.detections = (report.detections or 0) + len(work.prediction.detections)


def _publish(
    works: list[Work], publishers: Sequence[Publisher], report: VideoReport, source: FrameSource, pipeline: Pipeline
) -> list[Work]:
    for work in works:
        stats = live_stats(report, work, source)
        for publisher in publishers:
            drawn = work.drawn
            if publisher.hidden or drawn is None:
                drawn = without(work.prediction, set(publisher.hidden)).draw()
            if publisher.publish(drawn, stats) is False:
                report.stopped = "viewer"
                pipeline.stop()
    return works


def without(prediction: PicturePrediction, hidden: set[str]) -> PicturePrediction:
    """The prediction without some classes' boxes and pixels."""
    found, segmentation = prediction.detections, prediction.segmentation
    if found is not None:
        kept = np.array([name not in hidden for name in found.names], dtype=bool)
        ids = None if found.ids is None else found.ids[kept]
        found = Detections(found.boxes[kept], found.scores[kept], found.labels[kept], found.class_names, ids)
    if segmentation is not None:
        table = np.arange(256, dtype=np.uint8)
        table[[i for i, name in enumerate(segmentation.names) if name in hidden]] = 255
        segmentation = type(segmentation)(table[segmentation.labels], segmentation.names)
    from dataclasses import replace

    return replace(prediction, detections=found, segmentation=segmentation)


@contextmanager
def _stopped_by_signals(pipeline: Pipeline, report: VideoReport) -> Iterator[None]:
    """The first SIGINT or SIGTERM ends the pipeline in order, a second SIGINT at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        if report.stopped and number == signal.SIGINT and not pipeline.leaving:
            raise KeyboardInterrupt
        report.stopped = signal.Signals(number).name
        pipeline.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(report: VideoReport, pipeline: Pipeline, source: FrameSource, latencies: deque[float]) -> None:
    report.seconds, report.dropped, report.warnings = pipeline.seconds, source.dropped, list(source.warnings)
    if latencies:
        values = np.percentile(np.array(latencies), [50, 95, 99])
        report.latency = {name: float(value) for name, value in zip(("p50", "p95", "p99"), values)}
    for clock in pipeline.clocks.values():
        if not (source.live and clock.name == FEED):  # a camera's stage waits for the camera
            report.busy[clock.name] = clock.seconds / (pipeline.seconds or 1.0) / clock.workers
