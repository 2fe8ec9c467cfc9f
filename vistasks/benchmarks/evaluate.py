"""COCO AP as `vistasks evaluate` computes it (hotcoco) against pycocotools, on one generated data set, in one
run.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from vistasks.datasets.shapes.drawing import random_background
from vistasks.evaluation.reports import EvaluationReport
from vistasks.metrics import CocoAveragePrecision
from vistasks.metrics.coco_ap import TWELVE
from vistasks.types import ClassNames, Detections, Labelled, Prediction, Sample

_HEIGHT, _WIDTH = 480, 640
_OBJECTS_PER_IMAGE = 7  # COCO has 7.3
_GROUNDS = 20  # different pictures


def benchmark(
    *,
    images: int = 2500,
    detections: int = 246_000,
    classes: int = 80,
    seed: int = 0,
    report: Path | None = None,
) -> dict[str, Any]:
    """Both engines on the same records; the defaults are half of COCO val2017's pictures with nearly 100
    detections each.

    With ``report``, a folder, the page of `vistasks evaluate --report` is made of them as well.

    Returns the sizes, "seconds" ("update": feeding all pictures to the metric; then one `compute` by each
    engine, from the records to the result), "ratio" (pycocotools' seconds over hotcoco's), "max_difference"
    (over the twelve numbers and every class's AP, AP50 and AP75; one engine having a number that the other
    has not counts as infinite) and the twelve "numbers" with their "protocol"; with ``report`` "page": its
    "bytes" and the "seconds" that it took."""
    names = tuple(f"class {label}" for label in range(classes))
    scenes = _scenes(images, detections, names, np.random.default_rng(seed))
    metric, referee = CocoAveragePrecision(names), CocoAveragePrecision(names, engine="pycocotools")
    started = time.perf_counter()
    for prediction, sample in scenes:
        metric.update(prediction, sample)
    seconds = {"update": time.perf_counter() - started}
    referee.merge(metric.state())
    results = []
    for judge in (metric, referee):
        started = time.perf_counter()
        results.append(judge.compute())
        seconds[judge.engine] = time.perf_counter() - started
    result, expected = results
    return {
        **({} if report is None else {"page": _page(report, metric, result, scenes)}),
        "images": images,
        "objects": sum(len(sample.labels) for _, sample in scenes),
        "detections": detections,
        "classes": classes,
        "seconds": seconds,
        "ratio": seconds["pycocotools"] / seconds["hotcoco"],
        "max_difference": _difference(result, expected),
        "numbers": {name: result[name] for name in TWELVE},
        "protocol": result["protocol"],
        "referee": expected["protocol"],
    }


def _page(
    folder: Path,
    metric: CocoAveragePrecision,
    result: dict[str, Any],
    scenes: list[tuple[Prediction, Sample]],
) -> dict[str, float]:
    started = time.perf_counter()
    page = EvaluationReport(ClassNames(metric.class_names), ["detection"])
    for prediction, sample in scenes:
        page.update(prediction, sample)
    report = {
        "weights": "generated detections",
        "images": len(scenes),
        "model_seconds_per_image": 0.0,
        "coco": result,
    }
    path = page.write(folder, page.compute({**report, "headline": {"AP": result["AP"]}}, {"coco": metric}))
    return {"bytes": path.stat().st_size, "seconds": time.perf_counter() - started}


def _scenes(
    images: int, detections: int, names: tuple[str, ...], rng: np.random.Generator
) -> list[tuple[Prediction, Sample]]:
    """Objects of every size; about half of the detections near one (the label right nine times of ten), half
    anywhere.
    """
    counts = np.full(images, detections // images)
    counts[: detections % images] += 1
    grounds = [
        (255 * random_background(rng, _HEIGHT, _WIDTH)).astype(np.uint8) for _ in range(min(_GROUNDS, images))
    ]
    labelled = Labelled(detection=frozenset(range(len(names))))
    scenes = []
    for index, count in enumerate(counts.tolist()):
        objects = 1 + int(rng.poisson(_OBJECTS_PER_IMAGE - 1))
        boxes, labels = _boxes(rng, objects), rng.integers(0, len(names), objects)
        near = rng.integers(0, objects, count // 2)
        sides = boxes[near, 2:] - boxes[near, :2]
        moved = boxes[near] + rng.normal(0, 0.1, (len(near), 4)) * np.tile(sides, 2)
        found = np.concatenate([_ordered(moved), _boxes(rng, count - len(near))]).astype(np.float32)
        found_labels = rng.integers(0, len(names), count)
        found_labels[: len(near)] = np.where(
            rng.random(len(near)) < 0.9, labels[near], found_labels[: len(near)]
        )
        scores = rng.random(count).astype(np.float32)
        path = f"generated/{index:06d}.jpg"
        sample = Sample(
            f"{index:06d}",
            path,
            grounds[index % len(grounds)],
            boxes=boxes,
            labels=labels,
            crowd=rng.random(objects) < 0.01,
            labelled=labelled,
        )
        scenes.append((Prediction(Detections(found, scores, found_labels, names)), sample))
    return scenes


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4) float32 inside the picture, sides of 8 to 400 pixels, small ones more often."""
    sides = np.exp(rng.uniform(np.log(8), np.log(400), (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * ((_WIDTH, _HEIGHT) - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def _ordered(boxes: np.ndarray) -> np.ndarray:
    """The corners of each box in order."""
    return np.concatenate(
        [np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1
    )


def _difference(result: dict[str, Any], expected: dict[str, Any]) -> float:
    pairs = [(result[name], expected[name]) for name in TWELVE]
    for name, row in result["per_class"].items():
        pairs += [(row[key], expected["per_class"][name][key]) for key in ("AP", "AP50", "AP75")]
    return max(_gap(a, b) for a, b in pairs)


def _gap(a: float | None, b: float | None) -> float:
    if a is None or b is None:
        return 0.0 if a is b else float("inf")
    return abs(a - b)
