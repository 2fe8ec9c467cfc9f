"""The numbers that judge proposals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from vistasks.ops.box_arrays import overlaps
from vistasks.proposals.recall import BUDGETS, ProposalRecall, best_overlaps
from vistasks.types import Sample


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 80, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 20, (count, 2))], axis=1).astype(np.float32)


def test_overlaps_are_torchvision_s() -> None:
    rng = np.random.default_rng(0)
    a, b = _boxes(rng, 7), _boxes(rng, 9)
    np.testing.assert_allclose(
        overlaps(a, b), box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy(), atol=1e-6
    )


def test_best_overlaps_are_those_of_the_first_boxes() -> None:
    rng = np.random.default_rng(1)
    objects, boxes = _boxes(rng, 5), _boxes(rng, 40)
    best = best_overlaps(objects, boxes, (1, 10, 1000))
    for column, count in enumerate((1, 10, 40, 40)):
        np.testing.assert_array_equal(best[:, column], overlaps(objects, boxes[:count]).max(axis=1))
    assert best_overlaps(objects, boxes[:0]).tolist() == [[0.0] * (len(BUDGETS) + 1)] * 5
    assert best_overlaps(objects[:0], boxes).shape == (0, len(BUDGETS) + 1)


def _sample() -> Sample:
    objects = np.array([[0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 60, 60], [70, 70, 80, 80]], np.float32)
    difficult, crowd = np.array([0, 0, 1, 0], bool), np.array([0, 0, 0, 1], bool)
    image = np.zeros((100, 100, 3), np.uint8)
    return Sample("a", "a.png", image, objects, np.array([0, 2, 0, 0]), difficult, crowd)


def test_numbers_by_hand() -> None:
    """The second object is met exactly by the 11th box, the first with IoU .6; difficult objects and crowds
    do not count.
    """
    boxes = np.array([[0, 0, 10, 6]] + [[90, 90, 99, 99]] * 9 + [[20, 20, 40, 40]], np.float32)
    recall = ProposalRecall(("cat", "dog", "cow"), (10, 100))
    recall.update(_sample(), boxes)
    result = recall.compute()
    assert (result["pictures"], result["objects"], result["boxes"]) == (1, 2, 11)
    assert result["abo"] == pytest.approx({"cat": 0.6, "cow": 1.0})
    ten, every = result["budgets"]["10"], result["budgets"]["all"]
    assert ten["recall"] == {"0.5": 0.5, "0.7": 0, "0.9": 0} and every["recall"] == {
        "0.5": 1,
        "0.7": 0.5,
        "0.9": 0.5,
    }
    assert ten["mean_best_overlap"] == pytest.approx(0.3) and every["mabo"] == pytest.approx(0.8)
    assert ten["average_recall"] == pytest.approx(3 / 20) and every["average_recall"] == pytest.approx(
        13 / 20
    )
    assert result["budgets"]["100"] == every


def test_mabo_weighs_classes_not_objects() -> None:
    recall = ProposalRecall(("cat", "dog", "cow"), ())
    image = np.zeros((100, 100, 3), np.uint8)
    objects = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 40, 40]], np.float32)
    recall.update(Sample("a", "a.png", image, objects, np.array([0, 0, 2])), objects[:1])
    every = recall.compute()["budgets"]["all"]
    assert every["mean_best_overlap"] == pytest.approx(2 / 3) and every["mabo"] == pytest.approx(1 / 2)


def test_without_pictures_or_objects_there_are_no_numbers() -> None:
    recall = ProposalRecall(("cat",))
    assert recall.compute()["budgets"]["all"]["mabo"] is None
    recall.update(Sample("a", "a.png", np.zeros((4, 4, 3), np.uint8)), np.zeros((0, 4), np.float32))
    result = recall.compute()
    assert result["pictures"] == 1 and result["budgets"]["all"]["recall"] == {
        "0.5": None,
        "0.7": None,
        "0.9": None,
    }
