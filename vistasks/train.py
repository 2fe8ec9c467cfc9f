"""Training: one loop that is read top to bottom."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from vistasks import run_folder
from vistasks.atomic import write_text
from vistasks.batching import to_device
from vistasks.build import build_augment, build_dataset, build_model, build_proposals
from vistasks.checkpoint import Checkpoint, restore, save_checkpoint
from vistasks.class_weights import resolved_config, taken_over
from vistasks.config import Config
from vistasks.datasets import Dataset
from vistasks.devices import build_fabric
from vistasks.drawing.curves import save_curves
from vistasks.ema import AveragedWeights
from vistasks.evaluate import HEADLINE, build_metrics, evaluate_model, headline
from vistasks.loading import Batches, EpochOrder, Pipeline, batches
from vistasks.models import MultiTaskModel
from vistasks.optimization import (
    build_optimizer,
    learning_rate_factor,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from vistasks.progress import TrainingDisplay
from vistasks.registry import nearest
from vistasks.run_folder import Progress
from vistasks.task_schedule import TaskSchedule


def train(config: Config, *, resume: bool = False) -> dict[str, Any]:
    """Trains, evaluates every few epochs, and returns the best evaluation's headline numbers.

    Writes into ``config.output``: config.yaml, environment.json, metrics.jsonl, TensorBoard events, best and last checkpoints,
    report.json of the best evaluation and curves.png. Nothing is written before data and model are built.

    Args:
        config: the experiment.
        resume: go on from ``last.safetensors`` of the run folder.

    Raises:
        ValueError: the config asks for what the data, the machine or the run folder do not allow.
        FloatingPointError: the loss is not finite.
        KeyboardInterrupt: passed on, with how to go on as its message.
    """
    _check_monitor(config)
    folder = Path(config.output)
    checkpoint = run_folder.checkpoint_to_resume(folder, config) if resume else None
    if not resume:
        run_folder.refuse_used(folder)
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts
    fabric = build_fabric(config.train)
    fabric.launch()
    torch.manual_seed(config.seed)
    torch.use_deterministic_algorithms(config.train.deterministic)
    data = build_dataset(config, "train")
    config = taken_over(config, checkpoint.config) if checkpoint is not None else resolved_config(config, data)
    val = build_dataset(config, "val", data.classes) if config.data.evaluates else None
    model = build_model(config.model, data.classes, pretrained=checkpoint is None)
    run = Run(config, fabric, model, data, val, checkpoint)
    if fabric.is_global_zero:
        run_folder.start(folder, config, fabric.device)
        run.announce()
    try:
        return run.loop()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(run_folder.how_to_go_on(folder)) from None
    except RuntimeError as error:
        if (plain := _in_plain_words(error, fabric)) is None:
            raise
        raise plain from error


def _in_plain_words(error: RuntimeError, fabric: Fabric) -> Exception | None:
    text = str(error)
    if "deterministic implementation" in text:
        return ValueError(
            f"train.deterministic: PyTorch has no deterministic kernel for a part of this model on {fabric.device} "
            f"({text.split(' ', maxsplit=1)[0]}); set it to false or choose another head"
        )
    if fabric.world_size > 1 and ("Connection closed by peer" in text or type(error).__name__ == "DistBackendError"):
        return ChildProcessError(f"process {fabric.global_rank}: another process of this run has failed; its own error says why")
    return None


def _check_monitor(config: Config) -> None:
    known = [name for task in config.model.heads for name in HEADLINE[task]]
    monitor = config.train.monitor
    if monitor is not None and monitor not in known:
        guess = nearest(monitor, known)
        raise ValueError(f"train.monitor: '{monitor}' is not among the results.{guess} Known: {', '.join(known)}")
    if not config.data.evaluates and (monitor is not None or config.train.early_stopping is not None):
        raise ValueError("train.monitor and train.early_stopping need an evaluation, and data.val is empty: name its part there")


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
        propose = build_proposals(config.proposals) if "detection" in config.model.heads else None
        self.order, self.loader = self._loader(Pipeline(data, propose, build_augment(config), config.input, config.seed), True)
        self.val_loader: Batches | None = None
        if val is not None:
            _, self.val_loader = self._loader(Pipeline(val, propose, None, config.input, config.seed), False)
        self.accumulate = min(config.train.accumulate, len(self.order))
        self.steps_per_epoch = len(self.order) // self.accumulate
        self.tasks = TaskSchedule.of(config)
        self.progress = Progress()
        if checkpoint is not None:
            self.progress = run_folder.restored_progress(checkpoint, data.classes, self.steps_per_epoch)
            self._restore(checkpoint)

    def _loader(self, pipeline: Pipeline, shuffle: bool) -> tuple[EpochOrder, Batches]:
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
        """The first lines on the screen."""
        parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        print(f"run folder   {self.folder.resolve()}")
        roots = [self.config.data.root, *(source["root"] for source in self.config.data.also if "root" in source)]
        count = len(self.val) if self.val is not None else 0
        folders = ", ".join(str(Path(root).resolve()) for root in roots)
        print(f"data         {folders}: {len(self.data)} training, {count} evaluation")
        for task in self.config.model.heads:
            print(f"{task:12} {', '.join(getattr(self.data.classes, task))}")
        if "detection" in self.config.model.heads:
            method, cache = self.config.proposals.method["name"], self.config.proposals.cache
            print(f"proposals    {method}, {'not kept' if cache is None else f'kept in {Path(cache).resolve()}'}")
        print(f"model        {self.config.model.backbone['name']}, {parameters / 1e6:.2f} M trained parameters")
        epochs, precision = self.config.train.epochs, self.config.train.precision
        print(f"training     {epochs} epochs of {self.steps_per_epoch} steps on {self.fabric.device}, {precision}", flush=True)
        for note in [*self.data.notes, *(self.val.notes if self.val is not None else [])]:
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
            names = ["best.safetensors", "last.safetensors", "report.json", "metrics.jsonl", "curves.png"]
            print(f"done         {self.folder.resolve()}: {', '.join(name for name in names if (self.folder / name).exists())}")
        return self.progress.results

    def _train_epoch(self, display: TrainingDisplay, total: int) -> None:
        config, accumulate = self.config.train, self.accumulate
        self._seed_epoch()
        self.order.epoch = self.progress.epoch
        self.wrapped.train()
        # a rest of the batches that is too small for an update is left out
        for index, (batch, _) in zip(range(self.steps_per_epoch * accumulate), self.loader):
            updates = (index + 1) % accumulate == 0
            rate = set_learning_rate(self.optimizer, learning_rate_factor(self.progress.step, total, config.schedule))
            self.model.active = self.tasks.at(self.progress.step, total)
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

    def _seed_epoch(self) -> None:
        """An epoch's draws (regions, dropout) follow from seed, epoch and process alone, so that a resumed run makes the same."""
        sequence = np.random.SeedSequence([self.config.seed, self.progress.epoch, self.fabric.global_rank])
        torch.manual_seed(int(sequence.generate_state(1)[0]))

    def _refuse_non_finite(self, loss: Tensor, terms: Mapping[str, Tensor], paths: tuple[str, ...]) -> None:
        if not torch.isfinite(loss):
            values = ", ".join(f"{name} = {value.item():.4g}" for name, value in terms.items())
            raise FloatingPointError(
                f"step {self.progress.step}: the loss is not finite ({values}). Pictures of this step: {', '.join(paths)}. "
                "A lower train.optimizer.lr, train.clip_grad_norm=1 or train.precision=32-true usually help"
            )

    def _evaluate(self, loader: Batches, display: TrainingDisplay) -> None:
        metrics = build_metrics(self.data.classes, self.config.model.heads, self.config.evaluate.engine)
        model = self.averaged.model if self.averaged is not None else self.model
        if self.fabric.world_size > 1:  # each process counts its own BatchNorm statistics
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)
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
            tensors |= moments
        path = self.folder / f"{name}.safetensors"
        save_checkpoint(path, tensors, config=self.config, classes=self.data.classes, state=state)

    def _restore(self, checkpoint: Checkpoint) -> None:
        where = str(checkpoint.path)
        if self.averaged is not None:
            restore(self.averaged.model, checkpoint.part("model"), where)
        restore(self.model, checkpoint.part("raw") or checkpoint.part("model"), where)
        restore_optimizer(self.optimizer, checkpoint.part("optimizer"), checkpoint.state["optimizer_groups"], where)
