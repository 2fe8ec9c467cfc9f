"""Which region proposals an R-CNN head learns from, and what it should say about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor

from vistasks.ops.boxes import box_iof, box_iou
from vistasks.registry import STRICT

Fraction = Annotated[float, Field(ge=0, le=1)]


@checked_dataclass(frozen=True, config=STRICT)
class RegionSampling:
    """How the regions of one image are drawn.

    The defaults are Fast R-CNN's (Girshick 2015, section 2.3): a quarter foreground with IoU >= .5,
    background from [.1, .5). R-CNN (Girshick et al. 2014, section 2.3) draws 32 foreground and 96 background
    regions over all IoU < .5 (``per_image`` and ``foreground_fraction`` of a batch there).

    Attributes:
        per_image: regions drawn from an image, at most.
        foreground_fraction: share of them that are foreground, at most.
        foreground_iou: a region with at least this IoU to an object is foreground, with the object's class.
        background_iou: [low, high): background regions have their best IoU in here. Where too few lie in it,
            regions below it fill up, so that an image without objects still teaches.
        add_ground_truth: the objects' own boxes join the proposals.
        balance: the foreground is drawn evenly over the objects, and the background evenly over three equal
            parts of ``background_iou`` (Pang et al. 2019, "Libra R-CNN", section 3.1), so that objects which
            many proposals hit do not crowd the others out.
        box_iou: foreground below this IoU teaches the class alone, not the box (R-CNN, appendix C: .6).
        hard: of the regions drawn, only so many of an image are learnt from: those with the greatest loss
            (Shrivastava et al. 2016, "Training region-based object detectors with online hard example
            mining", section 4).
        jitter: shaken copies of each object's box that join the proposals.
        jitter_strength: each of their sides is moved by at most this share of the box's side.
    """

    per_image: PositiveInt = 128
    foreground_fraction: Fraction = 0.25
    foreground_iou: Fraction = 0.5
    background_iou: tuple[Fraction, Fraction] = (0.1, 0.5)
    add_ground_truth: bool = True
    balance: bool = False
    box_iou: Fraction = 0.0
    hard: PositiveInt | None = None
    jitter: NonNegativeInt = 0
    jitter_strength: Annotated[float, Field(ge=0, lt=0.5)] = 0.25


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions to learn from, of one image: boxes (R, 4), labels (R,) with K = background, matched (R, 4) the
    objects' boxes (anything where background)."""

    boxes: Tensor
    labels: Tensor
    matched: Tensor


def sample_regions(
    proposals: Tensor,
    boxes: Tensor,
    labels: Tensor,
    ignored: Tensor,
    *,
    background: int,
    sampling: RegionSampling,
) -> Regions:
    """Draws regions of one image from its proposals (P, 4), objects (M, 4), (M,) and ignored areas (I, 4).

    Regions that lie for the most part (intersection over region >= .5) in an ignored area are never
    background. Draws from PyTorch's default generator, which the run's seed sets."""
    if sampling.add_ground_truth:
        proposals = torch.cat([boxes, proposals])
    if sampling.jitter:
        proposals = torch.cat([proposals, jittered(boxes, sampling.jitter, sampling.jitter_strength)])
    best, match = _best_overlap(proposals, boxes)
    in_ignored = (box_iof(proposals, ignored) >= 0.5).any(dim=1)
    low, high = sampling.background_iou
    foreground = best >= sampling.foreground_iou
    candidate = ~foreground & (best < high) & ~in_ignored
    wanted = int(sampling.per_image * sampling.foreground_fraction)
    picked_foreground = (
        _draw_evenly(foreground, match, wanted) if sampling.balance else _draw(foreground, wanted)
    )
    wanted = sampling.per_image - len(picked_foreground)
    hard = candidate & (best >= low)
    third = ((best - low) / max(high - low, 1e-6) * 3).long()
    picked_background = _draw_evenly(hard, third, wanted) if sampling.balance else _draw(hard, wanted)
    easy = _draw(candidate & (best < low), wanted - len(picked_background))
    picked = torch.cat([picked_foreground, picked_background, easy])
    region_labels = torch.full((len(picked),), background, dtype=torch.int64, device=proposals.device)
    region_matched = proposals[picked].clone()
    if len(picked_foreground):
        region_labels[: len(picked_foreground)] = labels[match[picked_foreground]]
        region_matched[: len(picked_foreground)] = boxes[match[picked_foreground]]
    return Regions(proposals[picked], region_labels, region_matched)


def label_regions(
    regions: Tensor, boxes: Tensor, labels: Tensor, ignored: Tensor, *, background: int, foreground_iou: float
) -> Regions:
    """All regions (R, 4) but those in ignored areas: foreground where the best IoU reaches
    ``foreground_iou``.
    """
    best, match = _best_overlap(regions, boxes)
    foreground = best >= foreground_iou
    counts = foreground | ~(box_iof(regions, ignored) >= 0.5).any(dim=1)
    region_labels, matched = torch.full_like(match, background), regions.clone()
    region_labels[foreground], matched[foreground] = labels[match[foreground]], boxes[match[foreground]]
    return Regions(regions[counts], region_labels[counts], matched[counts])


def jittered(boxes: Tensor, copies: int, strength: float) -> Tensor:
    """(M, 4) -> (copies * M, 4): each side moved by up to ``strength`` of the box's width or height, evenly
    distributed.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(copies, 2)
    return boxes.repeat(copies, 1) + (torch.rand_like(sides) * 2 - 1) * strength * sides


def _best_overlap(proposals: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    if len(boxes) == 0:
        return proposals.new_zeros(len(proposals)), torch.zeros(
            len(proposals), dtype=torch.int64, device=proposals.device
        )
    best, match = box_iou(proposals, boxes).max(dim=1)
    return best, match


def _draw(mask: Tensor, count: int) -> Tensor:
    candidates = torch.nonzero(mask).flatten()
    if count <= 0:
        return candidates[:0]
    return candidates[torch.randperm(len(candidates), device=candidates.device)[:count]]


def _draw_evenly(mask: Tensor, group: Tensor, count: int) -> Tensor:
    """Draws where the mask (P,) is set, in turn from each group (P,), until there are ``count``."""
    candidates = torch.nonzero(mask).flatten()
    candidates = candidates[torch.randperm(len(candidates), device=candidates.device)]
    groups = group[candidates]
    order = torch.argsort(groups, stable=True)
    start = torch.searchsorted(groups[order], groups[order])  # of each one's group, in the sorted order
    turn = torch.empty_like(order)
    turn[order] = torch.arange(len(order), device=order.device) - start
    return candidates[torch.argsort(turn, stable=True)[: max(count, 0)]]
