"""Runs OpenCV contrib's and dlib's selective search for `vistasks.proposals.peers`, under another
interpreter.

It imports nothing of vistasks: the contrib wheel and opencv-python share one folder, so the peers live in an
environment of their own (``pip install opencv-contrib-python dlib-bin numpy``). One json line in, {"method",
"picture": .npy of (H, W, 3) uint8 RGB, "boxes": .npy to write, "threads"}; one out, {"seconds",
"cpu_seconds"} or {"error"}."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np


def opencv(image: np.ndarray, mode: str, threads: int) -> np.ndarray:
    """(N, 4) x1, y1, x2, y2 of cv2.ximgproc's selective search."""
    import cv2

    cv2.setNumThreads(threads)
    library: Any = cv2
    search = library.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    start = {
        "single": "switchToSingleStrategy",
        "fast": "switchToSelectiveSearchFast",
        "quality": "switchToSelectiveSearchQuality",
    }
    getattr(search, start[mode])()
    boxes = np.asarray(search.process(), dtype=np.float32).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def dlib(image: np.ndarray) -> np.ndarray:
    """(N, 4) x1, y1, x2, y2 of dlib's find_candidate_object_locations with its defaults."""
    import dlib as library

    found: list[Any] = []
    library.find_candidate_object_locations(image, found)
    return np.array(
        [[r.left(), r.top(), r.right() + 1, r.bottom() + 1] for r in found], dtype=np.float32
    ).reshape(-1, 4)


def answer(task: dict[str, Any]) -> dict[str, Any]:
    """Does one task; see the module."""
    image = np.load(task["picture"])
    wall, cpu = time.perf_counter(), time.process_time()
    library, _, mode = task["method"].partition(" ")
    boxes = dlib(image) if library == "dlib" else opencv(image, mode, task["threads"])
    result = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    np.save(task["boxes"], boxes)
    return result


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # the asking process decides what to do about it
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)
