from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vistasks.heads.region_sampling import RegionSampling, jittered, label_regions, sample_regions
from vistasks.ops.boxes import box_iou

BACKGROUND = 3
NONE = torch.zeros(0, 4)
NO_LABEL = torch.zeros(0, dtype=torch.int64)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    corners = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * 80
    sides = 5 + torch.rand(count, 2, generator=torch.Generator().manual_seed(seed + 1)) * 60
    return torch.cat([corners, corners + sides], dim=1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 5), st.integers(0, 200), st.integers(0, 1000), st.integers(1, 64))
def test_keeps_its_bounds(objects: int, proposals: int, seed: int, per_image: int) -> None:
    boxes, labels = random_boxes(objects, seed), torch.arange(objects) % BACKGROUND
    sampling = RegionSampling(per_image=per_image, foreground_fraction=0.25)
    found = sample_regions(
        random_boxes(proposals, seed + 7), boxes, labels, NONE, background=BACKGROUND, sampling=sampling
    )
    foreground = found.labels < BACKGROUND
    assert len(found.boxes) == len(found.labels) == len(found.matched) <= per_image
    assert foreground.sum() <= per_image * 0.25
    if objects:
        best = box_iou(found.boxes, boxes).max(dim=1)
        assert (best.values[foreground] >= 0.5).all() and (best.values[~foreground] < 0.5).all()
        assert torch.equal(found.labels[foreground], labels[best.indices[foreground]])
        assert torch.equal(found.matched[foreground], boxes[best.indices[foreground]])


def test_ground_truth_joins_the_proposals() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]])
    arguments = (random_boxes(0, 0), boxes, torch.tensor([1]), NONE)
    found = sample_regions(*arguments, background=BACKGROUND, sampling=RegionSampling())
    assert found.boxes.tolist() == boxes.tolist() and found.labels.tolist() == [1]
    without = sample_regions(
        *arguments, background=BACKGROUND, sampling=RegionSampling(add_ground_truth=False)
    )
    assert len(without.boxes) == 0


def test_an_image_without_objects_teaches_background() -> None:
    found = sample_regions(
        random_boxes(30, 0), NONE, NO_LABEL, NONE, background=BACKGROUND, sampling=RegionSampling()
    )
    assert found.labels.tolist() == [BACKGROUND] * 30


def test_prefers_hard_background() -> None:
    boxes = torch.tensor([[0.0, 0, 20, 20]])
    near, far = torch.tensor([[10.0, 0, 30, 20]]), torch.tensor([[60.0, 60, 90, 90]])
    sampling = RegionSampling(per_image=1, foreground_fraction=0.0)
    for seed in range(10):
        torch.manual_seed(seed)
        found = sample_regions(
            torch.cat([far, near]), boxes, torch.tensor([0]), NONE, background=BACKGROUND, sampling=sampling
        )
        assert found.boxes.tolist() == near.tolist()


def test_ignored_areas_are_neither_background_nor_foreground() -> None:
    crowd = torch.tensor([[50.0, 50, 100, 100]])
    proposals = torch.tensor([[60.0, 60, 90, 90], [0.0, 0, 20, 20]])
    found = sample_regions(proposals, NONE, NO_LABEL, crowd, background=BACKGROUND, sampling=RegionSampling())
    assert found.boxes.tolist() == [[0, 0, 20, 20]]


@pytest.mark.parametrize(
    "wrong",
    [{"per_image": "many"}, {"per_image": 0}, {"foreground_fraction": 1.5}, {"background_iou": (-1, 0)}],
)
def test_the_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RegionSampling(**wrong)


def test_balanced_sampling_gives_each_object_its_share() -> None:
    boxes = torch.tensor([[0.0, 0, 100, 100], [200.0, 200, 220, 220]])
    proposals = torch.cat([jittered(boxes[:1], 90, 0.1), jittered(boxes[1:], 10, 0.1)])
    arguments = (proposals, boxes, torch.tensor([0, 1]), NONE)
    sampling = RegionSampling(per_image=16, foreground_fraction=1, balance=True, add_ground_truth=False)
    assert sample_regions(*arguments, background=BACKGROUND, sampling=sampling).labels.tolist().count(1) == 8
    few = RegionSampling(per_image=60, foreground_fraction=1, balance=True, add_ground_truth=False)
    assert (
        sample_regions(*arguments, background=BACKGROUND, sampling=few).labels.tolist().count(1) == 10
    )  # all there are


