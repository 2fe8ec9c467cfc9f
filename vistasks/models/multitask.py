"""One pass through a shared trunk, one or two task heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vistasks.backbones.backbone import Backbone
from vistasks.batching import with_proposals
from vistasks.heads.head import Head
from vistasks.models.weighting import FixedWeights, TaskWeighting
from vistasks.types import Batch, Features, Prediction, SegmentationMap

# class maps of a batch's images -> further proposals for each
Regions = Callable[[list[SegmentationMap | None]], Sequence[np.ndarray]]


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
        precision: what `predict` computes in by autocast, such as torch.float16; None: float32.
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
        self.precision: torch.dtype | None = None
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
    def predict(
        self, batch: Batch, *, rows: Mapping[str, Sequence[int]] | None = None, regions: Regions | None = None
    ) -> list[Prediction]:
        """One `Prediction` per image, in pixels of the original images. The model must be in ``eval()`` mode.

        Args:
            batch: the images, with proposals where there is a detector.
            rows: by task, the only images that its head is asked about; for the others the prediction has None.
            regions: called with each image's class map (None where not asked for); gives further proposals for each image,
                (P, 4) float32 in pixels of the original image.
        """
        with torch.autocast(batch.images.device.type, dtype=self.precision, enabled=self.precision is not None):
            features = self.features(batch)
            maps = self._answers("segmentation", features, batch, rows or {})
            if regions is not None:
                batch = with_proposals(batch, regions(maps))
            found = self._answers("detection", features, batch, rows or {})
        return [Prediction(detections, segmentation) for detections, segmentation in zip(found, maps)]

    def _answers(self, task: str, features: Features, batch: Batch, rows: Mapping[str, Sequence[int]]) -> list[Any]:
        asked = rows.get(task, range(len(batch)))
        answers: list[Any] = [None] * len(batch)
        if task not in self.heads or not asked:
            return answers
        if len(asked) < len(batch):
            features, batch = features.rows(asked), batch.rows(asked)
        for index, answer in zip(asked, self.heads[task].predict(features, batch, self.encode), strict=True):
            answers[index] = answer
        return answers

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`; the name that DistributedDataParallel wraps."""
        return self.loss(batch)
