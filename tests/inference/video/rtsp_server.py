"""A camera that speaks RTSP (RFC 2326) over TCP, made for the tests."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from fractions import Fraction

import av

from tests.inference.video.clips import numbered
from tests.inference.video.stream_server import CYCLE

_RATE = 50
_DESCRIPTION = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=a camera
c=IN IP4 127.0.0.1
t=0 0
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
a=control:track
""".replace("\n", "\r\n")


class RtspServer:
    """Serves `numbered` frames, mod `CYCLE`, to one client after the other; `kill` hangs up."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}/live"
        self._client: socket.socket | None = None
        self._killed = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def kill(self) -> None:
        self._killed.set()
        for connection in (self._listener, self._client):
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while not self._killed.is_set():
                self._client, _ = self._listener.accept()
                with contextlib.suppress(OSError):
                    self._converse(self._client)

    def _converse(self, client: socket.socket) -> None:
        """Answers until the client wants to PLAY, then sends."""
        requests = client.makefile("rb")
        while line := requests.readline():
            method = line.split()[0].decode()
            head = dict(text.decode().strip().split(": ", 1) for text in iter(requests.readline, b"\r\n"))
            lines, body = [f"CSeq: {head['CSeq']}", "Session: 1"], ""
            if method == "OPTIONS":
                lines.append("Public: DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif method == "DESCRIBE":
                body = _DESCRIPTION
                lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            elif method == "SETUP":
                lines.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
            client.sendall(("\r\n".join(["RTSP/1.0 200 OK", *lines]) + "\r\n\r\n" + body).encode())
            if method == "PLAY":
                self._play(client)
                return

    def _play(self, client: socket.socket) -> None:
        """RTP packets as FFmpeg's muxer makes them, between dollar signs (RFC 2326, 10.12)."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
            packets.bind(("127.0.0.1", 0))
            packets.settimeout(0.5)
            done = threading.Event()
            muxer = threading.Thread(target=self._encode, args=(packets.getsockname()[1], done), daemon=True)
            muxer.start()
            try:
                while not self._killed.is_set():
                    packet = packets.recv(65536)
                    client.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
            finally:
                done.set()
                muxer.join()

    def _encode(self, port: int, done: threading.Event) -> None:
        with (
            contextlib.suppress(OSError),
            av.open(f"rtp://127.0.0.1:{port}?pkt_size=1200", "w", format="rtp") as container,
        ):
            stream = container.add_stream("libx264", rate=_RATE, options={"tune": "zerolatency", "g": "5"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            start = time.monotonic()
            for number in itertools.count():
                frame = av.VideoFrame.from_ndarray(numbered(number % CYCLE), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, _RATE)
                container.mux(stream.encode(frame))
                if done.wait(max(0.0, start + (number + 1) / _RATE - time.monotonic())):
                    return
