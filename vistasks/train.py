"""Training: one loop that is read top to bottom."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

import vistasks
from vistasks.atomic import write_text
from vistasks.batching import to_device
from vistasks.build import build_augment, build_dataset, build_model, build_proposals
from vistasks.checkpoint import Checkpoint, read_checkpoint, restore, save_checkpoint
from vistasks.config import Config, to_yaml
from vistasks.datasets import Dataset
from vistasks.drawing.curves import save_curves
from vistasks.ema import AveragedWeights
from vistasks.evaluate import build_metrics, evaluate_model, headline
from vistasks.loading import EpochOrder, Pipeline, batches
from vistasks.models import MultiTaskModel
from vistasks.optimization import (
    build_optimizer,
    learning_rate_factor,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from vistasks.progress import TrainingDisplay


@dataclass
class Progress:
    """Where a run stands: what ``last`` saves besides tensors."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished optimizer steps
    best: float | None = None
    best_epoch: int = 0
    results: dict[str, Any] = field(default_factory=dict)


def train(config: Config, *, resume: bool = False) -> dict[str, Any]:
    """Trains, evaluates every few epochs, and returns the best evaluation's headline numbers.

    Writes into ``config.output``: config.yaml, environment.json, metrics.jsonl, TensorBoard events, best and last checkpoints,
    report.json of the best evaluation and curves.png.

    Args:
        config: the experiment.
        resume: go on from ``last.safetensors`` of the run folder.
    """
    folder = Path(config.output)
    checkpoint = None
    if resume:
        checkpoint = _checkpoint_to_resume(folder, config)
    else:
        _refuse_used_folder(folder)
    fabric = _fabric(config)
    fabric.launch()
    fabric.seed_everything(config.seed, verbose=False)
    torch.use_deterministic_algorithms(config.train.deterministic)
    data, val = build_dataset(config, "train"), None
    if config.data.val:
        val = build_dataset(config, "val", data.classes)
    model = build_model(config.model, data.classes, pretrained=checkpoint is None)
    run = Run(config, fabric, model, data, val, checkpoint)
    run.announce()
    return run.loop()


def _fabric(config: Config) -> Fabric:
    train = config.train
    # a detector may read one map of a trunk that goes deeper, so that some parameters never get a gradient
    strategy = DDPStrategy(find_unused_parameters=True) if train.devices > 1 else "auto"
    return Fabric(accelerator=train.accelerator, devices=train.devices, precision=train.precision, strategy=strategy)


def _refuse_used_folder(folder: Path) -> None:
    if (folder / "last.safetensors").exists():
        raise ValueError(
            f"{folder.resolve()} holds a run already (last.safetensors). Go on with it by --resume, or choose another folder "
            "by output=..., or remove it"
        )


def _checkpoint_to_resume(folder: Path, config: Config) -> Checkpoint:
    path = folder / "last.safetensors"
    if not path.is_file():
        raise ValueError(f"--resume: there is no {path.resolve()} to go on from")
    checkpoint = read_checkpoint(path)
    if checkpoint.config.model != config.model:
        raise ValueError(f"--resume: the model section of the config is not that of {path}; a resumed run keeps its model")
    return checkpoint


