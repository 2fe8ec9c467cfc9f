"""The contract of every trunk: what it publishes, which inputs it takes, and how its first stages are
frozen.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from vistasks.types import Features

Triple = tuple[float, float, float]

# Mean and standard deviation of ImageNet's training images, RGB in 0..1 (the values torchvision's weights
# were trained with)
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PoolingStage:
    """The encoder stage that ends in a 2x2 max pooling with published indices, so that SegNet can mirror it.

    Attributes:
        channels: of the pooled map (and so of its indices).
        convs: number of convolutions in the stage, between the previous pooling and this one.
        kernel: their kernel size.
    """

    channels: int
    convs: int
    kernel: int


class Backbone(nn.Module, ABC):
    """A convolutional trunk: normalised images in, feature maps at several strides out.

    A subclass sets the attributes and writes `extract` and `stages`; `forward` checks the input first.

    Attributes:
        channels: stride -> channels of ``Features.maps[stride]``, in ascending order of the strides.
        pooling: stride -> the stage whose max pooling makes that stride; empty where no indices can be
            published.
        mean, std: RGB statistics in 0..1 units; images arrive as ``(image / 255 - mean) / std``.
        min_size: smallest height and width in pixels.
        publish_pooling: whether ``forward`` also gives ``Features.pooling``. Off until a head needs the
            indices, because max pooling with indices is the slower kernel.
        can_checkpoint: whether its pieces go through `run`.
        gradient_checkpointing: whether `run` keeps only a block's input and output for the backward pass, and
            computes what lies between again: less memory, about a third more time. The results are the same.
    """

    channels: dict[int, int]
    pooling: dict[int, PoolingStage]
    mean: Triple
    std: Triple
    min_size: int
    can_checkpoint: ClassVar[bool] = True
    publish_pooling: bool
    gradient_checkpointing: bool

    def __init__(self, *, mean: Triple = IMAGENET_MEAN, std: Triple = IMAGENET_STD) -> None:
        super().__init__()
        self.channels, self.pooling = {}, {}
        self.mean, self.std = mean, std
        self.min_size = 1
        self.publish_pooling = False
        self.gradient_checkpointing = False
        self._frozen_stages = 0
        self._frozen_batchnorm = False

    @abstractmethod
    def extract(self, images: Tensor) -> Features:
        """The maps of images that `forward` has checked."""

    @abstractmethod
    def stages(self) -> list[nn.Module]:
        """The trunk in order from the input, in the pieces that `freeze` counts; together they hold every
        parameter.
        """

    def forward(self, images: Tensor) -> Features:
        """(N, 3, H, W) float, normalised, to the map (N, ``channels[s]``, H/s, W/s) of every published stride
        s.

        Raises:
            ValueError: not (N, 3, H, W) float, or H or W not a multiple of the largest stride or below
                ``min_size``.
        """
        # a traced or compiled graph takes the sizes it was made for: the check would only add guards to it
        if not torch.jit.is_tracing() and not torch.compiler.is_compiling():
            self.check_input(images)
        return self.extract(images)

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        """``block(x)``, as ``gradient_checkpointing`` says; what `extract` calls its larger pieces by."""
        if not (self.gradient_checkpointing and self.training and torch.is_grad_enabled()):
            return block(x)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _statistics_as_they_are(block)

        result: Tensor = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
        return result

    def check_input(self, images: Tensor) -> None:
        """The ``ValueError`` of `forward`, with the size that would work."""
        name, stride = type(self).__name__, max(self.channels)
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"{name} takes (N, 3, H, W) float images, normalised; received {tuple(images.shape)} {images.dtype}"
            )
        height, width = images.shape[2:]
        if height % stride or width % stride or min(height, width) < self.min_size:
            good = [
                max(math.ceil(side / stride), math.ceil(self.min_size / stride), 1) * stride
                for side in (height, width)
            ]
            raise ValueError(
                f"{name} takes images whose height and width are multiples of {stride} and at least {self.min_size}; "
                f"received {height}x{width} (height x width): pad them to {good[0]}x{good[1]}"
            )

    def freeze(self, stages: int, batchnorm: bool) -> None:
        """Stops the learning of the first ``stages`` stages, and of every BatchNorm if ``batchnorm``.

        Frozen parameters get no gradient; frozen BatchNorms (those of frozen stages are always among them)
        also keep their running statistics, in training mode too. A later call replaces an earlier one:
        ``freeze(0, False)`` thaws.

        Raises:
            ValueError: more stages than the trunk has, or fewer than none.
        """
        count = len(self.stages())
        if not 0 <= stages <= count:
            raise ValueError(
                f"{type(self).__name__} has {count} stages; cannot freeze {stages}: expected 0 .. {count}"
            )
        self._frozen_stages, self._frozen_batchnorm = stages, batchnorm
        for index, stage in enumerate(self.stages()):
            stage.requires_grad_(index >= stages)
        for norm in self._frozen_norms():
            norm.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """As ``nn.Module.train``, but frozen BatchNorms stay in evaluation mode."""
        super().train(mode)
        for norm in self._frozen_norms():
            norm.eval()
        return self

    def _frozen_norms(self) -> list[nn.Module]:
        # looked up each time: converting to SyncBatchNorm replaces the modules
        frozen: list[nn.Module] = [self] if self._frozen_batchnorm else self.stages()[: self._frozen_stages]
        return [module for part in frozen for module in part.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def _statistics_as_they_are(block: nn.Module) -> Iterator[None]:
    """While a block is computed a second time, its BatchNorms must not count the batch once more."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    learning = [(norm, norm.momentum) for norm in norms if norm.training and norm.track_running_stats]
    for (
        norm,
        _,
    ) in learning:  # not `track_running_stats`: the second pass must save the same tensors as the first
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in learning:
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)


def initialise(trunk: nn.Module) -> None:
    """He et al. 2015 (fan-out form, per group) for convolutions, zero biases, BatchNorm as the identity."""
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1] // module.groups
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, _BatchNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
