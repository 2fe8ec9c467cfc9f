from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from vistasks.ops.boxes import (
    CLIP,
    box_iof,
    box_iou,
    clip_boxes,
    decode,
    encode,
    has_sides,
    paired_iou,
    scale_boxes,
)

SIZE = (300, 400)


def random_boxes(seed: int, count: int) -> torch.Tensor:
    """(count, 4) with sides of 2 to 202 pixels, in part outside of `SIZE`."""
    rng = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=rng) * torch.tensor([400.0, 300.0])
    return torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=rng) * 200], dim=1)


def slow_shared(a: torch.Tensor, b: torch.Tensor) -> float:
    """The intersection's area, from the definition."""
    x1, y1, x2, y2 = a.double().tolist()
    bx1, by1, bx2, by2 = b.double().tolist()
    return max(0.0, min(x2, bx2) - max(x1, bx1)) * max(0.0, min(y2, by2) - max(y1, by1))


def area(box: torch.Tensor) -> float:
    x1, y1, x2, y2 = box.double().tolist()
    return (x2 - x1) * (y2 - y1)


def test_paired_iou_is_the_diagonal() -> None:
    a = torch.tensor([[0.0, 0, 10, 10], [5, 5, 9, 9], [1, 1, 1, 1]])
    b = torch.tensor([[5.0, 0, 15, 10], [5, 5, 9, 9], [1, 1, 1, 1]])
    assert torch.equal(paired_iou(a, b), box_iou(a, b).diagonal())


def test_iou_and_iof_equal_their_definitions() -> None:
    a, b = random_boxes(0, 7), random_boxes(1, 5)
    iou, iof = box_iou(a, b), box_iof(a, b)
    assert iou.shape == iof.shape == (7, 5)
    for i in range(7):
        for j in range(5):
            shared = slow_shared(a[i], b[j])
            assert float(iou[i, j]) == pytest.approx(shared / (area(a[i]) + area(b[j]) - shared), abs=1e-6)
            assert float(iof[i, j]) == pytest.approx(shared / area(a[i]), abs=1e-6)


def test_iou_equals_torchvision() -> None:
    a, b = random_boxes(9, 60), random_boxes(10, 40)
    torch.testing.assert_close(box_iou(a, b), torchvision.ops.box_iou(a, b))


def test_iou_and_iof_do_not_hide_nan() -> None:
    good, bad = torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([[0.0, 0, float("nan"), 5]])
    assert box_iou(bad, good).isnan().all() and box_iof(bad, good).isnan().all()


def test_iof_is_the_share_of_the_box_not_of_the_region() -> None:
    box, region = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 5, 200]])
    assert box_iof(box, region).item() == 0.5
    assert box_iof(region, box).item() == pytest.approx(0.05)


@pytest.mark.parametrize("function", [box_iou, box_iof])
def test_no_boxes_and_empty_boxes(function: object) -> None:
    boxes, empty = random_boxes(2, 3), torch.tensor([[5.0, 5, 5, 5]])
    assert function(boxes[:0], boxes).shape == (0, 3)
    assert function(boxes, boxes[:0]).shape == (3, 0)
    assert function(empty, empty).tolist() == [[0.0]]
    assert function(empty, boxes).tolist() == [[0.0] * 3]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31 - 1), st.sampled_from([(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)]))
def test_decode_undoes_encode(seed: int, weights: tuple[float, float, float, float]) -> None:
    rois, targets = random_boxes(seed, 20), random_boxes(seed + 1, 20)
    keep = ((targets[:, 2:] - targets[:, :2]) / (rois[:, 2:] - rois[:, :2]) < 62).all(1)  # below the clamp
    rois, targets = rois[keep], targets[keep]
    moved = decode(rois, encode(rois, targets, weights), weights)
    torch.testing.assert_close(moved, targets, atol=2e-3, rtol=1e-5)


def test_encode_equals_the_papers_formulas() -> None:
    roi, target = torch.tensor([[10.0, 20, 30, 60]]), torch.tensor([[15.0, 10, 55, 90]])
    expected = [(35 - 20) / 20, (50 - 40) / 40, math.log(40 / 20), math.log(80 / 40)]
    np.testing.assert_allclose(encode(roi, target, (1.0, 1.0, 1.0, 1.0))[0], expected, rtol=1e-6)
    np.testing.assert_allclose(encode(roi, target)[0], np.array(expected) * [10, 10, 5, 5], rtol=1e-6)
    assert encode(roi, roi).abs().max() == 0


