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

from vistasks.inference.video.containers import (
    LOCAL,
    best_stream,
    cut_off,
    encrypted,
    is_video,
    open_container,
)
from vistasks.inference.video.hardware import accelerator, hardware_for
from vistasks.system.limits import MAX_PIXELS

_HIGH_DEFINITION = (
    576  # lines; pictures with more have BT.709 colours where the file says nothing, as players assume
)
_UNKNOWN_COLOURS = 2  # AVCOL_SPC_UNSPECIFIED
_PADDING = 256  # pixels that decoders may add to a frame's sides
_WIDEST = 10  # a pixel that is wider or higher than so many times its other side is a damaged header


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
            stream = best_stream(container)
            self.rate = sensible_rate(stream)
            self.frames = stream.frames
            self._promised = _promised_seconds(container)
            self._cut_off = cut_off(self.path, container.format.name)
            self._chosen = _chosen(container)
        self._device = hardware_for(self.path, LOCAL) if decoder == "hardware" else None

    @property
    def problem(self) -> str | None:
        """What was wrong with the file in the last iteration, in words; None where nothing was."""
        faults = [f"{self.damaged} places do not decode and were passed over"] * (self.damaged > 0)
        faults += ["the video ends earlier than its header promises; was it cut off?"] * self.truncated
        return f"{self.path}: {'; '.join(faults)}" if faults else None

    @property
    def warnings(self) -> list[str]:
        """`problem`, and which of several video streams was taken."""
        chosen = [f"{self.path}: {self._chosen}"] if self._chosen else []
        return chosen + ([self.problem] if self.problem else [])

    def stop(self) -> None:
        """Nothing to do: a file keeps nobody waiting."""

    def __iter__(self) -> Iterator[Frame]:
        self.truncated, self.damaged = False, 0
        number, seconds = -1, 0.0
        with self._open(self._device) as container:
            start = (container.start_time or 0) / av.time_base
            aspect = pixel_aspect(best_stream(container))
            for frame in self._decoded(container):
                number += 1
                seconds = (
                    max(0.0, frame.time - start) if frame.time is not None else float(number / self.rate)
                )
                if number >= self.first:
                    yield Frame(upright(frame, aspect), number, seconds)
        if number < 0:
            raise ValueError(
                f"{self.path}: no frame of this video can be decoded (frames of more than --max-pixels, "
                f"{self._max_pixels:,}, are not)"
            )
        self.truncated = self._cut_off or self._promised - seconds > max(1.0, float(5 / self.rate))

    def _decoded(self, container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
        stream = best_stream(container)
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
            container = open_container(self.path, hwaccel)
        except av.FFmpegError as error:
            raise ValueError(
                f"{self.path}: not a video that FFmpeg can read, or cut off: {error.strerror}"
            ) from None
        try:
            if not is_video(container):
                raise ValueError(
                    f"there is no video in this file; FFmpeg reads it as {container.format.name}"
                )
            if encrypted(self.path, container.format.name):
                raise ValueError("the video is encrypted; decrypt it first")
            limit_frames(best_stream(container), self._max_pixels)
        except ValueError as error:
            container.close()
            raise ValueError(f"{self.path}: {error}") from None
        return container


def limit_frames(stream: av.VideoStream, max_pixels: int) -> None:
    """Lets the stream's decoder make no frame of more pixels; a ``ValueError`` where its header announces one."""
    width, height = stream.codec_context.width, stream.codec_context.height
    width = max(width, square_width(width, pixel_aspect(stream)))
    if width * height > max_pixels:
        raise ValueError(
            f"frames of {width}x{height} pixels are more than max_pixels, {max_pixels:,}; "
            f"raise the limit with --max-pixels {width * height}, or scale the video down"
        )
    padded = (stream.codec_context.width + _PADDING) * (stream.codec_context.height + _PADDING)
    stream.codec_context.options = {"max_pixels": str(max(max_pixels, padded))}


def pixel_aspect(stream: av.VideoStream) -> Fraction:
    """A pixel's width divided by its height; 1 where the stream says nothing sensible."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return aspect if aspect and Fraction(1, _WIDEST) <= aspect <= _WIDEST else Fraction(1)


def square_width(width: int, aspect: Fraction) -> int:
    """How many square pixels are as wide as ``width`` of this aspect."""
    return max(1, round(width * aspect))


def _chosen(container: av.container.InputContainer) -> str | None:
    """Which of several video streams is taken, in words."""
    streams, best = container.streams.video, best_stream(container)
    if len(streams) == 1:
        return None
    size = f"{best.codec_context.width}x{best.codec_context.height}"
    return f"of {len(streams)} video streams, stream {best.index} ({size} pixels) was taken"


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
    stream = best_stream(container)
    counted = stream.frames / float(sensible_rate(stream))
    if stream.duration is not None and stream.time_base is not None:
        return max(counted, float(stream.duration * stream.time_base))
    if (
        container.duration is not None and not container.streams.audio
    ):  # sound may go on after the last picture
        return max(counted, container.duration / av.time_base)
    return counted


def upright(frame: av.VideoFrame, aspect: Fraction = Fraction(1)) -> np.ndarray:
    """The frame as RGB with square pixels, turned as the file's display matrix asks (phones film sideways and
    say so). ``aspect``: see `pixel_aspect`.
    """
    guess = frame.colorspace == _UNKNOWN_COLOURS and frame.height > _HIGH_DEFINITION
    image = frame.to_ndarray(
        format="rgb24",
        src_colorspace=Colorspace.ITU709 if guess else None,
        width=square_width(frame.width, aspect),
        height=frame.height,
    )
    turns = round((frame.rotation or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
