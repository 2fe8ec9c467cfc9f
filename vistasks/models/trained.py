"""A model as its checkpoint says, with the preparation that its images need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vistasks.checkpoint import Checkpoint
from vistasks.loading.batching import Preparation
from vistasks.models.building import trained_model
from vistasks.types import Batch, Sample


class TrainedModel:
    """A model in ``eval()`` mode on the CPU.

    Attributes:
        path: the checkpoint file.
        model: the model.
        classes: its class names.
        prepare: samples -> the batch that the model takes.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.path: Path = checkpoint.path
        self.classes = checkpoint.classes
        weights = checkpoint.part("model")
        self.model = trained_model(
            checkpoint.config.model, checkpoint.classes, weights, str(checkpoint.path)
        ).eval()
        self.prepare = Preparation(checkpoint.classes, checkpoint.config.input, self.model.divisor)

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """The batch of some samples, without targets."""
        return self.prepare(samples)
