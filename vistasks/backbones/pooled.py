"""Trunks that are one plain chain of convolutions between 2x2 max poolings: LeNet, VGG, SegNet-Basic."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vistasks.backbones.backbone import Backbone, PoolingStage, initialise
from vistasks.types import Features, Pooling


class PooledBackbone(Backbone):
    """A chain of layers whose every max pooling halves the map; publishes the map before each pooling and the
    last one.

    The chain ends in a pooling; channels and pooling stages are read off its layers. The poolings' indices
    come in ``Features.pooling`` while ``publish_pooling`` is set."""

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        stride, channels, kernels = 1, 3, []
        for layer in features:
            if isinstance(layer, nn.Conv2d):
                channels = layer.out_channels
                kernels.append(layer.kernel_size[0])
            elif isinstance(layer, nn.MaxPool2d):
                self.channels[stride] = channels
                stride *= 2
                self.pooling[stride] = PoolingStage(
                    channels=channels, convs=len(kernels), kernel=max(kernels)
                )
                kernels = []
        self.channels[stride] = channels
        self.min_size = stride
        initialise(self)

    def extract(self, images: Tensor) -> Features:
        maps: dict[int, Tensor] = {}
        pooling: dict[int, Pooling] = {}
        x, stride, start = images, 1, 0
        for index, layer in enumerate(self.features):
            if not isinstance(layer, nn.MaxPool2d):
                continue
            x = self.run(self.features[start:index], x)
            maps[stride], start = x, index + 1
            stride *= 2
            if self.publish_pooling:
                size = (x.shape[2], x.shape[3])
                x, indices = F.max_pool2d(x, 2, 2, return_indices=True)
                pooling[stride] = Pooling(indices=indices, size=size)
            else:
                x = layer(x)
        maps[stride] = x
        return Features(maps=maps, pooling=pooling)

    def stages(self) -> list[nn.Module]:
        stages: list[nn.Module] = []
        start = 0
        for index, layer in enumerate(self.features):
            if isinstance(layer, nn.MaxPool2d):
                stages.append(self.features[start : index + 1])
                start = index + 1
        return stages
