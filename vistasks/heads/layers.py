"""The pieces that segmentation decoders are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv_norm(inputs: int, outputs: int, kernel: int, *, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, BatchNorm, ReLU."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear interpolation of (N, C, h, w) to (N, C, *size)."""
    return functional.interpolate(
        maps, size=(int(size[0]), int(size[1])), mode="bilinear", align_corners=False
    )


class AtrousPyramid(nn.Module):
    """Parallel 1x1 and dilated 3x3 convolutions and the mean of the whole map, joined by a 1x1 convolution.

    Atrous spatial pyramid pooling with image-level features (Chen et al. 2017, "Rethinking atrous
    convolution", section 3.3): (N, inputs, h, w) -> (N, outputs, h, w)."""

    def __init__(self, inputs: int, outputs: int, rates: Sequence[int]) -> None:
        super().__init__()
        dilated = [conv_norm(inputs, outputs, 3, dilation=rate) for rate in rates]
        self.branches = nn.ModuleList([conv_norm(inputs, outputs, 1), *dilated])
        # without BatchNorm: one value a channel and image has no statistics worth normalising by
        self.image = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU(inplace=True))
        self.join = conv_norm(outputs * (len(rates) + 2), outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.image(x.mean((2, 3), keepdim=True)).expand(-1, -1, x.shape[2], x.shape[3])
        return self.join(torch.cat([*(branch(x) for branch in self.branches), whole], dim=1))
