"""Whether two heads pull a shared trunk in one direction: norms and cosine of their gradients."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vistasks.models import MultiTaskModel
from vistasks.types import Batch


def gradient_conflict(model: MultiTaskModel, batches: Iterable[Batch]) -> dict[str, Any]:
    """Mean cosine between the two tasks' gradients in the shared layers that learn, and each task's mean
    gradient norm.

    Each task's losses are differentiated by themselves, with ``model.loss_weights`` and without
    `model.weighting`. The cosine is given for the whole trunk with its neck (``cosine``, with the standard
    deviation over the batches and the share of batches below 0) and for each stage of the trunk that learns.

    Args:
        model: with two heads; its BatchNorm statistics move as in training.
        batches: batches that label both tasks.

    Raises:
        ValueError: not two heads, no batch, or nothing shared that learns.
    """
    if len(model.heads) != 2:
        raise ValueError(f"the cosine is between two heads; this model has {', '.join(model.heads)}")
    groups = _shared_groups(model)
    if not groups:
        raise ValueError("this model has no trainable shared layer: the whole backbone is frozen")
    cosines: dict[str, list[float]] = {}
    norms: dict[str, list[float]] = {task: [] for task in model.heads}
    model.train()
    for batch in batches:
        found = _gradients(model, batch, [p for group in groups.values() for p in group])
        for task, gradient in found.items():
            norms[task].append(float(_flat(gradient).norm()))
        start = 0
        for name, group in groups.items():
            one, two = (_flat(gradient[start : start + len(group)]) for gradient in found.values())
            cosines.setdefault(name, []).append(_cosine(one, two))
            start += len(group)
        cosines.setdefault("all", []).append(_cosine(*(_flat(gradient) for gradient in found.values())))
    if not cosines:
        raise ValueError("the cosine of gradients needs at least one batch")
    whole = cosines.pop("all")
    return {
        "cosine": statistics.mean(whole),
        "deviation": statistics.pstdev(whole),
        "share_below_0": sum(value < 0 for value in whole) / len(whole),
        "batches": len(whole),
        "by_stage": {name: statistics.mean(values) for name, values in cosines.items()},
        "gradient_norm": {task: statistics.mean(values) for task, values in norms.items()},
    }


def _shared_groups(model: MultiTaskModel) -> dict[str, list[nn.Parameter]]:
    """The learning parameters of the trunk's stages and of the neck, by name."""
    parts: dict[str, nn.Module] = {f"stage {i + 1}": stage for i, stage in enumerate(model.backbone.stages())}
    if model.neck is not None:
        parts["neck"] = model.neck
    groups = {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}
    return {name: group for name, group in groups.items() if group}


def _gradients(
    model: MultiTaskModel, batch: Batch, parameters: list[nn.Parameter]
) -> dict[str, list[Tensor]]:
    features = model.features(batch)
    found = {}
    for task, head in model.heads.items():
        loss = (
            torch.stack(list(head.loss(features, batch, model.encode).values())).sum()
            * model.loss_weights[task]
        )
        given = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        found[task] = [torch.zeros_like(p) if g is None else g for g, p in zip(given, parameters)]
    return found


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.float().flatten() for tensor in tensors])


def _cosine(one: Tensor, two: Tensor) -> float:
    """0 where a head does not reach these layers at all."""
    return float(torch.dot(one, two) / (one.norm() * two.norm()).clamp(min=1e-20))
