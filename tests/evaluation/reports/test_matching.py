"""Each kind of error once, and TIDE's counts by hotcoco as the referee."""

from __future__ import annotations

import numpy as np
import pytest

from vistasks.evaluation.reports.matching import KINDS, MISSED, match_detections
from vistasks.metrics.coco_engines import hotcoco_evaluation
from vistasks.metrics.detection_record import DetectionRecord, detection_columns


def record(
    objects: list, labels: list, found: list, scores: list, found_labels: list, difficult: list | None = None
) -> DetectionRecord:
    """From plain lists."""
    boxes = np.array(objects, np.float32).reshape(-1, 4)
    return DetectionRecord(
        boxes=boxes,
        labels=np.array(labels, np.int64),
        difficult=np.array(difficult or [False] * len(boxes), bool),
        crowd=np.zeros(len(boxes), bool),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        detected=np.array(found, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        detected_labels=np.array(found_labels, np.int64),
    )


A, B = [10, 10, 30, 30], [60, 60, 80, 80]


@pytest.mark.parametrize(
    ("found", "labels", "kinds"),
    [
        ([A], [0], ["correct"]),
        ([A], [1], ["classification"]),
        ([[10, 10, 30, 19]], [0], ["localisation"]),
        ([[10, 10, 30, 19]], [1], ["both"]),
        ([A, [11, 10, 30, 30]], [0, 0], ["correct", "duplicate"]),
        ([[90, 0, 99, 9]], [0], ["background"]),
    ],
)
def test_kinds(found: list, labels: list, kinds: list[str]) -> None:
    judged = match_detections(record([A], [0], found, [0.9, 0.8][: len(found)], labels), 0.5)
    assert [KINDS[kind] for kind in judged.kinds] == kinds
    assert judged.counts()[MISSED] == ("correct" not in kinds)


def test_scores_under_the_threshold_and_ignored_objects_do_not_count() -> None:
    judged = match_detections(record([A, B], [0, 0], [A, B], [0.4, 0.9], [0, 0], [False, True]), 0.5)
    assert judged.kinds.tolist() == [-1] and judged.counts()[MISSED] == 1
    assert sum(judged.counts().values()) == 1


def test_counts_are_tides() -> None:
    generator = np.random.default_rng(0)
    records = []
    for _ in range(40):
        count = int(generator.integers(1, 6))
        corners = generator.random((count, 2)) * 150
        boxes = np.concatenate([corners, corners + 15 + generator.random((count, 2)) * 40], axis=1)
        labels = generator.integers(0, 3, count)
        found = np.concatenate(
            [
                boxes + generator.normal(0, 3, boxes.shape),
                generator.random((2, 4)) * 40 + [200, 200, 260, 260],
            ]
        )
        wrong = np.concatenate([np.where(generator.random(count) < 0.8, labels, (labels + 1) % 3), [0, 1]])
        records.append(
            record(
                boxes.tolist(),
                labels.tolist(),
                found.tolist(),
                generator.random(count + 2).tolist(),
                wrong.tolist(),
            )
        )
    total = {kind: sum(match_detections(r, 0.0).counts()[kind] for r in records) for kind in (*KINDS, MISSED)}
    tide = hotcoco_evaluation(detection_columns(records), 3, ignore_difficult=True).tide_errors(
        pos_thr=0.5, bg_thr=0.1
    )["counts"]
    assert total["background"] == tide["Bkg"] and total["classification"] == pytest.approx(tide["Cls"], abs=2)
    assert total["localisation"] == pytest.approx(tide["Loc"], abs=3)
