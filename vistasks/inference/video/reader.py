"""A video file -> frames, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.reformatter import Colorspace

from vistasks.inference.video.hardware import accelerator, hardware_for
from vistasks.system.limits import MAX_PIXELS

SUFFIXES = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".ogv", ".3gp"}
)

_LOCAL = {"protocol_whitelist": "file"}  # a list of addresses posing as a video must not fetch anything
_NO_VIDEOS = (
    "tty",
    "image2",
    "hls",
    "concat",
)  # formats by which FFmpeg takes a text, a picture or a list of files for a video
_HIGH_DEFINITION = (
    576  # lines; pictures with more have BT.709 colours where the file says nothing, as players assume
)
_UNKNOWN_COLOURS = 2  # AVCOL_SPC_UNSPECIFIED


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video: image (H, W, 3) uint8 RGB upright, its number from 0, its time in seconds from
    the start.
    """

    image: np.ndarray
    number: int
    seconds: float


class VideoReader:
    """Iterates over a video file's frames in constant memory; each ``iter`` starts at the first.

    Parts of the file that do not decode are passed over; a file that ends early gives the frames it has. What
    was found out on the way is known after the last frame: see `problem`.

    It is a `vistasks.inference.video.protocols.FrameSource`.

    Attributes:
        first: number of the first frame to give; those before it are decoded and passed over.
        rate: frames per second as the file says; 25 where it says nothing sensible.
        frames: as the header claims; 0 where it says nothing. Headers are often wrong.
        truncated: the last iteration ended earlier than the header promises.
        damaged: places that did not decode in the last iteration.

    Args:
        path: the file.
        decoder: "hardware": a device of the machine decodes it; see `vistasks.inference.video.hardware`.
        max_pixels: frames with more are not decoded.

    Raises:
        ValueError: no such file, no video in it, no device for it, or (when iterated) not a single frame that
            decodes.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        decoder: Literal["software", "hardware"] = "software",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{self.path.absolute()}: there is no such video file")
        self.name, self.where, self.live, self.dropped, self.first = self.path.stem, str(path), False, 0, 0
        self.truncated, self.damaged, self._max_pixels = False, 0, max_pixels
        with self._open() as container:
            stream = container.streams.video[0]
            self.rate = sensible_rate(stream)
            self.frames = stream.frames
            self._promised = _promised_seconds(container)
        self._device = hardware_for(self.path, _LOCAL) if decoder == "hardware" else None

    @property
    def problem(self) -> str | None:
        """What was wrong with the file in the last iteration, in words; None where nothing was."""
        faults = [f"{self.damaged} places do not decode and were passed over"] * (self.damaged > 0)
        faults += ["the video ends earlier than its header promises; was it cut off?"] * self.truncated
        return f"{self.path}: {'; '.join(faults)}" if faults else None

    @property
    def warnings(self) -> list[str]:
        """`problem`, as a list."""
        return [self.problem] if self.problem else []

    def stop(self) -> None:
        """Nothing to do: a file keeps nobody waiting."""

    def __iter__(self) -> Iterator[Frame]:
        self.truncated, self.damaged = False, 0
        number, seconds = -1, 0.0
        with self._open(self._device) as container:
            start = (container.start_time or 0) / av.time_base
            for frame in self._decoded(container):
                number += 1
                seconds = (
                    max(0.0, frame.time - start) if frame.time is not None else float(number / self.rate)
                )
                if number >= self.first:
                    yield Frame(upright(frame), number, seconds)
        if number < 0:
            raise ValueError(
                f"{self.path}: no frame of this video can be decoded (frames of more than --max-pixels, "
                f"{self._max_pixels:,}, are not)"
            )
        self.truncated = self._promised - seconds > max(1.0, float(5 / self.rate))

    def _decoded(self, container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                frames = [] if packet is None else packet.decode()
            except av.FFmpegError:
                self.damaged += 1
                if packet is None:  # the file itself cannot be read on
                    return
                continue
            if packet is None:
                return
            self.damaged += sum(frame.is_corrupt for frame in frames)
            yield from frames  # type: ignore[misc] # a video stream's packets hold video frames

    def _open(self, device: str | None = None) -> av.container.InputContainer:
        try:
            hwaccel = accelerator(device) if device else None
            container = av.open(str(self.path.absolute()), options=_LOCAL, hwaccel=hwaccel)
        except av.FFmpegError as error:
            raise ValueError(
                f"{self.path}: not a video that FFmpeg can read, or cut off: {error.strerror}"
            ) from None
        kind = container.format.name
        if kind in _NO_VIDEOS or kind.endswith("_pipe") or not container.streams.video:
            container.close()
            raise ValueError(f"{self.path}: there is no video in this file; FFmpeg reads it as {kind}")
        try:
            limit_frames(container.streams.video[0], self._max_pixels)
        except ValueError as error:
            container.close()
            raise ValueError(f"{self.path}: {error}") from None
        return container


def limit_frames(stream: av.VideoStream, max_pixels: int) -> None:
    """Lets the stream's decoder make no frame of more pixels; a ``ValueError`` where its header announces one."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > max_pixels:
        raise ValueError(
            f"frames of {width}x{height} pixels are more than max_pixels, {max_pixels:,}; "
            f"raise the limit with --max-pixels {width * height}, or scale the video down"
        )
    stream.codec_context.options = {"max_pixels": str(max_pixels)}


def sensible_rate(stream: av.VideoStream) -> Fraction:
    """Frames per second as the stream claims; 25 where it claims nothing sensible."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate is not None and 0 < rate <= 1000:
            return rate
    return Fraction(25)


def _promised_seconds(container: av.container.InputContainer) -> float:
    """How long the header says the video is; 0 where it does not. Some formats guess one of the two from the
    file's size.
    """
    stream = container.streams.video[0]
    counted = stream.frames / float(sensible_rate(stream))
    if stream.duration is not None and stream.time_base is not None:
        return max(counted, float(stream.duration * stream.time_base))
    if (
        container.duration is not None and not container.streams.audio
    ):  # sound may go on after the last picture
        return max(counted, container.duration / av.time_base)
    return counted


def upright(frame: av.VideoFrame) -> np.ndarray:
    """The frame as RGB, turned as the file's display matrix asks (phones film sideways and say so)."""
    guess = frame.colorspace == _UNKNOWN_COLOURS and frame.height > _HIGH_DEFINITION
    image = frame.to_ndarray(format="rgb24", src_colorspace=Colorspace.ITU709 if guess else None)
    turns = round((frame.rotation or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
