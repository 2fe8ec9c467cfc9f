"""Panoptic quality: against hotcoco's, and a worked example."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from vistasks.metrics.panoptic import PanopticQuality, Segments, panoptic_counts, segments
from vistasks.types import Detections, Labelled, Prediction, Sample, SegmentationMap

NAMES = ("background", "cat", "dog", "grass")
BOXES = ("cat", "dog")


def _random(generator: np.random.Generator, objects: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A class map of cat, dog and grass with ignored pixels, its boxes and their classes."""
    labels = np.full((60, 80), 3, np.uint8)
    boxes, classes = np.zeros((objects, 4), np.float32), generator.integers(1, 3, objects)
    for row in range(objects):
        x, y, w, h = generator.integers([0, 0, 8, 8], [50, 40, 30, 20])
        boxes[row] = x, y, x + w, y + h
        labels[y : y + h, x : x + w] = classes[row]
    return labels, boxes, classes


def _shaken(
    generator: np.random.Generator, labels: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    shift = generator.integers(0, 4)
    return np.roll(labels, shift, axis=1), np.clip(
        boxes + shift + generator.integers(-1, 2, boxes.shape), 0, [80, 60, 80, 60]
    )


def _file(found: list[Segments]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The segments of several pictures as COCO's annotations, one a segment."""
    categories = [{"id": k, "name": NAMES[k], "isthing": int(NAMES[k] in BOXES)} for k in (1, 2, 3)]
    images, annotations = [], []
    for number, one in enumerate(found, 1):
        images.append({"id": number, "file_name": f"{number}.png", "height": 60, "width": 80})
        for segment in np.unique(one.ids[one.ids >= 0]).tolist():
            mask = one.ids == segment
            encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": int(one.labels[segment]), "iscrowd": 0,
                "segmentation": {"size": [60, 80], "counts": encoded["counts"].decode()}, "area": int(mask.sum()),
                "bbox": [0, 0, 80, 60],
            })  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": categories}, annotations


@pytest.mark.parametrize("seed", [0, 1])
def test_the_numbers_are_hotcocos(seed: int, tmp_path: Any) -> None:
    import json

    from hotcoco import COCO
    from hotcoco.panoptic import PanopticEval

    generator = np.random.default_rng(seed)
    stuff = [False, False, False, True]
    truths, found, counts = [], [], []
    for _ in range(12):
        labels, boxes, classes = _random(generator, int(generator.integers(0, 6)))
        moved, other = _shaken(generator, labels, boxes)
        labels[:5] = 255
        truths.append(segments(labels, boxes, classes, stuff))
        found.append(segments(moved, other[1:], classes[1:], stuff))
        void = truths[-1].ids < 0  # to hotcoco what nobody labelled is unknown
        counts.append(
            panoptic_counts(truths[-1], found[-1], void, np.zeros(len(truths[-1].labels), bool), len(NAMES))
        )
    (tmp_path / "truth.json").write_text(json.dumps(_file(truths)[0]))
    (tmp_path / "found.json").write_text(json.dumps([{**a, "score": 1.0} for a in _file(found)[1]]))
    gt = COCO(str(tmp_path / "truth.json"))
    evaluation = PanopticEval(gt, gt.load_res(str(tmp_path / "found.json")))
    evaluation.evaluate()
    expected = evaluation.report()["per_class"]
    for k in (1, 2, 3):
        hits, false, missed, iou = (sum(int(getattr(c, n)[k]) if n != "iou" else float(c.iou[k]) for c in counts)
                                    for n in ("found", "false", "missed", "iou"))  # fmt: skip
        assert hits > 3 and (k == 3 or missed > 0)  # or nothing would be compared
        row = expected[NAMES[k]]
        size = hits + (false + missed) / 2
        assert [iou / size, iou / hits, hits / size] == pytest.approx(
            [row["PQ"], row["SQ"], row["RQ"]], abs=1e-9
        )


