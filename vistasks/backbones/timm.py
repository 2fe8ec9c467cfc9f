"""Any convolutional network of timm (pip install vistasks[timm]) that gives feature maps at exact strides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vistasks.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, Triple
from vistasks.backbones.weights import WeightSource, load_weights
from vistasks.registry import BACKBONES, nearest
from vistasks.types import Features


class TimmBackbone(Backbone):
    """A network of ``timm.create_model(..., features_only=True)``; where it gives several maps at a stride,
    the last.

    Normalisation is that of the network's own pretrained configuration.
    """

    can_checkpoint = False  # the network runs as a whole

    def __init__(self, model: str, net: nn.Module, strides: list[int], *, mean: Triple, std: Triple) -> None:
        super().__init__(mean=mean, std=std)
        self.net = net
        self._strides = strides
        self.min_size = max(strides)
        self.channels = self._probe(model)

    def _probe(self, model: str) -> dict[int, int]:
        """The channels per stride, from one image; a network whose maps are not (N, C, H/s, W/s) is
        refused.
        """
        height, width = 2 * self.min_size, 3 * self.min_size
        training = self.net.training
        try:
            with torch.no_grad():
                maps = self.net.eval()(torch.zeros(1, 3, height, width))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"timm's '{model}' cannot be a backbone: it refuses an image of {height}x{width}: {error}"
            ) from error
        self.net.train(training)
        for stride, found in zip(self._strides, maps, strict=True):
            if found.ndim != 4 or tuple(found.shape[2:]) != (height // stride, width // stride):
                raise ValueError(
                    f"timm's '{model}' cannot be a backbone: at stride {stride} it gives {tuple(found.shape)} for an image of "
                    f"{height}x{width}; expected (1, C, {height // stride}, {width // stride}). Take a convolutional network"
                )
            if stride & (stride - 1):
                raise ValueError(
                    f"timm's '{model}' cannot be a backbone: its stride {stride} is not a power of two"
                )
        channels = {stride: found.shape[1] for stride, found in zip(self._strides, maps, strict=True)}
        return dict(sorted(channels.items()))

    def extract(self, images: Tensor) -> Features:
        by_stride = dict(zip(self._strides, self.net(images), strict=True))
        return Features(maps={stride: by_stride[stride] for stride in self.channels})

    def stages(self) -> list[nn.Module]:
        """The network's own top-level modules that have parameters; a sequence of blocks counts block by
        block.
        """
        stages: list[nn.Module] = []
        for child in self.net.children():
            stages += child.children() if isinstance(child, nn.Sequential | nn.ModuleList) else [child]
        return [stage for stage in stages if any(True for _ in stage.parameters())]


@BACKBONES.register("timm")
def timm(*, model: str, weights: str | None = None) -> TimmBackbone:
    """timm's ``model`` by its name there; ``weights`` is None or a local file of that network.

    Raises:
        ModuleNotFoundError: timm is not installed.
        ValueError: unknown model, one that gives no feature maps at exact strides, or weights that do not
            fit.
    """
    try:
        import timm as library
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the backbone 'timm' needs timm: pip install vistasks[timm]") from error
    if not library.is_model(model):
        raise ValueError(f"timm has no model '{model}'.{nearest(model, library.list_models())}")
    try:
        net: Any = library.create_model(model, features_only=True, pretrained=False)
    except (RuntimeError, AttributeError, TypeError, AssertionError) as error:
        raise ValueError(
            f"timm's '{model}' cannot be a backbone: it has no feature maps ({error})"
        ) from error
    with torch.device("meta"):
        whole: Any = library.create_model(model, pretrained=False)
    statistics = whole.pretrained_cfg or {}
    mean, std = tuple(statistics.get("mean", IMAGENET_MEAN)), tuple(statistics.get("std", IMAGENET_STD))
    strides = list(net.feature_info.reduction())
    trunk = TimmBackbone(model, net, strides, mean=mean, std=std)
    # timm flattens names in feature extractors: blocks.0.conv becomes blocks_0.conv
    ours = {name.replace(".", "_"): name for name in net.state_dict()}
    rest = tuple(name for name in whole.state_dict() if name.replace(".", "_") not in ours)
    source = WeightSource(classifier=rest, rename=lambda name: ours.get(name.replace(".", "_"), name))
    load_weights(trunk.net, weights, source)
    return trunk
