from __future__ import annotations

import time

import numpy as np

from vistasks.evaluation.reports.detection import SHOWN_CLASSES, analyse_detection, bootstrap_samples
from vistasks.evaluation.reports.segmentation import by_image
from vistasks.metrics.detection_record import DetectionRecord
from vistasks.system.text import few


def record(labels: np.ndarray) -> DetectionRecord:
    count = len(labels)
    left = np.arange(count, dtype=np.float32) * 40
    boxes = np.stack([left, left, left + 30, left + 30], axis=1)
    no = np.zeros(count, bool)
    scores = np.linspace(0.9, 0.5, count, dtype=np.float32)
    return DetectionRecord(boxes, labels, no, no, np.full(count, 900, np.float32), boxes, scores, labels)


def test_three_thousand_classes_cost_no_more_than_those_that_occur() -> None:
    names = tuple(f"class {number}" for number in range(3000))
    labels = np.arange(5) * 7
    start = time.perf_counter()
    many = analyse_detection([record(labels)] * 2, names, [None] * 2, score=0.5)
    assert time.perf_counter() - start < 60
    few_names = tuple(names[label] for label in labels)
    alone = analyse_detection([record(np.arange(5))] * 2, few_names, [None] * 2, score=0.5)
    for key in ("intervals", "curves", "tide", "calibration", "confusion"):
        assert many[key] == alone[key], key
    assert len(many["per_class"]) == 3000 and many["per_class"]["class 1"] == {
        **dict.fromkeys(alone["per_class"]["class 0"]),
        "objects": 0,
    }
    assert all(many["per_class"][name] == row for name, row in alone["per_class"].items())


def test_only_the_classes_with_most_mistakes_are_in_the_confusion() -> None:
    names = tuple(str(number) for number in range(SHOWN_CLASSES + 20))
    found = analyse_detection([record(np.arange(len(names)))], names, [None], score=0.5)
    assert found["confusion"]["left_out"] == 20 and len(found["confusion"]["matrix"]) == SHOWN_CLASSES + 1
    assert len(found["curves"]) == SHOWN_CLASSES


def test_fewer_draws_for_more_classes() -> None:
    assert [bootstrap_samples(10, classes) for classes in (1, 20, 80, 4000)] == [1000, 1000, 250, 50]
    assert bootstrap_samples(5000, 20) == 100


def test_the_pixel_counts_by_image() -> None:
    records = [(np.array([0, 3]), np.array([5, 2])), (np.array([1]), np.array([7]))]
    assert by_image(records, 2).toarray().tolist() == [[5, 0, 0, 2], [0, 7, 0, 0]]


def test_a_few_names() -> None:
    assert few("abc", limit=3) == "a, b, c"
    assert few((str(number) for number in range(3000)), limit=2) == "0, 1 and 2,998 more"
