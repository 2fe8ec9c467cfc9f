"""Our selective search against OpenCV contrib's and dlib's, on the same pictures in one run."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vistasks.benchmarks import selective_search_peer
from vistasks.datasets import Dataset, load_dataset
from vistasks.proposals import selective_search
from vistasks.proposals.recall import ProposalRecall
from vistasks.proposals.selective_search import MODES
from vistasks.types import Sample

BUDGETS = (300, 1000, 2000)
INSTALL = "pip install opencv-contrib-python dlib-bin numpy"


class Peers:
    """The other interpreter with the libraries that we compare with; a context manager."""

    def __init__(self, python: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [python, selective_search_peer.__file__]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        except OSError as error:
            self._folder.cleanup()
            raise ValueError(f"--peer-python {python}: cannot be run ({error}); expected a Python with: {INSTALL}") from error
        self.python = python

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait(timeout=60)
        if self._process.stdout:
            self._process.stdout.close()
        self._folder.cleanup()

    def __call__(self, method: str, image: np.ndarray, threads: int) -> tuple[np.ndarray, float, float]:
        """Boxes (N, 4) float32, wall seconds and processor seconds of "opencv fast", "opencv quality", "dlib", ..."""
        picture, boxes = (Path(self._folder.name) / name for name in ("picture.npy", "boxes.npy"))
        np.save(picture, image)
        task = {"method": method, "picture": str(picture), "boxes": str(boxes), "threads": threads}
        reply: dict[str, Any] = {"error": "it ended"}
        if self._process.stdin and self._process.stdout and self._process.poll() is None:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
            reply = json.loads(self._process.stdout.readline() or '{"error": "it ended"}')
        if "error" in reply:
            raise ValueError(f"--peer-python {self.python}: {method}: {reply['error']}; expected a Python with: {INSTALL}")
        return np.load(boxes), reply["seconds"], reply["cpu_seconds"]


def _ours(mode: Any, image: np.ndarray, threads: int) -> tuple[np.ndarray, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    boxes = selective_search(image, mode, threads=threads)
    return boxes, time.perf_counter() - wall, time.process_time() - cpu


def _dataset(data: Path, split: str) -> Dataset:
    """One split of the VOC or COCO data set in a folder."""
    if not (data / "Annotations").is_dir() and not (data / "annotations").is_dir():
        raise ValueError(f"{data}: expected a data set with Annotations/*.xml (VOC) or annotations/instances_*.json (COCO)")
    form = "voc" if (data / "Annotations").is_dir() else "coco"
    listed = form == "coco" or (data / "ImageSets").is_dir()  # a bare folder of xml beside images has no splits
    options = {"format": form, "root": str(data), "bad_boxes": "drop", **({"split": split} if listed else {})}
    return load_dataset(options, where="--data")


class _Row:
    """What is known of one method with one number of threads."""

    def __init__(self, method: str, threads: int, classes: tuple[str, ...]) -> None:
        self.method, self.threads = method, threads
        self.recall = ProposalRecall(classes, BUDGETS)
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def update(self, sample: Sample, peers: Peers | None) -> None:
        if self.method.startswith("vistasks"):
            found = _ours(self.method.split()[1], sample.image, self.threads)
        elif peers:
            found = peers(self.method, sample.image, self.threads)
        self.recall.update(sample, found[0])
        self.seconds.append(found[1])
        self.cpu_seconds.append(found[2])

    def result(self) -> dict[str, Any]:
        numbers = self.recall.compute()
        seconds, cpu = float(np.mean(self.seconds)), float(np.mean(self.cpu_seconds))
        judged = {"method": self.method, "threads": self.threads, "seconds": seconds, "cpu_seconds": cpu}
        return {**judged, "boxes": numbers["boxes"], "abo": numbers["abo"], "budgets": numbers["budgets"]}


def benchmark(
    data: Path,
    *,
    peer_python: str | None = None,
    split: str = "val",
    pictures: int = 25,
    modes: Sequence[str] = ("fast",),
    threads: Sequence[int] = (1,),
) -> dict[str, Any]:
    """Times and judges every method on the same pictures, taken in turns, so that a busy machine is busy for all.

    Args:
        data: a VOC or COCO data set's folder.
        peer_python: an interpreter with opencv-contrib-python and dlib-bin; None: ours alone.
        split: the data set's part.
        pictures: so many, evenly spread over the data set.
        modes: of ours and of OpenCV; dlib has none.
        threads: numbers of threads; dlib always takes one.

    Returns: "rows", one a method and number of threads, with "seconds" (wall) and "cpu_seconds" (processor time) a picture
    and the numbers of `ProposalRecall` for 300, 1,000, 2,000 and all boxes; "ratios", their seconds over those of our row
    with the same mode and threads (dlib over fast); "data", "split", "pictures", "objects".
    """
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or pictures < 1 or not modes or not threads or min(threads) < 1:
        raise ValueError(
            f"selective search benchmark: expected modes of {', '.join(MODES)}, pictures and threads of at least 1, "
            f"not {list(modes)}, {pictures} and {list(threads)}"
        )
    dataset = _dataset(data, split)
    rows = [_Row(f"vistasks {mode}", n, dataset.classes.detection) for mode in modes for n in threads]
    if peer_python:
        rows += [_Row(f"opencv {mode}", n, dataset.classes.detection) for mode in modes for n in threads]
        rows.append(_Row("dlib", 1, dataset.classes.detection))
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(pictures, len(dataset))).astype(int))
    for mode in modes:
        _ours(mode, np.zeros((8, 8, 3), np.uint8), 1)  # compiles, which is not measured
    peers = Peers(peer_python) if peer_python else None
    try:
        for index in chosen.tolist():
            sample = dataset[index]
            for row in rows:
                row.update(sample, peers)
    finally:
        if peers:
            peers.__exit__()
    results = [row.result() for row in rows]
    return {
        "data": str(data),
        "split": split,
        "pictures": len(chosen),
        "objects": rows[0].recall.compute()["objects"],
        "rows": results,
        "ratios": _ratios(results),
        "protocol": ProposalRecall.protocol,
    }


def _ratios(results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """``{"opencv fast, 1 thread": {"seconds": 60.0, "cpu_seconds": 61.0}, ...}``: how many times as long as ours."""
    ours = {(row["method"].split()[1], row["threads"]): row for row in results if row["method"].startswith("vistasks")}
    ratios = {}
    for row in results:
        mode = row["method"].split()[1] if " " in row["method"] else "fast"
        base = ours.get((mode, row["threads"]))
        if base and base is not row:
            name = f"{row['method']}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}"
            ratios[name] = {unit: row[unit] / base[unit] for unit in ("seconds", "cpu_seconds")}
    return ratios
