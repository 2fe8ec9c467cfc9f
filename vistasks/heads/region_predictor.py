"""From a region's pooled features to its class and its box: the layers, the boxes they give, and what they
are taught.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from vistasks.heads.region_sampling import Fraction, Regions
from vistasks.losses.processes import count_of_all
from vistasks.ops.boxes import WEIGHTS, decode, encode
from vistasks.registry import STRICT


@checked_dataclass(frozen=True, config=STRICT)
class BoxLoss:
    """How far a foreground region's box may lie from its object.

    ``smooth_l1`` of the encoded deltas (Fast R-CNN, eq. 3), or of the decoded boxes ``giou`` (Rezatofighi et
    al. 2019) or ``ciou`` (Zheng et al. 2020). The sum is taken over the foreground and divided by the number
    of all regions."""

    kind: Literal["smooth_l1", "giou", "ciou"] = "smooth_l1"
    weight: NonNegativeFloat = 1.0


@checked_dataclass(frozen=True, config=STRICT)
class Refine:
    """Further stages, as in Cascade R-CNN (Cai and Vasconcelos 2018): each classifies and moves the boxes of
    the one before.

    Attributes:
        foreground_iou: one stage for each entry: from which IoU on it takes a region as foreground.
        loss_weight: of each stage's losses.
        keep: regions of an image that go on to the next stage in prediction, the best after NMS at ``nms``.
    """

    foreground_iou: tuple[Fraction, ...] = ()
    loss_weight: NonNegativeFloat = 0.5
    keep: PositiveInt = 300
    nms: Fraction = 0.8


class RegionPredictor(nn.Module):
    """Fully connected layers, then class logits and box deltas.

    Args:
        inputs: numbers that a region's pooled features have.
        hidden: widths of the layers (the papers' are [4096, 4096]).
        classes: K.
        dropout: after each layer.
        class_agnostic: one box for a region instead of one for each class.
        ranks: of each layer, where it is to be the product of two smaller ones (see
            `vistasks.refining.compress`).
        regress_from: "hidden", or "pooled": the boxes come from the pooled features themselves (R-CNN,
            appendix C).
        stage: 0 for the first; the later ones correct smaller errors, and so their deltas are scaled up
            (Cascade R-CNN, 3.3).
    """

    def __init__(
        self,
        *,
        inputs: int,
        hidden: Sequence[int],
        classes: int,
        dropout: float,
        class_agnostic: bool,
        ranks: Sequence[int] | None = None,
        regress_from: Literal["hidden", "pooled"] = "hidden",
        stage: int = 0,
    ) -> None:
        super().__init__()
        if ranks is not None and len(ranks) != len(hidden):
            raise ValueError(
                f"ranks must be one for each of the {len(hidden)} hidden layers; received {len(ranks)}"
            )
        widths = [inputs, *hidden]
        wanted: Sequence[int | None] = ranks or [None] * len(hidden)
        linear = [_linear(a, b, rank) for (a, b), rank in zip(pairwise(widths), wanted)]
        layers = [nn.Sequential(layer, nn.ReLU(), nn.Dropout(dropout)) for layer in linear]
        self.fc = nn.Sequential(nn.Flatten(), *layers)
        self.classify = nn.Linear(widths[-1], classes + 1)
        self.from_pooled = regress_from == "pooled"
        self.regress = nn.Linear(
            inputs if self.from_pooled else widths[-1], 4 * (1 if class_agnostic else classes)
        )
        x, y, w, h = WEIGHTS
        self.scale = (x * (stage + 1), y * (stage + 1), w * (stage + 1), h * (stage + 1))
        for layer, deviation in ((self.classify, 0.01), (self.regress, 0.001)):  # Fast R-CNN, section 2.3
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, size, size) -> class logits (R, K + 1) and box deltas (R, K or 1, 4), float32."""
        hidden = self.fc(pooled)
        deltas = self.regress(pooled.flatten(1) if self.from_pooled else hidden)
        return self.classify(hidden).float(), deltas.float().unflatten(1, (-1, 4))

    def boxes(self, regions: Tensor, deltas: Tensor) -> Tensor:
        """Regions (R, 4) moved by deltas (R, K or 1, 4) -> (R, K or 1, 4), not yet clipped."""
        return decode(regions, deltas, self.scale)

    def box_loss(
        self,
        deltas: Tensor,
        regions: Tensor,
        matched: Tensor,
        labels: Tensor,
        *,
        background: int,
        loss: BoxLoss,
    ) -> Tensor:
        """The `BoxLoss` of regions (R, 4) with deltas (R, K or 1, 4), whose objects are matched (R, 4) with
        labels (R,).
        """
        foreground = torch.nonzero(labels < background).flatten()
        own = deltas[foreground, own_column(labels[foreground], deltas)]  # (F, 4)
        if loss.kind == "smooth_l1":
            total = functional.smooth_l1_loss(
                own, encode(regions, matched, self.scale)[foreground], reduction="sum"
            )
        else:
            distance = generalized_box_iou_loss if loss.kind == "giou" else complete_box_iou_loss
            total = distance(
                decode(regions[foreground], own, self.scale), matched[foreground].float(), reduction="sum"
            )
        return loss.weight * total / count_of_all(total.new_tensor(len(labels))).clamp(min=1)

    @torch.no_grad()
    def hardest(
        self, logits: Tensor, deltas: Tensor, regions: Regions, count: int, *, loss: BoxLoss
    ) -> Tensor:
        """Which ``count`` of an image's regions have the greatest sum of both losses, with their logits and
        deltas.
        """
        background = logits.shape[1] - 1
        column = own_column(regions.labels.clamp(max=background - 1), deltas)
        own = deltas[torch.arange(len(deltas), device=deltas.device), column]
        target = encode(regions.boxes, regions.matched, self.scale)
        box = functional.smooth_l1_loss(own, target, reduction="none").sum(dim=1) * (
            regions.labels < background
        )
        total = functional.cross_entropy(logits, regions.labels, reduction="none") + loss.weight * box
        return total.topk(min(count, len(total))).indices


def _linear(inputs: int, outputs: int, rank: int | None) -> nn.Module:
    if rank is None:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))


def own_column(labels: Tensor, deltas: Tensor) -> Tensor:
    """Which of the boxes (R, K or 1, 4) belongs to each label (R,)."""
    return labels if deltas.shape[1] > 1 else torch.zeros_like(labels)


def best_class_boxes(scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Of each region the box (R, 4) and the number (R,) of its likeliest class, from scores (R, K + 1), boxes
    (R, K or 1, 4).
    """
    label = scores[:, :-1].argmax(dim=1)
    return boxes[torch.arange(len(boxes), device=boxes.device), own_column(label, boxes)], label
