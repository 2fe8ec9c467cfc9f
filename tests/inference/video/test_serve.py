from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from tests.inference.video.clips import number_of, numbered, quarters
from vistasks.inference.video import http_server
from vistasks.inference.video.connections import StreamConnection
from vistasks.inference.video.live import LiveSource
from vistasks.inference.video.serve import PageServer

CLASSES = ("cat", "dog")


@pytest.fixture
def page() -> Iterator[PageServer]:
    server = PageServer(0, classes=CLASSES, colours={"cat": (1, 2, 255)}, source="clip.mp4", viewers=2)
    yield server
    server.close()


def ask(
    page: PageServer, path: str, *, method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=body, headers=named)
    answer = connection.getresponse()
    with contextlib.closing(connection):
        return answer.status, answer.read(), answer.headers


def port_of(page: PageServer) -> int:
    return int(page.url.rstrip("/").rsplit(":", 1)[1])


def state(page: PageServer) -> dict[str, Any]:
    return json.loads(ask(page, "/state")[1])


class Viewer:
    """Reads the stream's JPEGs one by one."""

    def __init__(self, page: PageServer) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port_of(page)), timeout=10)
        self.socket.sendall(b"GET /stream HTTP/1.0\r\nHost: localhost\r\n\r\n")
        self.file = self.socket.makefile("rb")
        self.head = self._lines()

    def _lines(self) -> list[bytes]:
        return list(iter(lambda: self.file.readline().strip(), b""))

    def picture(self) -> np.ndarray | None:
        head = dict(line.split(b": ") for line in self._lines() if b": " in line)
        if not head:
            return None
        data = self.file.read(int(head[b"Content-Length"]))
        self.file.readline()
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def test_the_page_is_whole_in_itself(page: PageServer) -> None:
    status, body, headers = ask(page, "/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert (
        b"stream" in body
        and b"http://" not in body
        and b"https://" not in body
        and b"//" not in body.replace(b"// ", b"")
    )
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert headers["Server"].startswith("vistasks") and "Python" not in headers["Server"]


def test_it_listens_to_this_machine_alone(page: PageServer) -> None:
    assert (
        page._server.host == "127.0.0.1" and page._server.local and page.url.startswith("http://127.0.0.1:")
    )


@pytest.mark.parametrize("path", ["/x", "/../setup.cfg", "/page.html", "/etc/passwd", "/hidden", "/stream/"])
def test_there_is_nothing_else(page: PageServer, path: str) -> None:
    assert ask(page, path)[0] == 404
    assert ask(page, path, method="POST", body="[]")[0] == (400 if path == "/hidden" else 404)
    assert ask(page, path, method="DELETE")[0] == 404


def test_the_stream_gives_each_new_picture(page: PageServer) -> None:
    viewer = Viewer(page)
    assert (
        viewer.head[0].endswith(b"200 OK")
        and b"content-type: multipart/x-mixed-replace; boundary=frame" in viewer.head
    )
    for number in range(3):
        page.publish(numbered(number), {})
        assert number_of(viewer.picture()) == number
    page.publish(quarters(), {})
    assert viewer.picture()[10, 10].tolist() == pytest.approx([220, 30, 30], abs=12)  # red is red
    page.close()
    assert viewer.picture() is None
    viewer.close()


def test_a_viewer_that_comes_later_sees_the_newest_picture_at_once(page: PageServer) -> None:
    for number in range(5):
        page.publish(numbered(number), {})
    viewer = Viewer(page)
    assert number_of(viewer.picture()) == 4
    viewer.close()


def test_a_picture_is_compressed_once_and_only_for_viewers(
    page: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    encode = cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *given: (calls.append(given[0]), encode(*given))[1])
    for number in range(20):
        page.publish(numbered(number), {})
    assert calls == []
    viewers = [Viewer(page), Viewer(page)]
    assert [number_of(viewer.picture()) for viewer in viewers] == [19, 19] and len(calls) == 1
    for viewer in viewers:
        viewer.close()


def test_a_viewer_who_takes_nothing_slows_nobody(page: PageServer) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)  # 1 MB as JPEG
    page.publish(noise, {})
    asleep, awake = Viewer(page), Viewer(page)
    asleep.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert awake.picture() is not None
    longest = 0.0
    for number in range(30):
        start = time.perf_counter()
        page.publish(noise if number < 29 else numbered(7), {"frame": number})
        longest = max(longest, time.perf_counter() - start)
        time.sleep(0.01)
    while (seen := awake.picture()) is not None and seen.shape[0] == 720:
        pass
    assert number_of(seen) == 7 and state(page)["viewers"] == 2
    assert longest < 5  # it would wait for the one who sleeps, up to 10 seconds
    asleep.close()
    awake.close()


