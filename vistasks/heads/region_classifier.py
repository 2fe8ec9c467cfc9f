"""The R-CNN region classifier: softmax over K + 1 and a box regression per class, over given region
proposals.

With ``roi: align`` it is Fast R-CNN (Girshick 2015), with ``roi: warp`` the original R-CNN (Girshick et al.
2014), trained with a softmax where the paper fits SVMs afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import ClassVar, Literal, cast

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from vistasks.heads.head import Head, Trunk
from vistasks.heads.region_decoding import Decoding, calibrated, select_detections
from vistasks.heads.region_features import AlignedRegions, RegionFeatures, WarpedRegions
from vistasks.heads.region_predictor import BoxLoss, Refine, RegionPredictor, best_class_boxes
from vistasks.heads.region_proposals import RegionProposals, Rpn
from vistasks.heads.region_sampling import Fraction, Regions, RegionSampling, label_regions, sample_regions
from vistasks.heads.test_time import ViewedImage
from vistasks.losses.classification import partial_cross_entropy
from vistasks.ops.box_fusion import BoxFusion, fuse_detections
from vistasks.ops.boxes import clip_boxes, has_sides, paired_iou
from vistasks.registry import HEADS, STRICT
from vistasks.types import Batch, Detections, Encoder, Features


@checked_dataclass(frozen=True, config=STRICT)
class Align:
    """`AlignedRegions`: the map at ``stride`` (or the maps of a list), ``size`` cells a side, ``reduce``
    channels first.
    """

    stride: PositiveInt | list[PositiveInt] = 16
    size: PositiveInt = 7
    reduce: PositiveInt | None = None
    canonical: PositiveInt = 224


@checked_dataclass(frozen=True, config=STRICT)
class Warp:
    """`WarpedRegions`: squares of ``crop`` pixels, of which ``context`` on each side lie around the
    region.
    """

    crop: PositiveInt = 224
    context: int = 16


@HEADS.register("region_classifier")
class RegionClassifier(Head):
    """Classifies and refines region proposals.

    Args:
        trunk: what the maps look like.
        classes: the K class names; logit K is the background.
        roi: where a region's features come from: RoIAlign, RoIPool or warped crops.
        align, warp: the options of RoIAlign and RoIPool, and of warped crops.
        hidden: widths of the fully connected layers (the papers' are [4096, 4096]).
        dropout: after each of them.
        ranks: of each of them, where it is the product of two smaller ones, as `vistasks compress` makes
            them.
        regress_from: whether the boxes come from the last hidden layer or, as in R-CNN, from the pooled
            features.
        class_agnostic: one box for a region instead of one for each class.
        sampling: which regions are learnt from.
        box_loss: what the boxes are taught with.
        label_smoothing: share of a region's target that is spread over all classes.
        refine: further stages.
        rpn: a region proposal network on the same maps, whose boxes join those that come with the batch; with
            ``proposals.method: {name: rpn}``, which brings none, the head is Faster R-CNN.
        decoding: what becomes a detection.
    """

    task: ClassVar[str] = "detection"
    earlier_names: ClassVar[Mapping[str, str]] = {
        name: f"stages.0.{name}" for name in ("fc.", "classify.", "regress.")
    }

    def __init__(
        self,
        *,
        trunk: Trunk,
        classes: tuple[str, ...],
        roi: Literal["align", "pool", "warp"] = "align",
        align: Align = Align(),  # noqa: B008 - frozen
        warp: Warp = Warp(),  # noqa: B008
        hidden: list[PositiveInt] | None = None,
        dropout: Fraction = 0.0,
        ranks: list[PositiveInt] | None = None,
        regress_from: Literal["hidden", "pooled"] = "hidden",
        class_agnostic: bool = False,
        sampling: RegionSampling = RegionSampling(),  # noqa: B008
        box_loss: BoxLoss = BoxLoss(),  # noqa: B008
        label_smoothing: Fraction = 0.0,
        refine: Refine = Refine(),  # noqa: B008
        rpn: Rpn | None = None,
        decoding: Decoding = Decoding(),  # noqa: B008
    ) -> None:
        super().__init__()
        decoding.check(classes)
        self.classes, self.sampling, self.decoding, self.refine = classes, sampling, decoding, refine
        self.box_loss, self.label_smoothing = box_loss, label_smoothing
        self.regions: RegionFeatures
        if roi == "warp":
            self.regions = WarpedRegions(trunk=trunk, crop=warp.crop, context=warp.context)
        else:
            strides = [align.stride] if isinstance(align.stride, int) else align.stride
            self.regions = AlignedRegions(
                trunk=trunk,
                strides=strides,
                size=align.size,
                reduce=align.reduce,
                canonical=align.canonical,
                pool=roi == "pool",
            )
        self.rpn = RegionProposals(trunk=trunk, options=rpn) if rpn else None
        self.reads_image_features = self.regions.reads_image_features or rpn is not None
        self.stages = nn.ModuleList(
            RegionPredictor(
                inputs=self.regions.channels * self.regions.size**2,
                hidden=hidden or [1024],
                classes=len(classes),
                dropout=dropout,
                class_agnostic=class_agnostic,
                ranks=ranks,
                regress_from=regress_from,
                stage=stage,
            )
            for stage in range(1 + len(refine.foreground_iou))
        )

    def forward(
        self, features: Features, regions: Sequence[Tensor], encode: Encoder, stage: int = 0
    ) -> tuple[Tensor, Tensor]:
        """A stage's class logits (R, K + 1) and box deltas (R, K or 1, 4), float32, of all images' regions in
        order.
        """
        logits, deltas = self.stages[stage](self.regions(features, regions, encode))
        return logits, deltas

    def loss(self, features: Features, batch: Batch, encode: Encoder) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        if self.rpn is not None:
            anchors = self.rpn(features)
            terms |= self.rpn.loss(anchors, batch)
            batch = joined(batch, self.rpn.propose(anchors, batch))
        logits = deltas = torch.zeros(0)
        regions = [self._sample(batch, index) for index in range(len(batch))]
        for stage in range(len(self.stages)):
            if stage:
                regions = self._refined(regions, logits, deltas, batch, stage)
            logits, deltas = self(features, [r.boxes for r in regions], encode, stage)
            if self.sampling.hard is not None and not stage:
                logits, deltas, regions = self._hard(logits, deltas, regions, self.sampling.hard)
            name, weight = (f"_{stage + 1}", self.refine.loss_weight) if stage else ("", 1.0)
            for term, value in self._stage_loss(logits, deltas, regions, batch, stage).items():
                terms[f"{term}{name}"] = weight * value
        return terms

    def predict(self, features: Features, batch: Batch, encode: Encoder) -> list[Detections]:
        regions = self.proposals(features, batch)
        totals = [torch.zeros(len(r), len(self.classes) + 1, device=r.device) for r in regions]
        last = len(self.stages) + self.decoding.passes - 1
        boxes: list[Tensor] = []
        for step in range(last):
            stage = min(step, len(self.stages) - 1)
            logits, deltas = self(features, regions, encode, stage)
            counts = [len(r) for r in regions]
            totals = [total + s for total, s in zip(totals, logits.softmax(dim=1).split(counts))]
            moved = [self._predictor(stage).boxes(r, d) for r, d in zip(regions, deltas.split(counts))]
            boxes = [clip_boxes(b, size) for b, size in zip(moved, batch.sizes)]
            if step < last - 1:
                regions, totals = self._best(totals, boxes)
        return [
            self._detections(t / last, b, batch, index) for index, (t, b) in enumerate(zip(totals, boxes))
        ]

    def through_view(self, seen: ViewedImage, encode: Encoder) -> Detections:
        (proposals,) = seen.batch.proposals
        moved = seen.view.apply_boxes(proposals, seen.size, seen.batch.sizes[0])
        (found,) = self.predict(seen.features, replace(seen.batch, proposals=(moved,)), encode)
        return replace(found, boxes=seen.view.undo_boxes(found.boxes, seen.batch.original_sizes[0][1]))

    def averaged(self, opinions: Sequence[Detections], fusion: BoxFusion) -> Detections:
        return fuse_detections(opinions, fusion, limit=self.decoding.max_detections)

    def elected(
        self,
        opinions: Sequence[Detections],
        votes: Sequence[float],
        *,
        size: tuple[int, int],
        fusion: BoxFusion,
        peers: Sequence[Head] = (),
    ) -> Detections:
        limits = [head.decoding.max_detections for head in peers if isinstance(head, RegionClassifier)]
        limit = max(limits, default=self.decoding.max_detections)
        return fuse_detections(opinions, fusion, limit=limit, votes=votes)

    def score_regions(
        self, features: Features, regions: Sequence[Tensor], encode: Encoder
    ) -> tuple[Tensor, Tensor]:
        """What the stages say on average of boxes as they are, none dropped or moved: probabilities (R, K +
        1), and the boxes (R, K or 1, 4), not clipped, where the first stage would put an object of each
        class."""
        said = [self(features, regions, encode, stage) for stage in range(len(self.stages))]
        boxes = self._predictor(0).boxes(torch.cat([r.float() for r in regions]), said[0][1])
        return torch.stack([logits.softmax(dim=1) for logits, _ in said]).mean(dim=0), boxes

    def proposals(self, features: Features, batch: Batch) -> list[Tensor]:
        """The regions (P, 4) of each image that `predict` judges: the batch's, after those of the ``rpn`` if
        there is one.
        """
        if self.rpn is None:
            return list(batch.proposals)
        return list(joined(batch, self.rpn.propose(self.rpn(features), batch)).proposals)

    def _predictor(self, stage: int) -> RegionPredictor:
        return cast(RegionPredictor, self.stages[stage])

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

    def _refined(
        self, regions: Sequence[Regions], logits: Tensor, deltas: Tensor, batch: Batch, stage: int
    ) -> list[Regions]:
        """The regions where the stage before has moved them, labelled anew by this stage's IoU."""
        counts, refined = [len(r.boxes) for r in regions], []
        for index, (scores, moves, old) in enumerate(
            zip(logits.detach().split(counts), deltas.detach().split(counts), regions)
        ):
            boxes, _ = best_class_boxes(scores, self._predictor(stage - 1).boxes(old.boxes, moves))
            boxes = clip_boxes(boxes, batch.sizes[index])
            refined.append(
                label_regions(
                    boxes[has_sides(boxes, 1.0)],
                    batch.boxes[index],
                    batch.labels[index],
                    batch.ignored[index],
                    background=len(self.classes),
                    foreground_iou=self.refine.foreground_iou[stage - 1],
                )
            )
        return refined

    def _stage_loss(
        self, logits: Tensor, deltas: Tensor, regions: Sequence[Regions], batch: Batch, stage: int
    ) -> dict[str, Tensor]:
        labels, background = torch.cat([r.labels for r in regions]), len(self.classes)
        owners = torch.cat([torch.full_like(r.labels, index) for index, r in enumerate(regions)])
        known = functional.pad(batch.detection_labelled, (0, 1), value=True)[owners]  # (R, K + 1)
        boxes, matched = torch.cat([r.boxes for r in regions]), torch.cat([r.matched for r in regions])
        taught = paired_iou(boxes, matched) >= self.sampling.box_iou
        box_labels = torch.where(taught, labels, background)
        return {
            "classification": partial_cross_entropy(
                logits, labels, labelled=known, background=background, label_smoothing=self.label_smoothing
            ),
            "box": self._predictor(stage).box_loss(
                deltas, boxes, matched, box_labels, background=background, loss=self.box_loss
            ),
        }

    def _hard(
        self, logits: Tensor, deltas: Tensor, regions: Sequence[Regions], count: int
    ) -> tuple[Tensor, Tensor, list[Regions]]:
        """What remains for the hardest ``count`` regions of each image."""
        counts = [len(r.boxes) for r in regions]
        kept, chosen = [], []
        for score, moves, own, start in zip(
            logits.split(counts), deltas.split(counts), regions, accumulate([0, *counts])
        ):
            hardest = self._predictor(0).hardest(score, moves, own, count, loss=self.box_loss)
            chosen.append(hardest + start)
            kept.append(Regions(own.boxes[hardest], own.labels[hardest], own.matched[hardest]))
        index = torch.cat(chosen)
        return logits[index], deltas[index], kept

    def _best(self, totals: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The regions that go on to the next stage, with their scores so far."""
        regions, scores = [], []
        for total, moved in zip(totals, boxes):
            box, label = best_class_boxes(total, moved)
            foreground = torch.where(has_sides(box, 1.0), total[:, :-1].amax(dim=1), -1.0)
            kept = batched_nms(box, foreground, label, self.refine.nms)[: self.refine.keep]
            kept = kept[foreground[kept] >= 0]
            regions.append(box[kept])
            scores.append(total[kept])
        return regions, scores

    def _detections(self, scores: Tensor, boxes: Tensor, batch: Batch, index: int) -> Detections:
        """Those of one image, from scores (R, K + 1) and clipped boxes (R, K or 1, 4)."""
        (height, width), (original_height, original_width) = batch.sizes[index], batch.original_sizes[index]
        found, left, label = select_detections(scores, boxes, self.decoding)
        if self.decoding.calibration is not None:
            left = calibrated(left, label, self.classes, self.decoding.calibration)
            order = left.argsort(descending=True, stable=True)
            found, left, label = found[order], left[order], label[order]
        back = found.new_tensor([original_width / width, original_height / height] * 2)
        return Detections(
            (found * back).cpu().numpy(), left.cpu().numpy(), label.cpu().numpy(), class_names=self.classes
        )


def joined(batch: Batch, proposals: Sequence[Tensor]) -> Batch:
    """The batch with further proposals of each image, before its own."""
    return replace(
        batch,
        proposals=tuple(torch.cat([more, own.to(more)]) for more, own in zip(proposals, batch.proposals)),
    )
