"""Drawn frames -> those who watch while they are made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vistasks.inference.prediction import PicturePrediction
from vistasks.inference.video.network import FrameJob
from vistasks.inference.video.protocols import FrameSource, Publisher
from vistasks.inference.video.report import VideoReport
from vistasks.task import answers


def live_stats(report: VideoReport, job: FrameJob, source: FrameSource) -> dict[str, Any]:
    """What a publisher is told with each frame: ``frame`` (number), ``seconds`` (its time), ``rate`` (frames
    per second so far), ``latency`` (seconds since it was decoded), ``dropped`` (so far), ``reconnects`` (so
    far), ``facts`` (the tracker's)."""
    return {
        "frame": job.number,
        "seconds": job.picture.seconds,
        "rate": report.rate,
        "latency": time.perf_counter() - job.born,
        "dropped": source.dropped,
        "reconnects": getattr(source, "reconnects", 0),
        "facts": dict(job.prediction.facts),
    }


def publish(job: FrameJob, publishers: Sequence[Publisher], stats: dict[str, Any], *, labels: bool) -> bool:
    """Gives a drawn frame to every publisher, without the classes that it hides; False where one asks for the
    end.
    """
    wanted = True
    for publisher in publishers:
        drawn, hidden = job.drawn, set(publisher.hidden)
        if hidden or drawn is None:
            drawn = without(job.prediction, hidden).draw(labels=labels)
        wanted = publisher.publish(drawn, stats) is not False and wanted
    return wanted


def without(prediction: PicturePrediction, hidden: set[str]) -> PicturePrediction:
    """The prediction without some classes' boxes, traces and pixels."""
    shown = prediction
    for task, answer in answers(prediction):
        shown = task.with_answer(shown, task.without(answer, hidden))
    return replace(shown, overlays=tuple(overlay.without(hidden) for overlay in prediction.overlays))