class Run:
    """What a training loop holds: the parts, and where it stands."""

    def __init__(
        self,
        config: Config,
        fabric: Fabric,
        model: MultiTaskModel,
        data: Dataset,
        val: Dataset | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.config, self.fabric, self.data, self.val = config, fabric, data, val
        self.folder = Path(config.output)
        self.model: MultiTaskModel = model.to(memory_format=torch.channels_last)
        optimizer = build_optimizer(model, config.train.optimizer)
        self.wrapped, self.optimizer = fabric.setup(model, optimizer)
        self.averaged: AveragedWeights[MultiTaskModel] | None = None
        if config.train.ema:
            self.averaged = AveragedWeights(model, config.train.ema)
        self.progress = Progress()
        if checkpoint is not None:
            self._restore(checkpoint)
        propose = build_proposals(config.proposals) if "detection" in config.model.heads else None
        self.order, self.loader = self._loader(Pipeline(data, propose, build_augment(config), config.input, config.seed), True)
        self.val_loader: DataLoader | None = None
        if val is not None:
            _, self.val_loader = self._loader(Pipeline(val, propose, None, config.input, config.seed), False)
        self.steps_per_epoch = max(1, len(self.order) // config.train.accumulate)

    def _loader(self, pipeline: Pipeline, shuffle: bool) -> tuple[EpochOrder, DataLoader]:
        train = self.config.train
        order = EpochOrder(
            len(pipeline),
            batch_size=train.batch_size if shuffle else self.config.evaluate.batch_size,
            shuffle=shuffle,
            seed=self.config.seed,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )
        workers = train.workers if shuffle else min(1, train.workers)
        return order, batches(pipeline, order, classes=self.data.classes, divisor=self.model.divisor, workers=workers)

    def announce(self) -> None:
        """The run folder's first files, and the first lines on the screen."""
        if not self.fabric.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "config.yaml", to_yaml(self.config))
        environment = {
            "vistasks": vistasks.__version__,
            "python": sys.version,
            "torch": torch.__version__,
            "platform": platform.platform(),
            "device": str(self.fabric.device),
            "threads": torch.get_num_threads(),
            "command": sys.argv,
        }
        write_text(self.folder / "environment.json", json.dumps(environment, indent=1))
        parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        print(f"run folder   {self.folder.resolve()}")
        root, count = Path(self.config.data.root).resolve(), len(self.val) if self.val is not None else 0
        print(f"data         {root}: {len(self.data)} training, {count} evaluation")
        for task in self.config.model.heads:
            print(f"{task:12} {', '.join(getattr(self.data.classes, task))}")
        print(f"model        {self.config.model.backbone['name']}, {parameters / 1e6:.2f} M trained parameters")
        epochs, precision = self.config.train.epochs, self.config.train.precision
        print(f"training     {epochs} epochs of {self.steps_per_epoch} steps on {self.fabric.device}, {precision}", flush=True)
        for note in self.data.notes:
            print(f"note         {note}")

    def loop(self) -> dict[str, Any]:
        """Epochs until the last, or until nothing has got better for ``early_stopping`` evaluations."""
        train = self.config.train
        total = train.epochs * self.steps_per_epoch
        with TrainingDisplay(self.folder, total, self.progress.step, active=self.fabric.is_global_zero) as display:
            while self.progress.epoch < train.epochs and not self._stalled():
                self._train_epoch(display, total)
                self.progress.epoch += 1
                is_last = self.progress.epoch == train.epochs
                if self.val_loader is not None and (is_last or self.progress.epoch % train.validate_every == 0):
                    self._evaluate(self.val_loader, display)
                self._save("last", everything=True)
        if self.val_loader is None:
            self._save("best", everything=False)
        if self.fabric.is_global_zero:
            save_curves(self.folder / "metrics.jsonl", self.folder / "curves.png")
        return self.progress.results

    def _train_epoch(self, display: TrainingDisplay, total: int) -> None:
        config, accumulate = self.config.train, self.config.train.accumulate
        self.order.epoch = self.progress.epoch
        self.wrapped.train()
        for index, (batch, _) in enumerate(self.loader):
            updates = (index + 1) % accumulate == 0
            if index >= self.steps_per_epoch * accumulate:  # a rest too small for an update
                break
            rate = set_learning_rate(self.optimizer, learning_rate_factor(self.progress.step, total, config.schedule))
            with self.fabric.no_backward_sync(self.wrapped, enabled=not updates):
                terms = self.wrapped(to_device(batch, self.fabric.device))
                loss = torch.stack(list(terms.values())).sum()
                self._refuse_non_finite(loss, terms, batch.paths)
                self.fabric.backward(loss / accumulate)
            if not updates:
                continue
            if config.clip_grad_norm:
                self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=config.clip_grad_norm, error_if_nonfinite=False)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.averaged is not None:
                self.averaged.update(self.model, self.progress.step)
            self.progress.step += 1
            images = len(batch) * accumulate * self.fabric.world_size
            display.step(self.progress.step, self.progress.epoch, terms, rate, images=images)

    def _refuse_non_finite(self, loss: Tensor, terms: Mapping[str, Tensor], paths: tuple[str, ...]) -> None:
        if not torch.isfinite(loss):
            values = ", ".join(f"{name} = {value.item():.4g}" for name, value in terms.items())
            raise FloatingPointError(
                f"step {self.progress.step}: the loss is not finite ({values}). Pictures of this step: {', '.join(paths)}. "
                "A lower train.optimizer.lr, train.clip_grad_norm=1 or train.precision=32-true usually help"
            )

    def _evaluate(self, loader: DataLoader, display: TrainingDisplay) -> None:
        metrics = build_metrics(self.data.classes, self.config.model.heads, self.config.evaluate.engine)
        model = self.averaged.model if self.averaged is not None else self.model
        start = time.perf_counter()
        with self.fabric.autocast():
            counts = evaluate_model(model, display.track(loader, "evaluating"), metrics, self.fabric.device)
        self._gather(metrics)
        report: dict[str, Any] = {**counts, **{key: metric.compute() for key, metric in metrics.items()}}
        numbers = headline(report)
        value = self._monitored(numbers)
        better = value is not None and (self.progress.best is None or value > self.progress.best)
        display.evaluation(self.progress.epoch, self.progress.step, numbers, time.perf_counter() - start, better)
        if better or self.progress.best is None:
            self.progress.best, self.progress.best_epoch, self.progress.results = value, self.progress.epoch, numbers
            self._save("best", everything=False)
            if self.fabric.is_global_zero:
                write_text(self.folder / "report.json", json.dumps({**report, "headline": numbers}, indent=1))

    def _gather(self, metrics: dict[str, Any]) -> None:
        """Every process gets the union of all processes' states: each sample counts once."""
        if self.fabric.world_size == 1:
            return
        for metric in metrics.values():
            states: list[Any] = [None] * self.fabric.world_size
            torch.distributed.all_gather_object(states, metric.state())
            metric.reset()
            for state in states:
                metric.merge(state)

    def _monitored(self, numbers: Mapping[str, float | None]) -> float | None:
        wanted = self.config.train.monitor
        if wanted is not None and wanted not in numbers:
            raise ValueError(f"train.monitor: '{wanted}' is not among the results: {', '.join(numbers)}")
        values = [numbers.get(key) for key in ([wanted] if wanted else ["AP", "mIoU"])]
        present = [value for value in values if value is not None]
        return sum(present) / len(present) if present else None

    def _stalled(self) -> bool:
        patience = self.config.train.early_stopping
        waited = (self.progress.epoch - self.progress.best_epoch) // self.config.train.validate_every
        return patience is not None and self.progress.best is not None and waited >= patience

    def _save(self, name: str, *, everything: bool) -> None:
        if not self.fabric.is_global_zero:
            return
        predicting = self.averaged.model if self.averaged is not None else self.model
        tensors = {f"model.{key}": value for key, value in predicting.state_dict().items()}
        state: dict[str, Any] = {**vars(self.progress)}
        if everything:
            if self.averaged is not None:
                tensors |= {f"raw.{key}": value for key, value in self.model.state_dict().items()}
            moments, state["optimizer_groups"] = optimizer_tensors(self.optimizer)
            tensors |= {**moments, "random.torch": torch.get_rng_state()}
        path = self.folder / f"{name}.safetensors"
        save_checkpoint(path, tensors, config=self.config, classes=self.data.classes, state=state)

    def _restore(self, checkpoint: Checkpoint) -> None:
        where = str(checkpoint.path)
        if self.averaged is not None:
            restore(self.averaged.model, checkpoint.part("model"), where)
        restore(self.model, checkpoint.part("raw") or checkpoint.part("model"), where)
        restore_optimizer(self.optimizer, checkpoint.part("optimizer"), checkpoint.state["optimizer_groups"], where)
        torch.set_rng_state(checkpoint.part("random")["torch"])
        self.progress = Progress(**{key: checkpoint.state[key] for key in Progress.__dataclass_fields__})
