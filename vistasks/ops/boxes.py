"""Boxes as tensors, (..., 4) ``x1, y1, x2, y2`` in pixels, width = x2 - x1.

Everything is computed in float32, also under autocast and from half precision: bf16 keeps three digits of a
coordinate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Fast R-CNN's scaling of the targets to about unit variance: 1 / the standard deviations (.1, .1, .2, .2)
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
# the greatest dw, dh that is decoded: a side may grow from 16 pixels, about one cell, to 1000, about one
# image
CLIP = math.log(1000 / 16)
_TINY = torch.finfo(torch.float32).tiny


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, 4), (M, 4) -> (N, M) float32 intersection over union; 0 for a pair of empty boxes."""
    shared = _shared(a, b)
    return shared / (_areas(a)[:, None] + _areas(b)[None] - shared).clamp(min=_TINY)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, 4), (N, 4) -> (N,) float32 intersection over union of each pair; 0 for a pair of empty boxes."""
    a, b = a.float(), b.float()
    corner = torch.maximum(a[:, :2], b[:, :2])
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - corner).clamp(min=0).prod(-1)
    return shared / (_areas(a) + _areas(b) - shared).clamp(min=_TINY)


def box_iof(boxes: Tensor, regions: Tensor) -> Tensor:
    """(N, 4), (M, 4) -> (N, M) float32 intersection over foreground: the share of each box that lies in each
    region.

    What decides whether a proposal lies in an ignored (crowd, difficult) region; 0 for an empty box.
    """
    return _shared(boxes, regions) / _areas(boxes).clamp(min=_TINY)[:, None]


def _shared(a: Tensor, b: Tensor) -> Tensor:
    """(N, 4), (M, 4) -> (N, M) float32 areas of the intersections."""
    a, b = a.float(), b.float()
    corner = torch.maximum(a[:, None, :2], b[None, :, :2])
    return (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - corner).clamp(min=0).prod(-1)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:].float() - boxes[:, :2].float()).prod(-1)


def encode(rois: Tensor, targets: Tensor, weights: tuple[float, float, float, float] = WEIGHTS) -> Tensor:
    """The regression targets that move ``rois`` onto ``targets`` (R-CNN, Girshick et al. 2014, appendix C,
    eq. 6-9).

    (..., 4), (..., 4) with positive sides -> (..., 4) float32: ``dx, dy`` in roi sizes, ``dw, dh`` as
    logarithms, times ``weights``."""
    centers, sides = _centers_and_sides(rois)
    target_centers, target_sides = _centers_and_sides(targets)
    deltas = torch.cat([(target_centers - centers) / sides, torch.log(target_sides / sides)], dim=-1)
    return deltas * deltas.new_tensor(weights)


def decode(
    rois: Tensor, deltas: Tensor, weights: tuple[float, float, float, float] = WEIGHTS, clip: float = CLIP
) -> Tensor:
    """``rois`` moved by ``deltas``: undoes `encode` (R-CNN, appendix C, eq. 1-4).

    rois (N, 4); deltas (N, 4), or (N, K, 4) with one set per class -> boxes of deltas' shape, float32, not
    yet clipped to the image. ``dw, dh`` above ``clip`` are clamped to it, so that exp cannot overflow."""
    deltas = deltas.float()
    if deltas.dim() == rois.dim() + 1:
        rois = rois[:, None]
    deltas = deltas / deltas.new_tensor(weights)
    centers, sides = _centers_and_sides(rois)
    centers = centers + deltas[..., :2] * sides
    half = sides * torch.exp(deltas[..., 2:].clamp(max=clip)) / 2
    return torch.cat([centers - half, centers + half], dim=-1)


def _centers_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    boxes = boxes.float()
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., 4) boxes cut at an image of ``size`` (height, width); a box outside becomes empty (see
    `has_sides`).
    """
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], dim=-1).flatten(-2)  # (..., 2 corners, 2 axes) -> x1, y1, x2, y2


def scale_boxes(boxes: Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    """(..., 4) boxes of an image of ``size`` (height, width) -> float32 boxes of the same image resized to
    ``new_size``.
    """
    y, x = new_size[0] / size[0], new_size[1] / size[1]
    boxes = boxes.float()
    return boxes * boxes.new_tensor([x, y, x, y])


def has_sides(boxes: Tensor, minimum: float = 0.0) -> Tensor:
    """(..., 4) -> (...) bool: both sides are longer than ``minimum`` pixels (False for NaN)."""
    return (boxes[..., 2:] - boxes[..., :2] > minimum).all(-1)
