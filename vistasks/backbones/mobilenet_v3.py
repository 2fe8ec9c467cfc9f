"""MobileNetV3 (Howard et al. 2019): torchvision's layers, cut at the strides.

Names are torchvision's ``features.*``. Publishes the last map at strides 2 .. 32; at 32 that is the 1x1
convolution after the last block (960 or 576 channels)."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large as torchvision_large
from torchvision.models import mobilenet_v3_small as torchvision_small

from vistasks.backbones.backbone import Backbone
from vistasks.backbones.weights import WeightSource, load_weights
from vistasks.registry import BACKBONES
from vistasks.types import Features


class MobileNetV3(Backbone):
    """The ``features`` of torchvision's network."""

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self._ends: dict[int, int] = {}  # stride -> number of layers up to its last map
        stride = 1
        for index, layer in enumerate(features):
            convs = [module for module in layer.modules() if isinstance(module, nn.Conv2d)]
            stride *= max(conv.stride[0] for conv in convs)
            self.channels[stride], self._ends[stride] = convs[-1].out_channels, index + 1
        self.min_size = max(self.channels)

    def extract(self, images: Tensor) -> Features:
        ends = {end: stride for stride, end in self._ends.items()}
        maps: dict[int, Tensor] = {}
        x = images
        for index, layer in enumerate(self.features, start=1):
            x = self.run(layer, x)
            if index in ends:
                maps[ends[index]] = x
        return Features(maps=maps)

    def stages(self) -> list[nn.Module]:
        """The layers of strides 2, 4, 8, 16 and 32."""
        stages: list[nn.Module] = []
        start = 0
        for end in self._ends.values():
            stages.append(self.features[start:end])
            start = end
        return stages


@BACKBONES.register("mobilenet_v3_large")
def mobilenet_v3_large(*, weights: str | None = None) -> MobileNetV3:
    """Channels 16, 24, 40, 112, 960 at strides 2 .. 32."""
    trunk = MobileNetV3(torchvision_large().features)
    load_weights(
        trunk, weights, WeightSource(enumeration="MobileNet_V3_Large_Weights", classifier=("classifier.",))
    )
    return trunk


@BACKBONES.register("mobilenet_v3_small")
def mobilenet_v3_small(*, weights: str | None = None) -> MobileNetV3:
    """Channels 16, 16, 24, 48, 576 at strides 2 .. 32."""
    trunk = MobileNetV3(torchvision_small().features)
    load_weights(
        trunk, weights, WeightSource(enumeration="MobileNet_V3_Small_Weights", classifier=("classifier.",))
    )
    return trunk
