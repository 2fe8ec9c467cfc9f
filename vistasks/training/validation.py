"""The evaluation between epochs: every process evaluates its share, and all get the numbers of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning_fabric import Fabric

from vistasks.config import Config
from vistasks.drawing.samples import SampleSheet
from vistasks.evaluation.loop import build_metrics, evaluate_model, headline, order_metrics
from vistasks.loading.loader import Batches
from vistasks.models import MultiTaskModel
from vistasks.registry import nearest
from vistasks.task import task_of
from vistasks.types import ClassNames


def check_monitor(config: Config) -> None:
    """A ``ValueError`` where ``train.monitor`` or ``early_stopping`` ask for what no evaluation gives."""
    known = [name for task in config.model.heads for name in task_of(task).headline]
    monitor = config.train.monitor
    if monitor is not None and monitor not in known:
        guess = nearest(monitor, known)
        raise ValueError(
            f"train.monitor: '{monitor}' is not among the results.{guess} Known: {', '.join(known)}"
        )
    if not config.data.evaluates and (monitor is not None or config.train.early_stopping is not None):
        raise ValueError("train.monitor and train.early_stopping need validation data: set data.val")


class Validation:
    """Evaluates a model as `vistasks evaluate` does: in float32, whatever the training's precision, and in
    the same batches.

    Args:
        config: says what is evaluated by which engine, and what "best" means.
        loader: this process's share of the pictures.

    Attributes:
        samples: the same few of this process's pictures, as the last evaluation predicted them.
    """

    def __init__(self, config: Config, fabric: Fabric, classes: ClassNames, loader: Batches) -> None:
        self.config, self.fabric, self.classes, self.loader = config, fabric, classes, loader
        ids, order = loader.dataset.pipeline.dataset.ids, loader.batch_sampler
        mine = [index for keys in order or () for _, index in keys]
        count = min(config.train.samples, len(mine))
        chosen = [ids[mine[number * len(mine) // count]] for number in range(count)]  # evenly spaced
        self.samples = SampleSheet(chosen, classes)

    def __call__(
        self, model: MultiTaskModel, track: Callable[[Batches], Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The report and its headline numbers; ``track`` wraps the loader, for a progress bar."""
        metrics = build_metrics(self.classes, self.config.model.heads, self.config.evaluate.engine)
        order_metrics(metrics, self.loader.dataset.pipeline.dataset)
        if self.fabric.world_size > 1:  # each process counts its own BatchNorm statistics
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)
        counts = evaluate_model(
            model, track(self.loader), {**metrics, "samples": self.samples}, self.fabric.device
        )
        if self.fabric.world_size > 1:
            counts["images"] = self._gather(metrics, counts["images"])
        report: dict[str, Any] = {**counts, **{key: metric.compute() for key, metric in metrics.items()}}
        return report, headline(report)

    def monitored(self, numbers: Mapping[str, float | None]) -> float | None:
        """What is compared with the best so far."""
        wanted = self.config.train.monitor
        names = [wanted] if wanted else [task_of(task).monitored for task in self.config.model.heads]
        values = [numbers.get(name) for name in names if name is not None]
        present = [value for value in values if value is not None]
        return sum(present) / len(present) if present else None

    def _gather(self, metrics: dict[str, Any], images: int) -> int:
        """Every process gets the union of all processes' states, each picture once; the number of all
        pictures.
        """
        states: list[Any] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(
            states, (images, {key: metric.state() for key, metric in metrics.items()})
        )
        for key, metric in metrics.items():
            metric.reset()
            for _, state in states:
                metric.merge(state[key])
        return sum(count for count, _ in states)
