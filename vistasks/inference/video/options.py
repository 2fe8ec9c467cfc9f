"""Everything that `vistasks infer` can be asked beyond model, source and output, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vistasks.system.limits import MAX_PIXELS
from vistasks.task import task_of

OnError = Literal["skip", "raise"]
Masks = Literal["none", "png", "rle"]

# options that do not change what is written: a resumed run may have others
WITHOUT_INFLUENCE = frozenset(
    {
        "on_error",
        "progress",
        "threads",
        "resume",
        "part_frames",
        "reconnect",
        "serve",
        "serve_host",
        "show",
        "decoder",
        "max_pixels",
    }
)


@dataclass(frozen=True)
class InferOptions:
    """What an inference run is asked to do; the defaults are the command's.

    Attributes:
        on_error: an unreadable picture is skipped and counted, or ends the run.
        progress: show a bar.
        max_pixels: a picture or frame with more is not decoded.
        propose_every: compute region proposals on every N-th frame only; see
            `vistasks.inference.video.network.Network`.
        proposals: "method": the model's own proposal method; or a task whose answer suggests boxes, such as
            "segmentation": the connected parts of the map.
        segment_every: compute the class map on every N-th frame only; the frames between have the last one.
        threads: frames whose proposals are computed at once; None: as many as there are cores.
        decoder: of a video file: "software", or "hardware": a device of the machine, an error where there is
            none.
        video: write the drawn frames as an mp4.
        save_frames: write every drawn frame as frames/NUMBER.jpg.
        crop: write every detection's part of the picture as crops/CLASS/NUMBER_INDEX.jpg.
        hide_labels: draw boxes without names.
        masks: write each frame's class map as masks/NUMBER.png, or all as run-length codes in masks.jsonl.
        frame_rate: takes a folder's pictures as the frames of a video with so many a second.
        resume: go on after the last complete part of an interrupted run.
        part_frames: about how many frames a part has that an interrupted run does not lose.
        track: number the objects from frame to frame and draw where they were.
        line: lines "x1,y1,x2,y2" in pixels at which objects are counted; they are tracked for it.
        reconnect: for how many seconds the lost connection of a live source is tried again before the run
            ends.
        serve: the port of a page that shows the drawn frames in a browser; 0: a free one.
        serve_host: the address that the page is served at; others than this machine's own reach it only where
            it says so.
        show: show the drawn frames in a window.
    """

    on_error: OnError = "skip"
    progress: bool = True
    max_pixels: int = MAX_PIXELS
    propose_every: int = 1
    proposals: str = "method"
    segment_every: int = 1
    threads: int | None = None
    decoder: Literal["software", "hardware"] = "software"
    video: bool = True
    save_frames: bool = False
    crop: bool = False
    hide_labels: bool = False
    masks: Masks = "none"
    frame_rate: float | None = None
    resume: bool = False
    part_frames: int = 120
    track: bool = False
    line: Sequence[str] = ()
    reconnect: float = 60.0
    serve: int | None = None
    serve_host: str = "127.0.0.1"
    show: bool = False

    def __post_init__(self) -> None:
        for name in ("propose_every", "segment_every", "threads", "part_frames", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1; received {value}")
        if self.proposals != "method":
            task_of(self.proposals)  # which lists the known ones
        object.__setattr__(self, "line", list(self.line))  # as JSON gives it back
        if not self.reconnect >= 0:
            raise ValueError(
                f"--reconnect must be 0 or more seconds (inf: for ever); received {self.reconnect}"
            )
        if self.frame_rate is not None and not 0 < self.frame_rate <= 1000:
            raise ValueError(
                f"--frame-rate must be over 0 and at most 1000 frames per second; received {self.frame_rate}"
            )
