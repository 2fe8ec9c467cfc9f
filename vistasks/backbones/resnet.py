"""ResNet (He et al. 2016), with the stride in the 3x3 convolution of a bottleneck as torchvision has it.

Names are torchvision's. Publishes the stem (stride 2) and the ends of ``layer1`` .. ``layer4`` (strides 4 ..
32)."""

from __future__ import annotations

from torch import Tensor, nn

from vistasks.backbones.backbone import Backbone, initialise
from vistasks.backbones.weights import WeightSource, load_weights
from vistasks.registry import BACKBONES
from vistasks.types import Features


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The projection (paper, option B) where the block changes the shape, else None."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut (paper, figure 5 left)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the width, and the shortcut (paper, figure 5 right)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, width * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(Backbone):
    """The four residual stages over a 7x7 stem."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.channels = {2: 64}
        inputs = 64
        for index, depth in enumerate(depths):
            width = 64 << index
            blocks: list[nn.Module] = [block(inputs, width, stride=2 if index else 1)]
            inputs = width * block.expansion
            blocks += [block(inputs, width, stride=1) for _ in range(depth - 1)]
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
            self.channels[4 << index] = inputs
        self.min_size = 32
        initialise(self)

    def extract(self, images: Tensor) -> Features:
        x = self.relu(self.bn1(self.conv1(images)))
        maps = {2: x}
        x = self.maxpool(x)
        for index in range(4):
            for block in self.get_submodule(f"layer{index + 1}").children():
                x = self.run(block, x)
            maps[4 << index] = x
        return Features(maps=maps)

    def stages(self) -> list[nn.Module]:
        return [
            nn.Sequential(self.conv1, self.bn1),
            *(self.get_submodule(f"layer{index + 1}") for index in range(4)),
        ]


def _resnet(name: str, trunk: ResNet, weights: str | None) -> ResNet:
    load_weights(trunk, weights, WeightSource(enumeration=f"{name}_Weights", classifier=("fc.",)))
    return trunk


@BACKBONES.register("resnet18")
def resnet18(*, weights: str | None = None) -> ResNet:
    """2+2+2+2 basic blocks; channels 64, 64, 128, 256, 512 at strides 2 .. 32."""
    return _resnet("ResNet18", ResNet(BasicBlock, (2, 2, 2, 2)), weights)


@BACKBONES.register("resnet34")
def resnet34(*, weights: str | None = None) -> ResNet:
    """3+4+6+3 basic blocks; channels as ResNet-18."""
    return _resnet("ResNet34", ResNet(BasicBlock, (3, 4, 6, 3)), weights)


@BACKBONES.register("resnet50")
def resnet50(*, weights: str | None = None) -> ResNet:
    """3+4+6+3 bottlenecks; channels 64, 256, 512, 1024, 2048 at strides 2 .. 32."""
    return _resnet("ResNet50", ResNet(Bottleneck, (3, 4, 6, 3)), weights)


@BACKBONES.register("resnet101")
def resnet101(*, weights: str | None = None) -> ResNet:
    """3+4+23+3 bottlenecks; channels as ResNet-50."""
    return _resnet("ResNet101", ResNet(Bottleneck, (3, 4, 23, 3)), weights)
