from __future__ import annotations

import pytest
import torch

from tests.heads.contract import CLASSES
from vistasks.heads.head import Trunk, TrunkMismatch
from vistasks.registry import HEADS
from vistasks.types import Features

CHANNELS = {4: 6, 8: 7, 16: 8, 32: 9}


def build(name: str, **options: object) -> torch.nn.Module:
    given = {"trunk": Trunk("trunk", CHANNELS, {}), "classes": CLASSES}
    return HEADS.build({"name": name, **options}, where="head", given=given)


def read(head: torch.nn.Module) -> set[int]:
    """The strides whose maps the head's answer depends on."""
    maps = {s: torch.randn(1, c, 64 // s, 96 // s, requires_grad=True) for s, c in CHANNELS.items()}
    head.eval()(Features(maps), (64, 96)).square().sum().backward()
    return {s for s, found in maps.items() if found.grad is not None}


@pytest.mark.parametrize(
    ("name", "options", "strides"),
    [
        ("aspp", {}, {4, 32}),
        ("aspp", {"stride": 16, "skip": None}, {16}),
        ("lr_aspp", {}, {8, 32}),
        ("lr_aspp", {"stride": 16, "skip": 4}, {4, 16}),
    ],
)
def test_reads_the_strides_that_it_says(name: str, options: dict[str, object], strides: set[int]) -> None:
    assert read(build(name, **options)) == strides


@pytest.mark.parametrize(("stride", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])])
def test_the_rates_reach_as_many_pixels_at_every_stride(stride: int, rates: list[int]) -> None:
    """The papers' 6, 12, 18 at stride 16 and 12, 24, 36 at stride 8."""
    head = build("aspp", stride=stride)
    assert [branch[0].dilation[0] for branch in head.pyramid[0].branches[1:]] == rates


def test_the_gate_of_lr_aspp_scales_every_pixel_alike() -> None:
    head = build("lr_aspp").eval()
    maps = {s: torch.randn(1, c, 64 // s, 96 // s) for s, c in CHANNELS.items()}
    before = head.values(maps[32])
    opened = head.gate(maps[32].mean((2, 3), keepdim=True))
    assert opened.shape == (1, before.shape[1], 1, 1) and ((opened > 0) & (opened < 1)).all()


@pytest.mark.parametrize("name", ["aspp", "lr_aspp"])
def test_a_skip_that_is_not_above_the_pyramid_is_an_error(name: str) -> None:
    with pytest.raises(
        TrunkMismatch, match=f"{name} needs the skip at a smaller stride .*; received skip 16, stride 16"
    ):
        build(name, stride=16, skip=16)
    with pytest.raises(
        TrunkMismatch, match=f"{name} needs maps at strides 32, 2, but the backbone 'trunk' has"
    ):
        build(name, skip=2)
