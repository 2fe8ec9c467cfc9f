"""All that a run is made of at one moment, as tensors and JSON values, and back, bit for bit.

Random numbers are not among it: the order of the pictures, the augmentation and the draws of each step
(`seed_draws`) are functions of the config's seed and of where the run stands, in the main process, in every
data worker and on every device."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning_fabric.plugins import Precision
from torch import Tensor

from vistasks.checkpoint import Checkpoint
from vistasks.models import MultiTaskModel
from vistasks.models.building import restore
from vistasks.training.ema import AveragedWeights
from vistasks.training.optimization import optimizer_tensors, restore_optimizer


@dataclass
class Progress:
    """Where a run stands.

    After the last step of an epoch ``position`` is the number of its steps until the evaluation is done; then
    ``epoch`` grows and ``position`` is 0."""

    epoch: int = 0  # finished epochs, their evaluations included
    step: int = 0  # finished optimizer steps
    position: int = 0  # those of them in the epoch that is not finished
    best: float | None = None
    best_epoch: int = 0
    results: dict[str, Any] = field(default_factory=dict)
    gradient_norms: list[float] = field(default_factory=list)  # of the last steps, for `guards.GradientWatch`


def seed_draws(*numbers: int) -> None:
    """Sets Python's, NumPy's and PyTorch's (CPU's and GPU's) default generators from these numbers alone."""
    for_numpy, for_torch = np.random.SeedSequence(numbers).generate_state(2).tolist()
    random.seed(for_numpy)
    np.random.seed(for_numpy)
    torch.manual_seed(for_torch)


@dataclass
class TrainingState:
    """The parts of a run that change while it trains."""

    model: MultiTaskModel
    averaged: AveragedWeights[MultiTaskModel] | None
    optimizer: torch.optim.Optimizer
    precision: Precision
    progress: Progress

    @property
    def predicting(self) -> MultiTaskModel:
        """The weights that are evaluated: the averaged ones where there are any."""
        return self.model if self.averaged is None else self.averaged.model

    def weights(self) -> dict[str, Tensor]:
        """The tensors that a model needs to predict."""
        return {f"model.{key}": value for key, value in self.predicting.state_dict().items()}

    def everything(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors and the values that a run needs to go on as if nothing had been."""
        tensors, values = self.weights(), self.values()
        if self.averaged is not None:
            tensors |= {f"raw.{key}": value for key, value in self.model.state_dict().items()}
        moments, values["optimizer_groups"] = optimizer_tensors(self.optimizer)
        values["precision"] = self.precision.state_dict()  # the loss scale of 16-mixed
        return tensors | moments, values

    def values(self) -> dict[str, Any]:
        """Where the run stands, as JSON values."""
        return dict(vars(self.progress))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes over all but `Progress` from a checkpoint; a ``ValueError`` where it is of another run."""
        where, state = str(checkpoint.path), checkpoint.state
        raw: Mapping[str, Tensor] = checkpoint.part("raw") or checkpoint.part("model")
        if self.averaged is not None:
            restore(self.averaged.model, checkpoint.part("model"), where)
        restore(self.model, raw, where)
        restore_optimizer(self.optimizer, checkpoint.part("optimizer"), state["optimizer_groups"], where)
        if state.get("precision"):
            self.precision.load_state_dict(state["precision"])
