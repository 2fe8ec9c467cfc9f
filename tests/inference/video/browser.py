"""A real browser without a window, driven over the DevTools protocol through a pair of pipes."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from typing import Any

import cv2
import numpy as np
import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _pipes(reading: int, writing: int) -> None:
    """In the browser's process: commands come at file descriptor 3, answers go to 4."""
    reading, writing = os.dup(reading), os.dup(writing)  # neither is 3 or 4 now by chance
    os.dup2(reading, 3)
    os.dup2(writing, 4)


class Browser:
    """One page; a context manager. Skips the test where no browser is installed."""

    def __init__(self, size: tuple[int, int] = (900, 700)) -> None:
        program = next(filter(None, map(shutil.which, _NAMES)), None)
        if program is None:
            pytest.skip(
                f"no browser is installed (one of {', '.join(_NAMES)}; on Debian: apt-get install chromium)"
            )
        self._home = tempfile.TemporaryDirectory()
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
        ]
        options += [
            f"--window-size={size[0]},{size[1]}",
            f"--user-data-dir={self._home.name}",
            "--disable-background-networking",
        ]
        self._process = subprocess.Popen(
            [program, *options, "about:blank"],
            preexec_fn=lambda: _pipes(commands, answers),
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._numbers, self._rest = itertools.count(1), b""
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})[
            "sessionId"
        ]
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._home.cleanup()

    def open(self, url: str) -> None:
        self._call("Page.navigate", {"url": url})
        self.wait_for(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self._call(
            "Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True}
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 30) -> Any:
        """Waits until the expression is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, (
                f"not true within {seconds} s: {script}; problems: {self.problems}"
            )
            time.sleep(0.1)
        return value

    def screenshot(self) -> tuple[np.ndarray, bytes]:
        """The page as (H, W, 3) RGB, and as a PNG file's bytes."""
        data = base64.b64decode(self._call("Page.captureScreenshot", {"format": "png"})["data"])
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), data

    def _call(
        self, method: str, parameters: dict[str, Any] | None = None, seconds: float = 60
    ) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters or {}}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + seconds
        while True:
            answer = self._next(deadline)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.problems.append(json.dumps(answer["params"]))

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._read, 1 << 20) if ready else b""
            assert data, "the browser does not answer"
            self._rest += data
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)
