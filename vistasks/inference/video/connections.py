"""One connection to a camera or a network stream, from opened to lost."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import av
import cv2
import numpy as np

from vistasks.inference.video.containers import best_stream, is_video
from vistasks.inference.video.reader import limit_frames, pixel_aspect, sensible_rate, upright
from vistasks.system.limits import MAX_PIXELS

TIMEOUT = 10.0  # seconds without any answer after which a connection counts as lost
SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "rtp", "srt")
# an address must not make FFmpeg read files of this machine
_PROTOCOLS = ",".join([*SCHEMES, "tls", "httpproxy", "crypto", "data"])


class LostError(Exception):
    """The connection cannot be made, or has gone; the message says why."""


@dataclass(frozen=True, eq=False)
class RawPicture:
    """A picture as it came: ``image`` converts it to (H, W, 3) uint8 RGB; the stream's own time in seconds,
    where it has one.
    """

    image: Callable[[], np.ndarray]
    seconds: float | None = None


class Connection(Protocol):
    """Iterates over pictures as they come; ends where the stream ends, raises `LostError` where it breaks.

    Attributes:
        rate: frames per second, as claimed.
        recording: it has a length: it is a file that someone serves, not a live stream.
    """

    rate: Fraction
    recording: bool

    def __iter__(self) -> Iterator[RawPicture]: ...

    def close(self) -> None: ...


class StreamConnection:
    """A network stream, read by FFmpeg (PyAV).

    Args:
        url: one of `SCHEMES`.
        timeout: seconds without an answer after which it is lost.
        max_pixels: frames with more are not decoded.

    Raises:
        LostError: nobody answers there, or not with a video.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT, max_pixels: int = MAX_PIXELS) -> None:
        self._timeout = timeout
        # RTSP over TCP: through UDP, packets are lost and pictures torn
        options = {"protocol_whitelist": _PROTOCOLS, "rtsp_transport": "tcp"}
        try:
            self._container = av.open(url, options=options, timeout=(timeout, timeout))
        except (av.FFmpegError, OSError) as error:
            raise LostError(self._reason(error)) from None
        kind = self._container.format.name
        if not is_video(self._container, playlists=True):
            self._container.close()
            raise LostError(f"there is no video at this address; FFmpeg reads it as {kind}")
        stream = self._stream = best_stream(self._container)
        try:
            limit_frames(stream, max_pixels)
        except ValueError as error:
            self._container.close()
            raise LostError(str(error)) from None
        stream.thread_type = "SLICE"  # threads over whole frames would hold back a frame each
        self.rate = sensible_rate(stream)
        self.recording = self._container.duration is not None or stream.duration is not None

    def __iter__(self) -> Iterator[RawPicture]:
        aspect = pixel_aspect(self._stream)
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                raise LostError(self._reason(error)) from None
            if packet is None:
                return
            try:
                frames = packet.decode()
            except av.FFmpegError:  # a torn packet; the next ones may be whole
                continue
            for frame in frames:
                yield RawPicture(lambda frame=frame: upright(frame, aspect), frame.time)  # type: ignore[misc]

    def close(self) -> None:
        """Hangs up."""
        self._container.close()

    def _reason(self, error: Exception) -> str:
        if isinstance(error, av.error.ExitError | TimeoutError):
            return f"no answer within {self._timeout:g} seconds"
        if isinstance(error, av.error.InvalidDataError):
            return "what comes from there is not a video that FFmpeg can read"
        if isinstance(error, av.error.ProtocolNotFoundError):
            return "this build of FFmpeg does not speak this protocol"
        if isinstance(error, OSError) and error.errno == errno.EIO:  # which FFmpeg says of both
            return "the address is not known, or the connection broke off"
        return getattr(error, "strerror", None) or str(
            error
        )  # str(error) may hold the address, with its password


class CameraConnection:
    """A camera of this machine, read by OpenCV.

    Args:
        index: OpenCV's number of the camera, from 0.
        capture: opens it.

    Raises:
        LostError: there is no such camera, or it does not answer.
    """

    def __init__(self, index: int, *, capture: Callable[[int], cv2.VideoCapture] = cv2.VideoCapture) -> None:
        self.recording = False
        with _quiet_opencv():
            self._capture = capture(index)
        if not self._capture.isOpened():
            raise LostError(_no_camera(index, sorted(Path("/dev").glob("video*"))))
        claimed = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = Fraction(claimed).limit_denominator(1001) if 1 <= claimed <= 1000 else Fraction(25)

    def __iter__(self) -> Iterator[RawPicture]:
        while True:
            with _quiet_opencv():
                there, image = self._capture.read()
            if not there or image is None:
                raise LostError("the camera sends no more frames; was it unplugged?")
            yield RawPicture(lambda image=image: cv2.cvtColor(image, cv2.COLOR_BGR2RGB))  # type: ignore[misc]

    def close(self) -> None:
        """Lets others use the camera."""
        self._capture.release()


def _no_camera(index: int, devices: list[Path]) -> str:
    numbers = sorted(
        int(number.group(1)) for path in devices if (number := re.fullmatch(r"video(\d+)", path.name))
    )
    if index in numbers:
        return f"the camera cannot be opened; another program may be using it, or /dev/video{index} may not be read by you"
    if sys.platform != "linux":
        return "there is no such camera, or it may not be used by this program"
    known = (
        f"this machine has {', '.join(map(str, numbers))}"
        if numbers
        else "no camera is connected to this machine"
    )
    return f"there is no such camera; {known}"


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Without the lines that OpenCV prints for each backend that it tries in vain."""
    logging = cv2.utils.logging
    before = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)


def without_password(url: str) -> str:
    """The address as it may be shown: the password, where there is one, is replaced by three stars."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.split(':')[0]}:***@{host}").geturl()
