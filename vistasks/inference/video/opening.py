"""Options -> objects: which source, tracker and publishers a run has."""

from __future__ import annotations

import sys

from vistasks.drawing.palette import model_colours
from vistasks.inference.image_predictor import ImagePredictor
from vistasks.inference.sources import ImagesAsVideo, Live, Moving
from vistasks.inference.video.options import InferOptions
from vistasks.inference.video.protocols import FrameSource, Publisher, Tracker
from vistasks.inference.video.reader import VideoReader
from vistasks.task import task_of


def open_frames(source: Moving, options: InferOptions) -> FrameSource:
    """The frames of ``source``; a ``ValueError`` where the video, camera or stream cannot be opened."""
    if isinstance(source, Live):
        from vistasks.inference.video.live import open_live

        return open_live(
            source,
            reconnect=options.reconnect,
            tell=_say if options.progress else lambda words: None,
            max_pixels=options.max_pixels,
        )
    if isinstance(source, ImagesAsVideo):
        from vistasks.inference.video.folder import FolderReader

        return FolderReader(source, skips=options.on_error == "skip", max_pixels=options.max_pixels)
    return VideoReader(source.path, decoder=options.decoder, max_pixels=options.max_pixels)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def build_tracker(options: InferOptions, source: FrameSource, predictor: ImagePredictor) -> Tracker | None:
    """The tracker that the options ask for.

    Raises a ``ValueError`` where there is nothing to track, or a line is none.
    """
    if not options.track and not options.line:
        return None
    if not any(task_of(task).tracked for task in predictor.tasks):
        asked = "--line" if options.line else "--track"
        raise ValueError(
            f"{asked}: objects are tracked by their boxes, and this run has none (tasks: {', '.join(predictor.tasks)})"
        )
    from vistasks.inference.video.tracking import VideoTracker, parse_line

    lines = [parse_line(text) for text in options.line]
    return VideoTracker(
        classes=predictor.classes, rate=float(source.rate), start=predictor.score, lines=lines
    )


def build_publishers(
    options: InferOptions, source: FrameSource, predictor: ImagePredictor
) -> list[Publisher]:
    """What shows the frames while they are made; the caller closes them.

    Raises a ``ValueError`` where the port is taken, or where there is no display.
    """
    publishers: list[Publisher] = []
    if options.show:
        from vistasks.inference.video.window import Window

        publishers.append(Window(f"vistasks: {source.where}"))
    if options.serve is not None:
        from vistasks.inference.video.serve import PageServer

        known = [name for task in predictor.tasks for name in predictor.classes.of(task)]
        names = [name for name in dict.fromkeys(known) if name != "background"]
        colours = model_colours(predictor.classes)
        page = PageServer(
            options.serve, host=options.serve_host, source=source.where, classes=names, colours=colours
        )
        print(f"watch it at {page.url}", flush=True)
        publishers.append(page)
    return publishers
