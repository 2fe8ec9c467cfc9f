"""COCO's matching and accumulation, by hotcoco (Rust) or by pycocotools (the referee), on the very same
float64 numbers.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from vistasks.metrics.detection_record import DetectionColumns

# COCO has no "difficult". A box whose area is outside every size range is ignored in all of them, with
# ordinary IoU and one match only, while `iscrowd` would also swallow every detection inside it; an "ignore"
# key is overwritten by both engines
_OUTSIDE_EVERY_SIZE_RANGE = 1e12

# precision (10 IoU, 101 recall, K classes, 4 sizes, 3 maxDets) and recall (10, K, 4, 3); -1 where there is no
# object
Curves = tuple[np.ndarray, np.ndarray]


def _xywh(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) float32 corners -> (N, 4) float64 corner and size, subtracted in float64."""
    corners = boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _areas(columns: DetectionColumns, ignore_difficult: bool) -> np.ndarray:
    areas = columns.areas.astype(np.float64)
    return np.where(columns.difficult, _OUTSIDE_EVERY_SIZE_RANGE, areas) if ignore_difficult else areas


def _headers(columns: DetectionColumns, classes: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    # the size is for masks only; hotcoco wants one
    images = [{"id": image + 1, "width": 1, "height": 1, "file_name": ""} for image in range(columns.images)]
    return images, [{"id": label + 1, "name": str(label)} for label in range(classes)]


def hotcoco_evaluation(columns: DetectionColumns, classes: int, ignore_difficult: bool) -> Any:
    """hotcoco's ``COCOeval``, accumulated; category ids are class ids + 1. Whole arrays, no Python object per
    annotation.
    """
    import hotcoco

    images, categories = _headers(columns, classes)
    truth = hotcoco.COCO.from_arrays(
        images,
        categories,
        columns.image + 1,
        columns.labels + 1,
        _xywh(columns.boxes),
        area=_areas(columns, ignore_difficult),
        iscrowd=columns.crowd.astype(np.int64),
    )
    table = np.column_stack(
        [columns.detected_image + 1, _xywh(columns.detected), columns.scores, columns.detected_labels + 1]
    )
    evaluation = hotcoco.COCOeval(truth, truth.load_res(table.astype(np.float64)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def hotcoco_curves(columns: DetectionColumns, classes: int, ignore_difficult: bool) -> Curves:
    """By hotcoco."""
    return _curves(hotcoco_evaluation(columns, classes, ignore_difficult).eval)


def pycocotools_curves(columns: DetectionColumns, classes: int, ignore_difficult: bool) -> Curves:
    """By pycocotools, its printing swallowed."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images, categories = _headers(columns, classes)
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = {
            "images": images,
            "categories": categories,
            "annotations": _truth_annotations(columns, ignore_difficult),
        }
        found.dataset = {
            "images": images,
            "categories": categories,
            "annotations": _found_annotations(columns),
        }
        truth.createIndex()
        found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return _curves(evaluation.eval)


def _truth_annotations(columns: DetectionColumns, ignore_difficult: bool) -> list[dict[str, Any]]:
    images, categories = (columns.image + 1).tolist(), (columns.labels + 1).tolist()
    boxes, areas, crowds = (
        _xywh(columns.boxes).tolist(),
        _areas(columns, ignore_difficult).tolist(),
        columns.crowd.tolist(),
    )
    return [
        {
            "id": i,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
        }
        for i, (image, category, box, area, crowd) in enumerate(
            zip(images, categories, boxes, areas, crowds), start=1
        )
    ]


def _found_annotations(columns: DetectionColumns) -> list[dict[str, Any]]:
    images, categories = (columns.detected_image + 1).tolist(), (columns.detected_labels + 1).tolist()
    boxes, scores = _xywh(columns.detected).tolist(), columns.scores.tolist()
    return [
        {
            "id": i,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "score": score,
        }
        for i, (image, category, box, score) in enumerate(zip(images, categories, boxes, scores), start=1)
    ]


def _curves(accumulated: Any) -> Curves:
    return np.asarray(accumulated["precision"], np.float64), np.asarray(accumulated["recall"], np.float64)


ENGINES: dict[str, Callable[[DetectionColumns, int, bool], Curves]] = {
    "hotcoco": hotcoco_curves,
    "pycocotools": pycocotools_curves,
}


def engine_version(engine: str) -> str:
    """For example "hotcoco 1.3.0"."""
    return f"{engine} {version(engine)}"
