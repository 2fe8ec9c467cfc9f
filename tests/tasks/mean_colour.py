"""A toy third task: an image's mean colour. One file, one registration each of the task and its head.

As a process, ``python -m tests.tasks.mean_colour COMMAND ...`` is the command line ``vistasks`` with the task.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vistasks.cli import main
from vistasks.heads.head import Head, Trunk
from vistasks.registry import HEADS, TASKS
from vistasks.task import Task
from vistasks.types import Batch, ClassNames, Encoder, Features, Prediction, Sample

SWATCH = 8  # pixels of the square that shows the colour


class ColourError:
    """The mean absolute error of the colour, 0 to 1."""

    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, prediction: Prediction, sample: Sample) -> None:
        found = np.array(prediction.others["mean_colour"])
        self.errors.append(float(np.abs(found - mean_colour(sample.image)).mean()))

    def compute(self) -> dict[str, Any]:
        return {"error": float(np.mean(self.errors)), "protocol": "mean absolute error of the mean colour"}


def mean_colour(image: np.ndarray) -> np.ndarray:
    """(3,) float32, red, green, blue, 0 to 1."""
    return (image.reshape(-1, 3).mean(axis=0) / 255).astype(np.float32)


@TASKS.register("mean_colour")
class MeanColourTask(Task):
    name = "mean_colour"
    verb = "average"
    has_classes = False
    read = False  # the labels are the image itself
    layer = 20
    headline = {"colour_error": ("colour", "error")}  # noqa: RUF012
    csv_file = "colours.csv"
    csv_columns = ("red", "green", "blue")
    protocols = ("colour",)

    def targets(
        self, samples: Sequence[Sample], size: tuple[int, int], classes: ClassNames
    ) -> dict[str, Tensor]:
        return {"colour": torch.from_numpy(np.stack([mean_colour(sample.image) for sample in samples]))}

    def truth(self, sample: Sample, classes: ClassNames) -> list[float]:
        return mean_colour(sample.image).tolist()

    def metrics(self, classes: ClassNames, tasks: Sequence[str], engine: Any) -> dict[str, Any]:
        return {"colour": ColourError()}

    def draw(
        self, canvas: np.ndarray, answer: list[float], colours: Mapping[str, Any], *, labels: bool
    ) -> np.ndarray:
        canvas[:SWATCH, :SWATCH] = np.round(np.array(answer) * 255).clip(0, 255).astype(np.uint8)
        return canvas

    def csv_rows(self, answer: list[float]) -> list[list[str]]:
        return [[f"{channel:.3f}" for channel in answer]]

    def facts(self, answer: list[float]) -> dict[str, Any]:
        return {"mean_colour": [round(channel, 3) for channel in answer]}


@HEADS.register("colour_average")
class ColourHead(Head):
    """Global average pooling and a linear layer."""

    task = "mean_colour"

    def __init__(self, *, trunk: Trunk, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.stride = min(trunk.channels)
        self.linear = nn.Linear(trunk.channels[self.stride], 3)

    def forward(self, features: Features) -> Tensor:
        return self.linear(features.maps[self.stride].mean((2, 3)))

    def loss(self, features: Features, batch: Batch, encode: Encoder) -> dict[str, Tensor]:
        target = batch.targets["mean_colour"]["colour"]
        return {"squared_error": 10 * ((self(features) - target) ** 2).mean()}

    def predict(self, features: Features, batch: Batch, encode: Encoder) -> list[list[float]]:
        return self(features).tolist()


if __name__ == "__main__":
    sys.exit(main())
