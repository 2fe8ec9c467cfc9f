"""Losses over the pixels of a batch: cross-entropy, focal, OHEM, Dice and Lovász-softmax, alone or as a
weighted sum.

All of them read the same likelihoods as `vistasks.losses.classification.partial_cross_entropy`: 255 never
counts, a class that an image does not label never counts there, and "background" then stands for "background
or any class that is not labelled"."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor

from vistasks.losses.classification import counted, labelled_classes, partial_log_probability, weighted_mean
from vistasks.registry import STRICT

Factor = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


@checked_dataclass(frozen=True, config=STRICT)
class PixelLoss:
    """The factor of each loss in the sum, and the options of those that have any.

    Attributes:
        cross_entropy, focal, ohem, dice, lovasz: factors; 0 leaves a loss out.
        focal_gamma: exponent of 1 - p in the focal loss.
        ohem_threshold: OHEM learns from the pixels whose own class has less than this probability,
        ohem_keep: but from at least this share of them, the hardest first.
        lovasz_pixels: pixels of an image, drawn at random, that the Lovász loss sorts (sorting all of them
            costs more than a light decoder).
    """

    cross_entropy: Factor = 1.0
    focal: Factor = 0.0
    ohem: Factor = 0.0
    dice: Factor = 0.0
    lovasz: Factor = 0.0
    focal_gamma: Factor = 2.0
    ohem_threshold: Share = 0.7
    ohem_keep: Share = 0.1
    lovasz_pixels: PositiveInt = 16384

    def __post_init__(self) -> None:
        if not any(getattr(self, name) for name in LOSSES):
            raise ValueError(f"every factor is 0; the losses are {', '.join(LOSSES)}")


@dataclass(frozen=True)
class Pixels:
    """What the losses look at.

    log_probability (N, C, ...); valid (N, ...) bool: the pixels that count; target (N, ...) class ids, 0
    where not valid; known (N, C) bool: the classes that each image labels; class_weights (C,) or None."""

    log_probability: Tensor
    valid: Tensor
    target: Tensor
    known: Tensor
    class_weights: Tensor | None

    @property
    def negative(self) -> Tensor:
        """The negative log-likelihood of each pixel's class, (N, ...)."""
        return -self.log_probability.gather(1, self.target.unsqueeze(1)).squeeze(1)


def pixel_losses(
    logits: Tensor,
    target: Tensor,
    *,
    labelled: Tensor,
    background: int | None,
    class_weights: Tensor | None,
    options: PixelLoss,
) -> dict[str, Tensor]:
    """Each chosen loss times its factor, by name; scalars that are exactly 0, with zero gradients, where no
    pixel counts.

    Args:
        logits: (N, C, H, W) float32.
        target, labelled, background, class_weights: see
            `vistasks.losses.classification.partial_cross_entropy`.
        options: which losses.
    """
    known = labelled_classes(labelled, background)
    weights = {name: getattr(options, name) for name in LOSSES}

    def pixels(logits: Tensor, target: Tensor) -> Pixels:
        valid, safe = counted(target, known)
        return Pixels(partial_log_probability(logits, known, background), valid, safe, known, class_weights)

    terms = {}
    if any(weight for name, weight in weights.items() if name != "lovasz"):
        everything = pixels(logits, target)
        chosen = {"cross_entropy": cross_entropy, "focal": focal, "ohem": ohem, "dice": dice}
        terms = {
            name: loss(everything, options) * weights[name] for name, loss in chosen.items() if weights[name]
        }
    if weights["lovasz"]:
        logits, target = logits.flatten(2), target.flatten(1)  # (N, C, H, W) -> (N, C, H*W)
        if target.shape[1] > options.lovasz_pixels:
            drawn = torch.randint(target.shape[1], (options.lovasz_pixels,), device=target.device)
            logits, target = logits[:, :, drawn], target[:, drawn]
        terms["lovasz"] = lovasz(pixels(logits, target), options) * weights["lovasz"]
    return terms


