"""Options of ``infer`` that would do nothing for this source, model or run are refused, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from vistasks.inference.sources import Images, ImagesAsVideo, Live, Source, VideoFile
from vistasks.inference.video.options import InferOptions
from vistasks.task import task_of

# options that have an effect on images that are predicted one by one
_IMAGES = frozenset({"on_error", "progress", "max_pixels", "crop", "hide_labels", "masks"})
_FRAMES = frozenset(field.name for field in fields(InferOptions)) - {
    "frame_rate",
    "decoder",
    "on_error",
    "reconnect",
}
_EFFECTIVE: dict[type, frozenset[str]] = {
    Images: _IMAGES,
    ImagesAsVideo: _FRAMES | {"frame_rate", "on_error"},
    VideoFile: _FRAMES | {"decoder"},
    Live: (_FRAMES | {"reconnect"}) - {"resume"},
}
_KINDS: dict[type, str] = {
    Images: "means images, not a video; give a video, a camera's number or an address, or take a folder's "
    "images as frames with --frame-rate",
    ImagesAsVideo: "means images as the frames of a video",
    VideoFile: "is a video file",
    Live: "is a live source",
}
_FILES = ("save_frames", "crop", "masks", "resume")  # options that write or read files of the output


def refuse_unused(
    source: Source, options: InferOptions, tasks: Sequence[str], *, output: Path | None
) -> None:
    """Raises a ``ValueError`` that names the first option which would have no effect.

    Args:
        source: what is read.
        options: those of the run; one that has its default value was not asked for.
        tasks: what the run looks for.
        output: None: nothing is written.
    """
    given = [field.name for field in fields(options) if getattr(options, field.name) != field.default]
    for name in given:
        if name == "line" and not options.line:
            continue
        if name not in _EFFECTIVE[type(source)]:
            raise ValueError(f"{_flag(name)}: has no effect here: {source.where} {_KINDS[type(source)]}")
        reason = _reason(name, options, [task_of(task).name for task in tasks], output)
        if reason is None and isinstance(source, Images) and name == "masks" and options.masks == "rle":
            reason = "images' segmentation maps are written as masks/NAME.png; codes are written for videos"
        if reason:
            raise ValueError(f"{_flag(name)}: has no effect here: {reason}")


def _reason(name: str, options: InferOptions, tasks: Sequence[str], output: Path | None) -> str | None:
    shown = options.show or options.serve is not None
    drawn = shown or (output is not None and (options.video or options.save_frames))
    without = {
        "serve_host": (options.serve is None, "it says where the page of --serve listens; give --serve PORT"),
        "part_frames": (output is None, "nothing is written without --output"),
        "video": (output is None, "nothing is written without --output"),
        "hide_labels": (not drawn, "nothing is drawn (--no-video)"),
        "crop": ("detection" not in tasks, "this run looks for no objects (--tasks, and the model's heads)"),
        "propose_every": (
            "detection" not in tasks,
            "this run looks for no objects, so it needs no proposals",
        ),
        "masks": (
            "segmentation" not in tasks,
            "this run makes no segmentation map (--tasks, and the model's heads)",
        ),
        "segment_every": (
            "segmentation" not in tasks and options.proposals != "segmentation",
            "this run makes no segmentation map (--tasks, and the model's heads)",
        ),
        "proposals": ("detection" not in tasks, "this run looks for no objects, so it needs no proposals"),
    }
    idle, reason = without.get(name, (False, ""))
    return reason if idle else None


def _flag(name: str) -> str:
    return "--no-video" if name == "video" else f"--{name.replace('_', '-')}"
