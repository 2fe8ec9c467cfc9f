from __future__ import annotations

from typing import Literal

import pytest
import torch
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from vistasks.heads.region_predictor import BoxLoss, RegionPredictor, best_class_boxes
from vistasks.heads.region_sampling import Regions
from vistasks.ops.boxes import encode

REGIONS = torch.tensor([[0.0, 0, 20, 20], [10.0, 10, 40, 50], [5.0, 5, 9, 9]])
OBJECTS = torch.tensor([[2.0, 0, 22, 24], [10.0, 14, 44, 50], [0.0, 0, 1, 1]])
LABELS = torch.tensor([1, 0, 2])  # 2: background


def predictor(*, class_agnostic: bool = False, stage: int = 0) -> RegionPredictor:
    return RegionPredictor(
        inputs=8, hidden=[4], classes=2, dropout=0, class_agnostic=class_agnostic, stage=stage
    )


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "ciou"])
@pytest.mark.parametrize("stage", [0, 2])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_the_exact_deltas_cost_nothing_and_others_do(
    kind: Literal["smooth_l1", "giou", "ciou"], stage: int, class_agnostic: bool
) -> None:
    layers = predictor(class_agnostic=class_agnostic, stage=stage)
    right = encode(REGIONS, OBJECTS, layers.scale)
    deltas = torch.full((3, 1 if class_agnostic else 2, 4), 9.0)
    deltas[0, 0 if class_agnostic else 1] = right[0]
    deltas[1, 0] = right[1]
    arguments = (REGIONS, OBJECTS, LABELS)
    loss = layers.box_loss(deltas, *arguments, background=2, loss=BoxLoss(kind=kind))
    assert float(loss) == pytest.approx(0, abs=1e-5)
    assert torch.allclose(layers.boxes(REGIONS, deltas)[1, 0], OBJECTS[1], atol=1e-4)
    once = layers.box_loss(deltas * 0, *arguments, background=2, loss=BoxLoss(kind=kind))
    twice = layers.box_loss(deltas * 0, *arguments, background=2, loss=BoxLoss(kind=kind, weight=2))
    assert 0 < float(once) == pytest.approx(float(twice) / 2)


def test_the_hardest_regions_are_those_of_the_greatest_loss() -> None:
    layers = predictor()
    right = encode(REGIONS, OBJECTS, layers.scale)[:, None].repeat(1, 2, 1)
    sure = torch.tensor([[0.0, 9, 0], [9.0, 0, 0], [0.0, 0, 9]])
    regions, loss = Regions(REGIONS, LABELS, OBJECTS), BoxLoss()
    for hard in range(3):
        logits = sure.clone()
        logits[hard] = 0
        assert layers.hardest(logits, right, regions, 1, loss=loss).tolist() == [hard]
    wrong = right.clone()
    wrong[1] += 3
    wrong[2] += 99  # of the background, which has no box
    assert layers.hardest(sure, wrong, regions, 1, loss=loss).tolist() == [1]
    assert len(layers.hardest(sure, wrong, regions, 9, loss=loss)) == 3


def test_boxes_from_the_pooled_features() -> None:
    layers = RegionPredictor(
        inputs=8, hidden=[4], classes=2, dropout=0, class_agnostic=False, regress_from="pooled"
    )
    assert layers.regress.in_features == 8 and layers.classify.in_features == 4
    assert layers(torch.rand(3, 2, 2, 2))[1].shape == (3, 2, 4)


def test_as_many_ranks_as_layers() -> None:
    with pytest.raises(ValueError, match="ranks must be one for each of the 1 hidden layers; received 2"):
        RegionPredictor(inputs=8, hidden=[4], classes=2, dropout=0, class_agnostic=False, ranks=[2, 2])


def test_the_box_of_the_likeliest_class() -> None:
    scores, boxes = torch.tensor([[0.1, 0.3, 0.6], [0.4, 0.2, 0.4]]), torch.arange(16.0).view(2, 2, 4)
    found, label = best_class_boxes(scores, boxes)
    assert label.tolist() == [1, 0] and found.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert best_class_boxes(scores, boxes[:, :1])[0].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]


def test_the_box_loss_is_a_sum_over_the_foreground_by_the_number_of_all_regions() -> None:
    layers = predictor()
    deltas = encode(REGIONS, OBJECTS, layers.scale)[:, None].repeat(1, 2, 1)
    deltas[0, 1] += torch.tensor([0.5, -0.5, 0.5, 2.0])  # the foreground: .5 * .5**2 three times, and 2 - .5
    found = layers.box_loss(deltas, REGIONS, OBJECTS, LABELS, background=2, loss=BoxLoss())
    assert float(found) == pytest.approx((3 * 0.125 + 1.5) / 3)


def test_later_stages_scale_their_deltas_up() -> None:
    assert [predictor(stage=stage).scale for stage in range(2)] == [(10, 10, 5, 5), (20, 20, 10, 10)]


def test_layers_begin_as_the_paper_says() -> None:
    torch.manual_seed(0)
    layers = RegionPredictor(
        inputs=500, hidden=[400, 300], classes=99, dropout=0, class_agnostic=False, ranks=[7, 9]
    )
    assert layers.classify.in_features == layers.regress.in_features == 300
    assert layers.classify.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert layers.regress.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not layers.classify.bias.any() and not layers.regress.bias.any()
    first, second = layers.fc[1][0]
    assert first.weight.shape == (7, 500) and first.bias is None and second.weight.shape == (400, 7)
    assert second.bias is not None


def test_box_losses_of_decoded_boxes_are_torchvisions() -> None:
    layers = predictor()
    foreground = LABELS < 2
    for kind, peer in (("giou", generalized_box_iou_loss), ("ciou", complete_box_iou_loss)):
        found = layers.box_loss(
            torch.zeros(3, 2, 4), REGIONS, OBJECTS, LABELS, background=2, loss=BoxLoss(kind=kind)
        )
        expected = peer(REGIONS[foreground], OBJECTS[foreground], reduction="sum") / 3
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
