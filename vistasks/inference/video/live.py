"""Cameras and network streams -> the newest frame, again and again, also after the connection was lost."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from vistasks.inference.sources import Live
from vistasks.inference.video.connections import (
    SCHEMES,
    CameraConnection,
    Connection,
    LostError,
    RawPicture,
    StreamConnection,
    without_password,
)
from vistasks.inference.video.reader import Frame
from vistasks.system.limits import MAX_PIXELS

_LONGEST_PAUSE = 10.0


def open_live(
    source: Live,
    *,
    reconnect: float = 60.0,
    tell: Callable[[str], None] = lambda words: None,
    max_pixels: int = MAX_PIXELS,
) -> LiveSource | RecordedStream:
    """The frames of a camera or an address.

    Args:
        source: a camera, or an rtsp://, http://, ... address. What is served with a length, such as an mp4 on
            a web server, is read from its begin to its end like a file; all else is live.
        reconnect: for how many seconds a lost connection is tried again before the run ends; 0: not at all.
        tell: called with what happens to the connection, in words.
        max_pixels: frames of an address with more are not decoded.

    Raises:
        ValueError: no such camera, an address that refuses or that has no video; it says which.
    """
    index, address = source.camera, source.address
    if index is not None:
        return LiveSource(
            lambda: CameraConnection(index),
            name=f"camera_{index}",
            where=f"camera {index}",
            reconnect=reconnect,
            tell=tell,
        )
    where, parts = without_password(address), urlsplit(address)
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{where}: unsupported kind of address; supported: {known}")
    name = (
        re.sub(r"[^A-Za-z0-9.-]+", "_", f"{parts.hostname or ''}{Path(parts.path).with_suffix('')}").strip(
            "_."
        )
        or "stream"
    )
    connection = _first(lambda: StreamConnection(address, max_pixels=max_pixels), where)
    if connection.recording:
        return RecordedStream(connection, name=name, where=where)
    return LiveSource(
        lambda: StreamConnection(address, max_pixels=max_pixels),
        name=name,
        where=where,
        reconnect=reconnect,
        tell=tell,
        connection=connection,
    )


class LiveSource:
    """The newest frame whenever one is asked for; a `vistasks.inference.video.protocols.FrameSource`.

    A thread reads all the time. A picture that nobody asked for until the next came is dropped and counted,
    unconverted. A connection that is lost is tried again after pauses that grow from ``pause`` to 10 seconds,
    until ``reconnect`` seconds have passed without a picture: then the frames end. Times are those of
    arrival, from the first picture on.

    Args:
        connect: makes a connection; raises `LostError`.
        name, where: for files and for messages.
        reconnect: seconds.
        pause: the first one, in seconds.
        tell: called, by the reading thread, when the connection was lost and when it is back.
        connection: the first, where it is made already.

    Attributes:
        reconnects: how often the connection was lost and pictures came again.
        status: what it waits for, in words, while the connection is lost; else "".

    Raises:
        ValueError: the first connection cannot be made, or never gives a picture.
    """

    live, frames = True, 0

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        name: str,
        where: str,
        reconnect: float = 60.0,
        pause: float = 0.5,
        tell: Callable[[str], None] = lambda words: None,
        connection: Connection | None = None,
    ) -> None:
        self.name, self.where = name, where
        self._connect, self._reconnect, self._pause, self._tell = connect, reconnect, pause, tell
        self._connection: Connection | None = connection or _first(connect, where)
        self.rate = self._connection.rate
        self.dropped, self.reconnects, self.status = 0, 0, ""
        self._changes: list[str] = []
        self._last_words = ""
        self._newest: tuple[RawPicture, float] | None = None
        self._change = threading.Condition()
        self._stopping = self._ended = False
        self._error: BaseException | None = None

    @property
    def warnings(self) -> list[str]:
        """What was wrong so far: lost connections, changes of the picture's size, why it ended."""
        times = f"{self.reconnects} times" if self.reconnects > 1 else "once"
        lost = [f"{self.where}: the connection was lost and taken up again {times}"] * (self.reconnects > 0)
        return [*lost, *self._changes, *([f"{self.where}: {self._last_words}"] if self._last_words else [])]

    def stop(self) -> None:
        """No more frames; for any thread and for signal handlers."""
        self._stopping = True

    def __iter__(self) -> Iterator[Frame]:
        reader = threading.Thread(target=self._read, name=f"read {self.where}", daemon=True)
        reader.start()
        number, start, size = 0, 0.0, None
        try:
            while (newest := self._take()) is not None:
                picture, arrived = newest
                image = picture.image()
                start = start if number else arrived
                size = self._noted_size(size, image, number)
                yield Frame(image, number, arrived - start)
                number += 1
        finally:
            self.stop()
            reader.join(timeout=1)  # one that waits for the network ends by itself when that times out
        if self._error is not None:
            raise self._error
        if number == 0 and self._last_words:
            raise ValueError(f"{self.where}: no frame received; {self._last_words}")

    def _take(self) -> tuple[RawPicture, float] | None:
        """Waits for the next picture; None where there will be none."""
        with self._change:
            while self._newest is None and not self._ended and not self._stopping:
                self._change.wait(timeout=0.1)  # stop() does not notify
            newest, self._newest = self._newest, None
        return None if self._stopping else newest

    def _noted_size(self, before: tuple[int, ...] | None, image: np.ndarray, number: int) -> tuple[int, ...]:
        size = image.shape[1::-1]
        if before is not None and size != before:
            change = f"{before[0]}x{before[1]} to {size[0]}x{size[1]}"
            self._changes.append(f"{self.where}: the frame size changed from {change} at frame {number}")
        return size

    def _read(self) -> None:
        try:
            self._read_on()
        except BaseException as error:
            self._error = error
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _read_on(self) -> None:
        """Connection after connection, until it is stopped or has waited for too long."""
        lost: float | None = None
        attempt = 0
        while not self._stopping:
            try:
                connection = self._connection or self._connect()
                try:
                    for picture in connection:
                        if lost is not None:
                            self._back(time.monotonic() - lost)
                        lost, attempt = None, 0
                        self._offer(picture)
                        if self._stopping:
                            return
                finally:
                    self._connection = None
                    connection.close()
                reason = "the stream ended"
            except LostError as error:
                reason = str(error)
            if lost is None:
                lost = time.monotonic()
                self._tell(f"{self.where}: connection lost ({reason}); reconnecting")
            if not self._wait(reason, lost, attempt):
                return
            attempt += 1

    def _back(self, seconds: float) -> None:
        self.reconnects, self.status = self.reconnects + 1, ""
        self._tell(f"{self.where}: frames again after {seconds:.1f} s (reconnection {self.reconnects})")

    def _wait(self, reason: str, lost: float, attempt: int) -> bool:
        """Pauses before the next attempt; False where there shall be none."""
        pause = min(self._pause * 2**attempt, _LONGEST_PAUSE)
        left = lost + self._reconnect - time.monotonic()
        if left <= 0:
            tried = f" and did not come back within {self._reconnect:g} seconds" if self._reconnect else ""
            self._last_words = f"the connection was lost{tried}: {reason}"
            return False
        self.status = f"connection lost ({reason}), attempt {attempt + 1}"
        end = time.monotonic() + min(pause, left)
        while not self._stopping and (rest := end - time.monotonic()) > 0:
            time.sleep(min(rest, 0.1))
        return True

    def _offer(self, picture: RawPicture) -> None:
        with self._change:
            self.dropped += self._newest is not None
            self._newest = picture, time.monotonic()
            self._change.notify_all()


class RecordedStream:
    """A video file that someone serves: every frame, at its own time; a
    `vistasks.inference.video.protocols.FrameSource`.
    """

    live, frames, dropped = False, 0, 0

    def __init__(self, connection: Connection, *, name: str, where: str) -> None:
        self.name, self.where, self.rate = name, where, connection.rate
        self._connection, self._stopping = connection, False
        self.warnings: list[str] = []

    def stop(self) -> None:
        """No more frames."""
        self._stopping = True

    def __iter__(self) -> Iterator[Frame]:
        number, start = -1, 0.0
        try:
            for number, picture in enumerate(self._connection):
                if self._stopping:
                    return
                seconds = picture.seconds if picture.seconds is not None else float(number / self.rate)
                start = start if number else seconds
                yield Frame(picture.image(), number, max(0.0, seconds - start))
        except LostError as error:
            self.warnings.append(f"{self.where}: the connection was lost after {number + 1} frames: {error}")
        finally:
            self._connection.close()
        if number < 0:
            raise ValueError(f"{self.where}: no frame of this video can be decoded")


def _first(connect: Callable[[], Connection], where: str) -> Connection:
    try:
        return connect()
    except LostError as error:
        raise ValueError(f"{where}: {error}") from None
