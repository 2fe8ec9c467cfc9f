"""Heads over an atrous pyramid: DeepLabv3+ (`aspp`) and MobileNetV3's Lite R-ASPP (`lr_aspp`), for
comparison.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vistasks.heads.head import Trunk, TrunkMismatch, require_strides
from vistasks.heads.layers import AtrousPyramid, conv_norm, upsample
from vistasks.heads.segmentation import Auxiliary, SegmentationHead
from vistasks.losses.class_weights import ClassWeights
from vistasks.losses.segmentation import PixelLoss
from vistasks.registry import HEADS
from vistasks.types import Features

PAPERS_RATES = (6, 12, 18)  # at stride 16


def _two_strides(name: str, trunk: Trunk, deep: int | None, shallow: int | None) -> tuple[int, int | None]:
    """The strides of the deep map (the trunk's deepest where None) and of the skip; a `TrunkMismatch` where
    one is lacking.
    """
    deep = deep or max(trunk.channels)
    require_strides(name, trunk, [deep] if shallow is None else [deep, shallow])
    if shallow is not None and shallow >= deep:
        raise TrunkMismatch(
            f"{name} needs the skip at a smaller stride than the pyramid; received skip {shallow}, stride {deep}"
        )
    return deep, shallow


@HEADS.register("aspp")
class AtrousHead(SegmentationHead):
    """DeepLabv3's atrous pyramid (Chen et al. 2017) and, unless ``skip: null``, DeepLabv3+'s decoder (Chen et
    al. 2018).

    The papers keep the trunk at stride 16 by dilating its last stage; ours go on to stride 32, where half the
    rates see as far.

    Args:
        trunk: what the maps look like.
        classes: the class names.
        stride: which map the pyramid reads; None: the deepest.
        rates: dilation rates; None: the papers' 6, 12, 18 at stride 16, and as many pixels at another.
        channels: of the pyramid and the decoder (256 in the papers).
        skip: stride of the low-level map that the decoder joins; None: no decoder, as in DeepLabv3.
        skip_channels: of that map after its 1x1 convolution.
        dropout: of the pyramid's channels.
        class_weights, loss, auxiliary: see `SegmentationHead`.
    """

    def __init__(
        self,
        *,
        trunk: Trunk,
        classes: tuple[str, ...],
        stride: PositiveInt | None = None,
        rates: list[PositiveInt] | None = None,
        channels: PositiveInt = 128,
        skip: PositiveInt | None = 4,
        skip_channels: PositiveInt = 48,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        class_weights: ClassWeights = None,
        loss: PixelLoss = PixelLoss(),  # noqa: B008 - frozen
        auxiliary: Auxiliary | None = None,
    ) -> None:
        super().__init__(classes, class_weights, loss=loss, auxiliary=auxiliary, trunk=trunk)
        self.stride, self.skip_stride = _two_strides("aspp", trunk, stride, skip)
        rates = rates or [max(1, rate * 16 // self.stride) for rate in PAPERS_RATES]
        self.pyramid = nn.Sequential(
            AtrousPyramid(trunk.channels[self.stride], channels, rates), nn.Dropout2d(dropout)
        )
        self.skip: nn.Sequential | None = None
        inputs = channels
        if self.skip_stride is not None:
            self.skip = conv_norm(trunk.channels[self.skip_stride], skip_channels, 1)
            inputs += skip_channels
        decoder = [conv_norm(inputs, channels, 3)] + (
            [conv_norm(channels, channels, 3)] if self.skip is not None else []
        )
        self.decoder = nn.Sequential(*decoder, nn.Conv2d(channels, len(classes), 1))

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        x = self.pyramid(features.maps[self.stride])
        if self.skip is not None and self.skip_stride is not None:
            low = features.maps[self.skip_stride]
            x = torch.cat([upsample(x, low.shape[2:]), self.skip(low)], dim=1)
        return upsample(self.decoder(x), size)


@HEADS.register("lr_aspp")
class LiteAtrousHead(SegmentationHead):
    """Lite R-ASPP (Howard et al. 2019, figure 10): a 1x1 convolution gated by the mean of the map, and one
    skip.

    The gate looks at the whole map (as torchvision's does) where the paper pools windows of 49x49.

    Args:
        trunk: what the maps look like.
        classes: the class names.
        stride: which map is gated; None: the deepest.
        skip: stride of the map whose scores are added.
        channels: width (128 in the paper).
        class_weights, loss, auxiliary: see `SegmentationHead`.
    """

    def __init__(
        self,
        *,
        trunk: Trunk,
        classes: tuple[str, ...],
        stride: PositiveInt | None = None,
        skip: PositiveInt = 8,
        channels: PositiveInt = 128,
        class_weights: ClassWeights = None,
        loss: PixelLoss = PixelLoss(),  # noqa: B008 - frozen
        auxiliary: Auxiliary | None = None,
    ) -> None:
        super().__init__(classes, class_weights, loss=loss, auxiliary=auxiliary, trunk=trunk)
        self.stride, _ = _two_strides("lr_aspp", trunk, stride, skip)
        self.skip_stride = skip
        self.values = conv_norm(trunk.channels[self.stride], channels, 1)
        self.gate = nn.Sequential(
            nn.Conv2d(trunk.channels[self.stride], channels, 1, bias=False), nn.Sigmoid()
        )
        self.score = nn.Conv2d(channels, len(classes), 1)
        self.skip_score = nn.Conv2d(trunk.channels[skip], len(classes), 1, bias=False)  # `score` has the bias

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        deep, low = features.maps[self.stride], features.maps[self.skip_stride]
        x = self.values(deep) * self.gate(deep.mean((2, 3), keepdim=True))
        return upsample(self.score(upsample(x, low.shape[2:])) + self.skip_score(low), size)