def cross_entropy(pixels: Pixels, options: PixelLoss) -> Tensor:
    """The weighted mean of -log p."""
    return weighted_mean(pixels.negative, pixels.valid, pixels.target, pixels.class_weights)


def focal(pixels: Pixels, options: PixelLoss) -> Tensor:
    """The weighted mean of -(1 - p)^gamma log p (Lin et al. 2017, eq. 4)."""
    negative = pixels.negative
    # the clamp keeps the gradient of the power finite where p is 1
    values = (1 - torch.exp(-negative)).clamp(min=1e-6) ** options.focal_gamma * negative
    return weighted_mean(values, pixels.valid, pixels.target, pixels.class_weights)


def ohem(pixels: Pixels, options: PixelLoss) -> Tensor:
    """Cross-entropy of the hard pixels alone (online hard example mining, Shrivastava et al. 2016, with
    pixels for regions).
    """
    negative = pixels.negative
    found = negative.detach()[pixels.valid]
    hard = pixels.valid
    if found.numel():
        rank = max(1, math.ceil(options.ohem_keep * found.numel()))
        hardest = found.kthvalue(found.numel() - rank + 1).values
        hard = hard & (negative.detach() >= hardest.clamp(max=-math.log(options.ohem_threshold)))
    return weighted_mean(negative, hard, pixels.target, pixels.class_weights)


def dice(pixels: Pixels, options: PixelLoss) -> Tensor:
    """1 - soft Dice over the batch, the mean of the classes that it holds (Milletari et al. 2016, without the
    squares).
    """
    counts = pixels.valid.unsqueeze(1) & _spread(pixels.known, pixels.log_probability)
    probability = pixels.log_probability.exp() * counts
    size = _per_class(pixels, pixels.valid.to(probability.dtype))
    own = probability.gather(1, pixels.target.unsqueeze(1)).squeeze(1)
    overlap = _per_class(pixels, own)
    score = 2 * overlap / (probability.transpose(0, 1).flatten(1).sum(1) + size).clamp(min=1e-6)
    return _mean_of_present(1 - score, size > 0)


def lovasz(pixels: Pixels, options: PixelLoss) -> Tensor:
    """Lovász-softmax (Berman et al. 2018, eq. 11): a convex stand-in for 1 - IoU, the mean of the classes in
    the batch.
    """
    probability = pixels.log_probability.exp().transpose(0, 1).flatten(1)  # (N, C, ...) -> (C, pixels)
    counts = (
        (pixels.valid.unsqueeze(1) & _spread(pixels.known, pixels.log_probability)).transpose(0, 1).flatten(1)
    )
    classes = torch.arange(len(probability), device=probability.device)
    own = (pixels.target.flatten() == classes[:, None]) & counts
    errors = torch.where(counts, torch.where(own, 1 - probability, probability), 0.0)
    errors, order = errors.sort(dim=1, descending=True)
    truth = own.gather(1, order).to(errors.dtype)
    size = truth.sum(dim=1, keepdim=True)
    # the Jaccard loss of calling the k worst pixels wrong (algorithm 1)
    jaccard = 1 - (size - truth.cumsum(1)) / (size + (1 - truth).cumsum(1)).clamp(min=1)
    steps = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], dim=1)
    return _mean_of_present((errors * steps).sum(dim=1), size[:, 0] > 0)


LOSSES = ("cross_entropy", "focal", "ohem", "dice", "lovasz")


def _spread(known: Tensor, like: Tensor) -> Tensor:
    return known.view(*known.shape, *([1] * (like.ndim - 2)))


def _per_class(pixels: Pixels, values: Tensor) -> Tensor:
    """The sums of ``values`` (N, ...) over the pixels of each class that count, (C,)."""
    sums = values.new_zeros(pixels.log_probability.shape[1])
    return sums.index_add(0, pixels.target.flatten(), torch.where(pixels.valid, values, 0.0).flatten())


def _mean_of_present(values: Tensor, present: Tensor) -> Tensor:
    return (values * present).sum() / present.sum().clamp(min=1)
