from __future__ import annotations

import pytest
import torch

from tests.heads.contract import CLASSES, check_head, model_with, scene, small_trunk
from vistasks.heads.head import Trunk, TrunkMismatch
from vistasks.registry import BACKBONES, HEADS
from vistasks.types import Features

EVERY_TRUNK = [name for name in BACKBONES if name != "timm"]  # timm's has a required option


def decoder(channels: dict[int, int], **options: object) -> torch.nn.Module:
    given = {"trunk": Trunk("trunk", channels, {}), "classes": CLASSES}
    return HEADS.build({"name": "skip_decoder", **options}, where="head", given=given)


@pytest.mark.parametrize("name", EVERY_TRUNK)
def test_stands_on_every_trunk(name: str) -> None:
    with torch.device("meta"):
        channels = BACKBONES[name]().channels
    head = decoder(channels).eval()
    stride = max(channels)
    size = (2 * stride, 3 * stride)
    maps = {s: torch.randn(1, c, size[0] // s, size[1] // s) for s, c in channels.items()}
    assert head(Features(maps), size).shape == (1, len(CLASSES), *size)


def test_reads_every_map_down_to_the_finest_stride() -> None:
    channels = {1: 3, 2: 4, 4: 5, 8: 6, 16: 7}
    maps = {s: torch.randn(1, c, 32 // s, 64 // s, requires_grad=True) for s, c in channels.items()}
    decoder(channels, finest=4).eval()(Features(maps), (32, 64)).sum().backward()
    assert {s for s, found in maps.items() if found.grad is not None} == {4, 8, 16}


def test_the_last_width_serves_for_all_that_follow() -> None:
    head = decoder({2: 4, 4: 5, 8: 6, 16: 7}, widths=[16, 8])
    assert [narrow.out_channels for narrow in head.narrow] == [8, 8, 8]


def test_a_trunk_that_ends_too_early_is_named() -> None:
    with pytest.raises(
        TrunkMismatch, match=r"goes up to stride 8, but the backbone 'trunk' ends at stride 4"
    ):
        decoder({2: 4, 4: 8}, finest=8)


@pytest.mark.parametrize(
    "options",
    [
        {"rates": []},
        {"finest": 8, "auxiliary": {"stride": 8, "channels": 8}},
        {"loss": {"cross_entropy": 0, "focal": 1, "ohem": 1, "dice": 1, "lovasz": 1}},
        {"class_weights": [1.0, 2.0, 0.5]},
    ],
)
def test_options_hold_the_contract(options: dict[str, object]) -> None:
    backbone, trunk = small_trunk()
    head = HEADS.build(
        {"name": "skip_decoder", **options}, where="head", given={"trunk": trunk, "classes": CLASSES}
    )
    check_head(head, backbone)


def test_the_auxiliary_classifier_teaches_the_trunk_and_is_absent_from_prediction() -> None:
    backbone, trunk = small_trunk()
    options = {"name": "skip_decoder", "auxiliary": {"stride": 16, "weight": 0.5, "channels": 8}}
    head = HEADS.build(options, where="head", given={"trunk": trunk, "classes": CLASSES})
    model = model_with(head, backbone)
    terms = model.loss(scene())
    assert set(terms) == {"segmentation/cross_entropy", "segmentation/auxiliary"}
    terms["segmentation/auxiliary"].backward()
    assert all(p.grad is not None for p in head.auxiliary.parameters()) and head.scores[0].weight.grad is None
    before = model.eval().predict(scene())[0].segmentation.labels
    torch.nn.init.zeros_(head.auxiliary[2].weight)
    assert (model.predict(scene())[0].segmentation.labels == before).all()


def test_an_auxiliary_stride_that_the_trunk_lacks_is_an_error() -> None:
    with pytest.raises(
        TrunkMismatch, match="auxiliary needs maps at strides 16, but the backbone 'trunk' has strides 4, 8"
    ):
        decoder({4: 8, 8: 8}, auxiliary={"stride": 16})


def test_class_weights_by_rule_must_be_worked_out_before_training() -> None:
    backbone, trunk = small_trunk()
    options = {"name": "skip_decoder", "class_weights": "median_frequency"}
    head = HEADS.build(options, where="head", given={"trunk": trunk, "classes": CLASSES})
    with pytest.raises(
        ValueError, match=r"'median_frequency' is worked out from the training data.*resolved_config"
    ):
        model_with(head, backbone).loss(scene())
