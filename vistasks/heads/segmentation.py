"""What the segmentation heads share: the masked pixel loss and the way back to the original picture's size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from vistasks.heads.head import Head
from vistasks.losses.classification import partial_cross_entropy
from vistasks.types import IGNORE_INDEX, Batch, Encoder, Features, SegmentationMap


class SegmentationHead(Head):
    """A head that gives one logit per class and pixel.

    Args:
        classes: the class names; a class called "background" stands for "none of the others" where an image does not label
            every class.
        class_weights: factor of each class in the cross-entropy, by name; 1 where not named.
    """

    task: ClassVar[str] = "segmentation"
    class_weights: Tensor

    def __init__(self, classes: tuple[str, ...], class_weights: Mapping[str, float] | None) -> None:
        super().__init__()
        self.classes = classes
        unknown = sorted(set(class_weights or {}) - set(classes))
        if unknown:
            raise ValueError(f"class_weights names {', '.join(unknown)}; the classes are: {', '.join(classes)}")
        weights = torch.tensor([(class_weights or {}).get(name, 1.0) for name in classes])
        self.register_buffer("class_weights", weights, persistent=False)
        self.background = classes.index("background") if "background" in classes else None

    @abstractmethod
    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Logits (N, S, H, W) at the padded input's ``size`` (H, W)."""

    def loss(self, features: Features, batch: Batch, encode: Encoder) -> dict[str, Tensor]:
        height, width = batch.images.shape[-2:]
        logits = self(features, (height, width)).float()
        target = batch.segmentation
        if target is None:
            target = torch.full((len(batch), height, width), IGNORE_INDEX, device=logits.device)
        return {
            "cross_entropy": partial_cross_entropy(
                logits,
                target,
                labelled=batch.segmentation_labelled,
                background=self.background,
                class_weights=self.class_weights,
            )
        }

    def predict(self, features: Features, batch: Batch, encode: Encoder) -> list[SegmentationMap]:
        height, width = batch.images.shape[-2:]
        logits = self(features, (height, width)).float()
        maps = []
        for index, (valid, original) in enumerate(zip(batch.sizes, batch.original_sizes)):
            one = logits[index : index + 1, :, : valid[0], : valid[1]]
            if valid != original:
                one = functional.interpolate(one, size=original, mode="bilinear", align_corners=False)
            labels = one[0].argmax(dim=0).to(torch.uint8)
            maps.append(SegmentationMap(labels.cpu().numpy(), self.classes))
        return maps
