"""Which region proposals an R-CNN head learns from, and what it should say about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor

from vistasks.ops.boxes import box_iof, box_iou
from vistasks.registry import STRICT

Fraction = Annotated[float, Field(ge=0, le=1)]


@checked_dataclass(frozen=True, config=STRICT)
class RegionSampling:
    """How the regions of one image are drawn.

    The defaults are Fast R-CNN's (Girshick 2015, section 2.3): a quarter foreground with IoU >= .5, background from [.1, .5).
    R-CNN (Girshick et al. 2014, section 2.3) draws 32 foreground and 96 background regions over all IoU < .5 (``per_image``
    and ``foreground_fraction`` of a batch there).

    Attributes:
        per_image: regions drawn from an image, at most.
        foreground_fraction: share of them that are foreground, at most.
        foreground_iou: a region with at least this IoU to an object is foreground, with the object's class.
        background_iou: [low, high): background regions have their best IoU in here. Where too few lie in it, regions below it
            fill up, so that an image without objects still teaches.
        add_ground_truth: the objects' own boxes join the proposals.
    """

    per_image: PositiveInt = 128
    foreground_fraction: Fraction = 0.25
    foreground_iou: Fraction = 0.5
    background_iou: tuple[Fraction, Fraction] = (0.1, 0.5)
    add_ground_truth: bool = True


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions to learn from, of one image: boxes (R, 4), labels (R,) with K = background, matched (R, 4) the objects' boxes
    (anything where background)."""

    boxes: Tensor
    labels: Tensor
    matched: Tensor


def sample_regions(
    proposals: Tensor, boxes: Tensor, labels: Tensor, ignored: Tensor, *, background: int, sampling: RegionSampling
) -> Regions:
    """Draws regions of one image from its proposals (P, 4), objects (M, 4), (M,) and ignored areas (I, 4).

    Regions that lie for the most part (intersection over region >= .5) in an ignored area are never background.
    Draws from PyTorch's default generator, which the run's seed sets.
    """
    if sampling.add_ground_truth:
        proposals = torch.cat([boxes, proposals])
    best, match = _best_overlap(proposals, boxes)
    in_ignored = (box_iof(proposals, ignored) >= 0.5).any(dim=1)
    low, high = sampling.background_iou
    foreground = best >= sampling.foreground_iou
    candidate = ~foreground & (best < high) & ~in_ignored
    wanted = int(sampling.per_image * sampling.foreground_fraction)
    picked_foreground = _draw(foreground, wanted)
    wanted = sampling.per_image - len(picked_foreground)
    picked_background = _draw(candidate & (best >= low), wanted)
    easy = _draw(candidate & (best < low), wanted - len(picked_background))
    picked = torch.cat([picked_foreground, picked_background, easy])
    region_labels = torch.full((len(picked),), background, dtype=torch.int64, device=proposals.device)
    region_matched = proposals[picked].clone()
    if len(picked_foreground):
        region_labels[: len(picked_foreground)] = labels[match[picked_foreground]]
        region_matched[: len(picked_foreground)] = boxes[match[picked_foreground]]
    return Regions(proposals[picked], region_labels, region_matched)


def _best_overlap(proposals: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    if len(boxes) == 0:
        return proposals.new_zeros(len(proposals)), torch.zeros(len(proposals), dtype=torch.int64, device=proposals.device)
    best, match = box_iou(proposals, boxes).max(dim=1)
    return best, match


def _draw(mask: Tensor, count: int) -> Tensor:
    candidates = torch.nonzero(mask).flatten()
    if count <= 0:
        return candidates[:0]
    return candidates[torch.randperm(len(candidates), device=candidates.device)[:count]]