def _sample(labels: np.ndarray, boxes: list[list[float]], classes: list[int], **more: Any) -> Sample:
    image, corners = np.zeros((*labels.shape, 3), np.uint8), np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(
        "a", "a.png", image, corners, np.array(classes, np.int64), segmentation=labels,
        labelled=Labelled(frozenset({0, 1}), frozenset(range(4))), **more,
    )  # fmt: skip


def _said(
    labels: np.ndarray, boxes: list[list[float]], scores: list[float], classes: list[int]
) -> Prediction:
    found = Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(classes), BOXES
    )
    return Prediction(found, SegmentationMap(labels, NAMES))


def _example() -> tuple[np.ndarray, np.ndarray]:
    """Two cats side by side, touching; the second is predicted half as wide. Grass below."""
    truth = np.zeros((20, 40), np.uint8)
    truth[0:10, 0:20], truth[10:20] = 1, 3
    found = truth.copy()
    found[0:10, 16:20] = 0
    return truth, found


def test_a_worked_example() -> None:
    truth, labels = _example()
    metric = PanopticQuality(NAMES, boxes=BOXES)
    cats = [[0, 0, 10, 10], [10, 0, 20, 10]]
    found = [[0, 0, 10, 10], [10, 0, 16, 10], [0, 0, 9, 10], [30, 0, 40, 8], [12, 0, 40, 10]]
    metric.update(
        _said(labels, found, [0.9, 0.8, 0.7, 0.6, 0.4], [0, 0, 0, 1, 0]), _sample(truth, cats, [0, 0])
    )
    result = metric.compute()
    # the cats: IoU 1 and .6; the third detection is the first again, the fourth has no dog's pixel, the last
    # is too unsure
    assert result["per_class"]["cat"] == pytest.approx({"PQ": 0.8, "SQ": 0.8, "RQ": 1.0, "segments": 2})
    assert result["per_class"]["grass"] == {"PQ": 1.0, "SQ": 1.0, "RQ": 1.0, "segments": 1}
    assert result["per_class"]["dog"]["PQ"] is None and result["per_class"]["background"]["PQ"] is None
    assert (result["PQ"], result["PQ_things"], result["PQ_stuff"]) == pytest.approx((0.9, 0.8, 1.0))
    assert "approximate" in result["protocol"]


def test_missed_false_and_ignored_segments() -> None:
    truth, _ = _example()
    labels = truth.copy()
    labels[0:8, 30:40] = 2
    cats, dog = [[0, 0, 10, 10], [10, 0, 20, 10]], [30, 0, 40, 8]
    said = _said(labels, [cats[0], dog], [0.9, 0.9], [0, 1])
    metric = PanopticQuality(NAMES, boxes=BOXES)
    metric.update(said, _sample(truth, cats, [0, 0]))
    rows = metric.compute()["per_class"]
    assert rows["cat"] == pytest.approx({"PQ": 2 / 3, "SQ": 1.0, "RQ": 2 / 3, "segments": 2})
    assert rows["dog"] == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "segments": 0}  # on the background: false
    hard, unknown = PanopticQuality(NAMES, boxes=BOXES), truth.copy()
    unknown[0:8, 30:40] = 255
    hard.update(said, _sample(unknown, cats, [0, 0], difficult=np.array([False, True])))
    rows = hard.compute()["per_class"]
    assert rows["cat"]["PQ"] == 1.0 and rows["dog"]["PQ"] is None  # what nobody knows is not false


def test_pictures_that_are_not_labelled_throughout_are_left_out() -> None:
    truth, labels = _example()
    sample = _sample(truth, [], [])
    metric = PanopticQuality(NAMES, boxes=BOXES)
    for labelled in (Labelled(frozenset({0}), frozenset(range(4))), Labelled(frozenset({0, 1}), frozenset())):
        object.__setattr__(sample, "labelled", labelled)
        metric.update(_said(labels, [], [], []), sample)
    assert metric.compute()["PQ"] is None and metric.state() == {}