def test_balanced_sampling_gives_each_overlap_its_share() -> None:
    boxes = torch.tensor([[0.0, 0, 100, 100]])
    far, near = (
        torch.tensor([[90.0, 0, 190, 100]]).repeat(200, 1),
        torch.tensor([[40.0, 0, 140, 100]]).repeat(20, 1),
    )
    sampling = RegionSampling(per_image=20, foreground_fraction=0, background_iou=(0.0, 0.5), balance=True)
    found = sample_regions(
        torch.cat([far, near]), boxes, torch.tensor([0]), NONE, background=BACKGROUND, sampling=sampling
    )
    assert (found.boxes[:, 0] == 40).sum() == 10


def test_shaken_objects_join_the_proposals() -> None:
    boxes = torch.tensor([[10.0, 10, 50, 30]])
    sampling = RegionSampling(
        per_image=200, foreground_fraction=1, jitter=100, jitter_strength=0.2, add_ground_truth=False
    )
    found = sample_regions(NONE, boxes, torch.tensor([2]), NONE, background=BACKGROUND, sampling=sampling)
    assert len(found.boxes) == 100 and not found.boxes.eq(boxes).all(dim=1).any()
    assert ((found.boxes - boxes).abs() <= torch.tensor([8.0, 4, 8, 4]) + 1e-4).all()


def test_labelling_by_another_overlap() -> None:
    boxes, crowd = torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([[500.0, 500, 600, 600]])
    regions = torch.tensor([[0.0, 0, 100, 65], [0.0, 0, 100, 75], [510.0, 510, 550, 550]])
    found = label_regions(regions, boxes, torch.tensor([1]), crowd, background=BACKGROUND, foreground_iou=0.7)
    assert found.labels.tolist() == [BACKGROUND, 1] and found.matched[1].tolist() == boxes[0].tolist()


def test_a_region_with_just_the_overlap_is_foreground() -> None:
    boxes = torch.tensor([[0.0, 0, 20, 20]])
    regions = torch.tensor([[0.0, 0, 20, 10], [0.0, 0, 20, 9]])  # IoU .5 and .45
    found = label_regions(regions, boxes, torch.tensor([1]), NONE, background=BACKGROUND, foreground_iou=0.5)
    assert found.labels.tolist() == [1, BACKGROUND]
    sampling = RegionSampling(foreground_fraction=1, add_ground_truth=False)
    found = sample_regions(regions, boxes, torch.tensor([1]), NONE, background=BACKGROUND, sampling=sampling)
    assert found.labels.tolist() == [1, BACKGROUND] and found.boxes.tolist() == regions.tolist()


def test_a_region_of_which_half_is_ignored_is_no_background() -> None:
    regions, ignored = torch.tensor([[0.0, 0, 20, 10], [0.0, 20, 20, 31]]), torch.tensor([[0.0, 0, 10, 99]])
    regions = torch.cat([regions, torch.tensor([[0.0, 40, 21, 50]])])  # shares of .5, .5 and .48
    found = label_regions(
        regions, NONE, torch.zeros(0, dtype=torch.int64), ignored, background=BACKGROUND, foreground_iou=0.5
    )
    assert found.boxes.tolist() == regions[2:].tolist()
    sampling = RegionSampling(add_ground_truth=False)
    found = sample_regions(
        regions, NONE, torch.zeros(0, dtype=torch.int64), ignored, background=BACKGROUND, sampling=sampling
    )
    assert found.boxes.tolist() == regions[2:].tolist()


def test_the_background_is_drawn_evenly_from_three_parts_of_its_overlaps() -> None:
    """Between .2 and .5 the parts end at .3 and .4."""
    boxes = torch.tensor([[0.0, 0, 100, 100]])
    heights = torch.tensor([21.0] * 50 + [29.0] * 50 + [31.0] * 4 + [39.0] * 4 + [41.0] * 4 + [49.0] * 4)
    regions = torch.zeros(len(heights), 4)
    regions[:, 2], regions[:, 3] = 100, heights
    sampling = RegionSampling(
        per_image=24, foreground_fraction=0, background_iou=(0.2, 0.5), balance=True, add_ground_truth=False
    )
    found = sample_regions(
        regions, boxes, torch.tensor([1]), NONE, background=BACKGROUND, sampling=sampling
    ).boxes[:, 3]
    parts = [((found > low) & (found < low + 10)).sum().item() for low in (20, 30, 40)]
    assert parts == [8, 8, 8]
