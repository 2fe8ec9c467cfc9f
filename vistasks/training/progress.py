"""What a person sees of a training run, and the same as metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from vistasks.system.terminal import PlainConsole
from vistasks.training.run_folder import keep_finished_steps
from vistasks.training.state import Progress

LINE_SECONDS = 20.0  # between two lines where the output is no terminal


class TrainingDisplay:
    """A live bar in a terminal, a line now and then in a log; every step's terms go to metrics.jsonl.

    A full disk stops neither the run nor, once there is room again, metrics.jsonl; TensorBoard's events end
    there.

    Args:
        folder: the run folder.
        total: optimizer steps of the whole run.
        done: where an earlier session has come to.
        active: False in all processes but one: nothing is shown or written.
    """

    def __init__(self, folder: Path, total: int, done: Progress, *, active: bool) -> None:
        self.folder, self.total, self.done, self.active = folder, total, done, active
        self.console = PlainConsole()
        self.bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[status]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (active and self.console.is_terminal),
        )
        self.task = self.bar.add_task("training", total=total, completed=done.step, status="")
        self.smooth: dict[str, float] = {}
        self.last_line = self.last_step = time.perf_counter()
        self.started, self.seen, self.waited = self.last_step, 0, 0.0
        self.warm = False
        self.unwritten, self.told = b"", False
        self.events: SummaryWriter | None = None

    def __enter__(self) -> TrainingDisplay:
        if self.active:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.events = SummaryWriter(str(self.folder), purge_step=self.done.step + 1)
            keep_finished_steps(self.folder / "metrics.jsonl", self.done.step, self.done.epoch)
            self.jsonl = (self.folder / "metrics.jsonl").open("ab", buffering=0)
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.active:
            self.sync()
            self.jsonl.close()
            if self.events is not None:
                self._with_events(SummaryWriter.close)

    def step(
        self,
        progress: Progress,
        terms: Mapping[str, Tensor | float],
        rate: float,
        *,
        images: int,
        waited: float,
    ) -> None:
        """After an optimizer step.

        Args:
            progress: where the run stands; its epoch is 0-based.
            terms: what is shown and written; of a ``gradient_norm`` the last value is written alone.
            rate: the highest learning rate.
            images: how many pictures the step saw, in all processes.
            waited: seconds that this session has waited for data.
        """
        if not self.active:
            return
        values = {name: float(value) for name, value in terms.items()}
        for name, value in values.items():
            if name != "gradient_norm":
                self.smooth[name] = (
                    value if name not in self.smooth else 0.95 * self.smooth[name] + 0.05 * value
                )
        now, step, epoch = time.perf_counter(), progress.step, progress.epoch
        speed = images / (now - self.last_step)
        self.last_step = now
        self._write(
            {"step": step, "epoch": epoch, "lr": rate, "images_per_second": round(speed, 2), **values}
        )
        for name, value in {**values, "lr": rate}.items():
            self._with_events(SummaryWriter.add_scalar, f"train/{name}", value, step)
        self.seen += images
        passed = now - self.started
        average, waiting = self.seen / passed, (waited - self.waited) / passed
        if not self.warm:  # in the first step workers start and kernels are compiled
            self.warm, self.started, self.seen, self.waited = True, now, 0, waited
        losses = "  ".join(f"{name.split('/')[-1]} {value:.3f}" for name, value in self.smooth.items())
        status = f"{losses}  lr {rate:.1e}  {average:.1f} images/s  {waiting:.0%} waiting for data"
        self.bar.update(self.task, completed=step, description=f"epoch {epoch + 1}", status=status)
        if not self.console.is_terminal and (now - self.last_line > LINE_SECONDS or step == self.total):
            self.last_line = now
            print(f"epoch {epoch + 1}  step {step}/{self.total}  {status}", flush=True)

    def evaluation(
        self, epoch: int, step: int, numbers: Mapping[str, float | None], seconds: float, better: bool
    ) -> None:
        """After an evaluation at the end of ``epoch`` (1-based)."""
        self.last_step = time.perf_counter()
        if not self.active:
            return
        self._write({"step": step, "epoch": epoch, "evaluation": dict(numbers), "seconds": round(seconds, 2)})
        for name, value in numbers.items():
            self._with_events(
                SummaryWriter.add_scalar, f"val/{name}", math.nan if value is None else value, step
            )
        text = "  ".join(
            f"{name} {'-' if value is None else format(value, '.3f')}" for name, value in numbers.items()
        )
        self.note(f"epoch {epoch}: {text}{'  (best)' if better else ''}")

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """A picture (H, W, 3) uint8 RGB for TensorBoard."""
        if self.active:
            self._with_events(SummaryWriter.add_image, name, picture, step, None, "HWC")

    def note(self, line: str) -> None:
        """A line of its own, above the bar."""
        if self.active:
            self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def track(self, batches: Iterable[Any], what: str) -> Iterator[Any]:
        """Yields the batches under a second bar that goes away at the end."""
        task = self.bar.add_task(what, total=len(batches), status="")  # type: ignore[arg-type]
        for batch in batches:
            yield batch
            self.bar.advance(task)
        self.bar.remove_task(task)

    def sync(self) -> None:
        """Has the lines so far on the disk, so that they are not older than a checkpoint that is written
        next.
        """
        if self.active and self._flush():
            os.fsync(self.jsonl.fileno())

    def _write(self, line: Mapping[str, Any]) -> None:
        self.unwritten += (json.dumps(line) + "\n").encode()
        self._flush()

    def _flush(self) -> bool:
        """Writes what could not be written before; whether all is written."""
        try:
            while self.unwritten:
                self.unwritten = self.unwritten[self.jsonl.write(self.unwritten) :]
        except OSError as error:
            if not self.told:
                self.told = True
                self.note(
                    f"warning: cannot write metrics.jsonl ({error.strerror or error}); its lines are kept in memory and retried"
                )
            return False
        self.told = False
        return True

    def _with_events(self, call: Any, *arguments: Any) -> None:
        if self.events is None:
            return
        try:
            call(self.events, *arguments)
        except OSError as error:  # of its writing thread, after which it takes no more
            self.events = None
            self.note(
                f"warning: cannot write TensorBoard events ({error.strerror or error}); no more will be written"
            )
