"""Truncated SVD of a detector's fully connected layers (Girshick 2015, "Fast R-CNN", section 3.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistasks.checkpoint import Checkpoint, free_target, read_checkpoint, save_made_of
from vistasks.config import Config, parse_config
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.models.building import trained_model

_LAYER = re.compile(r"heads\.detection\.(?:stages\.(\d+)\.)?fc\.(\d+)\.0\.(weight|bias)")


def factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """A layer's weight (out, in) as a product: second (out, rank) @ first (rank, in), and the share of its
    energy that is kept.

    The singular values go into the first factor, as in the paper. Energy is the sum of their squares.
    """
    u, values, v = torch.linalg.svd(weight.double(), full_matrices=False)
    first, second = values[:rank, None] * v[:rank], u[:, :rank]
    return (
        first.to(weight.dtype),
        second.to(weight.dtype),
        float((values[:rank] ** 2).sum() / (values**2).sum().clamp(min=1e-30)),
    )


def rank_for(weight: Tensor, share: float) -> int:
    """The smallest rank that keeps this share, above 0 and up to 1, of the weight's energy."""
    energy = torch.linalg.svdvals(weight.double()) ** 2
    kept = energy.cumsum(0) / energy.sum().clamp(min=1e-30)
    return min(int((kept < share - 1e-12).sum()) + 1, len(energy))


def compress(
    weights: str,
    output: str | Path,
    *,
    ranks: Sequence[int] | None = None,
    keep: float | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Writes a checkpoint whose detector has each hidden layer in two factors; returns what was done.

    Args:
        weights: a checkpoint or a run folder with a ``region_classifier``.
        output: the folder for ``best.safetensors``, which must not be there.
        ranks: one for each hidden layer, the same in every stage. Or else
        keep: the share of each layer's energy to keep, from which the ranks follow (of the stage that needs
            most).
        trust: the checkpoint's config may ask for any sizes.

    Raises:
        ValueError: both or neither given, another number of ranks, no such head, or it is compressed already.
    """
    if (ranks is None) == (keep is None):
        raise ValueError(
            "compress: give either ranks, one for each hidden layer, or keep, the share of the energy"
        )
    if keep is not None and not 0 < keep <= 1:
        raise ValueError(f"compress: keep must be above 0 and at most 1; received {keep}")
    target = free_target(output)
    checkpoint = read_checkpoint(weights, trust=trust)
    layers = _layers(checkpoint)
    depth = max(index for _, index in layers)
    if ranks is None:
        ranks = [
            max(rank_for(w, keep or 1) for (_, at), w in layers.items() if at == i)
            for i in range(1, depth + 1)
        ]
    _check_ranks(ranks, layers, depth)
    tensors, rows = _factorised(checkpoint.part("model"), ranks)
    trained_model(_with_ranks(checkpoint.config, ranks).model, checkpoint.classes, tensors, str(target))
    before = sum(tensor.numel() for tensor in checkpoint.part("model").values())
    after = sum(tensor.numel() for tensor in tensors.values())
    save_made_of(checkpoint, target, tensors, _with_ranks(checkpoint.written, ranks), how="compressed")
    sizes = {"before": before, "after": after}
    return {"ranks": list(ranks), "layers": rows, "parameters": sizes, "output": str(target.resolve())}


def _with_ranks(config: Config, ranks: Sequence[int]) -> Config:
    values = config.model_dump()
    values["model"]["heads"][RegionClassifier.task]["ranks"] = list(ranks)
    return parse_config(values)


def _layers(checkpoint: Checkpoint) -> dict[tuple[int, int], Tensor]:
    """(stage, number of the hidden layer from 1 on) -> its weight."""
    head = checkpoint.config.model.heads.get(RegionClassifier.task, {})
    if head.get("name") != "region_classifier":
        raise ValueError(f"{checkpoint.path}: no region_classifier to compress")
    if head.get("ranks"):
        raise ValueError(f"{checkpoint.path}: already compressed, to ranks {head['ranks']}")
    found = ((_LAYER.fullmatch(name), tensor) for name, tensor in checkpoint.part("model").items())
    return {(int(m[1] or 0), int(m[2])): tensor for m, tensor in found if m and m[3] == "weight"}


def _check_ranks(ranks: Sequence[int], layers: dict[tuple[int, int], Tensor], depth: int) -> None:
    if len(ranks) != depth:
        raise ValueError(
            f"compress: ranks must be one for each of the {depth} hidden layers; received {len(ranks)}"
        )
    for index, rank in enumerate(ranks, start=1):
        most = min(layers[0, index].shape)
        if not 1 <= rank <= most:
            raise ValueError(
                f"compress: the rank of hidden layer {index} must be from 1 to {most}; received {rank}"
            )


def _factorised(
    weights: dict[str, Tensor], ranks: Sequence[int]
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    tensors: dict[str, Tensor] = {}
    rows = []
    for name, tensor in weights.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            tensors[name] = tensor
            continue
        stage, index, kind = int(match[1] or 0), int(match[2]), match[3]
        stem = name.removesuffix(kind)
        if kind == "bias":
            tensors[f"{stem}1.bias"] = tensor
            continue
        rank = ranks[index - 1]
        tensors[f"{stem}0.weight"], tensors[f"{stem}1.weight"], kept = factors(tensor, rank)
        outputs, inputs = tensor.shape
        sizes = {"inputs": inputs, "outputs": outputs, "rank": rank, "energy": round(kept, 4)}
        rows.append(
            {
                "stage": stage,
                "layer": index,
                **sizes,
                "size": round(rank * (inputs + outputs) / (inputs * outputs), 4),
            }
        )
    return tensors, rows
