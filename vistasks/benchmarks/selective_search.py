"""Our selective search against OpenCV contrib's and dlib's, on the same pictures in one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vistasks.datasets import Dataset, load_dataset
from vistasks.proposals import selective_search
from vistasks.proposals.peers import Peers
from vistasks.proposals.recall import ProposalRecall
from vistasks.proposals.selective_search import MODES
from vistasks.types import Sample

BUDGETS = (300, 1000, 2000)


def _ours(mode: Any, image: np.ndarray, threads: int) -> tuple[np.ndarray, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    boxes = selective_search(image, mode, threads=threads)
    return boxes, time.perf_counter() - wall, time.process_time() - cpu


def labelled_pictures(data: Path, split: str) -> Dataset:
    """One split of the VOC or COCO data set in a folder."""
    if not (data / "Annotations").is_dir() and not (data / "annotations").is_dir():
        raise ValueError(
            f"{data}: expected a data set with Annotations/*.xml (VOC) or annotations/instances_*.json (COCO)"
        )
    form = "voc" if (data / "Annotations").is_dir() else "coco"
    listed = (
        form == "coco" or (data / "ImageSets").is_dir()
    )  # a bare folder of xml beside images has no splits
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
    """Times and judges every method on the same pictures, taken in turns, so that a busy machine is busy for
    all.

    Args:
        data: a VOC or COCO data set's folder.
        peer_python: an interpreter with opencv-contrib-python and dlib-bin; None: ours alone.
        split: the data set's part.
        pictures: so many, evenly spread over the data set.
        modes: of ours and of OpenCV; dlib has none.
        threads: numbers of threads; dlib always takes one.

    Returns: "rows", one a method and number of threads, with "seconds" (wall) and "cpu_seconds" (processor
    time) a picture and the numbers of `ProposalRecall` for 300, 1,000, 2,000 and all boxes; "ratios", their
    seconds over those of our row with the same mode and threads (dlib over fast); "data", "split",
    "pictures", "objects"."""
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or pictures < 1 or not modes or not threads or min(threads) < 1:
        raise ValueError(
            f"selective search benchmark: expected modes of {', '.join(MODES)}, images and threads of at least 1, "
            f"not {list(modes)}, {pictures} and {list(threads)}"
        )
    dataset = labelled_pictures(data, split)
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
            peers.close()
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
    """``{"opencv fast, 1 thread": {"seconds": 60.0, "cpu_seconds": 61.0}, ...}``: how many times as long as
    ours.
    """
    ours = {
        (row["method"].split()[1], row["threads"]): row
        for row in results
        if row["method"].startswith("vistasks")
    }
    ratios = {}
    for row in results:
        mode = row["method"].split()[1] if " " in row["method"] else "fast"
        base = ours.get((mode, row["threads"]))
        if base and base is not row:
            name = f"{row['method']}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}"
            ratios[name] = {unit: row[unit] / base[unit] for unit in ("seconds", "cpu_seconds")}
    return ratios
