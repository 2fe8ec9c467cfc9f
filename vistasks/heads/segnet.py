"""SegNet (Badrinarayanan, Kendall, Cipolla 2017): a decoder that unpools by the encoder's pooling indices."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from vistasks.heads.head import Trunk, TrunkMismatch
from vistasks.heads.segmentation import Auxiliary, SegmentationHead
from vistasks.losses.class_weights import ClassWeights
from vistasks.losses.segmentation import PixelLoss
from vistasks.registry import HEADS
from vistasks.types import Features


def _stage(channels: int, out: int, convs: int, kernel: int, relu: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(convs):
        width = out if index == convs - 1 else channels
        layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU()] if relu else [nn.Identity()]  # the same names in a checkpoint either way
    return nn.Sequential(*layers)


@HEADS.register("segnet")
class SegNet(SegmentationHead):
    """The encoder mirrored: each pooling is undone by its indices, then as many convolutions as the encoder's
    stage had.

    Args:
        trunk: must publish pooling indices (VGG, LeNet-5, segnet_basic).
        classes: the class names.
        relu: of the decoder; SegNet-Basic has none (section 3.1).
        class_weights, loss, auxiliary: see `SegmentationHead`; the paper balances by median frequency
            (section 3.1).
    """

    needs_pooling = True

    def __init__(
        self,
        *,
        trunk: Trunk,
        classes: tuple[str, ...],
        relu: bool = True,
        class_weights: ClassWeights = None,
        loss: PixelLoss = PixelLoss(),  # noqa: B008 - frozen
        auxiliary: Auxiliary | None = None,
    ) -> None:
        super().__init__(classes, class_weights, loss=loss, auxiliary=auxiliary, trunk=trunk)
        if not trunk.pooling:
            raise TrunkMismatch(
                f"segnet unpools by the encoder's pooling indices, and the backbone '{trunk.name}' publishes none"
            )
        self.strides = sorted(trunk.pooling, reverse=True)
        stages = []
        for index, stride in enumerate(self.strides):
            pooled = trunk.pooling[stride]
            following = self.strides[index + 1 : index + 2]
            out = trunk.pooling[following[0]].channels if following else pooled.channels
            stages.append(_stage(pooled.channels, out, pooled.convs, pooled.kernel, relu))
        self.stages = nn.ModuleList(stages)
        self.classifier = nn.Conv2d(trunk.pooling[self.strides[-1]].channels, len(classes), 1)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        x = features.maps[self.strides[0]]
        for stride, stage in zip(self.strides, self.stages):
            pooling = features.pooling[stride]
            x = stage(functional.max_unpool2d(x, pooling.indices, [2, 2], output_size=list(pooling.size)))
        return self.classifier(x)
