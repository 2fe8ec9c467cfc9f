"""Frames -> an H.264 video that browsers play."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

_TICKS = 90_000  # time base of the output, per second; MPEG's own


class VideoWriter:
    """Writes frames of one size with their times as H.264 in an .mp4 file; a context manager.

    The file is written under a temporary name and renamed when everything is in it, also where the source failed half way:
    what was written until then plays. Odd sides get one more row or column, as H.264's colours need even ones.

    Args:
        path: the .mp4 file.
        rate: frames per second, for players; each frame is shown at its own time.
    """

    def __init__(self, path: str | Path, *, rate: Fraction = Fraction(25)) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self.path.with_name(f".{self.path.stem}.tmp.mp4")
        self._container = av.open(str(self._temporary), mode="w", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = Fraction(1, _TICKS)
        self._size: tuple[int, int] | None = None
        self._last = -1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Adds a frame (H, W, 3) uint8 RGB at its time. A ``ValueError`` where its size is not the first frame's."""
        if self._size is None:
            self._size = image.shape[:2]
            self._stream.height, self._stream.width = (side + side % 2 for side in self._size)
        if image.shape[:2] != self._size:
            raise ValueError(f"{self.path}: frames of one video have one size; {image.shape[:2]} came after {self._size}")
        height, width = self._size
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self._last = max(self._last + 1, round(seconds * _TICKS))  # times must grow
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finishes the file; without a frame there is none."""
        if self._size is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if self._size is not None:
            self._temporary.replace(self.path)
        else:
            self._temporary.unlink(missing_ok=True)
