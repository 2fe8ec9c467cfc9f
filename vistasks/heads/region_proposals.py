"""Proposals that are learnt: the region proposal network of Faster R-CNN (Ren et al. 2015, section 3.1) on
the shared trunk.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from vistasks.heads.head import Trunk, TrunkMismatch, require_strides
from vistasks.heads.region_sampling import Fraction
from vistasks.losses.processes import count_of_all
from vistasks.ops.boxes import box_iof, box_iou, clip_boxes, decode, encode, has_sides
from vistasks.registry import STRICT
from vistasks.types import Batch, Features

UNIT = (1.0, 1.0, 1.0, 1.0)  # anchors' deltas are not scaled


@checked_dataclass(frozen=True, config=STRICT)
class Rpn:
    """A region proposal network; the defaults are Faster R-CNN's and, of the anchors, those of the pyramid
    paper.

    Attributes:
        stride: the maps on which anchors stand; all with one number of channels.
        scales: sides of the anchors, of equal area, in strides: 8 is a side of 64 pixels at stride 8.
        ratios: height / width.
        per_image: anchors learnt from in an image, at most half of them foreground.
        foreground_iou, background_iou: an anchor with at least, or with less than this IoU; between them it
            is not used. The best anchors of each object are foreground in any case.
        before_nms: the best anchors of each map that are decoded.
        nms: IoU from which on the worse of two proposals is dropped.
        keep: proposals of an image.
        loss_weight: of its two losses.
    """

    stride: list[PositiveInt]
    scales: tuple[PositiveFloat, ...] = (8.0,)
    ratios: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0)
    per_image: PositiveInt = 256
    foreground_iou: Fraction = 0.7
    background_iou: Fraction = 0.3
    before_nms: PositiveInt = 1000
    nms: Fraction = 0.7
    keep: PositiveInt = 1000
    loss_weight: NonNegativeFloat = 1.0


class ScoredAnchors(NamedTuple):
    """The anchors of each map: objectness logits (N, A_s), deltas (N, A_s, 4), anchors (A_s, 4) in pixels;
    float32.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]


