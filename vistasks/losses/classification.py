"""Cross-entropy for data sets that label only some of the classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vistasks.losses.processes import count_of_all
from vistasks.types import IGNORE_INDEX


def labelled_classes(labelled: Tensor, background: int | None) -> Tensor:
    """(N, C) bool: ``labelled`` with the background's column set: known where the image labels any other
    class.
    """
    known = labelled.clone()
    if background is not None:  # an image that labels no class says nothing about the background either
        known[:, background] = False
        known[:, background] = known.any(dim=1)
    return known


def counted(target: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Which examples count, (N, ...) bool, and the class ids (N, ...) with 0 in place of 255.

    An example counts where it is not 255 = ignore and its image labels its class; ``known`` is
    `labelled_classes`."""
    valid = target != IGNORE_INDEX
    safe = torch.where(valid, target, 0)
    if not bool(known.all()):
        images = torch.arange(len(target), device=target.device).view(-1, *([1] * (target.ndim - 1)))
        valid = valid & known[images, safe]
    return valid, safe


def partial_log_probability(logits: Tensor, known: Tensor, background: int | None) -> Tensor:
    """Log-softmax over dim 1 where "background" means "background or any class that this image does not
    label".

    The background's likelihood is then the *sum* of the probabilities of background and of all classes that
    the image does not label (the marginal likelihood; Shi et al. 2021, "Marginal loss and exclusion loss for
    partially supervised multi-organ segmentation", eq. 3). Shapes: logits (N, C, ...), ``known`` (N, C) of
    `labelled_classes`."""
    log_probability = functional.log_softmax(logits, dim=1)
    if background is None or bool(known.all()):
        return log_probability
    member = ~known
    member[:, background] = True
    outside = log_probability.masked_fill(~member.view(*known.shape, *([1] * (logits.ndim - 2))), -torch.inf)
    before, after = log_probability[:, :background], log_probability[:, background + 1 :]
    return torch.cat([before, outside.logsumexp(dim=1, keepdim=True), after], dim=1)


def partial_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    labelled: Tensor,
    background: int | None,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy where "background" means "background or any class that this image does not
    label".

    Where an image labels every class this is the ordinary cross-entropy; where it labels only some, the
    likelihoods are those of `partial_log_probability`. An example of a class that the image does not label is
    ignored, and so is every example of an image that labels none.

    Args:
        logits: (N, C, ...) float.
        target: (N, ...) int64 class ids; 255 = ignore.
        labelled: (N, C) bool; the background's column is not read.
        background: the background's id, or None where the classes have none: then only marked examples count.
        label_smoothing: share of each target that is spread evenly over all classes (Szegedy et al. 2016,
            section 7).
        class_weights: (C,) factors; the loss is the weighted mean, as in PyTorch's own.

    Returns:
        A scalar, over the examples of all processes; exactly 0, with zero gradients, where no example counts.
    """
    known = labelled_classes(labelled, background)
    valid, safe = counted(target, known)
    log_probability = partial_log_probability(logits, known, background)
    negative = -log_probability.gather(1, safe.unsqueeze(1)).squeeze(1)  # (N, ...)
    if label_smoothing:
        negative = (1 - label_smoothing) * negative - label_smoothing * log_probability.mean(dim=1)
    return weighted_mean(negative, valid, safe, class_weights)


def weighted_mean(values: Tensor, valid: Tensor, safe: Tensor, class_weights: Tensor | None) -> Tensor:
    """The mean of ``values`` (N, ...) where ``valid``, each weighted by its class's factor; 0 where none is
    valid.

    Over the examples of all processes, which must all come here: none may return before.
    """
    weights = valid.to(values.dtype)
    if class_weights is not None:
        weights = weights * class_weights[safe]
    return (torch.where(valid, values, 0.0) * weights).sum() / count_of_all(weights.sum()).clamp(min=1e-6)
