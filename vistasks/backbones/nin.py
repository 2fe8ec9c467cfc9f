"""Network in Network (Lin et al. 2014), the ImageNet form: four mlpconv blocks; the last 1x1 layer is the
classifier.

The first convolution pads 3 and 4 (left/above, right/below), which centres its windows on the cells of stride
4. Publishes the ends of the blocks at strides 4, 8, 16, 32."""

from __future__ import annotations

from torch import Tensor, nn

from vistasks.backbones.backbone import Backbone, initialise
from vistasks.backbones.weights import WeightSource, load_weights
from vistasks.registry import BACKBONES
from vistasks.types import Features


def _mlpconv(conv: nn.Conv2d, pointwise: int) -> list[nn.Module]:
    """A convolution and the perceptron that slides with it: ``pointwise`` 1x1 layers, ReLU after each."""
    channels = conv.out_channels
    layers: list[nn.Module] = [conv, nn.ReLU(inplace=True)]
    for _ in range(pointwise):
        layers += [nn.Conv2d(channels, channels, 1), nn.ReLU(inplace=True)]
    return layers


class NIN(Backbone):
    """Four mlpconv blocks with 3x3 max pooling of stride 2 between them."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.ZeroPad2d((3, 4, 3, 4)), *_mlpconv(nn.Conv2d(3, 96, 11, stride=4), 2))
        self.block2 = nn.Sequential(
            nn.MaxPool2d(3, stride=2, ceil_mode=True), *_mlpconv(nn.Conv2d(96, 256, 5, padding=2), 2)
        )
        self.block3 = nn.Sequential(
            nn.MaxPool2d(3, stride=2, ceil_mode=True), *_mlpconv(nn.Conv2d(256, 384, 3, padding=1), 2)
        )
        self.block4 = nn.Sequential(
            nn.MaxPool2d(3, stride=2, ceil_mode=True), *_mlpconv(nn.Conv2d(384, 1024, 3, padding=1), 1)
        )
        self.channels = {4: 96, 8: 256, 16: 384, 32: 1024}
        self.min_size = 32
        initialise(self)

    def extract(self, images: Tensor) -> Features:
        maps: dict[int, Tensor] = {}
        x = images
        for stride, block in zip(self.channels, self.stages(), strict=True):
            x = maps[stride] = self.run(block, x)
        return Features(maps=maps)

    def stages(self) -> list[nn.Module]:
        return [self.block1, self.block2, self.block3, self.block4]


@BACKBONES.register("nin")
def nin(*, weights: str | None = None) -> NIN:
    """Channels 96, 256, 384, 1024 at strides 4 .. 32."""
    trunk = NIN()
    load_weights(trunk, weights, WeightSource())
    return trunk
