"""Fully convolutional networks: FCN-32s, FCN-16s and FCN-8s (Long, Shelhamer, Darrell 2015; Shelhamer et al.
2017).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from vistasks.heads.head import Trunk, require_strides
from vistasks.heads.segmentation import Auxiliary, SegmentationHead
from vistasks.losses.class_weights import ClassWeights
from vistasks.losses.segmentation import PixelLoss
from vistasks.registry import HEADS
from vistasks.types import Features


def bilinear_kernel(factor: int) -> Tensor:
    """(2f, 2f) kernel that makes a transposed convolution of stride f, padding f/2 upsample bilinearly."""
    size = 2 * factor
    ramp = 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor
    return ramp[:, None] * ramp[None, :]


def bilinear_upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """A learnable per-channel upsampling by an even ``factor``, initialised to bilinear interpolation (2015,
    section 3.3).
    """
    layer = nn.ConvTranspose2d(
        channels, channels, 2 * factor, stride=factor, padding=factor // 2, groups=channels, bias=False
    )
    with torch.no_grad():
        layer.weight.copy_(bilinear_kernel(factor).expand_as(layer.weight))
    return layer


class FullyConvolutional(SegmentationHead):
    """Scores at the deepest stride, upsampled in steps of two and summed with the scores of shallower maps.

    The skips read the trunk's last map at each stride (VGG: conv4_3 and conv5_3, where the paper reads pool3
    and pool4). Every upsampling starts bilinear and learns; the paper keeps the last one fixed. The paper's
    head is ``hidden: 4096, kernel: 7, dropout: 0.5``.

    Args:
        trunk: what the maps look like.
        classes: the class names.
        finest: the stride of the shallowest map that is scored: 32, 16 or 8.
        hidden: width of the paper's fc6 and fc7 as convolutions (4096 there); 0: the classifier reads the
            trunk's map directly.
        kernel: spatial size of fc6 (7 in the paper).
        dropout: of fc6 and fc7.
        class_weights, loss, auxiliary: see `SegmentationHead`.
    """

    def __init__(
        self,
        *,
        trunk: Trunk,
        classes: tuple[str, ...],
        finest: int,
        hidden: int = 512,
        kernel: int = 3,
        dropout: float = 0.1,
        class_weights: ClassWeights = None,
        loss: PixelLoss = PixelLoss(),  # noqa: B008 - frozen
        auxiliary: Auxiliary | None = None,
    ) -> None:
        super().__init__(classes, class_weights, loss=loss, auxiliary=auxiliary, trunk=trunk)
        self.strides = [stride for stride in (32, 16, 8) if stride >= finest]
        require_strides(f"fcn{finest}s", trunk, self.strides)
        deepest, *skips = self.strides
        channels = trunk.channels[deepest]
        self.fc = nn.Sequential()
        if hidden:
            self.fc = nn.Sequential(
                nn.Conv2d(channels, hidden, kernel, padding=kernel // 2),
                nn.ReLU(),
                nn.Dropout2d(dropout),
                nn.Conv2d(hidden, hidden, 1),
                nn.ReLU(),
                nn.Dropout2d(dropout),
            )
        self.score = nn.Conv2d(hidden or channels, len(classes), 1)
        self.skip_scores = nn.ModuleList(
            nn.Conv2d(trunk.channels[stride], len(classes), 1) for stride in skips
        )
        self.upsample = nn.ModuleList(bilinear_upsampling(len(classes), 2) for _ in skips)
        self.to_pixels = bilinear_upsampling(len(classes), finest)
        for parameter in (
            self.skip_scores.parameters()
        ):  # so that a skip starts from the coarser net's answer (section 4.2)
            nn.init.zeros_(parameter)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        scores = self.score(self.fc(features.maps[self.strides[0]]))
        for stride, skip, upsample in zip(self.strides[1:], self.skip_scores, self.upsample):
            scores = upsample(scores) + skip(features.maps[stride])
        return self.to_pixels(scores)  # (N, S, h, w) -> (N, S, H, W)


for _finest in (32, 16, 8):
    HEADS.register(f"fcn{_finest}s")(partial(FullyConvolutional, finest=_finest))
