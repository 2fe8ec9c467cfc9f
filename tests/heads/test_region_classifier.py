"""That the region classifier hands its options on to what they are for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.heads.contract import CLASSES, model_with, scene, small_trunk
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.heads.region_predictor import Refine
from vistasks.models import MultiTaskModel


def model(**options: Any) -> tuple[MultiTaskModel, RegionClassifier]:
    """Always with the same weights."""
    backbone, trunk = small_trunk()
    torch.manual_seed(1)
    head = RegionClassifier(trunk=trunk, classes=CLASSES, hidden=[16], **options)
    return model_with(head, backbone).eval(), head


def losses(**options: Any) -> dict[str, Tensor]:
    found, _ = model(**options)
    torch.manual_seed(0)
    return found.loss(scene())


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    found, head = model(label_smoothing=0.2)
    bias = torch.tensor([1.0, 0.0, -1.0, 0.5])
    with torch.no_grad():
        head.stages[0].classify.weight.zero_()
        head.stages[0].classify.bias.copy_(bias)
    nothing = replace(
        scene(), boxes=(torch.zeros(0, 4),) * 2, labels=(torch.zeros(0, dtype=torch.int64),) * 2
    )
    log_probability = bias.log_softmax(0)  # of the three classes and the background
    expected = -0.8 * log_probability[3] - 0.2 * log_probability.mean()
    assert found.loss(nothing)["detection/classification"].item() == pytest.approx(float(expected), rel=1e-5)


def test_the_losses_of_further_stages_have_their_weight() -> None:
    one, three = (losses(refine=Refine(foreground_iou=(0.6,), loss_weight=weight)) for weight in (1.0, 3.0))
    for term in ("classification", "box"):
        assert three[f"detection/{term}"].item() == one[f"detection/{term}"].item()
        assert 0 < three[f"detection/{term}_2"].item() == pytest.approx(3 * one[f"detection/{term}_2"].item())


def test_duplicates_do_not_go_on_to_the_next_stage() -> None:
    boxes = torch.tensor([[4.0, 4, 40, 40], [4.0, 4, 40, 39], [50.0, 10, 90, 48]])  # IoU .97 and 0
    for nms, expected in ((0.8, 2), (1.0, 3)):
        found, head = model(refine=Refine(foreground_iou=(0.6,), nms=nms))
        with torch.no_grad():  # boxes stay where they are, all of one class
            head.stages[0].regress.weight.zero_()
            head.stages[0].classify.weight.zero_()
            head.stages[0].classify.bias.copy_(torch.tensor([0.0, 3.0, 0.0, 0.0]))
        seen: list[int] = []
        head.stages[1].register_forward_hook(
            lambda layers, given, answer, seen=seen: seen.append(len(given[0]))
        )
        found.predict(replace(scene(1), proposals=(boxes,)))
        assert seen == [expected]
