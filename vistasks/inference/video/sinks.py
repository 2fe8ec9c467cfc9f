"""Frames -> an H.264 video that browsers play."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace

TICKS = 90_000  # time base of the output, per second; MPEG's own
_BT709, _LIMITED_RANGE = 1, 1  # H.264 Annex E, tables E-3 to E-5; what browsers show most faithfully
# without B-frames, so that each frame is decoded when it is shown and the last one keeps its place where
# frame times vary
_ENCODING = {"crf": "20", "preset": "veryfast", "bf": "0"}


class VideoWriter:
    """Writes frames with their times as H.264 in an .mp4 file; a context manager.

    The file is written under a temporary name and renamed when everything is in it, also where the source
    failed half way: what was written until then plays. Odd sides get one more row or column, as H.264's
    colours need even ones. Frames of another size than the first's are fitted into it, with black bars.

    Args:
        path: the .mp4 file.
        rate: frames per second, for players and for the last frame's duration; each frame is shown at its own
            time.
        size: (height, width) of the video; None: the first frame's.
        after: for a part of a longer video: the last tick (1/90,000 s) before it, which its own times come
            after. The file's times then count from its first frame.

    Attributes:
        size: as above.
        first, last: ticks of the first and the last frame so far; -1 before there is one.

    Raises:
        ValueError: another suffix, or a frame that is no (H, W, 3) uint8.
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        rate: Fraction = Fraction(25),
        size: tuple[int, int] | None = None,
        after: int | None = None,
    ) -> None:
        self.path, self.rate, self.size = Path(path), Fraction(rate), size
        self.first, self.last, self._is_part = -1, -1 if after is None else after, after is not None
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"{self.path}: videos are written as .mp4")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.tmp.mp4")
        self._container = av.open(
            str(self._temporary.absolute()), mode="w", options={"movflags": "+faststart"}
        )

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, image: np.ndarray, seconds: float | None = None) -> None:
        """Adds a frame (H, W, 3) uint8 RGB, shown from ``seconds`` on; without: one frame's duration after
        the last.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"{self.path}: expected a frame (H, W, 3) uint8 RGB; received {image.shape} {image.dtype}"
            )
        if self.size is None:
            self.size = image.shape[0], image.shape[1]
        duration = round(TICKS / self.rate)
        due = self.last + duration if seconds is None and self.last >= 0 else round((seconds or 0) * TICKS)
        self.last = max(self.last + 1, due)  # times must grow
        if self.first < 0:
            self.first = self.last
            self._begin(*self.size)
        frame = av.VideoFrame.from_ndarray(self._fitted(image, self.size), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts, frame.time_base = self.last - (self.first if self._is_part else 0), Fraction(1, TICKS)
        frame.duration = duration
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finishes the file; without a frame there is none. Closing again does nothing."""
        if self._container is None:
            return
        container, self._container = self._container, None  # type: ignore[assignment]
        try:
            if self.first >= 0:
                container.mux(self._stream.encode(None))
            container.close()
            if self.first >= 0:
                self._temporary.replace(self.path)
        finally:
            container.close()
            self._temporary.unlink(missing_ok=True)

    def _begin(self, height: int, width: int) -> None:
        self._stream = self._container.add_stream("libx264", rate=self.rate, options=_ENCODING)
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt = "yuv420p"
        codec = self._stream.codec_context
        codec.time_base = Fraction(1, TICKS)
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = _LIMITED_RANGE

    @staticmethod
    def _fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The picture in the video's size, even sides included."""
        height, width = size
        if image.shape[:2] != size:
            factor = min(height / image.shape[0], width / image.shape[1])
            inner = max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))
            canvas = np.zeros((height, width, 3), dtype=np.uint8)
            top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
            canvas[top : top + inner[0], left : left + inner[1]] = cv2.resize(
                image, inner[::-1], interpolation=cv2.INTER_AREA
            )
            image = canvas
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return np.ascontiguousarray(image)
