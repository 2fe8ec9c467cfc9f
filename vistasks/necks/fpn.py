"""Feature Pyramid Network (Lin et al. 2017, section 3): every stride gets the coarser strides' meaning."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from vistasks.registry import NECKS
from vistasks.types import Features


@NECKS.register("fpn")
class FPN(nn.Module):
    """Per stride a 1x1 lateral convolution, plus the coarser map upsampled (nearest), then a 3x3 convolution.

    Attributes:
        channels: stride -> ``channels`` of each map it gives, in ascending order of the strides.
    """

    def __init__(
        self, *, in_channels: dict[int, int], channels: int = 128, strides: list[int] | None = None
    ) -> None:
        """``in_channels`` is the trunk's ``channels``; ``strides`` those to use, by default all from 4 on.

        Raises:
            ValueError: a stride that the trunk does not publish, no stride, or channels below 1.
        """
        super().__init__()
        chosen = (
            sorted(set(strides))
            if strides is not None
            else sorted(stride for stride in in_channels if stride >= 4)
        )
        unknown = [stride for stride in chosen if stride not in in_channels]
        if unknown or not chosen:
            raise ValueError(f"fpn: strides {strides} must be some of the backbone's: {sorted(in_channels)}")
        if channels < 1:
            raise ValueError(f"fpn: channels must be at least 1, not {channels}")
        self.channels = dict.fromkeys(chosen, channels)
        self.lateral = nn.ModuleDict(
            {str(stride): _linear(in_channels[stride], channels, 1) for stride in chosen}
        )
        self.output = nn.ModuleDict({str(stride): _linear(channels, channels, 3) for stride in chosen})

    def forward(self, features: Features) -> Features:
        """The trunk's features to maps of ``channels`` channels, (N, C, H/s, W/s); the poolings do not
        pass.
        """
        maps: dict[int, Tensor] = {}
        above: Tensor | None = None
        for stride in reversed(self.channels):  # coarsest first
            merged = self.lateral[str(stride)](features.maps[stride])
            if above is not None:
                merged = merged + F.interpolate(above, size=merged.shape[2:], mode="nearest")
            maps[stride] = self.output[str(stride)](merged)
            above = merged
        return Features(maps={stride: maps[stride] for stride in self.channels})


def _linear(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """A convolution without activation, and so initialised without the gain for a ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    nn.init.zeros_(cast(Tensor, conv.bias))
    return conv
