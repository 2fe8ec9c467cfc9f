"""Other libraries' selective search, run under another interpreter: to compare with, and as a proposal
method.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vistasks.proposals import peer_process
from vistasks.proposals.methods import clipped
from vistasks.registry import PROPOSALS
from vistasks.types import Sample

INSTALL = "pip install opencv-contrib-python dlib-bin numpy"


class Peers:
    """The other interpreter with the libraries that we compare with; a context manager."""

    def __init__(self, python: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [python, peer_process.__file__]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        except OSError as error:
            self._folder.cleanup()
            raise ValueError(
                f"{python}: cannot be run ({error}); expected a Python with: {INSTALL}"
            ) from error
        self.python = python

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the other interpreter."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait(timeout=60)
        if self._process.stdout:
            self._process.stdout.close()
        self._folder.cleanup()

    def __call__(self, method: str, image: np.ndarray, threads: int) -> tuple[np.ndarray, float, float]:
        """Boxes (N, 4) float32, wall seconds and processor seconds of "opencv fast", "opencv quality",
        "dlib", ...
        """
        picture, boxes = (Path(self._folder.name) / name for name in ("picture.npy", "boxes.npy"))
        np.save(picture, image)
        task = {"method": method, "picture": str(picture), "boxes": str(boxes), "threads": threads}
        reply: dict[str, Any] = {"error": "it ended"}
        if self._process.stdin and self._process.stdout and self._process.poll() is None:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
            reply = json.loads(self._process.stdout.readline() or '{"error": "it ended"}')
        if "error" in reply:
            raise ValueError(f"{self.python}: {method}: {reply['error']}; expected a Python with: {INSTALL}")
        return np.load(boxes), reply["seconds"], reply["cpu_seconds"]


@PROPOSALS.register("peer")
class PeerProposals:
    """OpenCV contrib's or dlib's selective search as a proposal method, to see what the choice does to a
    detector.

    Args:
        python: an interpreter with opencv-contrib-python or dlib-bin; it is needed only for pictures that no
            cache knows.
        method: "opencv single", "opencv fast", "opencv quality" or "dlib".
        max_boxes: keep only the first so many.
    """

    within_detector = False

    def __init__(
        self,
        python: str,
        *,
        method: Literal["opencv single", "opencv fast", "opencv quality", "dlib"] = "opencv fast",
        max_boxes: int | None = 2000,
    ) -> None:
        self.python, self.method, self.max_boxes = python, method, max_boxes
        self.key: str | None = f"peer-1 {method} max_boxes={max_boxes}"
        self._peers: Peers | None = None
        self._one_at_a_time = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_peers": None, "_one_at_a_time": None}  # a data worker starts its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({**state, "_one_at_a_time": threading.Lock()})

    def close(self) -> None:
        """Ends the other interpreter, if it was started."""
        if self._peers is not None:
            self._peers.close()
            self._peers = None

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32 boxes, in the library's order."""
        with self._one_at_a_time:
            self._peers = self._peers or Peers(self.python)
            boxes = self._peers(self.method, sample.image, threads=1)[0]
        return clipped(boxes, *sample.size)[: self.max_boxes]
