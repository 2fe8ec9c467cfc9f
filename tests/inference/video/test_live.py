from __future__ import annotations

import functools
import http.server
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.fake_model import Backend
from tests.inference.video.clips import number_of, numbered, write_numbered
from tests.inference.video.rtsp_server import RtspServer
from tests.inference.video.stream_server import StreamServer
from vistasks.inference.images import infer
from vistasks.inference.predictor import Predictor
from vistasks.inference.sources import Live
from vistasks.inference.video.connections import (
    CameraConnection,
    LostError,
    RawPicture,
    StreamConnection,
    without_password,
)
from vistasks.inference.video.live import LiveSource, RecordedStream, open_live
from vistasks.inference.video.options import InferOptions
from vistasks.inference.video.reader import VideoReader


class Pictures:
    """A connection that gives these pictures (numbers), one whenever ``ready`` says so, and then breaks or
    ends.
    """

    rate, recording = Fraction(25), False

    def __init__(
        self, numbers: list[int], *, breaks: bool = True, ready: Callable[[], None] = lambda: None
    ) -> None:
        self.numbers, self.breaks, self.ready, self.closed = numbers, breaks, ready, False

    def __iter__(self) -> Iterator[RawPicture]:
        for number in self.numbers:
            self.ready()
            yield RawPicture(lambda number=number: numbered(number))
        if self.breaks:
            raise LostError("it broke")

    def close(self) -> None:
        self.closed = True


def source_of(
    *connections: Pictures | LostError, reconnect: float = 0.2, told: list[str] | None = None
) -> LiveSource:
    remaining = iter(connections)

    def connect() -> Pictures:
        connection = next(remaining, LostError("nobody there"))
        if isinstance(connection, LostError):
            raise connection
        return connection

    told = [] if told is None else told
    return LiveSource(connect, name="x", where="rtsp://x", reconnect=reconnect, pause=0.01, tell=told.append)


def in_step(numbers: list[int], taken: threading.Semaphore, **options: bool) -> Pictures:
    """Gives the next picture when the last one has been taken."""
    return Pictures(numbers, ready=lambda: taken.acquire(timeout=10) or None, **options)


def taken_one_by_one(source: LiveSource, taken: threading.Semaphore) -> list[int]:
    numbers = []
    taken.release()
    for frame in source:
        numbers.append(number_of(frame.image))
        taken.release()
    return numbers


def test_a_lost_connection_is_taken_up_again_and_counted() -> None:
    taken = threading.Semaphore(0)
    parts = [in_step([1, 2], taken), in_step([3], taken, breaks=False), in_step([4, 5], taken)]
    not_yet, told = LostError("not yet"), []
    source = source_of(parts[0], not_yet, parts[1], not_yet, not_yet, parts[2], told=told)
    # the pictures' permits outlive a connection: the first of each has one already
    numbers = taken_one_by_one(source, taken)
    assert numbers == [1, 2, 3, 4, 5] and source.reconnects == 2 and source.dropped == 0
    assert all(part.closed for part in parts)
    assert [re.sub(r"\d+\.\d", "T", words) for words in told] == [
        "rtsp://x: connection lost (it broke); reconnecting",
        "rtsp://x: frames again after T s (reconnection 1)",
        "rtsp://x: connection lost (the stream ended); reconnecting",
        "rtsp://x: frames again after T s (reconnection 2)",
        "rtsp://x: connection lost (it broke); reconnecting",
    ]
    assert source.warnings == [
        "rtsp://x: the connection was lost and taken up again 2 times",
        "rtsp://x: the connection was lost and did not come back within 0.2 seconds: nobody there",
    ]


def test_a_status_says_what_is_waited_for() -> None:
    source = source_of(Pictures([1]), *[LostError("not yet")] * 9, reconnect=30)
    frames = iter(source)
    next(frames)
    deadline = time.monotonic() + 10
    while "attempt 3" not in source.status and time.monotonic() < deadline:
        time.sleep(0.005)
    assert re.fullmatch(r"connection lost \(not yet\), attempt \d", source.status)
    source.stop()
    assert next(frames, None) is None


