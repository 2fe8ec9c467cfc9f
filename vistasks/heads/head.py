"""What every task head is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from vistasks.heads.test_time import TestTime, ViewedImage
from vistasks.ops.box_fusion import BoxFusion
from vistasks.types import Batch, Encoder, Features


@dataclass(frozen=True)
class Trunk:
    """What a head needs to know of the trunk (with its neck) to size itself.

    channels: stride -> channels of the map at that stride. pooling: stride -> what SegNet mirrors (see
    `vistasks.backbones.backbone.PoolingStage`); empty where the trunk publishes no pooling indices.
    """

    name: str
    channels: Mapping[int, int]
    pooling: Mapping[int, Any]


class TrunkMismatch(ValueError):
    """This head cannot stand on this trunk. The builder adds which trunks could."""


class Head(nn.Module, ABC):
    """A task head: owns its loss and its decoding. Both read one batch's features; neither changes them."""

    task: ClassVar[str]  # the name of its `vistasks.task.Task`
    slides_windows: ClassVar[bool] = False  # can go through large images window by window
    needs_pooling: ClassVar[bool] = False  # reads Features.pooling
    reads_image_features: bool = True  # False: only ever calls `encode` on crops of its own
    earlier_names: ClassVar[
        Mapping[str, str]
    ] = {}  # how weights' names began in earlier checkpoints -> how they begin now

    @abstractmethod
    def loss(self, features: Features, batch: Batch, encode: Encoder) -> dict[str, Tensor]:
        """Named scalar losses, float32. What a batch does not label adds exactly 0, through every
        parameter.
        """

    @abstractmethod
    def predict(self, features: Features, batch: Batch, encode: Encoder) -> Sequence[Any]:
        """The task's answer for each image, such as `Detections`, in pixels of the original images."""

    # Several views of an image, several models: opinions are what a head says before anything is decided

    def set_test_time(self, test_time: TestTime | None, *, divisor: int) -> None:
        """Called when test-time augmentation changes; ``divisor``: see
        `vistasks.models.MultiTaskModel.divisor`.
        """

    def opinions(self, features: Features, batch: Batch, encode: Encoder) -> Sequence[Any]:
        """What the head says about each image."""
        return self.predict(features, batch, encode)

    def through_view(self, seen: ViewedImage, encode: Encoder) -> Any:
        """What the head says about one image from one view of it, in terms of the image itself."""
        return self.opinions(seen.features, seen.batch, encode)[0]

    def averaged(self, opinions: Sequence[Any], fusion: BoxFusion) -> Any:
        """One opinion out of those of several views; the plain view's is the first."""
        return opinions[0]

    def decided(self, opinion: Any, size: tuple[int, int]) -> Any:
        """The answer for an image whose file has ``size`` (height, width)."""
        return opinion

    def elected(
        self,
        opinions: Sequence[Any],
        votes: Sequence[float],
        *,
        size: tuple[int, int],
        fusion: BoxFusion,
        peers: Sequence[Head] = (),
    ) -> Any:
        """The answer by the opinions of several models, each with its vote; ``peers``: their heads."""
        return self.decided(opinions[0], size)


def require_strides(head: str, trunk: Trunk, strides: Sequence[int]) -> None:
    """A `TrunkMismatch` unless the trunk has a map at each of the strides."""
    lacking = [stride for stride in strides if stride not in trunk.channels]
    if lacking:
        have, want = (", ".join(map(str, s)) for s in (sorted(trunk.channels), strides))
        raise TrunkMismatch(
            f"{head} needs maps at strides {want}, but the backbone '{trunk.name}' has strides {have}"
        )
