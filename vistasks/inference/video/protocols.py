"""The seams of the video pipeline: what gives frames, what gives them identities, what shows them to somebody
at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vistasks.inference.video.reader import Frame

if TYPE_CHECKING:
    from vistasks.inference.prediction import PicturePrediction


class FrameSource(Protocol):
    """What gives frames: a video file, a folder of frames, a camera, a network stream.

    Iterated once, in a thread of its own. `VideoReader` is one.

    Attributes:
        name: of the files that are written, such as "clip" for clip.mp4.
        where: the path, camera or address, for messages and as the predictions' path. Without passwords.
        live: whether it goes on by itself: then nothing waits to fill a batch, the queues are short, and the
            source itself gives the newest frame and leaves older ones out.
        rate: frames per second as it claims.
        frames: how many it claims to have; 0 where it does not say.
        dropped: frames that it has left out so far.
        warnings: what was wrong with it so far, in words.
    """

    name: str
    where: str
    live: bool
    rate: Fraction
    frames: int
    dropped: int

    @property
    def warnings(self) -> list[str]: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def stop(self) -> None:
        """The iteration ends soon, also where it waits for a frame. May be called from any thread and from
        signal handlers, more than once: it sets a flag and takes no lock."""
        ...


class Tracker(Protocol):
    """What follows objects from frame to frame."""

    def update(self, prediction: PicturePrediction) -> PicturePrediction:
        """Called with every frame in order, in a thread of its own.

        Returns the prediction with ``detections.ids``; it may have fewer detections, further ``overlays``
        that are drawn over the boxes (traces, lines) and ``facts`` that go into the frame's line in
        results.jsonl. What it does depends only on the detections, the time and the size of the picture:
        where a run is continued, `update` is given the earlier frames' predictions again with blank pictures.
        """
        ...


class Publisher(Protocol):
    """What shows the drawn frames while they are made: a page, a window.

    Attributes:
        hidden: class names that its viewers do not want to see now; read before each frame.
        needs_main_thread: `publish` is called from the main thread (windows want it), else from a thread of
            its own.
    """

    hidden: Collection[str]
    needs_main_thread: bool

    def publish(self, image: np.ndarray, stats: Mapping[str, Any]) -> bool | None:
        """Takes the drawn frame (H, W, 3) uint8 RGB, which nobody changes afterwards, and returns at once;
        False: the viewer asks for the run to end. ``stats``: see
        `vistasks.inference.video.publishing.live_stats`."""
        ...

    def close(self) -> None:
        """Called once at the end, also after an error."""
        ...
