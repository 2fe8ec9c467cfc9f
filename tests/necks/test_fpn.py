"""Every registered neck gives what it publishes; FPN's own formula and errors."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.contracts import check_neck
from vistasks.backbones import BACKBONES
from vistasks.necks import NECKS
from vistasks.necks.fpn import FPN
from vistasks.types import Features

TRUNK = {2: 6, 4: 8, 8: 12, 16: 16, 32: 20}


def names() -> list[str]:
    if not len(NECKS):
        raise RuntimeError("no neck is registered: nothing would be tested")
    return list(NECKS)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("trunk", [TRUNK, {4: 8, 16: 16}, {8: 5}])
def test_contract(name: str, trunk: dict[int, int]) -> None:
    torch.manual_seed(0)
    check_neck(NECKS.build({"name": name}, where="model.neck", given={"in_channels": trunk}), trunk)


def test_the_contract_names_wrong_channels() -> None:
    neck = FPN(in_channels=TRUNK, channels=7)
    neck.channels[8] = 9
    with pytest.raises(AssertionError, match="stride 8: publishes 9 channels, the map has 7"):
        check_neck(neck, TRUNK)


def test_strides_are_chosen() -> None:
    neck = NECKS.build(
        {"name": "fpn", "channels": 5, "strides": [16, 4]}, where="model.neck", given={"in_channels": TRUNK}
    )
    assert neck.channels == {4: 5, 16: 5}
    check_neck(neck, TRUNK)


def test_the_finest_map_is_the_papers_sum() -> None:
    """Lin et al. 2017, figure 3, with strides 4 and 8: P4 = conv3x3(lateral(C4) + nearest upsampling of
    lateral(C8)).
    """
    neck = FPN(in_channels={4: 3, 8: 5}, channels=4)
    maps = {4: torch.randn(1, 3, 6, 4), 8: torch.randn(1, 5, 3, 2)}
    found = neck(Features(maps=maps)).maps
    coarse = neck.lateral["8"](maps[8])
    torch.testing.assert_close(found[8], neck.output["8"](coarse))
    up = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    last = neck.output["4"]
    torch.testing.assert_close(
        found[4], F.conv2d(neck.lateral["4"](maps[4]) + up, last.weight, last.bias, padding=1)
    )


def test_it_stands_on_a_real_trunk() -> None:
    trunk = BACKBONES["mobilenet_v3_small"]().eval()
    neck = FPN(in_channels=trunk.channels, channels=16)
    maps = neck(trunk(torch.randn(1, 3, 64, 32))).maps
    shapes = {stride: tuple(found.shape) for stride, found in maps.items()}
    assert shapes == {stride: (1, 16, 64 // stride, 32 // stride) for stride in (4, 8, 16, 32)}


@pytest.mark.parametrize("strides", [[3], [4, 64], []])
def test_strides_that_the_trunk_lacks_are_refused(strides: list[int]) -> None:
    with pytest.raises(
        ValueError, match=r"fpn: strides .* must be some of the backbone's: \[2, 4, 8, 16, 32\]"
    ):
        FPN(in_channels=TRUNK, strides=strides)


def test_no_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="fpn: channels must be at least 1, not 0"):
        FPN(in_channels=TRUNK, channels=0)
