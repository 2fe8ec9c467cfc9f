"""A source of frames through the whole pipeline into files."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vistasks.inference.image_predictor import ImagePredictor
from vistasks.inference.video.network import FrameJob, Network
from vistasks.inference.video.opening import build_publishers, build_tracker
from vistasks.inference.video.options import InferOptions
from vistasks.inference.video.pipeline import Pipeline, Stage
from vistasks.inference.video.protocols import FrameSource, Publisher, Tracker
from vistasks.inference.video.publishing import live_stats, publish
from vistasks.inference.video.report import VideoReport
from vistasks.inference.video.stages import FrameJobs, predicting_stages
from vistasks.inference.video.writing import FrameResults
from vistasks.system.locks import owned
from vistasks.system.signals import leave_terminal, stopping_signals


def infer_frames(
    predictor: ImagePredictor,
    source: FrameSource,
    output: Path,
    options: InferOptions,
    *,
    shown: Callable[[VideoReport], None] = lambda report: None,
) -> VideoReport:
    """Predicts every frame of ``source`` and writes into ``output`` what
    `vistasks.inference.video.writing.FrameResults` says.

    Ctrl-C and SIGTERM end it in order: no more frames are taken, those on their way are written, every file
    is completed. An error in a stage ends it too, after the frames before it have been written.

    Args:
        shown: called after each frame, for a progress bar.
    """
    multiple = Network.multiple(predictor, options)
    period = math.ceil(options.part_frames / multiple) * multiple
    network, tracker = Network(predictor, options, period=period), build_tracker(options, source, predictor)
    with ExitStack() as closing:
        publishers = build_publishers(options, source, predictor)
        for publisher in publishers:
            closing.callback(publisher.close)
        closing.enter_context(owned(output))
        results = FrameResults(
            output, source, predictor, options, period=period, keeps_found=tracker is not None
        )
        report = VideoReport(resumed=results.first, detections=results.detections if results.first else None)
        if results.first:
            _continue(source, tracker, results)
        stages = predicting_stages(network, threads=options.threads, tracker=tracker)
        stages += writing_stages(results, options, drawn=bool(publishers))
        pipeline = Pipeline(FrameJobs(source, network, first=results.first), stages, live=source.live)
        complete = False
        try:
            _drive(pipeline, publishers, report, source, options, shown)
            complete = source.live or not report.stopped
        finally:
            report.end(pipeline, source)
            report.warnings += results.finish(complete=complete)
            report.resumable = not complete and results.first > 0
    return report


def watch_frames(
    predictor: ImagePredictor,
    source: FrameSource,
    options: InferOptions,
    *,
    shown: Callable[[VideoReport], None] = lambda report: None,
) -> VideoReport:
    """As `infer_frames`, but only for those who watch, in a window or on a page: nothing is written."""
    network = Network(predictor, options, period=Network.multiple(predictor, options))
    tracker, report = build_tracker(options, source, predictor), VideoReport()
    with ExitStack() as closing:
        publishers = build_publishers(options, source, predictor)
        for publisher in publishers:
            closing.callback(publisher.close)
        stages = predicting_stages(network, threads=options.threads, tracker=tracker)
        pipeline = Pipeline(
            FrameJobs(source, network, first=0), [*stages, _drawing(options)], live=source.live
        )
        try:
            _drive(pipeline, publishers, report, source, options, shown)
        finally:
            report.end(pipeline, source)
    return report


def _continue(source: FrameSource, tracker: Tracker | None, results: FrameResults) -> None:
    """Brings source and tracker to where an interrupted run had come."""
    if not hasattr(source, "first"):
        raise ValueError(f"{source.where}: only files and folders can be continued; leave out --resume")
    source.first = results.first
    if tracker is not None:
        for prediction in results.earlier():
            tracker.update(prediction)


def each(work: Callable[[FrameJob], None]) -> Callable[[list[FrameJob]], list[FrameJob]]:
    """A stage's work that does something with every frame and passes it on."""

    def stage(jobs: list[FrameJob]) -> list[FrameJob]:
        for job in jobs:
            work(job)
        return jobs

    return stage


def writing_stages(results: FrameResults, options: InferOptions, *, drawn: bool = False) -> list[Stage]:
    """draw -> encode -> save -> write, without those that have nothing to do; ``drawn``: others need the
    picture as well.
    """
    stages = [_drawing(options)] if options.video or options.save_frames or drawn else []
    stages += [Stage("encode", each(results.encode))] if options.video else []
    if options.save_frames or options.crop or options.masks == "png":
        stages.append(Stage("save", each(results.save), workers=2))
    return [*stages, Stage("write", each(results.write))]


def _drawing(options: InferOptions) -> Stage:
    def draw(job: FrameJob) -> None:
        job.drawn = job.prediction.draw(labels=not options.hide_labels)

    return Stage("draw", each(draw))


def _drive(
    pipeline: Pipeline,
    publishers: Sequence[Publisher],
    report: VideoReport,
    source: FrameSource,
    options: InferOptions,
    shown: Callable[[VideoReport], None],
) -> None:
    """Runs the pipeline to its end; publishers get each frame right after it was drawn, windows at the
    end.
    """

    def show(job: FrameJob, mine: Sequence[Publisher]) -> None:
        stats = live_stats(report, job, source)
        if mine and not publish(job, mine, stats, labels=not options.hide_labels):
            report.stopped = "viewer"
            pipeline.stop()

    threaded = [publisher for publisher in publishers if not publisher.needs_main_thread]
    windows = [publisher for publisher in publishers if publisher.needs_main_thread]
    if threaded:
        pipeline.insert(Stage("publish", each(lambda job: show(job, threaded))), after="draw")
    with _stopped_by_signals(pipeline, report):
        for job in pipeline:
            report.count(job, pipeline.seconds)
            show(job, windows)
            shown(report)


@contextmanager
def _stopped_by_signals(pipeline: Pipeline, report: VideoReport) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP ends the pipeline in order, a second SIGINT at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        if report.stopped and number == signal.SIGINT and not pipeline.leaving:
            raise KeyboardInterrupt
        report.stopped = signal.Signals(number).name
        if report.stopped == "SIGHUP":
            leave_terminal()
        pipeline.stop()

    before = {number: signal.signal(number, stop) for number in stopping_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
