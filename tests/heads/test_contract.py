"""Every registered head holds the contract; a deliberately wrong one does not."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from tests.heads.contract import CLASSES, check_head, small_trunk
from vistasks.heads.head import Head
from vistasks.heads.segmentation import SegmentationHead
from vistasks.registry import HEADS, Registry
from vistasks.types import Batch, Encoder, Features, SegmentationMap


def names(registry: Registry) -> list[str]:
    if not len(registry):
        raise RuntimeError(f"no {registry.kind} is registered: nothing would be tested")
    return list(registry)


def build(name: str, **options: object) -> tuple[Head, nn.Module]:
    backbone, trunk = small_trunk()
    return HEADS.build(
        {"name": name, **options}, where="head", given={"trunk": trunk, "classes": CLASSES}
    ), backbone


@pytest.mark.parametrize("name", names(HEADS))
def test_contract(name: str) -> None:
    check_head(*build(name))


def test_contract_of_the_warping_detector() -> None:
    check_head(*build("region_classifier", roi="warp", warp={"crop": 64, "context": 4}, hidden=[32]))


@pytest.mark.parametrize(
    "options",
    [
        {"roi": "pool", "align": {"stride": 8, "size": 2}},
        {"align": {"stride": [4, 8, 16], "size": 3, "reduce": 16, "canonical": 40}, "class_agnostic": True},
        {"box_loss": {"kind": "giou", "weight": 2.0}, "label_smoothing": 0.1},
        {"box_loss": {"kind": "ciou"}, "sampling": {"balance": True, "jitter": 3}},
        {"refine": {"foreground_iou": [0.6, 0.7]}, "decoding": {"passes": 2, "voting": 0.6}},
        {"sampling": {"hard": 3, "box_iou": 0.6}, "regress_from": "pooled", "class_agnostic": True},
        {"rpn": {"stride": [16], "scales": [1, 2], "keep": 50}},
        {"rpn": {"stride": [8], "before_nms": 20}, "roi": "warp", "warp": {"crop": 64, "context": 4}},
        {
            "refine": {"foreground_iou": [0.6], "keep": 2},
            "class_agnostic": True,
            "decoding": {"soft_nms": 0.5},
        },
    ],
    ids=lambda options: " ".join(options),
)
def test_contract_of_the_region_classifiers_options(options: dict[str, object]) -> None:
    check_head(*build("region_classifier", hidden=[16], **options))


def test_an_empty_registry_fails_at_collection() -> None:
    with pytest.raises(RuntimeError, match="no head is registered"):
        names(Registry("head"))


class _Wrong(SegmentationHead):
    """A correct little head, whose faults the tests choose."""

    task: ClassVar[str] = "segmentation"

    def __init__(self, channels: int, fault: str) -> None:
        super().__init__(CLASSES, None)
        self.fault = fault
        self.score = nn.Conv2d(channels, len(CLASSES), 1)
        self.unused = nn.Linear(2, 2) if fault == "unused" else None

    def forward(self, features: Features, size: tuple[int, int]) -> torch.Tensor:
        scores = self.score(features.maps[8])
        size = (size[0] // 2, size[1]) if self.fault == "shape" else size
        return nn.functional.interpolate(scores, size=size, mode="bilinear")

    def loss(self, features: Features, batch: Batch, encode: Encoder) -> dict[str, torch.Tensor]:
        if self.fault == "shape":  # so that the loss runs, and only the map is wrong
            batch = replace(batch, segmentation=batch.segmentation[:, ::2])
            return {
                "cross_entropy": nn.functional.cross_entropy(
                    self(features, (64, 96)), batch.segmentation, ignore_index=255
                )
            }
        terms = super().loss(features, batch, encode)
        if self.fault == "constant":
            terms["more"] = terms["cross_entropy"] * 0 + 1
        return terms

    def predict(self, features: Features, batch: Batch, encode: Encoder) -> list[SegmentationMap]:
        maps = super().predict(features, batch, encode)
        if self.fault == "padded":
            return [
                SegmentationMap(self(features, (64, 96))[0].argmax(0).to(torch.uint8).numpy(), self.classes)
                for _ in maps
            ]
        return maps


def test_a_correct_head_passes() -> None:
    backbone, trunk = small_trunk()
    check_head(_Wrong(trunk.channels[8], ""), backbone)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("shape", "where nothing is labelled|the map is"),
        ("unused", "no gradient reaches .*unused"),
        ("constant", "is 1.0 where nothing is labelled"),
        ("padded", "the map is .* the original image"),
    ],
)
def test_a_wrong_head_fails(fault: str, message: str) -> None:
    backbone, trunk = small_trunk()
    with pytest.raises(AssertionError, match=message):
        check_head(_Wrong(trunk.channels[8], fault), backbone)
