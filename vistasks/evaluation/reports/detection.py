"""The detector's part of the report, from the records that COCO AP keeps."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from vistasks.metrics.coco_engines import hotcoco_evaluation
from vistasks.metrics.detection_record import (
    DetectionColumns,
    DetectionRecord,
    detection_columns,
    of_classes,
)
from vistasks.ops.box_arrays import overlaps

CONFIDENCE = 0.95
MOST_CLASSES = 400  # with objects; above, there are no intervals
SHOWN_CLASSES = 100  # of the confusion matrix, the curves and the intervals of a comparison
_DRAWS_AND_CLASSES = 20_000  # draws x classes of a bootstrap
LARGE_SET = 1000  # pictures; above, the bootstrap takes fewer samples
SIZES = ("all", "small", "medium", "large")
_IOU_50, _IOU_75, _MAX_100 = 0, 5, 2
TIDE = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}


def analyse_detection(
    records: Sequence[DetectionRecord],
    names: tuple[str, ...],
    proposed: Sequence[np.ndarray | None],
    *,
    score: float,
) -> dict[str, Any]:
    """Everything that the report says about boxes.

    Args:
        records: one a picture.
        names: the class names.
        proposed: for each picture the best IoU (G,) that a proposal has with each object; None where none
            were computed.
        score: what counts as a detection in the confusion matrix.

    Returns: "intervals" {"AP": [low, high], ...} of a bootstrap over pictures; "per_class" {name: AP by size,
    AR, objects}; "curves" {name: 101 precisions at recall 0, .01, ... 1 and IoU .5}; "tide"; "calibration";
    "confusion" (rows: truth); "proposals" where known."""
    every = detection_columns(list(records))
    present = np.union1d(every.labels, every.detected_labels)  # time and memory grow with the classes
    columns = of_classes(every, present)
    all_names, names = names, tuple(names[label] for label in present)
    evaluation = hotcoco_evaluation(columns, max(1, len(names)), ignore_difficult=True)
    precision = np.asarray(evaluation.eval["precision"], np.float64)
    recall = np.asarray(evaluation.eval["recall"], np.float64)
    asked = ~(columns.crowd | columns.difficult)
    objects = np.bincount(columns.labels[asked], minlength=len(names)).tolist()
    per_class = {
        name: {
            **{
                ("AP" if size == "all" else f"AP {size}"): _mean(precision[:, :, k, a, _MAX_100])
                for a, size in enumerate(SIZES)
            },
            "AP50": _mean(precision[_IOU_50, :, k, 0, _MAX_100]),
            "AP75": _mean(precision[_IOU_75, :, k, 0, _MAX_100]),
            "AR100": _mean(recall[:, k, 0, _MAX_100]),
            "objects": objects[k],
        }
        for k, name in enumerate(names)
    }
    absent = dict.fromkeys(next(iter(per_class.values()), {"AP": None}))
    per_class = {name: per_class.get(name, {**absent, "objects": 0}) for name in all_names}
    curves = {
        name: np.maximum(precision[_IOU_50, :, k, 0, _MAX_100], 0).round(4).tolist()
        for k, name in enumerate(names)
    }
    having = [name for name in names if per_class[name]["objects"]]
    ranked = sorted(having, key=lambda name: -per_class[name]["objects"])
    most = having if len(having) <= SHOWN_CLASSES else ranked[:SHOWN_CLASSES]
    found: dict[str, Any] = {
        "intervals": _intervals(columns),
        "per_class": per_class,
        "curves": {name: curves[name] for name in most},
        "tide": _tide(evaluation),
        "calibration": _calibration(evaluation),
        "confusion": _confusion(evaluation, names, score),
    }
    if any(best is not None for best in proposed):
        found["proposals"] = _against_proposals(records, all_names, proposed)
    return found


def bootstrap_samples(images: int, classes: int) -> int:
    """How many draws are made: what they take grows with the classes."""
    return max(50, min(1000 if images <= LARGE_SET else 100, _DRAWS_AND_CLASSES // max(1, classes)))


def _mean(values: np.ndarray) -> float | None:
    existing = values[values > -1]
    return float(existing.mean()) if existing.size else None


def _intervals(columns: DetectionColumns) -> dict[str, list[float]]:
    """Each number and as much on both sides as the standard error of a bootstrap over pictures makes of
    ``CONFIDENCE``.

    Not the percentiles of the bootstrap: AP takes the best precision from each recall on, which the noise of
    drawing pictures twice only raises, so that on large sets the number itself lies below them. hotcoco has
    errors of differences: these are differences to finding nothing. None for more than `MOST_CLASSES` classes
    with objects, and fewer draws for many: the time grows with both."""
    import hotcoco

    if columns.images < 2 or not len(columns.boxes):
        return {}
    present = np.unique(columns.labels)
    if len(present) > MOST_CLASSES:
        return {}
    columns, classes = of_classes(columns, present), len(present)
    nothing, evaluation = (
        hotcoco_evaluation(part, classes, ignore_difficult=True)
        for part in (columns.without_detections(), columns)
    )
    samples = bootstrap_samples(columns.images, classes)
    compared = hotcoco.compare(nothing, evaluation, n_bootstrap=samples, seed=0, confidence=CONFIDENCE)
    errors = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    found = {}
    for name, interval in (compared["ci"] or {}).items():
        value, half = compared["metrics_b"].get(name, -1), errors * interval["std_err"]
        if value >= 0:
            found[name] = [max(0.0, value - half), min(1.0, value + half)]
    return found


def _tide(evaluation: Any) -> dict[str, Any]:
    result = evaluation.tide_errors(pos_thr=0.5, bg_thr=0.1)
    return {
        "ap50": float(result["ap_base"]),
        "gain": {word: float(result["delta_ap"][key]) for key, word in TIDE.items()},
        "count": {word: int(result["counts"][key]) for key, word in TIDE.items()},
    }


def _calibration(evaluation: Any) -> dict[str, Any]:
    result = evaluation.calibration(n_bins=10, iou_threshold=0.5)
    bins = [
        {"score": float(b["avg_confidence"]), "accuracy": float(b["avg_accuracy"]), "count": int(b["count"])}
        for b in result["bins"]
        if b["count"]
    ]
    return {"expected_error": float(result["ece"]), "bins": bins}


def _confusion(evaluation: Any, names: tuple[str, ...], score: float) -> dict[str, Any]:
    """Rows truth, columns prediction; the last row is background that was taken for an object, the last
    column missed objects. "left_out": classes with fewer mistakes than the `SHOWN_CLASSES` that are in it.
    """
    matrix = np.asarray(evaluation.confusion_matrix(iou_thr=0.5, max_det=100, min_score=score)["matrix"])
    wrong = (matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal())[: len(names)]
    shown = np.sort(np.argsort(-wrong, kind="stable")[:SHOWN_CLASSES])  # those with the most mistakes
    kept = np.append(shown, len(names))
    return {
        "names": [*(names[label] for label in shown), "background"],
        "matrix": matrix[np.ix_(kept, kept)].astype(int).tolist(),
        "score": score,
        "left_out": len(names) - len(shown),
    }


def _against_proposals(
    records: Sequence[DetectionRecord], names: tuple[str, ...], proposed: Sequence[np.ndarray | None]
) -> dict[str, Any]:
    """Whether selective search or the classifier is to blame: objects proposed, and objects detected, at IoU
    .5 and .7.
    """
    rows: dict[str, Any] = {}
    total = {iou: np.zeros((len(names), 3), int) for iou in (0.5, 0.7)}  # objects, proposed, detected
    for record, best in zip(records, proposed, strict=True):
        if best is None:
            continue
        asked = ~(record.difficult | record.crowd)
        iou = overlaps(record.boxes, record.detected)
        own = np.where(record.labels[:, None] == record.detected_labels[None], iou, 0).max(axis=1, initial=0)
        for threshold, table in total.items():
            for column, hit in enumerate((np.ones(len(best), bool), best >= threshold, own >= threshold)):
                table[:, column] += np.bincount(record.labels[asked & hit], minlength=len(names))
    for threshold, table in total.items():
        of_all = table.sum(axis=0)
        shares = {name: _shares(table[k]) for k, name in enumerate(names) if table[k, 0]}
        rows[f"{threshold:g}"] = {"all classes": _shares(of_all), **shares}
    return rows


def _shares(counts: np.ndarray) -> dict[str, float | int]:
    objects, proposed, detected = (int(v) for v in counts)
    return {
        "objects": objects,
        "proposed": proposed / max(1, objects),
        "detected": detected / max(1, objects),
    }
