from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vistasks.inference.video import window
from vistasks.inference.video.window import Window, check_display

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.skipif(sys.platform != "linux", reason="only X11 and Wayland name their displays")
def test_without_a_display_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(
        ValueError, match=r"--show: there is no display here .*; without a screen, --serve 8080 shows"
    ):
        Window("x")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import os; os.abort()", "no window can be opened on the display :77"),
        (
            "import sys; sys.exit('The function is not implemented. Rebuild')",
            "this OpenCV is built without windows",
        ),
    ],
)
def test_a_display_that_does_not_work_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setattr(window, "_TRIAL", script)
    with pytest.raises(ValueError, match=words):
        check_display()


def test_a_display_that_does_not_answer_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("python", 60)

    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setattr(window.subprocess, "run", hang)
    with pytest.raises(ValueError, match="the display does not answer"):
        check_display()


@pytest.fixture
def display() -> Iterator[str]:
    """A screen without a screen."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (on Debian: apt-get install xvfb)")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as numbers:
        yield f":{numbers.readline().strip()}"
    server.terminate()
    server.wait()


_SHOWN = """
import cv2, numpy as np, sys
from vistasks.inference.video.window import Window
window = Window("an image")
image = np.full((120, 160, 3), (200, 30, 30), np.uint8)
shown = [window.publish(image, {}) for _ in range(5)]
cv2.destroyWindow("an image")  # as the viewer does it
closed = window.publish(image, {})
window.close()
print(shown == [True] * 5 and closed is False)
"""


@pytest.mark.slow
def test_a_real_window_shows_pictures_and_closing_it_ends_the_run(display: str) -> None:
    environment = {**os.environ, "DISPLAY": display, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _SHOWN]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.stdout.strip() == "True", run.stderr
    assert "QFontDatabase" not in run.stderr


@pytest.mark.parametrize(("key", "goes_on"), [(-1, True), (ord("x"), True), (ord("q"), False), (27, False)])
def test_keys_end_the_run(monkeypatch: pytest.MonkeyPatch, key: int, goes_on: bool) -> None:
    monkeypatch.setattr(window, "check_display", lambda: None)
    shown: list[object] = []
    for name, found in [("namedWindow", 0), ("resizeWindow", 0), ("waitKey", key), ("destroyWindow", 0)]:
        monkeypatch.setattr(window.cv2, name, lambda *_, found=found: found)
    monkeypatch.setattr(
        window.cv2, "imshow", lambda title, image: shown.append((title, image[0, 0].tolist()))
    )
    viewer = Window("x")
    assert viewer.publish(np.full((2, 2, 3), (200, 0, 1), np.uint8), {}) is goes_on
    assert shown == [("x", [1, 0, 200])]  # OpenCV wants blue first
    viewer.close()
