"""Runs that show their frames, on a page or in a window."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.fake_model import Backend, save_picture
from tests.inference.video.clips import write_numbered
from tests.inference.video.stream_server import StreamServer
from vistasks.inference.images import infer, print_summary
from vistasks.inference.predictor import Predictor
from vistasks.inference.video.options import InferOptions
from vistasks.types import Prediction


class Slow(Backend):
    """Predicts until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def predict(self, batch: list[np.ndarray]) -> list[Prediction]:
        self.go.wait(0.02)
        return super().predict(batch)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def test_a_run_can_be_watched_without_any_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = write_numbered(tmp_path / "clip.mp4", [i / 25 for i in range(50)])
    backend, seen = Slow(), {}

    def watch() -> None:
        deadline = time.monotonic() + 30
        shown = ""
        while not (found := re.search(r"watch it at (\S+)", shown)) and time.monotonic() < deadline:
            time.sleep(0.01)
            shown += capsys.readouterr().out
        assert found
        while not seen.get("state", {}).get("stats") and time.monotonic() < deadline:
            seen["state"] = json.loads(get(f"{found[1]}state"))
        seen["page"] = get(found[1])
        backend.go.set()

    viewer = threading.Thread(target=watch)
    viewer.start()
    summary = infer(Predictor(backend), clip, None, options=InferOptions(serve=0, track=True), progress=False)
    viewer.join()
    assert summary.pictures == 50 and [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    assert b"<html" in seen["page"] and seen["state"]["source"] == str(clip)
    assert [entry["name"] for entry in seen["state"]["classes"]] == ["cat", "dog"]
    assert {"frame", "rate", "latency", "dropped", "reconnects", "facts"} <= set(seen["state"]["stats"])
    assert print_summary(summary, None) == 0
    assert capsys.readouterr().out.startswith("50 frames, 50 detections\n")


def test_a_viewer_may_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Impatient:
        needs_main_thread, hidden = True, frozenset({"cat"})
        closed = False

        def __init__(self, title: str) -> None:
            self.title, self.seen = title, 0
            windows.append(self)

        def publish(self, image: np.ndarray, stats: dict[str, object]) -> bool:
            assert threading.current_thread() is threading.main_thread()
            self.seen += 1
            return self.seen < 3

        def close(self) -> None:
            self.closed = True

    windows: list[Impatient] = []
    monkeypatch.setattr("vistasks.inference.video.window.Window", Impatient)
    clip = write_numbered(tmp_path / "clip.mp4", [i / 25 for i in range(59)])
    summary = infer(
        Predictor(Backend()), clip, tmp_path / "out", options=InferOptions(show=True), progress=False
    )
    assert 3 <= summary.pictures < 59 and summary.video.stopped == "viewer"
    assert windows[0].title == f"vistasks: {clip}" and windows[0].closed


def test_a_port_that_is_taken_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    clip = write_numbered(tmp_path / "clip.mp4", [0])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = InferOptions(serve=taken.getsockname()[1])
        with pytest.raises(ValueError, match=r"--serve \d+: this port of 127\.0\.0\.1 is taken"):
            infer(Predictor(Backend()), clip, tmp_path / "out", options=options, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (InferOptions(), "only with --show or --serve it may be left out"),
        (InferOptions(serve=0, crop=True, masks="png"), "--crop, --masks need it"),
    ],
)
def test_without_output_there_must_be_a_viewer_and_nothing_to_write(
    tmp_path: Path, options: InferOptions, words: str
) -> None:
    clip = write_numbered(tmp_path / "clip.mp4", [0])
    with pytest.raises(ValueError, match=f"--output is missing, the folder for the results; {words}"):
        infer(Predictor(Backend()), clip, None, options=options, progress=False)


@pytest.mark.parametrize(
    ("options", "name"),
    [(InferOptions(show=True), "--show"), (InferOptions(serve=0), "--serve"), (InferOptions(track=True), "--track"),
     (InferOptions(line=["0,0,1,1"]), "--line")],
)  # fmt: skip
def test_pictures_are_neither_tracked_nor_shown(tmp_path: Path, options: InferOptions, name: str) -> None:
    save_picture(tmp_path / "in" / "a.png")
    for output in (tmp_path / "out", None) if name in ("--show", "--serve") else (tmp_path / "out",):
        with pytest.raises(
            ValueError, match=f"{name}: .*in means images, not a video; give a video, a camera's number or"
        ):
            infer(Predictor(Backend()), tmp_path / "in", output, options=options, progress=False)
    with pytest.raises(ValueError, match="no such file or folder"):
        infer(Predictor(Backend()), tmp_path / "missing", tmp_path / "out", options=options, progress=False)


def test_lost_connections_are_told_while_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StreamServer(rate=100, frames=40) as server:  # which hangs up after 40 frames
        backend = Backend()
        summary = infer(
            Predictor(backend), server.url, tmp_path, options=InferOptions(reconnect=0, video=False)
        )
    shown = capsys.readouterr().err
    assert re.search(r"live: connection lost \(.*broke off\)", shown.replace("\n", " "))
    assert 38 <= summary.pictures + summary.video.dropped <= 40 and summary.pictures >= 1
    assert summary.warnings == [
        f"{server.url}: the connection was lost: the address is not known, or the connection broke off"
    ]
