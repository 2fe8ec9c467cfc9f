"""The default decoder: from the deepest map upwards in steps of two, each step joined by the trunk's map of
that stride.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vistasks.heads.head import Trunk, TrunkMismatch
from vistasks.heads.layers import AtrousPyramid, conv_norm, upsample
from vistasks.heads.segmentation import Auxiliary, SegmentationHead
from vistasks.losses.class_weights import ClassWeights
from vistasks.losses.segmentation import PixelLoss
from vistasks.registry import HEADS
from vistasks.types import Features

WIDTHS = (128, 96, 64, 48, 32)  # of strides 32, 16, 8, 4, 2


@HEADS.register("skip_decoder")
class SkipDecoder(SegmentationHead):
    """Stands on every trunk and takes every size that the trunk takes.

    As U-Net (Ronneberger et al. 2015) it goes back up through every stride of the trunk; as in FPN (Lin et
    al. 2017) and SwiftNet (Orsic et al. 2019) the trunk's maps are *added* after a 1x1 convolution, and each
    step narrows before it enlarges, so that nearly all of the work is one 3x3 convolution a stride. The
    deepest map first goes through an atrous pyramid, whose 3x3 convolutions there cost next to nothing and
    see the whole picture. As in FCN every stride scores the classes and the finer ones add to the coarser:
    with scores from the last 32 channels alone learning starts several times slower.

    Args:
        trunk: what the maps look like.
        classes: the class names.
        widths: channels at the deepest stride, the next, ...; the last one serves for all that follow.
        finest: the decoder stops at the trunk's first stride that is not below this one; the rest is
            bilinear.
        rates: dilation rates of the pyramid; an empty list leaves it out.
        dropout: of the deepest map's channels.
        class_weights, loss, auxiliary: see `SegmentationHead`.
    """

    def __init__(
        self,
        *,
        trunk: Trunk,
        classes: tuple[str, ...],
        widths: list[PositiveInt] | None = None,
        finest: PositiveInt = 2,
        rates: list[PositiveInt] | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        class_weights: ClassWeights = None,
        loss: PixelLoss = PixelLoss(),  # noqa: B008 - frozen
        auxiliary: Auxiliary | None = None,
    ) -> None:
        super().__init__(classes, class_weights, loss=loss, auxiliary=auxiliary, trunk=trunk)
        self.strides = sorted((stride for stride in trunk.channels if stride >= finest), reverse=True)
        if not self.strides:
            raise TrunkMismatch(
                f"skip_decoder goes up to stride {finest}, but the backbone '{trunk.name}' ends at stride {max(trunk.channels)}"
            )
        given = list(widths or WIDTHS)
        width = [given[min(index, len(given) - 1)] for index in range(len(self.strides))]
        deepest, rates = trunk.channels[self.strides[0]], [1, 2, 4] if rates is None else rates
        self.context = AtrousPyramid(deepest, width[0], rates) if rates else conv_norm(deepest, width[0], 1)
        self.dropout = nn.Dropout2d(dropout)
        self.narrow = nn.ModuleList(
            nn.Conv2d(above, below, 1, bias=False) for above, below in pairwise(width)
        )
        self.skips = nn.ModuleList(
            nn.Conv2d(trunk.channels[stride], below, 1) for stride, below in zip(self.strides[1:], width[1:])
        )
        self.blend = nn.ModuleList(
            nn.Sequential(nn.ReLU(inplace=True), conv_norm(below, below, 3)) for below in width[1:]
        )
        self.scores = nn.ModuleList(
            nn.Conv2d(channels, len(classes), 1, bias=index == 0) for index, channels in enumerate(width)
        )

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        x = self.dropout(self.context(features.maps[self.strides[0]]))
        scores = self.scores[0](x)
        for stride, narrow, skip, blend, score in zip(
            self.strides[1:], self.narrow, self.skips, self.blend, self.scores[1:]
        ):
            source = features.maps[stride]
            x = blend(upsample(narrow(x), source.shape[2:]) + skip(source))
            scores = upsample(scores, source.shape[2:]) + score(x)
        return upsample(scores, size)  # (N, S, h, w) -> (N, S, H, W)
