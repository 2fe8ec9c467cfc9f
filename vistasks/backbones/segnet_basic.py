"""The encoder of SegNet-Basic (Badrinarayanan et al. 2017, section 3.1): four stages of one 7x7 convolution
of 64 channels.
"""

from __future__ import annotations

from torch import nn

from vistasks.backbones.pooled import PooledBackbone
from vistasks.backbones.weights import WeightSource, load_weights
from vistasks.registry import BACKBONES


@BACKBONES.register("segnet_basic")
def segnet_basic(*, weights: str | None = None) -> PooledBackbone:
    """Convolution, BatchNorm, ReLU and pooling, four times: strides 1 .. 16, all with 64 channels and pooling
    indices.
    """
    layers: list[nn.Module] = []
    for inputs in (3, 64, 64, 64):
        # no bias: the BatchNorm that follows has one
        layers += [
            nn.Conv2d(inputs, 64, 7, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, 2),
        ]
    trunk = PooledBackbone(nn.Sequential(*layers))
    load_weights(trunk, weights, WeightSource())
    return trunk
