"""The segmenter's part of the report, from the pixel counts that mIoU keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

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
    each = by_image(records, classes)
    matrix = np.asarray(each.sum(axis=0)).reshape(classes, classes)
    return {
        "intervals": _intervals(each, classes),
        "confusion": {"names": list(names), "matrix": matrix.astype(np.int64).tolist()},
        "pairs": _pairs(matrix, names),
    }


def by_image(records: Sequence[PixelCounts], classes: int) -> csr_array:
    """(N, classes^2) float64: a row an image; few of the cells occur in one image."""
    ends = np.cumsum([0, *(len(cells) for cells, _ in records)])
    columns = np.concatenate([np.zeros(0, np.int64), *(cells for cells, _ in records)])
    counts = np.concatenate([np.zeros(0), *(counts for _, counts in records)]).astype(np.float64)
    return csr_array((counts, columns, ends), shape=(len(records), classes * classes))


def _intervals(each: csr_array, classes: int) -> dict[str, list[float]]:
    if each.shape[0] < 2:
        return {}
    found = np.array([_miou_and_accuracy(matrix) for matrix in resampled(each, classes)])
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(("mIoU", "pixel_accuracy"))}


def resampled(each: csr_array, classes: int) -> Iterator[np.ndarray]:
    """Confusion matrices (classes, classes) of data sets whose pictures are drawn with replacement from
    ``each`` (N, classes^2).

    Always the same draws for the same N, so that two models' draws are pairs.
    """
    generator, count = np.random.default_rng(0), each.shape[0]
    for _ in range(SAMPLES):
        weights = np.bincount(generator.integers(0, count, count), minlength=count)
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