def test_places_for_viewers_are_limited_and_become_free(page: PageServer) -> None:
    page.publish(numbered(1), {})
    viewers = [Viewer(page), Viewer(page)]
    assert [number_of(viewer.picture()) for viewer in viewers] == [1, 1] and state(page)["full"]
    status, body, _ = ask(page, "/stream")
    assert (status, body) == (503, b"2 viewers are watching already; no more are let in")
    viewers[0].close()
    deadline = time.monotonic() + 10
    while state(page)["viewers"] == 2 and time.monotonic() < deadline:
        time.sleep(0.02)  # nothing need be sent to find out that somebody has gone
    third = Viewer(page)
    assert number_of(third.picture()) == 1
    third.close()
    viewers[1].close()


def test_idle_and_dripping_clients_keep_nobody_out(page: PageServer) -> None:
    page.publish(numbered(1), {})
    viewer = Viewer(page)
    assert number_of(viewer.picture()) == 1
    dripping = [socket.create_connection(("127.0.0.1", port_of(page)), timeout=10) for _ in range(40)]
    for connection in dripping[::2]:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
    assert [ask(page, place)[0] for place in ("/", "/state", "/") * 5] == [200] * 15
    page.publish(numbered(2), {})
    assert number_of(viewer.picture()) == 2  # who watches keeps the place
    assert len(page._server._server.server_state.connections) <= http_server.CONNECTIONS
    for connection in [*dripping, viewer]:
        connection.close()


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"POST /hidden HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n",
    ],
)
def test_a_request_has_a_deadline_as_a_whole(monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    monkeypatch.setattr(http_server, "TIMEOUT", 0.5)
    page = PageServer(0)
    began = time.monotonic()
    connection = socket.create_connection(("127.0.0.1", port_of(page)), timeout=10)
    with contextlib.closing(connection), pytest.raises(ConnectionError):
        connection.sendall(start)
        while time.monotonic() - began < 10:
            connection.sendall(b"x")
            time.sleep(0.02)
    assert 0.4 < time.monotonic() - began < 5
    page.close()


def test_a_viewer_who_takes_nothing_loses_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "TIMEOUT", 0.5)
    page = PageServer(0)
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    page.publish(noise, {})
    asleep = Viewer(page)
    assert state(page)["viewers"] == 1
    deadline = time.monotonic() + 10
    while state(page)["viewers"] and time.monotonic() < deadline:
        page.publish(noise, {})
        time.sleep(0.05)
    assert state(page)["viewers"] == 0
    asleep.close()
    page.close()


MALFORMED = [
    b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost:x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    b"GET //[x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n",
    b"A" * 100_000,
    *(
        b"POST /hidden HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %s\r\n\r\n[]"
        % value
        for value in (b"-1", b"2x", b"\xb2", b"1, 2", b"9" * 19, b"9" * 5000, b"")
    ),
    b"POST /hidden HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
]


@pytest.mark.parametrize("request_bytes", MALFORMED)
def test_malformed_requests_are_refused_without_a_word(
    page: PageServer, capfd: pytest.CaptureFixture[str], request_bytes: bytes
) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", port_of(page)), timeout=10)) as connection:
        connection.sendall(request_bytes)
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(100)
            assert answer == b"" or answer[9:12] in (b"400", b"403", b"404"), answer
    assert ask(page, "/")[0] == 200
    page.close()
    assert capfd.readouterr() == ("", "")


def test_nonsense_behind_a_request_that_is_being_answered(
    page: PageServer, capfd: pytest.CaptureFixture[str]
) -> None:
    page.publish(numbered(1), {})
    with contextlib.closing(socket.create_connection(("127.0.0.1", port_of(page)), timeout=10)) as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        connection.sendall(b"nonsense\r\n")
        with contextlib.suppress(ConnectionError):
            while connection.recv(1 << 16):
                pass
    page.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("evil.example:80", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost", 200),
        (socket.gethostname(), 200),
        ("192.0.2.7:8080", 200),
        ("[2001:db8::1]", 200),
    ],
)
def test_beyond_loopback_it_answers_to_addresses_and_its_own_names(asked: str, status: int) -> None:
    page = PageServer(0, host="0.0.0.0")
    assert ask(page, "/state", Host=asked)[0] == status
    page.close()


