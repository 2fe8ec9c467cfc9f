"""Options -> objects: which source, tracker and publishers a run has."""

from __future__ import annotations

from pathlib import Path

from vistasks.predictor import Predictor
from vistasks.sources import is_video
from vistasks.video.options import InferOptions
from vistasks.video.protocols import FrameSource, Publisher, Tracker
from vistasks.video.sources import VideoReader


def open_frames(source: str | Path, options: InferOptions) -> FrameSource | None:
    """The source of frames that ``source`` means; None where it means pictures (a file, a folder, a glob).

    Raises a ``ValueError`` where there is no such video.
    """
    if is_video(source) and not Path(source).is_dir():
        return VideoReader(source)
    return None


def build_tracker(options: InferOptions, source: FrameSource, predictor: Predictor) -> Tracker | None:
    """The tracker that the options ask for."""
    return None


def build_publishers(options: InferOptions, source: FrameSource, predictor: Predictor) -> list[Publisher]:
    """What shows the frames while they are made; the caller closes them."""
    return []