class RegionProposals(nn.Module):
    """One 3x3 convolution shared by all maps, then objectness and box deltas of each anchor.

    Args:
        trunk: what the maps look like.
        options: see `Rpn`.
    """

    def __init__(self, *, trunk: Trunk, options: Rpn) -> None:
        super().__init__()
        require_strides("rpn", trunk, options.stride)
        self.options, self.strides = options, sorted(options.stride)
        widths = {trunk.channels[stride] for stride in self.strides}
        if len(widths) > 1:
            have = ", ".join(f"{trunk.channels[s]} at {s}" for s in self.strides)
            raise TrunkMismatch(
                f"rpn needs maps of one number of channels, but those of '{trunk.name}' have {have}; add a neck"
            )
        channels, anchors = widths.pop(), len(options.scales) * len(options.ratios)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness, self.deltas = nn.Conv2d(channels, anchors, 1), nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)  # Ren et al., section 3.1.3
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, features: Features) -> ScoredAnchors:
        """What it says of every anchor."""
        logits, deltas, anchors = [], [], []
        for stride in self.strides:
            hidden = self.conv(features.maps[stride]).relu()
            height, width = hidden.shape[2:]
            logits.append(
                self.objectness(hidden).float().permute(0, 2, 3, 1).flatten(1)
            )  # (N, A, H, W) -> (N, H*W*A)
            deltas.append(self.deltas(hidden).float().permute(0, 2, 3, 1).reshape(len(hidden), -1, 4))
            anchors.append(self.anchors(stride, height, width).to(hidden.device))
        return ScoredAnchors(logits, deltas, anchors)

    def anchors(self, stride: int, height: int, width: int) -> Tensor:
        """(height * width * anchors of a cell, 4), centred on the cells of a map."""
        scales, ratios = torch.tensor(self.options.scales), torch.tensor(self.options.ratios)
        w = (stride * scales[:, None] / ratios.sqrt()[None]).flatten()
        h = (stride * scales[:, None] * ratios.sqrt()[None]).flatten()
        shapes = torch.stack([-w, -h, w, h], dim=1) / 2
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5) * stride, (torch.arange(width) + 0.5) * stride, indexing="ij"
        )
        centres = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
        return (centres + shapes).view(-1, 4)

    @torch.no_grad()
    def propose(self, judged: ScoredAnchors, batch: Batch) -> list[Tensor]:
        """Of each image the best boxes (P, 4) after NMS within each map, clipped, best first."""
        found = []
        for index, size in enumerate(batch.sizes):
            boxes, scores, levels = [], [], []
            for level, (logit, delta, anchor) in enumerate(zip(judged.logits, judged.deltas, judged.anchors)):
                best = logit[index].topk(min(self.options.before_nms, len(anchor))).indices
                boxes.append(clip_boxes(decode(anchor[best], delta[index, best], UNIT), size))
                scores.append(logit[index, best])
                levels.append(torch.full_like(best, level))
            box, score, level_of = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
            good = has_sides(box, 1.0)
            kept = batched_nms(box[good], score[good], level_of[good], self.options.nms)[: self.options.keep]
            found.append(box[good][kept])
        return found

    def loss(self, judged: ScoredAnchors, batch: Batch) -> dict[str, Tensor]:
        """Binary cross-entropy and smooth L1 (beta 1/9) over the drawn anchors' number (Ren et al., eq.
        1).
        """
        logit, delta, anchor = (
            torch.cat(judged.logits, dim=1),
            torch.cat(judged.deltas, dim=1),
            torch.cat(judged.anchors),
        )
        objectness, box, count = logit.sum() * 0, delta.sum() * 0, 0
        for index in range(len(batch)):
            positive, negative, match = self._drawn(anchor, batch, index)
            drawn = torch.cat([positive, negative])
            count += len(drawn)
            wanted = torch.zeros(len(drawn), device=anchor.device)
            wanted[: len(positive)] = 1
            objectness = objectness + functional.binary_cross_entropy_with_logits(
                logit[index, drawn], wanted, reduction="sum"
            )
            if len(positive):
                target = encode(anchor[positive], batch.boxes[index][match], UNIT)
                box = box + functional.smooth_l1_loss(
                    delta[index, positive], target, beta=1 / 9, reduction="sum"
                )
        weight = self.options.loss_weight / count_of_all(objectness.new_tensor(count)).clamp(min=1)
        return {"rpn_objectness": objectness * weight, "rpn_box": box * weight}

    def _drawn(self, anchors: Tensor, batch: Batch, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Foreground anchors, background anchors, and the object of each foreground anchor, of one image."""
        options, nothing = self.options, torch.zeros(0, dtype=torch.int64, device=anchors.device)
        known, objects = batch.detection_labelled[index], batch.boxes[index]
        if not bool(known.any()):
            return nothing, nothing, nothing
        best, match = (
            anchors.new_zeros(len(anchors)),
            torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device),
        )
        foreground = torch.zeros_like(best, dtype=torch.bool)
        if len(objects):
            overlap = box_iou(anchors, objects)
            best, match = overlap.max(dim=1)
            foreground = (best >= options.foreground_iou) | (
                (overlap == overlap.amax(dim=0)) & (overlap > 0)
            ).any(dim=1)
        in_ignored = (box_iof(anchors, batch.ignored[index]) >= 0.5).any(dim=1)
        # where some classes are not labelled, nothing is known to be background
        background = (best < options.background_iou) & ~foreground & ~in_ignored & known.all()
        positive = _some(foreground, options.per_image // 2)
        return positive, _some(background, options.per_image - len(positive)), match[positive]


def _some(mask: Tensor, count: int) -> Tensor:
    candidates = torch.nonzero(mask).flatten()
    return candidates[torch.randperm(len(candidates), device=mask.device)[:count]]
