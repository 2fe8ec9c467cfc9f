"""Training: one loop that is read top to bottom. What it stands on is in `vistasks.training`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from vistasks.build import build_loader, build_pipeline
from vistasks.checkpoint import Checkpoint
from vistasks.config import Config
from vistasks.datasets import Dataset
from vistasks.loading.batching import to_device
from vistasks.loading.loader import Batches, EpochOrder
from vistasks.losses.processes import all_processes
from vistasks.system.locks import owned
from vistasks.training import run_folder
from vistasks.training.announce import announce
from vistasks.training.debug_batch import save_debug_batch
from vistasks.training.ema import AveragedWeights
from vistasks.training.fabric import agreed, build_fabric, explained_error, is_first_process
from vistasks.training.guards import GradientWatch, LoaderWatch, NotFinite, gradient_norm, refuse_non_finite
from vistasks.training.optimization import build_optimizer, learning_rate_factor, set_learning_rate
from vistasks.training.out_of_memory import advice, ran_out
from vistasks.training.preflight import Parts, prepare
from vistasks.training.progress import TrainingDisplay
from vistasks.training.run_images import RunPictures
from vistasks.training.saving import Saver
from vistasks.training.skipped import explained, report_skipped
from vistasks.training.state import Progress, TrainingState, seed_draws
from vistasks.training.stop import Stopped, StoppedWaiting, StopRequest
from vistasks.training.task_schedule import TaskSchedule
from vistasks.training.validation import Validation, check_monitor
from vistasks.types import Batch


def train(config: Config, *, resume: bool | str | Path = False) -> dict[str, Any]:
    """Trains, evaluates every few epochs, and returns the best evaluation's headline numbers.

    Writes into ``config.output``: config.yaml, environment.json, metrics.jsonl, TensorBoard events, best,
    last and some earlier checkpoints, report.json of the best evaluation, curves.html, curves.png and samples
    of each evaluation. Nothing is written before data and model are built.

    Args:
        config: the experiment.
        resume: True: go on from the newest good checkpoint of the run folder; a path: from that one.

    Raises:
        ValueError: the config asks for what the data, the machine or the run folder do not allow.
        FloatingPointError: a loss or a gradient is not finite.
        OSError: the disk stayed full at the end of the run.
        Stopped: SIGTERM or SIGINT came; the state is saved.
        KeyboardInterrupt: it came twice; passed on, with how to go on as its message.
    """
    check_monitor(config)
    folder = Path(config.output)
    with owned(folder) if is_first_process() else nullcontext():
        return _train(config, folder, resume)


def _train(config: Config, folder: Path, resume: bool | str | Path) -> dict[str, Any]:
    checkpoint, damaged = None, dict[Path, str]()
    if resume:
        path = None if resume is True else Path(resume)
        checkpoint, damaged = run_folder.checkpoint_to_resume(folder, config, path)
    else:
        run_folder.refuse_used(folder)
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts
    fabric = build_fabric(config.train)
    fabric.launch()
    torch.manual_seed(config.seed)
    torch.use_deterministic_algorithms(config.train.deterministic)
    parts = prepare(config, fabric, checkpoint)
    run = Run(parts, fabric, checkpoint)
    if fabric.is_global_zero:
        run_folder.start(folder, parts.config, fabric.device)
        announce(
            parts.config, fabric, parts.data, parts.val, parts.model, run.steps_per_epoch, run.accumulate
        )
        if checkpoint is not None:
            run_folder.announce_resumed(checkpoint, damaged, config)
    try:
        return run.loop()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(run_folder.how_to_go_on(folder)) from None
    except RuntimeError as error:
        if (plain := explained_error(error, fabric)) is None:
            raise
        raise plain from error


class Run:
    """What a training loop holds: the parts, and where it stands."""

    def __init__(self, parts: Parts, fabric: Fabric, checkpoint: Checkpoint | None) -> None:
        self.config, self.fabric, self.data = parts.config, fabric, parts.data
        config, data = self.config, self.data
        self.folder = Path(config.output)
        model = parts.model.to(memory_format=torch.channels_last)
        if config.train.sync_batchnorm and fabric.world_size > 1:
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        optimizer = build_optimizer(model, config.train.optimizer)
        self.wrapped, self.optimizer = fabric.setup(model, optimizer)
        averaged = AveragedWeights(model, config.train.ema) if config.train.ema else None
        self.order, self.loader = self._loader(data, model.divisor, training=True)
        self.validation: Validation | None = None
        if parts.val is not None:
            _, loader = self._loader(parts.val, model.divisor, training=False)
            self.validation = Validation(config, fabric, data.classes, loader)
        self.accumulate = min(config.train.accumulate, len(self.order))
        # a rest of the batches that is too small for an update is left out
        self.steps_per_epoch = len(self.order) // self.accumulate
        self.tasks = TaskSchedule.of(config)
        self.progress = Progress()
        if checkpoint is not None:
            self.progress = run_folder.restored_progress(checkpoint, data.classes, self.steps_per_epoch)
        precision = fabric.strategy.precision
        self.state = TrainingState(model, averaged, self.optimizer, precision, self.progress)
        if checkpoint is not None:
            self.state.restore(checkpoint)
        self.gradients = GradientWatch(
            self.progress.gradient_norms, scaled=config.train.precision == "16-mixed"
        )
        self.stop = StopRequest()
        self.saver = Saver(self.folder, config, data.classes, self._say, lambda: self.stop.requested)
        self.pictures = RunPictures(self.folder, self._say)
        self.watch = LoaderWatch(self._say)

    def _loader(self, data: Dataset, divisor: int, *, training: bool) -> tuple[EpochOrder, Batches]:
        rank, world = self.fabric.global_rank, self.fabric.world_size
        pipeline, classes = build_pipeline(self.config, data, training=training), self.data.classes
        return build_loader(
            self.config, pipeline, classes=classes, divisor=divisor, training=training, rank=rank, world=world
        )

    def _say(self, line: str) -> None:
        print(line, flush=True)

    def loop(self) -> dict[str, Any]:
        """Epochs until the last, or until nothing has got better for ``early_stopping`` evaluations."""
        train, progress = self.config.train, self.progress
        total = train.epochs * self.steps_per_epoch
        display = TrainingDisplay(self.folder, total, progress, active=self.fabric.is_global_zero)
        with self.stop, self.watch, display:
            while progress.epoch < train.epochs and not self._stalled():
                self._train_epoch(display, total)
                is_last = progress.epoch + 1 == train.epochs
                if self.validation is not None and (
                    is_last or (progress.epoch + 1) % train.validate_every == 0
                ):
                    self._evaluate(self.validation, display)
                progress.epoch, progress.position = progress.epoch + 1, 0
                self._save_last(display, insist=is_last or self._stalled())
        loaders = [self.loader, *([self.validation.loader] if self.validation is not None else [])]
        for line in report_skipped(self.folder, loaders, self.fabric):
            self._say(line)
        if self.fabric.is_global_zero:
            if self.validation is None:
                self.saver.best(self.state, insist=True)
            self.pictures.curves(insist=True)
            names = [
                "best.safetensors",
                "last.safetensors",
                "report.json",
                "metrics.jsonl",
                "curves.png",
                "curves.html",
            ]
            print(
                f"done         {self.folder.resolve()}: {', '.join(name for name in names if (self.folder / name).exists())}"
            )
        return progress.results

    def _train_epoch(self, display: TrainingDisplay, total: int) -> None:
        """The steps of an epoch that are not done yet."""
        self.begin_epoch()
        arriving = iter(self.loader)
        while self.progress.position < self.steps_per_epoch:
            try:
                self.step(arriving, display, total)
            except StoppedWaiting:
                self._stop(display)
            if agreed(self.fabric, self.stop.requested):
                self._stop(display)
            if self.saver.due():
                self._save_last(display)

    def begin_epoch(self) -> None:
        """Sets the order to where the run stands; the loader's next pass begins there."""
        self.order.epoch, self.order.start = self.progress.epoch, self.progress.position * self.accumulate
        self.wrapped.train()

    def step(self, arriving: Iterator[tuple[Batch, Any]], display: TrainingDisplay, total: int) -> Batch:
        """One optimizer step of ``total``, from the next batches that arrive; the last of them."""
        config, progress = self.config.train, self.progress
        rate = set_learning_rate(self.optimizer, learning_rate_factor(progress.step, total, config.schedule))
        self.state.model.active = self.tasks.at(progress.step, total)
        for part in range(self.accumulate):
            batch = self._next(arriving, part)
            with self._explained(batch, part):
                terms = self._forward_backward(batch, part)
        with self._explained(batch, part):
            norm = gradient_norm(self.fabric, self.wrapped, self.optimizer, config.clip_grad_norm)
            spike = self.gradients.check(progress.step, norm, batch.paths)
            self.optimizer.step()
        if spike is not None:
            display.note(spike)
        self.optimizer.zero_grad()
        if self.state.averaged is not None:
            self.state.averaged.update(self.state.model, progress.step)
        progress.step, progress.position = progress.step + 1, progress.position + 1
        images = len(batch) * self.accumulate * self.fabric.world_size
        display.step(
            progress, {**terms, "gradient_norm": norm}, rate, images=images, waited=self.watch.waited
        )
        return batch

    def _next(self, arriving: Iterator[tuple[Batch, Any]], part: int) -> Batch:
        """The next batch, on the device."""
        number = self.progress.position * self.accumulate + part

        def awaited() -> str:
            keys = next(islice(self.order, number - self.order.start, None))
            paths = ", ".join(self.data.paths[index] for _, index in keys)
            reading = ", ".join(path or "nothing" for path in self.loader.reading())
            reads = f"; its workers read {reading}" if reading else ""
            return f"batch {number + 1} of epoch {self.progress.epoch + 1} ({paths}) is awaited{reads}"

        alone = self.fabric.world_size == 1  # the others would wait for this process's part of the step
        with self.watch.waiting(awaited), self.stop.ends_waiting() if alone else nullcontext():
            try:
                batch, _ = next(arriving)
            except (ValueError, OSError) as error:
                raise explained(error, self.config) from None
        return to_device(batch, self.fabric.device)

    def _forward_backward(self, batch: Batch, part: int) -> Mapping[str, Tensor]:
        """Adds a batch's gradients; the terms of its loss."""
        progress, last = self.progress, part == self.accumulate - 1
        seed_draws(*self._draws(part))
        with self.fabric.no_backward_sync(self.wrapped, enabled=not last):
            with all_processes():
                terms: Mapping[str, Tensor] = self.wrapped(batch)
            loss = torch.stack(list(terms.values())).sum()
            refuse_non_finite(progress.step, loss, terms, batch.paths)
            self.fabric.backward(loss / self.accumulate)
        return {name: value.detach() for name, value in terms.items()}

    def _draws(self, part: int) -> tuple[int, int, int, int]:
        """What dropout and the drawing of regions follow from, so that a resumed run makes the same ones."""
        number = self.progress.position * self.accumulate + part
        return self.config.seed, self.progress.epoch, number, self.fabric.global_rank

    @contextmanager
    def _explained(self, batch: Batch, part: int) -> Iterator[None]:
        """Keeps a batch that does not give numbers, and says what to do where memory runs out."""
        try:
            yield
        except NotFinite as error:
            rank = f"_process_{self.fabric.global_rank}" if self.fabric.world_size > 1 else ""
            path = self.folder / "debug" / f"step_{self.progress.step:08d}{rank}.safetensors"
            draws, classes = self._draws(part), self.data.classes
            try:
                save_debug_batch(
                    path,
                    batch,
                    self.state.model,
                    config=self.config,
                    classes=classes,
                    draws=draws,
                    told=str(error),
                )
            except OSError as disk:
                raise NotFinite(f"{error}. The batch could not be saved ({disk.strerror})") from None
            raise NotFinite(f"{error}. Inspect the batch with: vistasks debug-batch {path}") from None
        except RuntimeError as error:
            if not ran_out(error):
                raise
            raise MemoryError(advice(self.state, batch, self.config, self.progress.step)) from None

    def _stop(self, display: TrainingDisplay) -> None:
        """Saves and raises `Stopped`, in all processes at the same step."""
        saved = self._save_last(display)
        self.fabric.barrier()  # whoever ends first would be taken for a failure
        if not saved:
            raise OSError(
                f"{self.stop}: the state could not be saved; {run_folder.how_to_go_on(self.folder)}"
            )
        raise Stopped(f"{self.stop}: {run_folder.how_to_go_on(self.folder)}")

    def _save_last(self, display: TrainingDisplay, *, insist: bool = False) -> bool:
        if not self.fabric.is_global_zero:
            return True
        display.sync()
        return self.saver.last(self.state, insist=insist)

    def _evaluate(self, validation: Validation, display: TrainingDisplay) -> None:
        progress, start = self.progress, time.perf_counter()
        report, numbers = validation(self.state.predicting, lambda loader: self._tracked(loader, display))
        value = validation.monitored(numbers)
        better = value is not None and (progress.best is None or value > progress.best)
        epoch = progress.epoch + 1
        display.evaluation(epoch, progress.step, numbers, time.perf_counter() - start, better)
        if self.fabric.is_global_zero:
            sheet = validation.samples.sheet()
            if sheet is not None and self.pictures.samples(
                sheet, epoch
            ):  # TensorBoard's thread breaks on a full disk
                display.picture("val/samples", sheet, progress.step)
            self.pictures.curves()
        if value is None and self.fabric.is_global_zero:
            self._say(
                f"warning: epoch {epoch}: no number says which weights are best (the data.val part has nothing "
                "labelled to measure); best.safetensors has the latest weights"
            )
        if better or progress.best is None:
            progress.best, progress.best_epoch, progress.results = value, epoch, numbers
            if self.fabric.is_global_zero:
                self.saver.best(self.state, json.dumps({**report, "headline": numbers}, indent=1))

    def _tracked(self, loader: Batches, display: TrainingDisplay) -> Iterable[Any]:
        """The evaluation's batches. Whoever is told to stop in between saves the state of before; alone it
        also stops.
        """
        saved = False
        for item in display.track(loader, "evaluating"):
            yield item
            if self.stop.requested and self.fabric.world_size == 1:
                self._stop(display)
            elif self.stop.requested and not saved:
                saved = self._save_last(display)

    def _stalled(self) -> bool:
        patience = self.config.train.early_stopping
        waited = (self.progress.epoch - self.progress.best_epoch) // self.config.train.validate_every
        return patience is not None and self.progress.best is not None and waited >= patience
