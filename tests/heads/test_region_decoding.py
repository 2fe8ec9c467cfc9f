from __future__ import annotations

import math

import pytest
import torch

from vistasks.heads.region_decoding import LOGIT_EPS, Decoding, calibrated, select_detections, soft_nms, vote

BOXES = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10], [50.0, 50, 60, 60]])[
    :, None
]  # (R, 1, 4): class-agnostic
SCORES = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.02, 0.9, 0.08]])  # two classes and the background


def test_duplicates_within_a_class_or_over_all() -> None:
    boxes, scores, labels = select_detections(SCORES, BOXES, Decoding(score=0.3))
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.6]) and labels.tolist() == [1, 0, 1]
    assert boxes[:, 0].tolist() == [50, 0, 1]
    _, scores, _ = select_detections(SCORES, BOXES, Decoding(score=0.3, class_agnostic=True))
    assert scores.tolist() == pytest.approx([0.9, 0.8])
    assert len(select_detections(SCORES, BOXES, Decoding(score=0.3, max_detections=1))[0]) == 1


def test_soft_nms_lowers_what_nms_drops() -> None:
    boxes = BOXES[:, 0]
    kept, left = soft_nms(
        boxes, torch.tensor([0.9, 0.8, 0.3]), torch.zeros(3), sigma=0.5, threshold=0.05, count=9
    )
    overlap = 90 / 110
    assert kept.tolist() == [0, 2, 1]  # the second falls behind the third
    expected = 0.8 * torch.exp(torch.tensor(-(overlap**2) / 0.5))
    assert left.tolist() == pytest.approx([0.9, 0.3, float(expected)])
    other = torch.tensor([0, 1, 1])
    assert soft_nms(boxes, torch.tensor([0.9, 0.8, 0.3]), other, 0.5, 0.05, 9)[1].tolist() == pytest.approx(
        [0.9, 0.8, 0.3]
    )
    assert soft_nms(boxes, torch.tensor([0.9, 0.8, 0.3]), other, 0.5, 0.5, 9)[0].tolist() == [0, 1]


def test_voting_is_the_mean_by_score_of_the_classes_own() -> None:
    boxes = BOXES[:, 0]
    found = vote(
        boxes[:1], torch.tensor([0]), boxes, torch.tensor([0, 0, 0]), torch.tensor([0.6, 0.2, 0.9]), 0.5
    )
    assert found[0].tolist() == pytest.approx([0.25, 0, 10.25, 10])
    found = vote(
        boxes[:1], torch.tensor([0]), boxes, torch.tensor([0, 1, 0]), torch.tensor([0.6, 0.2, 0.9]), 0.5
    )
    assert found[0].tolist() == boxes[0].tolist()


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(soft_nms=0.5, voting=0.5)])
def test_nothing_found(decoding: Decoding) -> None:
    boxes, scores, labels = select_detections(torch.zeros(0, 3), torch.zeros(0, 2, 4), decoding)
    assert boxes.shape == (0, 4) and scores.shape == labels.shape == (0,)
    assert len(select_detections(SCORES * 0, BOXES, decoding)[0]) == 0


@pytest.mark.parametrize("wrong", [{"soft_nms": 0}, {"voting": 1.5}, {"passes": 0}, {"score": -1}])
def test_the_options_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Decoding(**wrong)  # type: ignore[arg-type]


def test_the_overlap_from_which_on_the_worse_box_goes() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 6]])[:, None]  # IoU .6
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    for nms, left in ((0.5, 1), (0.55, 1), (0.65, 2)):
        assert len(select_detections(scores, boxes, Decoding(nms=nms))[0]) == left


def test_only_boxes_with_a_greater_score_are_left() -> None:
    scores = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]])
    for soft in (None, 0.5):
        found = select_detections(scores, BOXES * 10, Decoding(score=0.5, soft_nms=soft))[1]
        assert found.tolist() == [0.75]


def test_boxes_with_just_the_overlap_vote() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 5]])  # IoU .5
    found = vote(boxes[:1], torch.tensor([0]), boxes, torch.tensor([0, 0]), torch.tensor([0.5, 0.5]), 0.5)
    assert found[0].tolist() == pytest.approx([0, 0, 10, 7.5])


def test_soft_nms_of_nothing_sure() -> None:
    kept, left = soft_nms(
        BOXES[:, 0], torch.tensor([0.1, 0.2, 0.3]), torch.zeros(3), 0.5, threshold=0.3, count=9
    )
    assert len(kept) == len(left) == 0


def test_calibration_is_of_the_classes_and_finite_where_a_score_is_certain() -> None:
    with pytest.raises(ValueError, match="calibration is of the classes cat; the head's are cat, dog"):
        Decoding(calibration={"cat": (2.0, 0.5)}).check(["cat", "dog"])
    Decoding(calibration={"cat": (2.0, 0.5), "dog": (1.0, 0.0)}).check(["dog", "cat"])
    Decoding().check(["cat"])
    scores = torch.tensor([1.0, 0.5, 0.0])
    found = calibrated(
        scores, torch.tensor([0, 0, 1]), ["cat", "dog"], {"dog": (1.0, 0.0), "cat": (2.0, 0.5)}
    )
    assert found.tolist() == pytest.approx([1, 1 / (1 + math.exp(-0.5)), LOGIT_EPS], rel=1e-5)
