"""A live stream over HTTP, made for the tests; also as a process: ``python -m
tests.inference.video.stream_server PORT``.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import socket
import sys
import threading
import time
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO

import av
import numpy as np

from tests.inference.video.clips import numbered

CYCLE = 60  # frames after which `numbered` begins again


class _Sink(io.RawIOBase):
    """What FFmpeg writes its packets into."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._target.write(data)
        return len(data)


class StreamServer:
    """Serves ``numbered`` frames, mod `CYCLE`, as endless MPEG-TS; a context manager.

    ``size`` is (height, width) for the next connection. `kill` hangs up on everybody, as a crash does.
    """

    def __init__(
        self, port: int = 0, *, rate: float = 50, size: tuple[int, int] = (48, 64), frames: int | None = None
    ) -> None:
        self.rate, self.size, self.frames = rate, size, frames
        self.sent = 0
        self._clients: list[socket.socket] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._clients.append(self.connection)
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                with contextlib.suppress(OSError):
                    outer._stream(self.wfile)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that go away

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/live"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def __enter__(self) -> StreamServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """The port is closed and every connection breaks."""
        self._server.shutdown()
        self._server.server_close()
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._clients = []
        self._thread.join()

    def _stream(self, target: BinaryIO) -> None:
        height, width = self.size
        with av.open(_Sink(target), "w", format="mpegts") as container:
            stream = container.add_stream(
                "libx264", rate=Fraction(self.rate), options={"tune": "zerolatency", "g": "5"}
            )
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            start = time.monotonic()
            for number in range(self.frames) if self.frames else itertools.count():
                frame = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(numbered(number % CYCLE, height, width)), format="rgb24"
                )
                frame.pts, frame.time_base = number, Fraction(1) / Fraction(self.rate)
                container.mux(stream.encode(frame))
                self.sent += 1
                time.sleep(max(0.0, start + (number + 1) / self.rate - time.monotonic()))


if __name__ == "__main__":
    server = StreamServer(int(sys.argv[1]))
    print(server.port, flush=True)
    threading.Event().wait()
