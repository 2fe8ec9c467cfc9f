"""The annotated live picture in a browser: one page and its stream, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from importlib.resources import files
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from vistasks.drawing.palette import Colour
from vistasks.inference.video.http_server import HttpServer

VIEWERS = 4
_QUALITY = 80
_LONGEST_REQUEST = 1 << 16  # bytes
_RATE_SECONDS = 3.0
_BOUNDARY = "frame"
# the page is whole in itself: it loads nothing from elsewhere, and no other page may hold it in a frame
_POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {
    "Connection": "close",
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class PageServer:
    """Serves a page with the newest picture as a stream of JPEGs; a
    `vistasks.inference.video.protocols.Publisher`.

    `publish` only puts the picture down. Each viewer gets the newest picture when it is ready for one, so a
    slow viewer misses pictures and nobody waits for it. A picture is compressed once, and only if someone
    watches. Nothing else is served: ``/`` the page, ``/stream`` the pictures, ``/state`` the page's numbers,
    ``POST /hidden`` its toggles. Requests that another web site makes through a viewer's browser are refused.

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
        self._lock = threading.Lock()
        self._changed, self._compressing = asyncio.Event(), asyncio.Lock()  # of the server's thread
        self._server = HttpServer(self._application(), host, port)
        # a name that another site's owner can point at this machine is none of these (DNS rebinding)
        own = socket.gethostname().lower()
        self._names = {"localhost", *(() if self._server.local else (host.lower(), own, f"{own}.local"))}
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._server.port}/"

    def publish(self, image: np.ndarray, stats: Mapping[str, Any]) -> None:
        """Makes this the newest picture (H, W, 3) uint8 RGB; returns at once."""
        with self._lock:
            self._image, self._stats = image, stats
            self._number += 1
            self._times.append(time.monotonic())
        if not self._closed:
            self._server.call(self._wake)

    def close(self) -> None:
        """Ends the stream of every viewer and frees the port; closing again does nothing."""
        if not self._closed:
            self._closed = True
            self._server.call(self._wake)
            self._server.close()

    def state(self) -> dict[str, Any]:
        """What the page shows beside the picture."""
        with self._lock:
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

    def _wake(self) -> None:
        """Lets waiting viewers look for a newer picture."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _application(self) -> ASGIApp:
        page = files("vistasks.inference.video").joinpath("page.html").read_bytes()

        async def show(request: Request) -> Response:
            return _answer(page, "text/html; charset=utf-8")

        async def tell(request: Request) -> Response:
            return _answer(json.dumps(self.state()).encode(), "application/json")

        async def nothing(request: Request, error: Exception) -> Response:
            return _refuse(404, "only / and its image are served here")

        async def fault(request: Request, error: Exception) -> Response:
            print(
                f"warning: --serve: {type(error).__name__} at a request: {error}", file=sys.stderr, flush=True
            )
            return _refuse(500, "a fault of this page")

        routes = [
            Route("/", show),
            Route("/state", tell),
            Route("/stream", self._stream),
            Route("/hidden", self._toggle, methods=["POST"]),
        ]
        inner = Starlette(routes=routes, exception_handlers={404: nothing, 405: nothing, Exception: fault})
        inner.router.redirect_slashes = False

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            await (self._refusal(scope) or inner)(scope, receive, send)

        return guarded

    def _refusal(self, scope: Scope) -> Response | None:
        """Refuses what another site asks for through a viewer's browser, by name (DNS rebinding) or by a link
        to the picture.
        """
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "POST"):
            return _refuse(404, "only / and its image are served here")
        if not self._knows(headers.get("Host", "localhost")):
            return _refuse(403, "this page answers to this machine's own names and addresses alone")
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return _refuse(403, "another site may not ask for this")
        return None

    def _knows(self, asked: str) -> bool:
        """Whether a Host header means this machine: by one of its names or, beyond loopback, any IP address."""
        try:
            parts = urlsplit(f"//{asked}")
            host, _ = parts.hostname or "", parts.port  # a port that is none raises
            if host in self._names:
                return True
            return ip_address(host).is_loopback or not self._server.local
        except ValueError:
            return False

    async def _toggle(self, request: Request) -> Response:
        length, kind = (request.headers.get(name, "") for name in ("Content-Length", "Content-Type"))
        if (
            not length.isdecimal()
            or int(length) > _LONGEST_REQUEST
            or kind.partition(";")[0].strip().lower() != "application/json"
        ):
            return _refuse(400, f"expected JSON of at most {_LONGEST_REQUEST} bytes")
        with contextlib.suppress(ClientDisconnect):
            try:
                self.hide(json.loads(await request.body()))
            except (ValueError, RecursionError) as error:  # JSON that is none is a ValueError, too
                return _refuse(400, str(error))
        return _answer(b"", "text/plain")

    async def _stream(self, request: Request) -> ASGIApp:
        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            if self._watching >= self.viewers:
                refusal = f"{self.viewers} viewers are watching already; no more are let in"
                return await _refuse(503, refusal)(scope, receive, send)
            self._watching += 1
            try:
                kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
                stream = StreamingResponse(self._pictures(), headers=_HEADERS, media_type=kind)
                await stream(scope, receive, send)
            finally:
                self._watching -= 1

        return respond

    async def _pictures(self) -> AsyncIterator[bytes]:
        """Each newest picture as a part of the stream, until the server is closed."""
        sent = 0
        while not self._closed:
            changed = self._changed
            if self._number == sent:
                await changed.wait()
                continue
            sent, jpeg = await self._newest()
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n"
        yield f"--{_BOUNDARY}--\r\n".encode()

    async def _newest(self) -> tuple[int, bytes]:
        """The newest picture's number and JPEG, compressed once for all viewers."""
        async with self._compressing:
            with self._lock:
                number, image = self._number, self._image
            if image is not None and self._jpeg[0] < number:
                self._jpeg = number, await run_in_threadpool(_jpeg, image)
            return self._jpeg


def _jpeg(image: np.ndarray) -> bytes:
    blue_first = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def _answer(body: bytes, kind: str, status: int = 200) -> Response:
    return Response(body, status, headers=_HEADERS, media_type=kind)


def _refuse(status: int, why: str) -> Response:
    return _answer(why.encode(), "text/plain; charset=utf-8", status)
