"""One pass through a shared trunk, one or two task heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from vistasks.backbones.backbone import Backbone
from vistasks.heads.head import Head
from vistasks.models.weighting import FixedWeights, TaskWeighting
from vistasks.types import Batch, Features, Prediction


class MultiTaskModel(nn.Module):
    """Backbone, neck and heads.

    Args:
        backbone: the shared trunk.
        neck: features -> features, or None.
        heads: by task, "detection" and / or "segmentation".
        loss_weights: factor of each task's losses.
        weighting: what balances the tasks after that; None: nothing.

    Attributes:
        active: the tasks that `loss` trains; a training with stages or task sampling sets it before each step.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        neck: nn.Module | None,
        heads: Mapping[str, Head],
        loss_weights: Mapping[str, float],
        weighting: TaskWeighting | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.heads: Mapping[str, Head] = nn.ModuleDict(heads)  # type: ignore[assignment]
        self.loss_weights = {task: loss_weights.get(task, 1.0) for task in heads}
        self.weighting = weighting or FixedWeights(tasks=tuple(heads))
        self.active: tuple[str, ...] = tuple(heads)
        backbone.publish_pooling = any(head.needs_pooling for head in heads.values())
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    @property
    def divisor(self) -> int:
        """Heights and widths of a batch must divide by this."""
        return max(self.backbone.channels)

    def encode(self, images: Tensor) -> Features:
        """Normalised images (N, 3, H, W) -> the maps that the heads read."""
        features = self.backbone(images)
        return features if self.neck is None else self.neck(features)

    def features(self, batch: Batch) -> Features:
        """The batch's features, or only its normalised images where no head reads features of whole images."""
        images = (batch.images.float() / 255 - self.mean) / self.std
        images = images.contiguous(memory_format=torch.channels_last)
        if not any(head.reads_image_features for head in self.heads.values()):
            return Features(maps={}, images=images)
        return replace(self.encode(images), images=images)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted loss terms ``task/term``; what is to be minimised is their sum."""
        features = self.features(batch)
        losses: dict[str, dict[str, Tensor]] = {}
        for task in self.active:
            terms = self.heads[task].loss(self.weighting.tap(task, features), batch, self.encode)
            losses[task] = {name: value * self.loss_weights[task] for name, value in terms.items()}
        return self.weighting(losses, {task: getattr(batch, f"{task}_labelled").any() for task in losses})

    @torch.inference_mode()
    def predict(self, batch: Batch) -> list[Prediction]:
        """One `Prediction` per image, in pixels of the original images. The model must be in ``eval()`` mode."""
        features = self.features(batch)
        found = {task: head.predict(features, batch, self.encode) for task, head in self.heads.items()}
        nothing = [None] * len(batch)
        both = zip(found.get("detection", nothing), found.get("segmentation", nothing))
        return [Prediction(detections, segmentation) for detections, segmentation in both]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`; the name that DistributedDataParallel wraps."""
        return self.loss(batch)
