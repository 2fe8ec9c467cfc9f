"""VGG (Simonyan and Zisserman 2015, table 1: configurations A, B, D, E), with and without BatchNorm.

Names are torchvision's ``features.*``. Publishes the last convolution before each pooling (strides 1 .. 16)
and pool5 (stride 32), and the poolings' indices."""

from __future__ import annotations

from torch import nn

from vistasks.backbones.pooled import PooledBackbone
from vistasks.backbones.weights import WeightSource, load_weights
from vistasks.registry import BACKBONES

_WIDTHS = (64, 128, 256, 512, 512)
_CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def _vgg(depth: int, *, batchnorm: bool, weights: str | None, width: float) -> PooledBackbone:
    if not width > 0:
        raise ValueError(f"vgg{depth}: width must be above 0 (1.0 is the paper's), not {width}")
    layers: list[nn.Module] = []
    inputs = 3
    for full, convs in zip(_WIDTHS, _CONVS[depth], strict=True):
        outputs = max(1, round(full * width))
        for _ in range(convs):
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            if batchnorm:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.ReLU(inplace=True))
            inputs = outputs
        layers.append(nn.MaxPool2d(2, 2))
    trunk = PooledBackbone(nn.Sequential(*layers))
    enumeration = f"VGG{depth}_BN_Weights" if batchnorm else f"VGG{depth}_Weights"
    load_weights(trunk, weights, WeightSource(enumeration=enumeration, classifier=("classifier.",)))
    return trunk


@BACKBONES.register("vgg11")
def vgg11(*, weights: str | None = None, width: float = 1.0) -> PooledBackbone:
    """Configuration A; ``width`` scales every layer's channels."""
    return _vgg(11, batchnorm=False, weights=weights, width=width)


@BACKBONES.register("vgg11_bn")
def vgg11_bn(*, weights: str | None = None, width: float = 1.0) -> PooledBackbone:
    """Configuration A with BatchNorm."""
    return _vgg(11, batchnorm=True, weights=weights, width=width)


@BACKBONES.register("vgg13")
def vgg13(*, weights: str | None = None, width: float = 1.0) -> PooledBackbone:
    """Configuration B."""
    return _vgg(13, batchnorm=False, weights=weights, width=width)


@BACKBONES.register("vgg13_bn")
def vgg13_bn(*, weights: str | None = None, width: float = 1.0) -> PooledBackbone:
    """Configuration B with BatchNorm."""
    return _vgg(13, batchnorm=True, weights=weights, width=width)


@BACKBONES.register("vgg16")
def vgg16(*, weights: str | None = None, width: float = 1.0) -> PooledBackbone:
    """Configuration D."""
    return _vgg(16, batchnorm=False, weights=weights, width=width)


@BACKBONES.register("vgg16_bn")
def vgg16_bn(*, weights: str | None = None, width: float = 1.0) -> PooledBackbone:
    """Configuration D with BatchNorm: the encoder of SegNet."""
    return _vgg(16, batchnorm=True, weights=weights, width=width)


@BACKBONES.register("vgg19")
def vgg19(*, weights: str | None = None, width: float = 1.0) -> PooledBackbone:
    """Configuration E."""
    return _vgg(19, batchnorm=False, weights=weights, width=width)


@BACKBONES.register("vgg19_bn")
def vgg19_bn(*, weights: str | None = None, width: float = 1.0) -> PooledBackbone:
    """Configuration E with BatchNorm."""
    return _vgg(19, batchnorm=True, weights=weights, width=width)