def test_the_state_tells_rate_latency_and_counts(page: PageServer) -> None:
    assert state(page)["rate"] == 0 and state(page)["idle"] == 0
    stats = {"latency": 0.25, "dropped": 3, "facts": {"lines": [{"in": 1, "out": 2}]}}
    for number in range(5):
        page.publish(numbered(number), {"frame": number, **stats})
        time.sleep(0.02)
    told = state(page)
    assert told["stats"] == {"frame": 4, **stats}
    assert told["source"] == "clip.mp4" and 0 < told["rate"] < 51 and 0 < told["idle"] < 30
    assert told["classes"] == [{"name": "cat", "colour": "#0102ff"}, {"name": "dog", "colour": "#808080"}]


def test_classes_are_hidden_and_shown(page: PageServer) -> None:
    kind = {"Content_Type": "application/json"}
    assert ask(page, "/hidden", method="POST", body='["dog"]', **kind)[0] == 200
    assert page.hidden == {"dog"} and state(page)["hidden"] == ["dog"]
    assert ask(page, "/hidden", method="POST", body="[]", **kind)[0] == 200
    assert page.hidden == frozenset()


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ('["bird"]', "application/json", "expected a list of class names, out of cat, dog"),
        ('{"cat": 1}', "application/json", "expected a list of class names"),
        ("[1]", "application/json", "expected a list of class names"),
        ("no json", "application/json", "Expecting value"),
        ("[" * 60_000, "application/json", ""),
        ("[]", "text/plain", "expected JSON"),
        ("[" + " " * 70_000 + "]", "application/json", "expected JSON of at most 65536 bytes"),
    ],
)
def test_other_toggles_are_refused(page: PageServer, body: str, kind: str, words: str) -> None:
    status, answer, _ = ask(page, "/hidden", method="POST", body=body, Content_Type=kind)
    assert status == 400 and words in answer.decode() and page.hidden == frozenset()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "evil.example"),
        ("Host", "evil.example:80"),
        ("Sec_Fetch_Site", "cross-site"),
        ("Sec_Fetch_Site", "same-site"),
    ],
)
def test_other_sites_get_nothing_through_a_viewers_browser(page: PageServer, name: str, value: str) -> None:
    headers = {name: value}
    for path in ("/", "/state", "/stream"):
        assert ask(page, path, **headers)[0] == 403
    assert (
        ask(page, "/hidden", method="POST", body='["cat"]', Content_Type="application/json", **headers)[0]
        == 403
    )
    assert page.hidden == frozenset()


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:99"])
def test_this_machine_has_several_names(page: PageServer, host: str) -> None:
    assert ask(page, "/state", Host=host, Sec_Fetch_Site="same-origin")[0] == 200


def test_a_port_that_is_taken_or_no_port_and_a_host_that_is_none(page: PageServer) -> None:
    port = port_of(page)
    with pytest.raises(
        ValueError, match=rf"--serve {port}: this port of 127\.0\.0\.1 is taken; choose another, or 0"
    ):
        PageServer(port)
    for wrong in (-1, 65536):
        with pytest.raises(
            ValueError, match=f"--serve {wrong}: a port is a number from 1 to 65535, or 0 for any free one"
        ):
            PageServer(wrong)
    with pytest.raises(ValueError, match=r"--serve-host 203\.0\.113\.9: this is no address of this machine"):
        PageServer(0, host="203.0.113.9")


def test_closing_twice_and_a_free_port_afterwards() -> None:
    first = PageServer(0)
    first.close()
    first.close()
    second = PageServer(port_of(first))
    second.close()


def test_closing_waits_for_nobody() -> None:
    page = PageServer(0)
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    page.publish(noise, {})
    asleep = Viewer(page)
    dripping = [socket.create_connection(("127.0.0.1", port_of(page)), timeout=10) for _ in range(20)]
    for _ in range(5):
        page.publish(noise, {})
        time.sleep(0.05)
    start = time.monotonic()
    page.close()
    assert time.monotonic() - start < 2  # 10 s, if it waited for who takes nothing
    for connection in [asleep, *dripping]:
        connection.close()


def test_the_stream_is_one_that_others_can_read(page: PageServer) -> None:
    def show() -> None:
        for number in range(400):
            page.publish(numbered(number % 60), {})
            time.sleep(0.01)
            if stopped.is_set():
                return

    stopped = threading.Event()
    thread = threading.Thread(target=show)
    thread.start()
    source = LiveSource(lambda: StreamConnection(f"{page.url}stream"), name="x", where="x", reconnect=0)
    numbers = [number_of(frame.image) for frame, _ in zip(source, range(10))]
    source.stop()
    stopped.set()
    thread.join()
    assert len(numbers) == 10 and len(set(numbers)) > 5
