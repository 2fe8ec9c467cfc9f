from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vistasks.heads.head import Trunk, TrunkMismatch
from vistasks.heads.region_features import AlignedRegions, WarpedRegions
from vistasks.types import Features

TRUNK = Trunk("trunk", {8: 4, 16: 6}, {})


def encode(images: torch.Tensor) -> Features:
    """A "trunk" that averages: stride 16, the three colours twice."""
    pooled = functional.avg_pool2d(images, 16)
    return Features({16: torch.cat([pooled, pooled], dim=1)}, images=images)


def test_aligned_regions_read_the_place_they_cover() -> None:
    ramp = torch.arange(8.0).expand(1, 4, 8, 8).contiguous()  # the column, at stride 8
    regions = AlignedRegions(trunk=TRUNK, strides=[8], size=2, reduce=None)
    boxes = torch.tensor([[16.0, 0, 32, 16], [32.0, 16, 64, 48]])
    found = regions(Features({8: ramp}), [boxes], encode)
    # the cell (i, j) covers [8j, 8j + 8): at x the ramp is x / 8 - 1/2
    assert torch.allclose(found[0, 0, 0], torch.tensor([20 / 8, 28 / 8]) - 0.5)
    assert torch.allclose(found[1, 0, 0], torch.tensor([40 / 8, 56 / 8]) - 0.5)


def test_aligned_regions_of_several_images_keep_their_order() -> None:
    maps = torch.stack([torch.full((4, 8, 8), value) for value in (1.0, 2.0, 3.0)])
    box = torch.tensor([[0.0, 0, 32, 32]])
    aligned = AlignedRegions(trunk=TRUNK, strides=[8], size=1, reduce=None)
    found = aligned(Features({8: maps}), [box, box[:0], box.repeat(2, 1)], encode)
    assert found[:, 0, 0, 0].tolist() == [1, 3, 3]


@pytest.mark.parametrize("strides", [[8], [8, 16]])
def test_prediction_pools_the_same_values_as_training(strides: list[int]) -> None:
    torch.manual_seed(0)
    regions = AlignedRegions(trunk=TRUNK, strides=strides, size=3, reduce=5)
    features = Features({8: torch.randn(2, 4, 12, 12), 16: torch.randn(2, 6, 6, 6)})
    boxes = [torch.tensor([[3.0, 5, 90, 80], [40, 2, 60, 30]]), torch.tensor([[0.0, 0, 96, 96]])]
    learnt = regions(features, boxes, encode)
    with torch.no_grad():
        torch.testing.assert_close(regions(features, boxes, encode), learnt, rtol=1e-4, atol=1e-5)


def test_a_regions_size_picks_its_level() -> None:
    trunk = Trunk("fpn", {4: 2, 8: 2, 16: 2}, {})
    regions = AlignedRegions(trunk=trunk, strides=[16, 4, 8], size=2, reduce=None, canonical=112)
    sides = torch.tensor([1.0, 55, 57, 111, 113, 500])  # stride 16 from 112 on, half of it at half the side
    boxes = torch.stack([torch.zeros(6), torch.zeros(6), sides, sides], dim=1)
    assert [regions.strides[level] for level in regions.levels(boxes)] == [4, 4, 8, 8, 16, 16]
    maps = {stride: torch.full((2, 2, 512 // stride, 512 // stride), float(stride)) for stride in (4, 8, 16)}
    found = regions(Features(maps), [boxes[:3], boxes[3:]], encode)
    assert found[:, 0, 0, 0].tolist() == [4, 4, 8, 8, 16, 16]


def test_levels_of_different_width_need_a_reduction() -> None:
    with pytest.raises(
        ValueError, match=r"have 4 at 8, 6 at 16; add a neck such as fpn, or set align\.reduce"
    ):
        AlignedRegions(trunk=TRUNK, strides=[8, 16], size=2, reduce=None)
    assert AlignedRegions(trunk=TRUNK, strides=[8, 16], size=2, reduce=3).channels == 3


def test_pooling_takes_the_maximum() -> None:
    ramp = torch.arange(8.0).expand(1, 4, 8, 8).contiguous()
    pooled = AlignedRegions(trunk=TRUNK, strides=[8], size=2, reduce=None, pool=True)
    assert pooled(Features({8: ramp}), [torch.tensor([[0.0, 0, 24, 24]])], encode)[0, 0, 0].tolist() == [1, 3]


def test_a_stride_that_the_trunk_lacks() -> None:
    with pytest.raises(
        TrunkMismatch, match="needs maps at strides 4, but the backbone 'trunk' has strides 8, 16"
    ):
        AlignedRegions(trunk=TRUNK, strides=[4], size=7, reduce=None)


def test_warping_a_box_of_the_crop_size_without_context_is_cropping() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 80)
    warped = WarpedRegions(trunk=TRUNK, crop=32, context=0)
    boxes = torch.tensor([[8.0, 16, 40, 48], [0.0, 0, 32, 32]])
    crops = warped.warp(images, boxes, torch.tensor([0, 1]))
    assert torch.allclose(crops[0], images[0, :, 16:48, 8:40], atol=1e-5)
    assert torch.allclose(crops[1], images[1, :, :32, :32], atol=1e-5)


def test_warping_pads_with_context_and_with_the_mean_outside() -> None:
    images = torch.ones(1, 3, 64, 64)
    warped = WarpedRegions(trunk=TRUNK, crop=32, context=8)
    crop = warped.warp(images, torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([0]))[0]
    assert crop[:, 16:, 16:].min() == 1  # the region and the context below and right of it
    assert crop[:, :7].max() == 0 and crop[:, :, :7].max() == 0  # context above and left, outside the picture


def test_warping_is_in_the_order_of_the_regions_and_in_chunks() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64)
    regions = [torch.tensor([[0.0, 0, 32, 32], [10.0, 10, 50, 60]]), torch.tensor([[5.0, 5, 40, 30]])]
    features = Features({}, images=images)
    whole = WarpedRegions(trunk=TRUNK, crop=32, context=4)(features, regions, encode)
    chunks = WarpedRegions(trunk=TRUNK, crop=32, context=4, chunk=1).eval()(features, regions, encode)
    assert whole.shape == (3, 6, 2, 2)
    assert torch.allclose(whole, chunks, atol=1e-6)


@pytest.mark.parametrize(
    ("crop", "context", "message"),
    [(100, 0, "use 96 or 112"), (32, 16, "less than half"), (32, -1, "from 0")],
)
def test_impossible_crops(crop: int, context: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WarpedRegions(trunk=TRUNK, crop=crop, context=context)


def test_warping_needs_the_images() -> None:
    with pytest.raises(ValueError, match="carry none"):
        WarpedRegions(trunk=TRUNK, crop=32, context=0)(Features({}), [torch.zeros(0, 4)], encode)
