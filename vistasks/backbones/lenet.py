"""LeNet-5 (LeCun et al. 1998, section II.B): its two convolutions; C5 and F6 are the classifier and left out.

Departures: RGB input, padding so that sizes hold, max pooling (SegNet needs its indices) and ReLU for the
paper's trainable average pooling and tanh."""

from __future__ import annotations

from torch import nn

from vistasks.backbones.pooled import PooledBackbone
from vistasks.backbones.weights import WeightSource, load_weights
from vistasks.registry import BACKBONES


@BACKBONES.register("lenet5")
def lenet5(*, weights: str | None = None) -> PooledBackbone:
    """C1 (6 channels, stride 1), C3 (16, stride 2), S4 (16, stride 4), with pooling indices."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 6), (6, 16)):
        layers += [nn.Conv2d(inputs, outputs, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2)]
    trunk = PooledBackbone(nn.Sequential(*layers))
    load_weights(trunk, weights, WeightSource())
    return trunk
