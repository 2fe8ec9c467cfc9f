"""Parameter groups, the optimizer and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vistasks.config import OptimizerConfig, ScheduleConfig
from vistasks.models import MultiTaskModel


def build_optimizer(model: MultiTaskModel, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SGD or AdamW with separate rates for trunk and heads, and no weight decay on biases and normalisation
    layers.

    Every group carries its peak rate under ``peak``; `set_learning_rate` scales it.
    """
    rates = {True: config.backbone_lr or config.lr, False: config.lr}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
    parameters = [
        {
            "params": members,
            "lr": rates[trunk],
            "peak": rates[trunk],
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (trunk, decays), members in groups.items()
    ]
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(parameters, lr=config.lr)


def learning_rate_factor(step: int, total: int, config: ScheduleConfig) -> float:
    """The rate at ``step`` of ``total`` (0-based) over the peak rate."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    if config.name == "cosine":
        return config.final_factor + (1 - config.final_factor) * (1 + math.cos(math.pi * progress)) / 2
    if config.name == "poly":
        return (1 - progress) ** config.power
    if config.name == "step":
        return config.gamma ** sum(step / total >= milestone for milestone in config.milestones)
    return 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Sets every group to its peak rate times ``factor``; returns the heads' (the highest) rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return max(group["lr"] for group in optimizer.param_groups)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[list[int]]]:
    """The optimizer's moments as flat tensors ``optimizer.PARAMETER.NAME``, and which parameters each group
    has.
    """
    state = optimizer.state_dict()
    tensors = {
        f"optimizer.{index}.{key}": torch.as_tensor(value)
        for index, values in state["state"].items()
        for key, value in values.items()
        if value is not None
    }
    return tensors, [list(group["params"]) for group in state["param_groups"]]


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[list[int]], where: str
) -> None:
    """Undoes `optimizer_tensors` (without the prefix). A ``ValueError`` where the parameters are grouped in
    another way.
    """
    current = optimizer.state_dict()["param_groups"]
    if groups != [group["params"] for group in current]:
        raise ValueError(
            f"{where}: its optimizer state does not match the trainable parameters; a resumed run must freeze the same stages"
        )
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        # a copy: the file's tensor is a view of the file, and the moments are written in place
        state.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": current})
