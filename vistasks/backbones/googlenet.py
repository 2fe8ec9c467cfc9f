"""GoogLeNet (Szegedy et al. 2015, table 1) with BatchNorm, as torchvision: 3x3 in place of 5x5, no auxiliary
classifiers.

Names are torchvision's. Publishes the last map at strides 2 (conv1), 4 (conv3), 8 (inception3b), 16 (4e), 32
(5b)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vistasks.backbones.backbone import Backbone, initialise
from vistasks.backbones.weights import WeightSource, load_weights
from vistasks.registry import BACKBONES
from vistasks.types import Features


class ConvNorm(nn.Module):
    """Convolution of stride 1 or 2 that keeps or halves the size, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Inception(nn.Module):
    """Four parallel branches, concatenated (paper, figure 2b).

    ``reduce3``, ``reduce5``: the 1x1 widths before the 3x3 branches; ``widths``: the four branches' output
    channels."""

    def __init__(self, inputs: int, *, widths: tuple[int, int, int, int], reduce3: int, reduce5: int) -> None:
        super().__init__()
        self.branch1 = ConvNorm(inputs, widths[0], 1)
        self.branch2 = nn.Sequential(ConvNorm(inputs, reduce3, 1), ConvNorm(reduce3, widths[1], 3))
        # 3x3 where the paper has 5x5: so have TensorFlow's and torchvision's networks, and so their weights
        self.branch3 = nn.Sequential(ConvNorm(inputs, reduce5, 1), ConvNorm(reduce5, widths[2], 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), ConvNorm(inputs, widths[3], 1))
        self.channels = sum(widths)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


# Paper, table 1, per stride: name, the branches' widths (1x1, 3x3, "5x5", pool), and the widths of the two
# reductions
_INCEPTIONS = {
    8: (("3a", (64, 128, 32, 32), 96, 16), ("3b", (128, 192, 96, 64), 128, 32)),
    16: (
        ("4a", (192, 208, 48, 64), 96, 16),
        ("4b", (160, 224, 64, 64), 112, 24),
        ("4c", (128, 256, 64, 64), 128, 24),
        ("4d", (112, 288, 64, 64), 144, 32),
        ("4e", (256, 320, 128, 128), 160, 32),
    ),
    32: (("5a", (256, 320, 128, 128), 160, 32), ("5b", (384, 384, 128, 128), 192, 48)),
}


class GoogLeNet(Backbone):
    """Stem and nine inception modules."""

    def __init__(self) -> None:
        # torchvision's weights expect (image - 0.5) / 0.5: its `transform_input` undoes ImageNet's statistics
        super().__init__(mean=(0.5,) * 3, std=(0.5,) * 3)
        self.conv1 = ConvNorm(3, 64, 7, stride=2)
        self.conv2 = ConvNorm(64, 64, 1)
        self.conv3 = ConvNorm(64, 192, 3)
        self.channels = {2: 64, 4: 192}
        inputs = 192
        for stride, modules in _INCEPTIONS.items():
            for name, widths, reduce3, reduce5 in modules:
                self.add_module(
                    f"inception{name}", Inception(inputs, widths=widths, reduce3=reduce3, reduce5=reduce5)
                )
                inputs = sum(widths)
            self.channels[stride] = inputs
        self.min_size = 32
        initialise(self)

    def extract(self, images: Tensor) -> Features:
        x = self.run(self.conv1, images)
        maps = {2: x}
        x = maps[4] = self.conv3(self.conv2(_halve(x, kernel=3)))
        for stride, modules in _INCEPTIONS.items():
            x = _halve(x, kernel=2 if stride == 32 else 3)
            for name, *_ in modules:
                x = self.run(self.get_submodule(f"inception{name}"), x)
            maps[stride] = x
        return Features(maps=maps)

    def stages(self) -> list[nn.Module]:
        """conv1, conv2 with conv3, and the inceptions 3, 4 and 5."""
        stages: list[nn.Module] = [self.conv1, nn.Sequential(self.conv2, self.conv3)]
        for modules in _INCEPTIONS.values():
            stages.append(nn.Sequential(*(self.get_submodule(f"inception{name}") for name, *_ in modules)))
        return stages


def _halve(x: Tensor, *, kernel: int) -> Tensor:
    """Max pooling to exactly half the size: the last window may reach over the border."""
    return F.max_pool2d(x, kernel, 2, ceil_mode=True)


@BACKBONES.register("googlenet")
def googlenet(*, weights: str | None = None) -> GoogLeNet:
    """Channels 64, 192, 480, 832, 1024 at strides 2 .. 32."""
    trunk = GoogLeNet()
    load_weights(
        trunk, weights, WeightSource(enumeration="GoogLeNet_Weights", classifier=("fc.", "aux1.", "aux2."))
    )
    return trunk
