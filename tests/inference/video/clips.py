"""Small videos with known frames, made for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