def test_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("vistasks.inference.video.live.time.sleep", slept.append)
    clock = itertools.count()
    monkeypatch.setattr(
        "vistasks.inference.video.live.time.monotonic", lambda: sum(slept) + next(clock) * 1e-6
    )
    source = LiveSource(lambda: Pictures([1]), name="x", where="x", reconnect=60, pause=0.5)
    waits = []
    for attempt in range(7):
        before = sum(slept)
        assert source._wait("why", lost=before, attempt=attempt)
        waits.append(round(sum(slept) - before, 2))
    assert waits == [0.5, 1, 2, 4, 8, 10, 10]


def test_old_frames_are_dropped_and_counted_unconverted() -> None:
    converted: list[int] = []
    go = threading.Event()

    class Burst(Pictures):
        def __iter__(self) -> Iterator[RawPicture]:
            yield RawPicture(lambda: numbered(0))
            go.wait(10)
            for number in range(1, 31):
                yield RawPicture(lambda number=number: (converted.append(number), numbered(number))[1])
            time.sleep(0.3)

    source = source_of(Burst([]), reconnect=0)
    frames = iter(source)
    assert number_of(next(frames).image) == 0
    go.set()
    deadline = time.monotonic() + 10
    while source.dropped < 29 and time.monotonic() < deadline:
        time.sleep(0.005)
    newest = next(frames)
    assert (number_of(newest.image), newest.number, source.dropped, converted) == (30, 1, 29, [30])


def test_times_are_those_of_arrival() -> None:
    source = source_of(Pictures([1, 2, 3], ready=lambda: time.sleep(0.05)), reconnect=0)
    seconds = [frame.seconds for frame in source]
    assert seconds[0] == 0 and all(later > earlier for earlier, later in itertools.pairwise(seconds))


def test_a_change_of_size_is_told() -> None:
    class Growing(Pictures):
        def __iter__(self) -> Iterator[RawPicture]:
            for side in (48, 48, 96):
                time.sleep(0.1)
                yield RawPicture(lambda side=side: numbered(1, side, 2 * side))

    source = source_of(Growing([]), reconnect=0)
    assert [frame.image.shape[0] for frame in source] == [48, 48, 96]
    assert source.warnings[0] == "rtsp://x: the frame size changed from 96x48 to 192x96 at frame 2"


def test_stopping_ends_a_source_that_waits() -> None:
    never = threading.Event()
    source = source_of(Pictures([1, 2], ready=lambda: never.wait(30) and None))
    threading.Timer(0.1, source.stop).start()
    start = time.monotonic()
    assert list(source) == [] and time.monotonic() - start < 10
    never.set()


def test_errors_of_the_reader_are_raised() -> None:
    class Broken(Pictures):
        def __iter__(self) -> Iterator[RawPicture]:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(source_of(Broken([])))


def test_a_connection_without_a_picture_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"rtsp://x: .*; the connection was lost: it broke"):
        list(source_of(Pictures([]), reconnect=0))
    with pytest.raises(ValueError, match="rtsp://x: nobody there"):
        source_of()


