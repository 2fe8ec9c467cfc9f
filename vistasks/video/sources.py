"""A video file -> frames, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".ogv", ".3gp"})


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video: image (H, W, 3) uint8 RGB upright, its number from 0 and its time in seconds."""

    image: np.ndarray
    number: int
    seconds: float


class VideoReader:
    """Iterates over a video file's frames in constant memory; each ``iter`` starts at the first.

    A file that ends in the middle of a frame gives the frames before it, and ``truncated`` is True afterwards.

    Attributes:
        rate: frames per second as the file says.
        frames: as the header claims; 0 where it says nothing. Headers are often wrong.

    Raises:
        ValueError: no such file, no video in it, or not a single frame that decodes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{self.path.absolute()}: there is no such video file")
        self.truncated = False
        with self._open() as container:
            stream = container.streams.video[0]
            self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            self.frames = stream.frames

    def __iter__(self) -> Iterator[Frame]:
        number = -1
        with self._open() as container:
            container.streams.video[0].thread_type = "AUTO"
            frames = container.decode(video=0)
            while True:
                try:
                    frame = next(frames, None)
                except av.FFmpegError as error:
                    if number < 0:
                        raise ValueError(f"{self.path}: no frame of this video can be decoded: {error}") from None
                    self.truncated = True
                    break
                if frame is None:
                    break
                number += 1
                seconds = float(frame.time) if frame.time is not None else float(number / self.rate)
                yield Frame(_upright(frame), number, seconds)
        if number < 0:
            raise ValueError(f"{self.path}: this video has no frames")

    def _open(self) -> av.container.InputContainer:
        try:
            container = av.open(str(self.path))
        except av.FFmpegError as error:
            raise ValueError(f"{self.path}: not a video that FFmpeg can read: {error}") from None
        if not container.streams.video:
            container.close()
            raise ValueError(f"{self.path}: there is no video in this file")
        return container


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """The frame as RGB, turned as the file's display matrix asks (phones film sideways and say so)."""
    image = frame.to_ndarray(format="rgb24")
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
