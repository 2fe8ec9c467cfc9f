"""Trunks: normalised images -> `Features`. Importing this room fills the table `BACKBONES`; one name per
family.
"""

from vistasks.backbones import (
    alexnet,
    efficientnet_lite,
    googlenet,
    lenet,
    mobilenet_v3,
    nin,
    resnet,
    segnet_basic,
    timm,
    vgg,
)
from vistasks.backbones.backbone import Backbone, PoolingStage
from vistasks.registry import BACKBONES

__all__ = [
    "BACKBONES",
    "Backbone",
    "PoolingStage",
    "alexnet",
    "efficientnet_lite",
    "googlenet",
    "lenet",
    "mobilenet_v3",
    "nin",
    "resnet",
    "segnet_basic",
    "timm",
    "vgg",
]
