"""Small videos with known frames, made for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vistasks.inference.video.sinks import VideoWriter

RED, GREEN, BLUE, GREY = (220, 30, 30), (30, 200, 40), (20, 40, 210), (128, 128, 128)


def quarters(height: int = 48, width: int = 64) -> np.ndarray:
    """(H, W, 3): red, green / blue, grey."""
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, GREY
    return image


def numbered(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A grey frame whose brightness is 8 + 4 * number (number < 60), so that a decoder's frames can be told
    apart.
    """
    return np.full((height, width, 3), 8 + 4 * number, dtype=np.uint8)


def number_of(image: np.ndarray) -> int:
    """The number that `numbered` put into a frame, after lossy compression."""
    return round((float(image.mean()) - 8) / 4)


def write_numbered(path: Path, times: Sequence[float], *, height: int = 48, width: int = 64) -> Path:
    """A video of `numbered` frames at these times."""
    with VideoWriter(path) as writer:
        for number, seconds in enumerate(times):
            writer.write(numbered(number, height, width), seconds)
    return path


def turned(path: Path, source: Path) -> Path:
    """``source`` with the display matrix of a phone that was held upright: to be shown turned by 90 degrees
    clockwise.
    """
    data = bytearray(source.read_bytes())
    header = data.find(b"tkhd")
    matrix = (
        header + 4 + 4 + 20 + 8 + 8
    )  # ISO/IEC 14496-12, 8.3.2, version 0: times and ids, reserved, layer to volume
    values = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(data)
    return path


def write_container(
    path: Path,
    codec: str = "mpeg4",
    kind: str | None = None,
    *,
    sizes: Sequence[tuple[int, int]] = ((64, 48),),
    aspect: str = "1",
    **options: Any,
) -> Path:
    """A video of 20 grey frames in a container and codec of FFmpeg, with a stream for each (width, height)."""
    with av.open(str(path), mode="w", format=kind, options=options) as container:
        streams = []
        for width, height in sizes:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"  # type: ignore[attr-defined]
            stream.codec_context.sample_aspect_ratio = Fraction(aspect)  # type: ignore[attr-defined]
            streams.append(stream)
        for number in range(20):
            for stream, (width, height) in zip(streams, sizes):
                frame = av.VideoFrame.from_ndarray(numbered(number, height, width), format="rgb24")
                frame = frame.reformat(format="yuv420p")
                frame.pts = number
                container.mux(stream.encode(frame))  # type: ignore[attr-defined]
        for stream in streams:
            container.mux(stream.encode(None))  # type: ignore[attr-defined]
    return path
