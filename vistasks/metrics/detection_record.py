"""One image's objects and detections, checked, as both AP metrics need them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vistasks.types import Detections, Prediction, Sample


@dataclass(frozen=True, eq=False)
class DetectionRecord:
    """G objects and D detections of one image, of the classes that are labelled there.

    boxes (G, 4) float32, labels (G,) int64, difficult (G,) bool, crowd (G,) bool, areas (G,) float32;
    detected (D, 4) float32, scores (D,) float32, detected_labels (D,) int64, in the order they were
    predicted."""

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    detected: np.ndarray
    scores: np.ndarray
    detected_labels: np.ndarray


@dataclass(frozen=True, eq=False)
class DetectionColumns(DetectionRecord):
    """The records of a data set one after the other; ``image`` (G,) and ``detected_image`` (D,) int64 say
    whose a row is.
    """

    image: np.ndarray
    detected_image: np.ndarray
    images: int

    def without_detections(self) -> DetectionColumns:
        """The same objects, and nothing found."""
        empty = {
            name: getattr(self, name)[:0]
            for name in ("detected", "scores", "detected_labels", "detected_image")
        }
        return replace(self, **empty)


def detection_record(
    prediction: Prediction, sample: Sample, class_names: tuple[str, ...]
) -> DetectionRecord | None:
    """Objects and detections of the classes that ``sample.labelled`` covers; None if it covers none.

    A class that is not labelled on this image takes no part in it: neither its detections nor the objects
    that may be marked nevertheless. Raises a ValueError naming ``sample.path`` for a prediction without
    detections, other class names, ids outside the names, and boxes or scores that are inverted or not finite.
    """
    labelled = sample.labelled.detection
    if not labelled:
        return None
    if prediction.detections is None:
        raise ValueError(
            f"{sample.path}: the prediction holds no detections, but the image is labelled for detection"
        )
    found = _checked(prediction.detections, sample.path, class_names)
    beyond = [int(label) for label in (*labelled, *sample.labels) if not 0 <= label < len(class_names)]
    if beyond:
        raise ValueError(
            f"{sample.path}: class id {beyond[0]} is labelled, but there are {len(class_names)} class names: {class_names}"
        )
    covered = np.zeros(len(class_names), bool)
    covered[list(labelled)] = True
    objects, detections = covered[sample.labels], covered[found.labels]
    difficult, crowd, areas = sample.difficult, sample.crowd, sample.areas
    if (
        difficult is None or crowd is None or areas is None
    ):  # a Sample fills them in; this tells the type checker
        raise ValueError(f"{sample.path}: the sample is incomplete")
    return DetectionRecord(
        boxes=sample.boxes[objects],
        labels=sample.labels[objects],
        difficult=difficult[objects],
        crowd=crowd[objects],
        areas=areas[objects],
        detected=found.boxes[detections],
        scores=found.scores[detections],
        detected_labels=found.labels[detections],
    )


def _checked(found: Detections, path: str, class_names: tuple[str, ...]) -> Detections:
    if tuple(found.class_names) != class_names:
        raise ValueError(
            f"{path}: the prediction's classes {tuple(found.class_names)} are not the metric's {class_names}; "
            "both must be the data set's, in its order"
        )
    boxes, scores, labels = found.boxes, found.scores, found.labels
    if (
        boxes.ndim != 2
        or boxes.shape[1] != 4
        or scores.shape != (len(boxes),)
        or labels.shape != (len(boxes),)
    ):
        raise ValueError(
            f"{path}: expected boxes (N, 4), scores (N,) and labels (N,), not {boxes.shape}, {scores.shape} and {labels.shape}"
        )
    # written so that NaN, which compares false with everything, is bad too; an empty box is only a bad
    # detection
    good = (
        np.isfinite(boxes).all(1)
        & np.isfinite(scores)
        & (boxes[:, 2] >= boxes[:, 0])
        & (boxes[:, 3] >= boxes[:, 1])
    )
    good &= (labels >= 0) & (labels < len(class_names))
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        raise ValueError(
            f"{path}: detection {first} is not valid: box {boxes[first].tolist()}, score {scores[first]}, "
            f"class id {labels[first]}; expected finite numbers, x1 <= x2, y1 <= y2 and a class id in 0 .. {len(class_names) - 1}"
        )
    return found


def detection_columns(records: list[DetectionRecord]) -> DetectionColumns:
    """``records`` concatenated; row i of the data set's image ``image[i]`` (0-based, in the records'
    order).
    """

    def column(name: str, *shape: int, dtype: type) -> np.ndarray:
        return np.concatenate([np.zeros((0, *shape), dtype), *(getattr(record, name) for record in records)])

    count = np.arange(len(records))
    return DetectionColumns(
        boxes=column("boxes", 4, dtype=np.float32),
        labels=column("labels", dtype=np.int64),
        difficult=column("difficult", dtype=np.bool_),
        crowd=column("crowd", dtype=np.bool_),
        areas=column("areas", dtype=np.float32),
        detected=column("detected", 4, dtype=np.float32),
        scores=column("scores", dtype=np.float32),
        detected_labels=column("detected_labels", dtype=np.int64),
        image=np.repeat(count, [len(record.labels) for record in records]).astype(np.int64),
        detected_image=np.repeat(count, [len(record.scores) for record in records]).astype(np.int64),
        images=len(records),
    )


def of_classes(columns: DetectionColumns, labels: np.ndarray) -> DetectionColumns:
    """The objects and detections of these class ids, sorted, which become 0, 1, ..."""
    own, found = np.isin(columns.labels, labels), np.isin(columns.detected_labels, labels)
    objects = {
        name: getattr(columns, name)[own]
        for name in ("boxes", "labels", "difficult", "crowd", "areas", "image")
    }
    detections = {
        name: getattr(columns, name)[found]
        for name in ("detected", "scores", "detected_labels", "detected_image")
    }
    kept = replace(columns, **objects, **detections)
    return replace(
        kept,
        labels=np.searchsorted(labels, kept.labels),
        detected_labels=np.searchsorted(labels, kept.detected_labels),
    )
