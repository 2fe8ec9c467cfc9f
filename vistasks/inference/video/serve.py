"""The annotated live picture in a browser: one page and its stream, over HTTP."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import socketserver
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from vistasks.drawing.palette import Colour

VIEWERS = 4
_CONNECTIONS = 32  # at once, whatever they want
_TIMEOUT = 10.0  # seconds for which a viewer may take nothing
_BUFFER = 1 << 18  # bytes on the way to a viewer: more would make its picture old, not smooth
_QUALITY = 80
_LONGEST_REQUEST = 1 << 16  # bytes
_RATE_SECONDS = 3.0
_BOUNDARY = "frame"
# the page is whole in itself: it loads nothing from elsewhere, and no other page may hold it in a frame
_POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class PageServer:
    """Serves a page with the newest picture as a stream of JPEGs; a
    `vistasks.inference.video.protocols.Publisher`.

    `publish` only puts the picture down. Each viewer has a thread of its own that takes the newest picture
    when it is ready for one, so a slow viewer misses pictures and nobody waits for it. A picture is
    compressed once, and only if someone watches. Nothing else is served: ``/`` the page, ``/stream`` the
    pictures, ``/state`` the page's numbers, ``POST /hidden`` its toggles. Requests that another web site
    makes through a viewer's browser are refused.

    Args:
        port: 0 takes a free one.
        host: the address to listen at; "0.0.0.0" lets everyone in who reaches this machine.
        source: what is shown, for the page's head.
        classes: that can be hidden.
        colours: of the classes, (red, green, blue).
        viewers: how many may watch at once.

    Attributes:
        url: the page's address.
        hidden: classes that are switched off on the page.

    Raises:
        ValueError: the port is taken or may not be used, or the host is no address of this machine.
    """

    needs_main_thread = False

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        source: str = "vistasks",
        classes: Sequence[str] = (),
        colours: Mapping[str, Colour] | None = None,
        viewers: int = VIEWERS,
    ) -> None:
        self.hidden: Collection[str] = frozenset()
        self.source, self.viewers = source, viewers
        shades = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in (colours or {}).items()}
        self.classes = [{"name": name, "colour": shades.get(name, "#808080")} for name in classes]
        self._image: np.ndarray | None = None
        self._number = 0
        self._jpeg = 0, b""
        self._stats: Mapping[str, Any] = {}
        self._times: deque[float] = deque(maxlen=300)
        self._watching = 0
        self._closed = False
        self._change, self._compressing = threading.Condition(), threading.Lock()
        self._server = _listen(self, host, port)
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="serve", daemon=True
        )
        self._thread.start()

    def publish(self, image: np.ndarray, stats: Mapping[str, Any]) -> None:
        """Makes this the newest picture (H, W, 3) uint8 RGB; returns at once."""
        with self._change:
            self._image, self._stats = image, stats
            self._number += 1
            self._times.append(time.monotonic())
            self._change.notify_all()

    def close(self) -> None:
        """Ends the stream of every viewer and frees the port; closing again does nothing."""
        with self._change:
            closed, self._closed = self._closed, True
            self._change.notify_all()
        if not closed:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def state(self) -> dict[str, Any]:
        """What the page shows beside the picture."""
        with self._change:
            now = time.monotonic()
            recent = [moment for moment in self._times if now - moment <= _RATE_SECONDS]
            rate = (
                (len(recent) - 1) / (recent[-1] - recent[0])
                if len(recent) > 1 and recent[-1] > recent[0]
                else 0.0
            )
            return {
                "source": self.source,
                "classes": self.classes,
                "hidden": sorted(self.hidden),
                "stats": dict(self._stats),
                "rate": rate,
                "idle": now - self._times[-1] if self._times else 0.0,
                "viewers": self._watching,
                "full": self._watching >= self.viewers,
            }

    def hide(self, names: Any) -> None:
        """Switches classes off, all others on. Raises a ``ValueError`` for what is no list of the page's
        classes.
        """
        known = {entry["name"] for entry in self.classes}
        if not isinstance(names, list) or not all(isinstance(name, str) and name in known for name in names):
            raise ValueError(f"expected a list of class names, out of {', '.join(sorted(known))}")
        self.hidden = frozenset(names)

    @contextlib.contextmanager
    def seat(self) -> Iterator[bool]:
        """A viewer's place: True, or False where all are taken."""
        with self._change:
            free = self._watching < self.viewers
            self._watching += free
        try:
            yield free
        finally:
            with self._change:
                self._watching -= free

    def newer(self, number: int) -> tuple[int, bytes] | None:
        """Waits for a picture after this number; its number and JPEG, or None when there will be none."""
        with self._change:
            self._change.wait_for(lambda: self._closed or self._number > number)
            if self._closed or self._image is None:
                return None
            wanted, image = self._number, self._image
        with self._compressing:
            if self._jpeg[0] < wanted:
                blue_first = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
                self._jpeg = (
                    wanted,
                    cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes(),
                )
            return self._jpeg


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT
    server: _Server

    def do_GET(self) -> None:
        place = self.path.partition("?")[0]
        if not self._allowed():
            return
        if place == "/":
            self._answer(
                files("vistasks.inference.video").joinpath("page.html").read_bytes(),
                "text/html; charset=utf-8",
            )
        elif place == "/state":
            self._answer(json.dumps(self.server.page.state()).encode(), "application/json")
        elif place == "/stream":
            with self.server.page.seat() as free:
                if free:
                    self._stream()
                else:
                    self._refuse(
                        503, f"{self.server.page.viewers} viewers are watching already; no more are let in"
                    )
        else:
            self._refuse(404, "there is nothing here but / and its picture")

    def do_POST(self) -> None:
        if not self._allowed():
            return
        length = self.headers.get("Content-Length", "")
        if self.path != "/hidden":
            self._refuse(404, "there is nothing here but / and its picture")
        elif (
            not length.isdigit()
            or int(length) > _LONGEST_REQUEST
            or self.headers.get_content_type() != "application/json"
        ):
            self._refuse(400, f"expected JSON of at most {_LONGEST_REQUEST} bytes")
        else:
            try:
                self.server.page.hide(json.loads(self.rfile.read(int(length))))
            except (ValueError, RecursionError) as error:  # JSON that is none is a ValueError, too
                self._refuse(400, str(error))
            else:
                self._answer(b"", "text/plain")

    def _allowed(self) -> bool:
        """Refuses what another site asks for through a viewer's browser, by name (DNS rebinding) or by a link
        to the picture.
        """
        host = urlsplit(f"//{self.headers.get('Host', 'localhost')}").hostname
        if self.server.local and not (host == "localhost" or _is_loopback(host)):
            self._refuse(403, "this page is for the machine that it runs on")
        elif self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            self._refuse(403, "another site may not ask for this")
        else:
            return True
        return False

    def _stream(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._head(200, f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        number = 0
        while (found := self.server.page.newer(number)) is not None:
            number, jpeg = found
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")
        self.wfile.write(f"--{_BOUNDARY}--\r\n".encode())

    def _answer(self, body: bytes, kind: str, status: int = 200) -> None:
        self._head(status, kind, len(body))
        self.wfile.write(body)

    def _refuse(self, status: int, why: str) -> None:
        self._answer(why.encode(), "text/plain; charset=utf-8", status)

    def _head(self, status: int, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()

    def version_string(self) -> str:
        return "vistasks"

    def log_message(self, *_: Any) -> None:
        """Says nothing: the terminal belongs to the run."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _CONNECTIONS
    page: PageServer
    local: bool

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        self._places = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks the name service for this machine's name

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that goes away is no error of the run; anything else is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _listen(page: PageServer, host: str, port: int) -> _Server:
    if not 0 <= port <= 65535:
        raise ValueError(f"--serve {port}: a port is a number from 1 to 65535, or 0 for any free one")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        server = _Server((host, port), family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"--serve {port}: this port of {host} is taken; choose another, or 0 for any free one"
            ) from None
        if error.errno == errno.EACCES:
            raise ValueError(
                f"--serve {port}: this port may not be used by you; choose one over 1023"
            ) from None
        raise ValueError(
            f"--serve-host {host}: this is no address of this machine that can be listened at ({error})"
        ) from None
    server.page, server.local = page, _is_loopback(server.server_address[0])
    return server


def _is_loopback(host: Any) -> bool:
    try:
        return ip_address(str(host)).is_loopback
    except ValueError:
        return False
