"""The segmenter's part of the report, from the pixel counts that mIoU keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vistasks.metrics.mean_iou import PixelCounts

SAMPLES = 1000  # of the bootstrap
PAIRS = 10  # most confused pairs that are named


def analyse_segmentation(records: Sequence[PixelCounts], names: tuple[str, ...]) -> dict[str, Any]:
    """Everything that the report says about the class map besides the outlines.

    Args:
        records: each picture's part of the confusion matrix.
        names: the class names.

    Returns: "intervals" {"mIoU": [low, high], "pixel_accuracy": ...}, 95 % of a bootstrap over pictures;
    "confusion" (rows: truth, pixels); "pairs", the most frequent confusions as {"truth", "prediction",
    "pixels", "share" of the truth's pixels}."""
    classes = len(names)
    each = np.zeros((len(records), classes * classes), np.float64)
    for row, (cells, counts) in enumerate(records):
        each[row, cells] = counts
    matrix = each.sum(axis=0).reshape(classes, classes)
    return {
        "intervals": _intervals(each, classes),
        "confusion": {"names": list(names), "matrix": matrix.astype(np.int64).tolist()},
        "pairs": _pairs(matrix, names),
    }


def _intervals(each: np.ndarray, classes: int) -> dict[str, list[float]]:
    if len(each) < 2:
        return {}
    found = np.array([_miou_and_accuracy(matrix) for matrix in resampled(each, classes)])
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(("mIoU", "pixel_accuracy"))}


def resampled(each: np.ndarray, classes: int) -> Iterator[np.ndarray]:
    """Confusion matrices (classes, classes) of data sets whose pictures are drawn with replacement from
    ``each`` (N, classes^2).

    Always the same draws for the same N, so that two models' draws are pairs.
    """
    generator = np.random.default_rng(0)
    for _ in range(SAMPLES):
        weights = np.bincount(generator.integers(0, len(each), len(each)), minlength=len(each))
        yield (weights @ each).reshape(classes, classes)


def _miou_and_accuracy(matrix: np.ndarray) -> tuple[float, float]:
    hits = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - hits
    some = union > 0
    return float((hits[some] / union[some]).mean()) if some.any() else 0.0, float(
        hits.sum() / max(1.0, matrix.sum())
    )


def _pairs(matrix: np.ndarray, names: tuple[str, ...]) -> list[dict[str, Any]]:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    truth = matrix.sum(axis=1)
    pairs = []
    for flat in np.argsort(-wrong, axis=None)[:PAIRS].tolist():
        i, j = divmod(flat, len(names))
        if wrong[i, j]:
            share = float(wrong[i, j] / truth[i])
            pairs.append(
                {"truth": names[i], "prediction": names[j], "pixels": int(wrong[i, j]), "share": share}
            )
    return pairs