class ServerProcess:
    """`StreamServer` in a process that is killed with kill -9."""

    def __init__(self, port: int = 0) -> None:
        command = [sys.executable, "-m", "tests.inference.video.stream_server", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/live"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Restarted(threading.Thread):
    """Kills and restarts a server whenever the run has written some frames more, three times, and ends the
    run as Ctrl-C does.
    """

    def __init__(self, server: StreamServer | ServerProcess, written: Callable[[], int]) -> None:
        super().__init__(daemon=True)
        self.server, self.written, self.restarts = server, written, 0

    def run(self) -> None:
        for life in range(4):
            target, deadline = self.written() + 10, time.monotonic() + 60
            while self.written() < target and time.monotonic() < deadline:
                time.sleep(0.01)
            if life < 3:
                self.server.kill()
                self.server = type(self.server)(self.server.port)
                self.restarts += 1
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("kind", [StreamServer, pytest.param(ServerProcess, marks=pytest.mark.slow)])
def test_a_run_goes_on_while_its_server_is_killed_and_restarted_three_times(
    kind: type[StreamServer | ServerProcess], tmp_path: Path
) -> None:
    backend = Backend()
    chaos = Restarted(kind(), lambda: backend.proposed)
    chaos.start()
    summary = infer(
        Predictor(backend), chaos.server.url, tmp_path, progress=False, options=InferOptions(reconnect=60)
    )
    chaos.join()
    chaos.server.kill()
    assert chaos.restarts == 3 and summary.video.stopped == "SIGINT" and summary.pictures >= 40
    assert summary.warnings[0].endswith("/live: the connection was lost and taken up again 3 times")
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    frames = list(VideoReader(tmp_path / "127.0.0.1_live.mp4"))
    assert len(lines) == len(frames) == summary.pictures
    assert [line["frame"] for line in lines] == list(range(summary.pictures))
    np.testing.assert_allclose(
        [frame.seconds for frame in frames], [line["seconds"] for line in lines], atol=1e-3
    )
    pauses = np.diff([frame.seconds for frame in frames])
    assert (pauses > 0).all()


def test_a_camera_that_speaks_rtsp_is_read_and_comes_back() -> None:
    server = RtspServer()
    source = open_live(Live(server.url, None), reconnect=30)
    assert source.live and source.name == "127.0.0.1_live"
    numbers = []
    for frame in source:
        numbers.append(number_of(frame.image))
        if len(numbers) == 10:
            server.kill()
            server = RtspServer(server.port)
        elif len(numbers) == 20:
            source.stop()
    server.kill()
    assert source.reconnects == 1 and frame.image.shape == (48, 64, 3) and len(set(numbers)) > 10


def test_the_picture_may_come_back_in_another_size() -> None:
    with StreamServer(rate=100) as server:
        source = LiveSource(
            functools.partial(StreamConnection, server.url), name="x", where="x", reconnect=30, pause=0.05
        )
        frames = iter(source)
        assert next(frames).image.shape == (48, 64, 3)
        server.kill()
        with StreamServer(server.port, rate=100, size=(64, 48)):
            assert any(frame.image.shape == (64, 48, 3) for frame in itertools.islice(frames, 100))
            frames.close()
    assert "changed from 64x48 to 48x64" in source.warnings[1]


def test_a_stalled_server_counts_as_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(LostError, match=r"no answer within 0\.2 seconds"):
            StreamConnection(where, timeout=0.2)


def test_an_address_that_refuses_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for scheme in ("http", "rtsp"):
        with pytest.raises(
            ValueError, match=f"{scheme}://me:\\*\\*\\*@127.0.0.1:{port}/x: Connection refused"
        ):
            open_live(Live(f"{scheme}://me:secret@127.0.0.1:{port}/x", None))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server over ``tmp_path``."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_page_is_no_stream(tmp_path: Path, web: str) -> None:
    (tmp_path / "page.html").write_text("<p>this is no video</p>\n" * 50)
    (tmp_path / "picture.png").write_bytes(cv2.imencode(".png", numbered(1))[1].tobytes())
    with pytest.raises(
        ValueError, match=r"page\.html: what comes from there is not a video that FFmpeg can read"
    ):
        open_live(Live(f"{web}/page.html", None))
    with pytest.raises(ValueError, match=r"picture\.png: there is no video at this address"):
        open_live(Live(f"{web}/picture.png", None))
    with pytest.raises(ValueError, match=r"missing\.mp4: .*404"):
        open_live(Live(f"{web}/missing.mp4", None))


def test_a_playlist_of_an_address_reads_no_file_of_this_machine(tmp_path: Path, web: str) -> None:
    clip = write_numbered(tmp_path / "clip.mp4", [0, 0.04])
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{clip}\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(ValueError, match=r"list\.m3u8"):
        list(open_live(Live(f"{web}/list.m3u8", None)))


def test_a_served_file_is_read_whole(tmp_path: Path, web: str) -> None:
    write_numbered(tmp_path / "clip.mp4", [i / 25 for i in range(30)])
    source = open_live(Live(f"{web}/clip.mp4", None))
    assert isinstance(source, RecordedStream) and not source.live and source.name == "127.0.0.1_clip"
    frames = [(frame.number, number_of(frame.image), round(frame.seconds, 3)) for frame in source]
    assert (
        frames == [(i, i, round(i / 25, 3)) for i in range(30)]
        and source.dropped == 0
        and source.warnings == []
    )


def test_a_served_file_that_breaks_off_is_read_to_there() -> None:
    source = RecordedStream(Pictures([1, 2]), name="x", where="http://x/a.mp4")
    assert [number_of(frame.image) for frame in source] == [1, 2]
    assert source.warnings == ["http://x/a.mp4: the connection was lost after 2 frames: it broke"]
    with pytest.raises(ValueError, match="no frame of this video can be decoded"):
        list(RecordedStream(Pictures([], breaks=False), name="x", where="http://x/a.mp4"))


def test_a_served_file_can_be_stopped() -> None:
    connection = Pictures([1, 2, 3])
    source = RecordedStream(connection, name="x", where="x")
    frames = iter(source)
    next(frames)
    source.stop()
    assert next(frames, None) is None and connection.closed


def test_a_camera_that_does_not_exist_is_one_clear_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ValueError, match=r"^camera 97: (there is no such camera|the camera cannot be opened)"
    ):
        open_live(Live("97", 97))
    assert capfd.readouterr() == ("", "")  # OpenCV would print a screen full


