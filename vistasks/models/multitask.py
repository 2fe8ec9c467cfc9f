"""One pass through a shared trunk, one or two task heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vistasks.backbones.backbone import Backbone
from vistasks.heads.head import Head
from vistasks.heads.test_time import TestTime
from vistasks.loading.batching import with_proposals
from vistasks.models.views import Regions, predict_views, view_opinions
from vistasks.models.weighting import FixedWeights, TaskWeighting
from vistasks.task import task_of
from vistasks.types import Batch, Features, Prediction


class MultiTaskModel(nn.Module):
    """Backbone, neck and heads.

    Args:
        backbone: the shared trunk.
        neck: features -> features, or None.
        heads: by task.
        loss_weights: factor of each task's losses.
        weighting: what balances the tasks after that; None: nothing.

    Attributes:
        active: the tasks that `loss` trains; a training with stages or task sampling sets it before each
            step.
        precision: what `predict` computes in by autocast, such as torch.float16; None: float32.
        test_time: what `look` was given; None: each picture is predicted as it is.
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
        self.test_time: TestTime | None = None
        backbone.publish_pooling = any(head.needs_pooling for head in heads.values())
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    def head_of(self, kind: type[Any]) -> Head | None:
        """The head of a kind, such as `vistasks.heads.region_classifier.RegionClassifier`, or None."""
        return next((head for head in self.heads.values() if isinstance(head, kind)), None)

    @property
    def divisor(self) -> int:
        """Heights and widths of a batch must divide by this."""
        return max(self.backbone.channels)

    def encode(self, images: Tensor) -> Features:
        """Normalised images (N, 3, H, W) -> the maps that the heads read."""
        features = self.backbone(images)
        return features if self.neck is None else self.neck(features)

    def features(self, batch: Batch) -> Features:
        """The batch's features, or only its normalised images where no head reads features of whole
        images.
        """
        return self.features_of(self.normalised(batch.images).contiguous(memory_format=torch.channels_last))

    def normalised(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> what the trunk takes."""
        return (images.float() / 255 - self.mean) / self.std

    def features_of(self, images: Tensor) -> Features:
        """As `features`, of normalised images (N, 3, H, W)."""
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
        return self.weighting(losses, {task: task_of(task).labelled(batch).any() for task in losses})

    def look(self, test_time: TestTime | None) -> None:
        """From now on `predict` looks at each picture through these views and windows; see
        `vistasks.models.views`.
        """
        self.test_time = test_time
        for head in self.heads.values():
            head.set_test_time(test_time, divisor=self.divisor)

    @torch.inference_mode()
    def predict(
        self, batch: Batch, *, rows: Mapping[str, Sequence[int]] | None = None, regions: Regions | None = None
    ) -> list[Prediction]:
        """One `Prediction` per image, in pixels of the original images. The model must be in ``eval()`` mode.

        Args:
            batch: the images, with proposals where there is a detector.
            rows: by task, the only images that its head is asked about; for the others the prediction has
                None.
            regions: called with the answers of the heads that take no proposals; gives further proposals for
                each image, (P, 4) float32 in pixels of the original image.
        """
        with self.autocast(batch):
            if self.test_time is not None and len(self.test_time.views) > 1:
                return predict_views(self, batch, self.test_time, rows=rows or {}, regions=regions)
            features = self.features(batch)
            found = [Prediction()] * len(batch)
            for task in sorted(self.heads, key=lambda name: task_of(name).takes_proposals):
                if regions is not None and task_of(task).takes_proposals:
                    batch = with_proposals(batch, regions(found))
                answers = self._answers(task, features, batch, rows or {})
                found = [task_of(task).with_answer(one, answer) for one, answer in zip(found, answers)]
        return found

    @torch.inference_mode()
    def opinions(self, batch: Batch, *, decided: Collection[str] = ()) -> list[dict[str, Any]]:
        """Task -> what its head says of each image before anything is decided: for averages over models.

        Of the tasks ``decided`` it is the answer, exactly as `predict` gives it.
        """
        with self.autocast(batch):
            if self.test_time is not None and len(self.test_time.views) > 1:
                found = view_opinions(self, batch, self.test_time)
                for said, size in zip(found, batch.original_sizes):
                    said.update({task: self.heads[task].decided(said[task], size) for task in decided})
                return found
            features = self.features(batch)
            whole = {
                task: (head.predict if task in decided else head.opinions)(features, batch, self.encode)
                for task, head in self.heads.items()
            }
            return [{task: own[index] for task, own in whole.items()} for index in range(len(batch))]

    def autocast(self, batch: Batch) -> torch.autocast:
        """The context of `precision`."""
        return torch.autocast(
            batch.images.device.type, dtype=self.precision, enabled=self.precision is not None
        )

    def _answers(
        self, task: str, features: Features, batch: Batch, rows: Mapping[str, Sequence[int]]
    ) -> list[Any]:
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
