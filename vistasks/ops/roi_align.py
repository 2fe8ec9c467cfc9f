"""RoIAlign for prediction on a CPU, as one gathering of weighted rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def gather_roi_align(maps: Tensor, rois: Tensor, *, size: int, stride: int, samples: int = 2) -> Tensor:
    """The values of ``torchvision.ops.roi_align(..., sampling_ratio=samples, aligned=True)``, up to float32
    rounding.

    A cell is the mean of samples x samples bilinear values, so it is a weighted sum of (2 samples)^2 rows of
    the map seen as a table (positions, channels), with weights that are products of one along y and one along
    x. PyTorch's embedding bag sums such rows with vector instructions along the channels, where torchvision's
    kernel goes value by value.

    Args:
        maps: (N, C, H, W) float32; channels-last memory is read as it is, other memory is copied.
        rois: (R, 5) float32: the image's number, then the box in pixels of the input.
        size: cells a side. stride: pixels of the input a cell of the map.

    Returns:
        (R, C, size, size) float32, in channels-last memory.
    """
    _, channels, height, width = maps.shape
    table = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    scaled = rois[:, 1:] / stride - 0.5
    y, weights_y = _taps(scaled[:, 1], scaled[:, 3], size, samples, height)  # (R, size, 2 samples)
    x, weights_x = _taps(scaled[:, 0], scaled[:, 2], size, samples, width)
    start = (rois[:, 0].long() * (height * width))[:, None, None]
    rows = (start + y * width)[:, :, None, :, None] + x[
        :, None, :, None, :
    ]  # (R, size, size, 2 samples, 2 samples)
    weights = weights_y[:, :, None, :, None] * weights_x[:, None, :, None, :] / samples**2
    each = (2 * samples) ** 2
    cells = functional.embedding_bag(
        rows.view(-1, each), table, mode="sum", per_sample_weights=weights.view(-1, each)
    )
    return cells.view(len(rois), size, size, channels).permute(0, 3, 1, 2)


def _taps(low: Tensor, high: Tensor, size: int, samples: int, length: int) -> tuple[Tensor, Tensor]:
    """Along one axis of ``length``: the rows (R, size, 2 samples) int64 that a cell reads and their
    weights.
    """
    steps = (torch.arange(size * samples, dtype=low.dtype, device=low.device) + 0.5) / (size * samples)
    at = low[:, None] + (high - low)[:, None] * steps  # (R, size * samples)
    inside = (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    below = at.floor()
    share = at - below
    first = below.long()
    rows = torch.stack([first, (first + 1).clamp(max=length - 1)], dim=-1)
    weights = torch.stack([1 - share, share], dim=-1) * inside[..., None]
    return rows.view(len(low), size, 2 * samples), weights.view(len(low), size, 2 * samples)
