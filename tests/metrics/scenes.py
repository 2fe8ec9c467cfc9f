"""Random objects and detections with everything that decides a metric: ties, near hits, duplicates, misses,
empty images.
"""

from __future__ import annotations

import numpy as np

from vistasks.types import Detections, Labelled, Prediction, Sample, SegmentationMap

NAMES = ("RBC", "WBC", "Platelets", "never there")
HEIGHT, WIDTH = 240, 320

Scene = tuple[Prediction, Sample]


def blank(height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 zeros in three bytes: the metrics read an image's size only."""
    return np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (height, width, 3))


def detections(boxes: object, scores: object, labels: object, names: tuple[str, ...] = NAMES) -> Prediction:
    return Prediction(
        Detections(
            np.asarray(boxes, np.float32).reshape(-1, 4),
            np.asarray(scores, np.float32),
            np.asarray(labels, np.int64),
            names,
        )
    )


def sample(
    boxes: object, labels: object, *, image_id: str = "a", names: tuple[str, ...] = NAMES, **more: object
) -> Sample:
    """An image of 240x320 whose detection labels are complete."""
    return Sample(
        image_id,
        f"{image_id}.jpg",
        blank(HEIGHT, WIDTH),
        boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
        labels=np.asarray(labels, np.int64),
        labelled=Labelled(detection=frozenset(range(len(names)))),
        **{key: np.asarray(value) for key, value in more.items()},
    )


def _boxes(rng: np.random.Generator, count: int, whole: bool) -> np.ndarray:
    corner = rng.uniform(0, (WIDTH - 12, HEIGHT - 12), (count, 2))
    boxes = np.concatenate([corner, corner + np.exp(rng.uniform(np.log(4), np.log(200), (count, 2)))], axis=1)
    boxes = np.minimum(boxes, (WIDTH, HEIGHT, WIDTH, HEIGHT))
    return (np.round(boxes) if whole else boxes).astype(np.float32)


def random_scenes(seed: int, images: int = 12) -> list[Scene]:
    """``images`` scenes labelled for both tasks over `NAMES`; the last class occurs nowhere in the truth."""
    rng = np.random.default_rng(seed)
    return [_scene(rng, f"image {index}") for index in range(images)]


def _scene(rng: np.random.Generator, image_id: str) -> Scene:
    whole = bool(rng.random() < 0.5)  # whole pixels give overlaps that are exactly a threshold
    objects, invented = int(rng.integers(0, 8)), int(rng.integers(0, 6))
    boxes, labels = _boxes(rng, objects, whole), rng.integers(0, len(NAMES) - 1, objects)
    near = boxes[rng.integers(0, objects, 2 * objects)] if objects else boxes  # some objects twice or never
    moved = near + rng.choice([0, 2, 8], (len(near), 1)) * rng.uniform(-1, 1, near.shape)
    found = np.concatenate([np.round(moved) if whole else moved, _boxes(rng, invented, whole)]).astype(
        np.float32
    )
    found = np.concatenate(
        [np.minimum(found[:, :2], found[:, 2:]), np.maximum(found[:, :2], found[:, 2:])], axis=1
    )
    scores = rng.random(len(found)).round(int(rng.integers(1, 4)))  # rounded: equal scores
    truth = Sample(
        image_id,
        f"{image_id}.jpg",
        blank(HEIGHT, WIDTH),
        boxes=boxes,
        labels=labels,
        difficult=rng.random(objects) < 0.15,
        crowd=rng.random(objects) < 0.1,
        areas=((boxes[:, 2:] - boxes[:, :2]).prod(1) * rng.uniform(0.5, 1, objects)).astype(np.float32),
        segmentation=rng.choice([0, 1, 2, 255], (HEIGHT, WIDTH)).astype(np.uint8),
        labelled=Labelled(frozenset(range(len(NAMES))), frozenset(range(len(NAMES)))),
    )
    found_labels = rng.integers(0, len(NAMES), len(found))
    segmentation = SegmentationMap(rng.integers(0, len(NAMES), (HEIGHT, WIDTH)).astype(np.uint8), NAMES)
    return Prediction(detections(found, scores, found_labels).detections, segmentation), truth
