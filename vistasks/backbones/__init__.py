"""Trunks: normalised images -> `Features`. Importing this room fills the table `BACKBONES`; one line per family."""

from vistasks.backbones import efficientnet_lite, resnet, segnet_basic, vgg
from vistasks.backbones.backbone import Backbone, PoolingStage
from vistasks.registry import BACKBONES

__all__ = ["BACKBONES", "Backbone", "PoolingStage", "efficientnet_lite", "resnet", "segnet_basic", "vgg"]