def test_what_is_said_of_a_missing_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    from vistasks.inference.video import connections

    devices = [Path("/dev/video0"), Path("/dev/video10"), Path("/dev/video2"), Path("/dev/video-x")]
    monkeypatch.setattr(connections.sys, "platform", "linux")
    assert connections._no_camera(1, devices) == "there is no such camera; this machine has 0, 2, 10"
    assert connections._no_camera(1, []) == "there is no such camera; no camera is connected to this machine"
    assert "another program may be using it, or /dev/video2 may not be read by you" in connections._no_camera(
        2, devices
    )
    monkeypatch.setattr(connections.sys, "platform", "darwin")
    assert connections._no_camera(1, []) == "there is no such camera, or it may not be used by this program"


def test_a_camera_gives_rgb_pictures_until_it_is_unplugged(tmp_path: Path) -> None:
    clip = str(
        write_numbered(tmp_path / "clip.mp4", [0, 0.04, 0.08])
    )  # OpenCV reads a file as it reads a camera
    connection = CameraConnection(0, capture=lambda index: cv2.VideoCapture(clip))
    assert connection.rate == 25 and not connection.recording
    pictures = iter(connection)
    assert [number_of(next(pictures).image()) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LostError, match="unplugged"):
        next(pictures)
    connection.close()

    class Red:
        isOpened = staticmethod(lambda: True)
        get = staticmethod(lambda what: 0.0)
        read = staticmethod(lambda: (True, np.full((2, 2, 3), (0, 0, 200), np.uint8)))

    red = CameraConnection(0, capture=lambda index: Red())
    assert next(iter(red)).image()[0, 0].tolist() == [200, 0, 0] and red.rate == 25


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match=r"ftp://x/y: .*rtsp://, "):
        open_live(Live("ftp://x/y", None))
    with pytest.raises(
        ValueError, match=r"--reconnect must be 0 or more seconds \(inf: for ever\); received -1"
    ):
        InferOptions(reconnect=-1)


def test_passwords_are_not_shown() -> None:
    assert without_password("rtsp://me:a@b@host:554/x?y=1") == "rtsp://me:***@host:554/x?y=1"
    assert without_password("http://me@host/x") == "http://me@host/x"
