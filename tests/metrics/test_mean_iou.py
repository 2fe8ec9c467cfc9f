from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix
from torchmetrics.functional.classification import multiclass_jaccard_index

from tests.metrics.scenes import blank
from vistasks.metrics import MeanIoU
from vistasks.types import Labelled, Prediction, Sample, SegmentationMap

NAMES = ("sky", "road", "car", "bicycle")
Maps = list[tuple[np.ndarray, np.ndarray]]  # per image truth and prediction


def fed(maps: Maps) -> MeanIoU:
    metric = MeanIoU(NAMES)
    for index, (truth, predicted) in enumerate(maps):
        metric.update(
            Prediction(segmentation=SegmentationMap(predicted, NAMES)), labelled(truth, f"image {index}")
        )
    return metric


def labelled(truth: np.ndarray | None, image_id: str = "street") -> Sample:
    height, width = (4, 6) if truth is None else truth.shape
    everything = Labelled(segmentation=frozenset(range(len(NAMES))))
    return Sample(image_id, f"{image_id}.png", blank(height, width), segmentation=truth, labelled=everything)


def random_maps(seed: int) -> Maps:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, (5, 2))
    classes = rng.permutation(len(NAMES))[: rng.integers(1, 5)]  # some classes are absent
    return [
        (
            rng.choice([*classes, 255], size).astype(np.uint8),
            rng.choice(classes[: rng.integers(1, 5)], size).astype(np.uint8),
        )
        for size in sizes
    ]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_equals_scikit_learn_and_torchmetrics(seed: int) -> None:
    maps = random_maps(seed)
    truth, predicted = (np.concatenate([pair[side].ravel() for pair in maps]) for side in (0, 1))
    truth, predicted = truth[truth != 255], predicted[truth != 255]
    if not len(truth):
        return
    metric = fed(maps)
    matrix = confusion_matrix(truth, predicted, labels=range(4))
    np.testing.assert_array_equal(metric.confusion(), matrix)
    result = metric.compute()
    with np.errstate(invalid="ignore"):
        ious = np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))
        accuracies = np.diag(matrix) / matrix.sum(1)
    assert result["mIoU"] == pytest.approx(np.nanmean(ious), abs=1e-9)
    assert result["pixel_accuracy"] == pytest.approx(np.mean(truth == predicted), abs=1e-9)
    assert result["mean_class_accuracy"] == pytest.approx(np.nanmean(accuracies), abs=1e-9)
    assert result["frequency_weighted_iou"] == pytest.approx(
        np.nansum(ious * matrix.sum(1)) / len(truth), abs=1e-9
    )
    assert result["pixels"] == len(truth)
    jaccard = multiclass_jaccard_index(torch.from_numpy(predicted), torch.from_numpy(truth), 4)
    assert result["mIoU"] == pytest.approx(float(jaccard), abs=1e-6)  # torchmetrics computes in float32
    weighted = multiclass_jaccard_index(
        torch.from_numpy(predicted), torch.from_numpy(truth), 4, average="weighted"
    )
    assert result["frequency_weighted_iou"] == pytest.approx(float(weighted), abs=1e-6)


def test_counts_are_summed_before_they_are_divided() -> None:
    small, large = np.zeros((1, 1), np.uint8), np.zeros((10, 10), np.uint8)
    result = fed([(small, small + 1), (large, large)]).compute()
    assert result["per_class"]["sky"] == {"IoU": 100 / 101, "accuracy": 100 / 101, "pixels": 101}
    assert result["mIoU"] == pytest.approx((100 / 101 + 0) / 2)  # road is predicted and nowhere there
    assert result["mean_class_accuracy"] == 100 / 101
    assert result["per_class"]["road"] == {"IoU": 0.0, "accuracy": None, "pixels": 0}
    assert result["per_class"]["car"] == {"IoU": None, "accuracy": None, "pixels": 0}


def test_ignored_pixels_may_be_predicted_as_anything() -> None:
    truth, predicted = np.full((4, 6), 255, np.uint8), np.full((4, 6), 9, np.uint8)
    truth[0], predicted[0] = 2, 2
    result = fed([(truth, predicted)]).compute()
    assert result["mIoU"] == 1 and result["pixels"] == 6


def test_an_image_with_every_pixel_ignored_has_no_numbers() -> None:
    nothing = np.full((4, 6), 255, np.uint8)
    assert fed([(nothing, nothing)]).compute() == MeanIoU(NAMES).compute()


def refused(predicted: np.ndarray, truth: np.ndarray | None, message: str) -> None:
    metric = MeanIoU(NAMES)
    with pytest.raises(ValueError, match=message):
        metric.update(Prediction(segmentation=SegmentationMap(predicted, NAMES)), labelled(truth))
    assert metric.compute()["pixels"] == 0


def test_prediction_of_another_size() -> None:
    refused(
        np.zeros((6, 4), np.uint8),
        np.zeros((4, 6), np.uint8),
        r"street\.png: the predicted map is \(6, 4\), the annotation \(4, 6\)",
    )


def test_class_ids_beyond_the_names() -> None:
    zeros = np.zeros((4, 6), np.uint8)
    refused(zeros + 4, zeros, r"street\.png: the prediction holds class id 4, but there are 4 class names")
    refused(zeros, zeros + 7, r"street\.png: the annotation holds class id 7, but there are 4 class names")


def test_labelled_without_a_map() -> None:
    refused(
        np.zeros((4, 6), np.uint8),
        None,
        r"street\.png: labelled for segmentation, but there is no segmentation map",
    )
