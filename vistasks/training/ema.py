"""An exponential moving average of a model's weights, which predicts better than the weights of the last
step.
"""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class AveragedWeights(Generic[Model]):
    """Holds a copy of the model whose weights follow it: average <- decay * average + (1 - decay) * weights.

    Early on the decay is (1 + step) / (10 + step) where that is smaller, so that the average does not drag
    the first, random weights along. Buffers (BatchNorm's statistics) are copied."""

    def __init__(self, model: Model, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model)
        self.model.requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: Model, step: int) -> None:
        """After optimizer step number ``step`` (0-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, current in zip(self.model.parameters(), model.parameters()):
            average.lerp_(current, 1 - decay)
        for copied, buffer in zip(self.model.buffers(), model.buffers()):
            copied.copy_(buffer)
