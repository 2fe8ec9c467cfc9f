"""An HTTP server in a thread of its own, which neither slow nor malformed requests can hold up."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
import threading
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 32  # at once, whatever they want
TIMEOUT = (
    10.0  # seconds in which a request must be complete, and in which a client must take what waits for it
)
_LAST_WORDS = 0.3  # seconds for the end of what is being sent when the server is closed
_BUFFER = 1 << 18  # bytes on the way to a client: more would make a stream's picture old, not smooth


class HttpServer:
    """Serves an ASGI application until `close` is called.

    A connection carries one request. It is cut when the request is not complete after `TIMEOUT` seconds,
    however steadily it drips in, and when the client takes nothing for as long. There are at most
    `CONNECTIONS`: one more takes the place of the oldest whose request is incomplete, so that idle clients
    keep nobody out.

    Attributes:
        host, port: where it listens.
        local: whether only this machine can reach it.

    Raises:
        ValueError: the port is taken or may not be used, or the host is no address of this machine.
    """

    def __init__(self, application: Any, host: str, port: int) -> None:
        listener = _listen(host, port)
        self.host, self.port = listener.getsockname()[:2]
        self.local = _is_loopback(self.host)
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                http=_OneRequest,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                log_level="critical",  # what clients do wrong is no news of the run
                access_log=False,
                server_header=False,
                headers=[("Server", "vistasks")],
                timeout_graceful_shutdown=1,
            )
        )
        self._told: set[str] = set()
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, ready)), name="serve", daemon=True
        )
        self._thread.start()
        ready.wait()

    def call(self, function: Callable[[], None]) -> None:
        """Has the server's thread call this soon; returns at once."""
        with contextlib.suppress(RuntimeError):  # the thread has ended
            self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        """Ends every connection and frees the port; what a client does not take at once is lost."""
        self._server.should_exit = True
        self.call(self._hurry)
        self._thread.join()

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._tell)
        ready.set()
        await self._server.serve(sockets=[listener])

    def _hurry(self) -> None:
        def abort() -> None:
            for connection in list(self._server.server_state.connections):
                connection.transport.abort()

        self._loop.call_later(_LAST_WORDS, abort)

    def _tell(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Says once, in a line, what went wrong in the server itself."""
        error = context.get("exception")
        text = f"{context['message']}{f' ({error})' if error else ''}"
        if text not in self._told and not isinstance(error, ConnectionError):
            self._told.add(text)
            print(f"warning: --serve: {text}", file=sys.stderr, flush=True)


class _OneRequest(H11Protocol):
    """A connection; uvicorn itself knows no deadline before a request is complete."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._born, self._stuck = self.loop.time(), float("inf")
        self._timer = self.loop.call_later(TIMEOUT, self._expire)
        present = [other for other in self.connections if isinstance(other, _OneRequest) and other._open]
        if len(present) > CONNECTIONS:
            min((other for other in present if other._waits), key=lambda other: other._born).transport.abort()

    @property
    def _open(self) -> bool:
        return not self.transport.is_closing()

    @property
    def _waits(self) -> bool:
        """Whether the request is not complete yet."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _expire(self) -> None:
        stuck = self.loop.time() - self._stuck >= TIMEOUT
        if self._waits or stuck or not self._open:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(TIMEOUT / 4, self._expire)

    def pause_writing(self) -> None:
        self._stuck = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stuck = float("inf")
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None:
            self.cycle.disconnected = True  # the application has nobody to answer to
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # nonsense behind a request that is being answered
            self.transport.abort()


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ValueError(f"--serve {port}: a port is a number from 1 to 65535, or 0 for any free one")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=CONNECTIONS)
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
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)  # accepted connections inherit it
    return listener


def _is_loopback(host: Any) -> bool:
    """Whether this is an IP address that only this machine can reach."""
    try:
        return ip_address(str(host)).is_loopback
    except ValueError:
        return False
