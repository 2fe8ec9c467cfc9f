"""Mean IoU and pixel accuracies over a data set, all from one confusion matrix (Long et al. 2015, section
5).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vistasks.metrics.metric import Metric, mean_or_none
from vistasks.types import IGNORE_INDEX, Prediction, Sample

# one image's part of the confusion matrix: the cells that are not 0 (truth * K + prediction), and their pixel
# counts
PixelCounts = tuple[np.ndarray, np.ndarray]


class MeanIoU(Metric[PixelCounts]):
    """mIoU, pixel accuracy, mean class accuracy and frequency weighted IoU; pixels with the truth 255 count
    nowhere.

    The counts are summed over the data set before anything is divided: not a mean of per-image values. mIoU
    is the mean over the classes that occur in the truth or in the predictions, mean class accuracy over those
    in the truth."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        super().__init__(class_names)

    def record(self, prediction: Prediction, sample: Sample) -> PixelCounts | None:
        """Raises a ValueError naming ``sample.path`` for a missing map, another size, other class names or
        ids beyond them.
        """
        if not sample.labelled.segmentation:
            return None
        truth, predicted = self._maps(prediction, sample)
        counted = truth != IGNORE_INDEX
        classes = len(self.class_names)
        for what, values in (("annotation", truth[counted]), ("prediction", predicted[counted])):
            if values.size and values.max() >= classes:
                raise ValueError(
                    f"{sample.path}: the {what} holds class id {values.max()}, "
                    f"but there are {classes} class names: {self.class_names}"
                )
        cells = np.bincount(
            truth[counted].astype(np.int64) * classes + predicted[counted], minlength=classes * classes
        )
        some = np.flatnonzero(cells)
        return some, cells[some]

    def _maps(self, prediction: Prediction, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        if sample.segmentation is None:
            raise ValueError(f"{sample.path}: labelled for segmentation, but there is no segmentation map")
        found = prediction.segmentation
        if found is None:
            raise ValueError(
                f"{sample.path}: the prediction holds no segmentation, but the image is labelled for segmentation"
            )
        if tuple(found.names) != self.class_names:
            raise ValueError(
                f"{sample.path}: the prediction's classes {tuple(found.names)} are not the metric's {self.class_names}; "
                "both must be the data set's, in its order"
            )
        if found.labels.shape != sample.segmentation.shape:
            raise ValueError(
                f"{sample.path}: the predicted map is {found.labels.shape}, the annotation {sample.segmentation.shape}; "
                "predictions must be in pixels of the original image"
            )
        return sample.segmentation, found.labels

    def confusion(self) -> np.ndarray:
        """(K, K) int64: pixels of class i (row, the truth) that were given class j (column)."""
        classes = len(self.class_names)
        matrix = np.zeros(classes * classes, np.int64)
        for cells, counts in self.ordered_records():
            matrix[cells] += counts
        return matrix.reshape(classes, classes)

    def compute(self) -> dict[str, Any]:
        """{"protocol", "mIoU", "pixel_accuracy", "mean_class_accuracy", "frequency_weighted_iou", "pixels",
        "per_class": {name: {"IoU", "accuracy", "pixels"}}}; None where a class, or everything, is absent.
        """
        matrix = self.confusion()
        hits, truth, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        union = truth + predicted - hits
        pixels = int(truth.sum())
        ious, accuracies = (
            [_ratio(h, u) for h, u in zip(hits, union)],
            [_ratio(h, t) for h, t in zip(hits, truth)],
        )
        weighted = sum(int(t) * iou for t, iou in zip(truth, ious) if iou is not None)
        return {
            "protocol": "one confusion matrix over the data set, pixels marked 255 ignored; "
            "mIoU over the classes in the annotations or the predictions",
            "mIoU": mean_or_none([iou for iou in ious if iou is not None]),
            "pixel_accuracy": _ratio(hits.sum(), pixels),
            "mean_class_accuracy": mean_or_none(
                [accuracy for accuracy in accuracies if accuracy is not None]
            ),
            "frequency_weighted_iou": weighted / pixels if pixels else None,
            "pixels": pixels,
            "per_class": {
                name: {"IoU": ious[k], "accuracy": accuracies[k], "pixels": int(truth[k])}
                for k, name in enumerate(self.class_names)
            },
        }


def _ratio(part: int | np.integer, whole: int | np.integer) -> float | None:
    return int(part) / int(whole) if whole else None