def test_zero_deltas_leave_the_rois() -> None:
    rois = random_boxes(3, 6)
    torch.testing.assert_close(decode(rois, torch.zeros(6, 4)), rois)


def test_decode_of_a_set_per_class_equals_class_by_class() -> None:
    rois, deltas = random_boxes(4, 6), torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0))
    boxes = decode(rois, deltas)
    assert boxes.shape == (6, 3, 4)
    for k in range(3):
        torch.testing.assert_close(boxes[:, k], decode(rois, deltas[:, k]))
    assert decode(rois[:0], deltas[:0]).shape == (0, 3, 4)


def test_decode_is_clamped_before_exp_overflows() -> None:
    rois = torch.tensor([[0.0, 0, 16, 16]])
    box = decode(rois, torch.tensor([[0.0, 0, 1e6, -1e6]]))[0]
    assert torch.isfinite(box).all()
    assert float(box[2] - box[0]) == pytest.approx(1000, rel=1e-5)
    assert float(box[3] - box[1]) == pytest.approx(0, abs=1e-5)
    wider = decode(rois, torch.tensor([[0.0, 0, 1e6, 0]]), clip=math.log(2.0))[0]
    assert float(wider[2] - wider[0]) == pytest.approx(32, rel=1e-5)
    assert pytest.approx(math.log(62.5)) == CLIP


def test_float32_under_autocast_and_from_half_precision() -> None:
    rois, targets = random_boxes(5, 8), random_boxes(6, 8)
    plain = encode(rois, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        deltas = encode(rois, targets)
        assert deltas.dtype == torch.float32
        assert torch.equal(deltas, plain)
        assert torch.equal(decode(rois, deltas), decode(rois, plain))
        assert torch.equal(box_iou(rois, targets), box_iou(rois, targets.clone()))
        assert box_iou(rois, targets).dtype == box_iof(rois, targets).dtype == torch.float32
    half = plain.to(torch.bfloat16)
    assert decode(rois, half).dtype == torch.float32
    assert torch.equal(decode(rois, half), decode(rois, half.float()))


def test_gradients_reach_the_deltas_and_stay_finite_at_the_clamp() -> None:
    deltas = torch.tensor([[0.1, 0.2, 0.3, 100.0]], requires_grad=True)
    decode(torch.tensor([[0.0, 0, 10, 10]]), deltas).pow(2).sum().backward()
    assert deltas.grad is not None and torch.isfinite(deltas.grad).all() and deltas.grad[0, 0] != 0


def test_clipped_boxes_lie_in_the_image_and_inner_ones_stay() -> None:
    boxes = random_boxes(7, 50) - 60
    clipped = clip_boxes(boxes, SIZE)
    assert (clipped >= 0).all() and (clipped[:, 0::2] <= 400).all() and (clipped[:, 1::2] <= 300).all()
    inner = torch.tensor([[0.0, 0, 400, 300], [3.5, 4.5, 5.5, 6.5]])
    assert torch.equal(clip_boxes(inner, SIZE), inner)
    corners = torch.tensor([[[-5.0, -7, 500, 600]]])
    assert torch.equal(clip_boxes(corners, SIZE), torch.tensor([[[0.0, 0, 400, 300]]]))
    outside = clip_boxes(torch.tensor([[410.0, 10, 450, 20]]), SIZE)
    assert has_sides(outside).tolist() == [False]


def test_scaling_there_and_back() -> None:
    boxes = random_boxes(8, 9)
    larger = scale_boxes(boxes, (300, 400), (600, 600))
    torch.testing.assert_close(larger, boxes * torch.tensor([1.5, 2.0, 1.5, 2.0]))
    torch.testing.assert_close(scale_boxes(larger, (600, 600), (300, 400)), boxes)


def test_has_sides() -> None:
    boxes = torch.tensor(
        [[0.0, 0, 2, 3], [0, 0, 0, 3], [5, 5, 4, 9], [0, 0, float("nan"), 3], [0, 0, 0.5, 3]]
    )
    assert has_sides(boxes).tolist() == [True, False, False, False, True]
    assert has_sides(boxes, 1.0).tolist() == [True, False, False, False, False]
