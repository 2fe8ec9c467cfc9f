"""What the segmentation heads share: the masked pixel losses and the way back to the original picture's
size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.nn import functional

from vistasks.heads.head import Head, Trunk, require_strides
from vistasks.heads.layers import conv_norm
from vistasks.heads.test_time import TestTime, ViewedImage
from vistasks.losses.class_weights import Balance, ClassWeights, weight_tensor
from vistasks.losses.classification import partial_cross_entropy
from vistasks.losses.segmentation import PixelLoss, pixel_losses
from vistasks.ops.box_fusion import BoxFusion
from vistasks.registry import STRICT
from vistasks.types import IGNORE_INDEX, Batch, Encoder, Features, SegmentationMap


@checked_dataclass(frozen=True, config=STRICT)
class Auxiliary:
    """A second, small classifier on the trunk's map at ``stride``, in training alone (PSPNet, Zhao et al.
    2017, section 3.2).

    Its cross-entropy counts ``weight`` times; ``channels`` is its width.
    """

    stride: PositiveInt = 16
    weight: PositiveFloat = 0.4
    channels: PositiveInt = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class SegmentationHead(Head):
    """A head that gives one logit per class and pixel.

    Args:
        classes: the class names; a class called "background" stands for "none of the others" where an image
            does not label every class.
        class_weights: factor of each class in cross-entropy, focal loss and OHEM: by name (1 where not
            named), a list in the order of the classes, or the name of a rule of
            `vistasks.loading.class_weights` that training works out from its data.
        loss: which losses, by their factors.
        auxiliary: a second classifier to train the trunk by.
        trunk: what the maps look like; only ``auxiliary`` reads it here.
    """

    task: ClassVar[str] = "segmentation"
    slides_windows: ClassVar[bool] = True
    class_weights: Tensor

    def __init__(
        self,
        classes: tuple[str, ...],
        class_weights: ClassWeights,
        *,
        loss: PixelLoss = PixelLoss(),  # noqa: B008 - frozen
        auxiliary: Auxiliary | None = None,
        trunk: Trunk | None = None,
    ) -> None:
        super().__init__()
        self.classes, self.pixel_loss = classes, loss
        self.unresolved: Balance | None = class_weights if isinstance(class_weights, str) else None
        self.register_buffer("class_weights", weight_tensor(class_weights, classes), persistent=False)
        self._windows: tuple[TestTime, int] | None = None
        self.background = classes.index("background") if "background" in classes else None
        self.auxiliary: nn.Sequential | None = None
        if auxiliary is not None and trunk is not None:
            require_strides("auxiliary", trunk, [auxiliary.stride])
            self.auxiliary_stride, self.auxiliary_weight = auxiliary.stride, auxiliary.weight
            self.auxiliary = nn.Sequential(
                conv_norm(trunk.channels[auxiliary.stride], auxiliary.channels, 3),
                nn.Dropout2d(auxiliary.dropout),
                nn.Conv2d(auxiliary.channels, len(classes), 1),
            )

    @abstractmethod
    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Logits (N, S, H, W) at the padded input's ``size`` (H, W)."""

    def loss(self, features: Features, batch: Batch, encode: Encoder) -> dict[str, Tensor]:
        if self.unresolved is not None:
            raise ValueError(
                f"class_weights: '{self.unresolved}' is worked out from the training data, which `vistasks train` does; "
                "in a loop of your own call vistasks.loading.class_weights.resolved_config(config, data) before build_model"
            )
        height, width = batch.images.shape[-2:]
        logits = self(features, (height, width)).float()
        target = batch.segmentation
        if target is None:
            target = torch.full((len(batch), height, width), IGNORE_INDEX, device=logits.device)
        terms = pixel_losses(
            logits,
            target,
            labelled=batch.segmentation_labelled,
            background=self.background,
            class_weights=self.class_weights,
            options=self.pixel_loss,
        )
        if self.auxiliary is not None:
            terms["auxiliary"] = self._auxiliary_loss(
                self.auxiliary, features, target, batch.segmentation_labelled
            )
        return terms

    def _auxiliary_loss(
        self, layers: nn.Module, features: Features, target: Tensor, labelled: Tensor
    ) -> Tensor:
        """Cross-entropy at the map's own resolution, against the pixel in the middle of each cell."""
        stride, middle = self.auxiliary_stride, self.auxiliary_stride // 2
        logits = layers(features.maps[stride]).float()
        loss = partial_cross_entropy(
            logits,
            target[:, middle::stride, middle::stride],
            labelled=labelled,
            background=self.background,
            class_weights=self.class_weights,
        )
        return loss * self.auxiliary_weight

    def set_test_time(self, test_time: TestTime | None, *, divisor: int) -> None:
        """Go through large pictures window by window, if ``test_time`` has windows; None: every picture in
        one piece.

        ``divisor``: the network takes sides that divide by it. With windows the head asks for no features of
        whole images."""
        slides = test_time is not None and test_time.window is not None
        self._windows = (test_time, divisor) if test_time is not None and slides else None
        self.reads_image_features = not slides

    def predict(self, features: Features, batch: Batch, encode: Encoder) -> list[SegmentationMap]:
        found = (
            self._logits(features, batch)
            if self._windows is None
            else self.probabilities(features, batch, encode)
        )
        return [class_map(one, original, self.classes) for one, original in zip(found, batch.original_sizes)]

    def opinions(self, features: Features, batch: Batch, encode: Encoder) -> list[Tensor]:
        """Class probabilities (1, S, h, w) of each image, at the network's resolution."""
        return list(self.probabilities(features, batch, encode))

    def through_view(self, seen: ViewedImage, encode: Encoder) -> Tensor:
        (found,) = self.opinions(seen.features, seen.batch, encode)
        return seen.view.undo(found, seen.size)

    def averaged(self, opinions: Sequence[Tensor], fusion: BoxFusion) -> Tensor:
        total = opinions[0]
        for other in opinions[1:]:
            total = total + other
        return total / len(opinions)

    def decided(self, opinion: Tensor, size: tuple[int, int]) -> SegmentationMap:
        return class_map(opinion, size, self.classes)

    def elected(
        self,
        opinions: Sequence[Tensor],
        votes: Sequence[float],
        *,
        size: tuple[int, int],
        fusion: BoxFusion,
        peers: Sequence[Head] = (),
    ) -> SegmentationMap:
        large = [
            functional.interpolate(vote * opinion, size=size, mode="bilinear", align_corners=False)
            for opinion, vote in zip(opinions, votes, strict=True)
        ]
        return class_map(self.averaged(large, fusion), size, self.classes)

    def probabilities(self, features: Features, batch: Batch, encode: Encoder) -> Iterator[Tensor]:
        """Class probabilities (1, S, h, w) of each image without its padding, at the resolution that the
        network sees it in.
        """
        if self._windows is None:
            yield from (one.softmax(dim=1) for one in self._logits(features, batch))
            return
        if features.images is None:
            raise ValueError("windows are cut out of the images, and these features carry none")
        test_time, divisor = self._windows

        def scores(images: Tensor) -> Tensor:
            return self(encode(images), (images.shape[2], images.shape[3]))

        for index, (h, w) in enumerate(batch.sizes):
            yield test_time.window_probabilities(
                features.images[index : index + 1, :, :h, :w], scores, divisor
            )

    def _logits(self, features: Features, batch: Batch) -> Iterator[Tensor]:
        """(1, S, h, w) of each image without its padding."""
        logits = self(features, (batch.images.shape[-2], batch.images.shape[-1])).float()
        for index, (h, w) in enumerate(batch.sizes):
            yield logits[index : index + 1, :, :h, :w]


def class_map(scores: Tensor, size: tuple[int, int], classes: tuple[str, ...]) -> SegmentationMap:
    """The best class of each pixel of a picture of ``size`` (H, W), from scores (1, S, h, w) of another
    resolution.
    """
    if tuple(scores.shape[2:]) != size:
        scores = functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    return SegmentationMap(scores[0].argmax(dim=0).to(torch.uint8).cpu().numpy(), classes)
