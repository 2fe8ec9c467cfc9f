from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.metrics.scenes import NAMES, detections, sample
from vistasks.metrics.detection_record import detection_columns, detection_record
from vistasks.types import Detections, Labelled, Prediction

TRUTH = sample([[0, 0, 50, 50]], [0], image_id="street")


@pytest.mark.parametrize(
    "boxes, scores, labels",
    [
        ([[10, 10, 5, 20]], [0.5], [0]),
        ([[10, 10, 20, 5]], [0.5], [0]),
        ([[0, 0, np.nan, 20]], [0.5], [0]),
        ([[0, 0, np.inf, 20]], [0.5], [0]),
        ([[0, 0, 20, 20]], [np.nan], [0]),
        ([[0, 0, 20, 20]], [0.5], [4]),
        ([[0, 0, 20, 20]], [0.5], [-1]),
    ],
)
def test_invalid_detection_is_named(boxes: list, scores: list, labels: list) -> None:
    good = [[0, 0, 9, 9]]
    with pytest.raises(
        ValueError, match=r"street\.jpg: detection 1 is not valid: box .* expected finite numbers"
    ):
        detection_record(detections(good + boxes, [0.1, *scores], [0, *labels]), TRUTH, NAMES)


def test_columns_of_different_lengths() -> None:
    ragged = Prediction(
        Detections(np.zeros((2, 4), np.float32), np.zeros(1, np.float32), np.zeros(2, np.int64), NAMES)
    )
    with pytest.raises(
        ValueError, match=r"street\.jpg: expected boxes \(N, 4\), scores .* not \(2, 4\), \(1,\) and \(2,\)"
    ):
        detection_record(ragged, TRUTH, NAMES)


def test_a_detection_without_area_is_no_error() -> None:
    record = detection_record(detections([[5, 5, 5, 9]], [0.1], [0]), TRUTH, NAMES)
    assert record is not None and len(record.scores) == 1


@pytest.mark.parametrize(
    "truth",
    [sample([[0, 0, 50, 50]], [4], image_id="street"), replace(TRUTH, labelled=Labelled(frozenset({4})))],
)
def test_truth_with_an_id_beyond_the_names(truth: object) -> None:
    with pytest.raises(ValueError, match=r"street\.jpg: class id 4 is labelled, but there are 4 class names"):
        detection_record(detections([], [], []), truth, NAMES)


def test_columns_of_no_records_are_empty() -> None:
    columns = detection_columns([])
    assert columns.images == 0 and columns.boxes.shape == (0, 4) and columns.detected.shape == (0, 4)
    assert columns.image.dtype == columns.detected_image.dtype == np.int64
