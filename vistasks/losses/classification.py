"""Cross-entropy for data sets that label only some of the classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vistasks.types import IGNORE_INDEX


def partial_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    labelled: Tensor,
    background: int | None,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy where "background" means "background or any class that this image does not label".

    Where an image labels every class this is the ordinary cross-entropy. Where it labels only some, an example marked as
    background may belong to a class that nobody marked there: its likelihood is the *sum* of the probabilities of background
    and of all classes that the image does not label (the marginal likelihood; Shi et al. 2021, "Marginal loss and exclusion
    loss for partially supervised multi-organ segmentation", eq. 3). An example of a class that the image does not label is
    ignored, and so is every example of an image that labels none.

    Args:
        logits: (N, C, ...) float.
        target: (N, ...) int64 class ids; 255 = ignore.
        labelled: (N, C) bool; the background's column is not read.
        background: the background's id, or None where the classes have none: then only marked examples count.
        label_smoothing: share of each target that is spread evenly over all classes (Szegedy et al. 2016, section 7).
        class_weights: (C,) factors; the loss is the weighted mean, as in PyTorch's own.

    Returns:
        A scalar; exactly 0, with zero gradients, where no example counts.
    """
    classes = logits.shape[1]
    spread = (len(labelled), classes, *([1] * (logits.ndim - 2)))
    known = labelled.clone()
    if background is not None:  # an image that labels no class says nothing about the background either
        known[:, background] = False
        known[:, background] = known.any(dim=1)
    valid = target != IGNORE_INDEX
    safe = torch.where(valid, target, 0)
    valid &= known.view(spread).expand_as(logits).gather(1, safe.unsqueeze(1)).squeeze(1)
    log_probability = functional.log_softmax(logits, dim=1)
    negative = -log_probability.gather(1, safe.unsqueeze(1)).squeeze(1)  # (N, ...)
    if background is not None and not bool(known.all()):
        member = ~known
        member[:, background] = True
        outside = log_probability.masked_fill(~member.view(spread), -torch.inf)
        negative = torch.where(target == background, -outside.logsumexp(dim=1), negative)
    if label_smoothing:
        negative = (1 - label_smoothing) * negative - label_smoothing * log_probability.mean(dim=1)
    weights = valid.to(logits.dtype)
    if class_weights is not None:
        weights = weights * class_weights[safe]
    return (torch.where(valid, negative, 0.0) * weights).sum() / weights.sum().clamp(min=1e-6)
