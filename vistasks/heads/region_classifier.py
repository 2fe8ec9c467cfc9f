"""The R-CNN region classifier: softmax over K + 1 and a box regression per class, over given region proposals.

With ``roi: align`` it is Fast R-CNN (Girshick 2015), with ``roi: warp`` the original R-CNN (Girshick et al. 2014), trained with
a softmax where the paper fits SVMs afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from vistasks.heads.head import Head, Trunk
from vistasks.heads.region_features import AlignedRegions, RegionFeatures, WarpedRegions
from vistasks.heads.region_sampling import Fraction, Regions, RegionSampling, sample_regions
from vistasks.losses.classification import partial_cross_entropy
from vistasks.ops.boxes import clip_boxes, decode, encode, has_sides
from vistasks.registry import HEADS, STRICT
from vistasks.types import Batch, Detections, Encoder, Features


@checked_dataclass(frozen=True, config=STRICT)
class Decoding:
    """From class probabilities to detections: ``score`` threshold, per-class ``nms`` IoU, ``max_detections`` of an image."""

    score: Fraction = 0.05
    nms: Fraction = 0.5
    max_detections: PositiveInt = 100


@checked_dataclass(frozen=True, config=STRICT)
class Align:
    """`AlignedRegions`: the map at ``stride``, ``size`` cells a side, ``reduce`` channels first (None: as they are)."""

    stride: PositiveInt = 16
    size: PositiveInt = 7
    reduce: PositiveInt | None = None


@checked_dataclass(frozen=True, config=STRICT)
class Warp:
    """`WarpedRegions`: squares of ``crop`` pixels, of which ``context`` on each side lie around the region."""

    crop: PositiveInt = 224
    context: int = 16


@HEADS.register("region_classifier")
class RegionClassifier(Head):
    """Classifies and refines region proposals.

    Args:
        trunk: what the maps look like.
        classes: the K class names; logit K is the background.
        roi: where a region's features come from.
        align, warp: the options of the two.
        hidden: widths of the fully connected layers (the papers' are [4096, 4096]).
        dropout: after each of them.
        sampling: which regions are learnt from.
        decoding: what becomes a detection.
    """

    task: ClassVar[str] = "detection"

    def __init__(
        self,
        *,
        trunk: Trunk,
        classes: tuple[str, ...],
        roi: Literal["align", "warp"] = "align",
        align: Align = Align(),  # noqa: B008 - frozen
        warp: Warp = Warp(),  # noqa: B008
        hidden: list[PositiveInt] | None = None,
        dropout: Fraction = 0.0,
        sampling: RegionSampling = RegionSampling(),  # noqa: B008
        decoding: Decoding = Decoding(),  # noqa: B008
    ) -> None:
        super().__init__()
        self.classes, self.sampling, self.decoding = classes, sampling, decoding
        self.regions: RegionFeatures
        if roi == "align":
            self.regions = AlignedRegions(trunk=trunk, stride=align.stride, size=align.size, reduce=align.reduce)
        else:
            self.regions = WarpedRegions(trunk=trunk, crop=warp.crop, context=warp.context)
        self.reads_image_features = self.regions.reads_image_features
        widths = [self.regions.channels * self.regions.size**2, *(hidden or [1024])]
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)) for a, b in pairwise(widths)]
        self.fc = nn.Sequential(nn.Flatten(), *layers)
        self.classify = nn.Linear(widths[-1], len(classes) + 1)
        self.regress = nn.Linear(widths[-1], 4 * len(classes))
        for layer, deviation in ((self.classify, 0.01), (self.regress, 0.001)):  # Fast R-CNN, section 2.3
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Features, regions: Sequence[Tensor], encode: Encoder) -> tuple[Tensor, Tensor]:
        """Class logits (R, K + 1) and box deltas (R, K, 4), float32, of all images' regions in order."""
        hidden = self.fc(self.regions(features, regions, encode))
        return self.classify(hidden).float(), self.regress(hidden).float().unflatten(1, (-1, 4))

    def loss(self, features: Features, batch: Batch, encode: Encoder) -> dict[str, Tensor]:
        regions = [self._sample(batch, index) for index in range(len(batch))]
        logits, deltas = self(features, [r.boxes for r in regions], encode)
        labels = torch.cat([r.labels for r in regions])
        background = len(self.classes)
        owners = torch.cat([torch.full_like(r.labels, index) for index, r in enumerate(regions)])
        known = functional.pad(batch.detection_labelled, (0, 1), value=True)[owners]  # (R, K + 1)
        return {
            "classification": partial_cross_entropy(logits, labels, labelled=known, background=background),
            "box": self._box_loss(deltas, regions, labels),
        }

    def predict(self, features: Features, batch: Batch, encode: Encoder) -> list[Detections]:
        logits, deltas = self(features, batch.proposals, encode)
        counts = [len(p) for p in batch.proposals]
        scores = logits.softmax(dim=1)
        return [
            self._decode(s, d, proposals, batch, index)
            for index, (s, d, proposals) in enumerate(zip(scores.split(counts), deltas.split(counts), batch.proposals))
        ]

    def _sample(self, batch: Batch, index: int) -> Regions:
        proposals = batch.proposals[index]
        if not bool(batch.detection_labelled[index].any()):  # nothing labelled, nothing to learn
            return Regions(proposals[:0], batch.labels[index][:0], proposals[:0])
        return sample_regions(
            proposals,
            batch.boxes[index],
            batch.labels[index],
            batch.ignored[index],
            background=len(self.classes),
            sampling=self.sampling,
        )

    def _box_loss(self, deltas: Tensor, regions: Sequence[Regions], labels: Tensor) -> Tensor:
        """Smooth L1 of the foreground's own class, over the number of all regions (Fast R-CNN, eq. 1-3)."""
        foreground = torch.nonzero(labels < len(self.classes)).flatten()
        target = encode(torch.cat([r.boxes for r in regions]), torch.cat([r.matched for r in regions]))
        own = deltas[foreground, labels[foreground]]  # (F, 4)
        loss = functional.smooth_l1_loss(own, target[foreground], reduction="sum")
        return loss / max(len(labels), 1)

    def _decode(self, scores: Tensor, deltas: Tensor, proposals: Tensor, batch: Batch, index: int) -> Detections:
        (height, width), (original_height, original_width) = batch.sizes[index], batch.original_sizes[index]
        boxes = clip_boxes(decode(proposals, deltas), (height, width))  # (P, K, 4)
        scores = scores[:, :-1]
        region, label = torch.nonzero((scores > self.decoding.score) & has_sides(boxes), as_tuple=True)
        boxes, scores = boxes[region, label], scores[region, label]
        kept = batched_nms(boxes, scores, label, self.decoding.nms)[: self.decoding.max_detections]
        back = boxes.new_tensor([original_width / width, original_height / height] * 2)
        found = (boxes[kept] * back).cpu().numpy(), scores[kept].cpu().numpy(), label[kept].cpu().numpy()
        return Detections(*found, class_names=self.classes)
