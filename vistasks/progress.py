"""What a person sees of a training run, and the same as metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from vistasks.run_folder import keep_finished_steps

LINE_SECONDS = 20.0  # between two lines where the output is no terminal


class TrainingDisplay:
    """A live bar in a terminal, a line now and then in a log; every step's terms go to metrics.jsonl.

    Args:
        folder: the run folder.
        total: optimizer steps of the whole run.
        done: of which an earlier session did this many.
        active: False in all processes but one: nothing is shown or written.
    """

    def __init__(self, folder: Path, total: int, done: int, *, active: bool) -> None:
        self.folder, self.total, self.done, self.active = folder, total, done, active
        self.console = Console()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (active and self.console.is_terminal),
        )
        self.task = self.bar.add_task("training", total=total, completed=done, status="")
        self.smooth: dict[str, float] = {}
        self.started, self.seen = time.perf_counter(), 0
        self.last_line = self.last_step = self.started

    def __enter__(self) -> TrainingDisplay:
        if self.active:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.events = SummaryWriter(str(self.folder), purge_step=self.done + 1)
            keep_finished_steps(self.folder / "metrics.jsonl", self.done)
            self.jsonl = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.active:
            self.events.close()
            self.jsonl.close()

    def step(self, step: int, epoch: int, terms: Mapping[str, Tensor], rate: float, *, images: int) -> None:
        """After an optimizer step; ``step`` counts finished ones."""
        if not self.active:
            return
        values = {name: float(value.detach()) for name, value in terms.items()}
        for name, value in values.items():
            self.smooth[name] = value if name not in self.smooth else 0.95 * self.smooth[name] + 0.05 * value
        now = time.perf_counter()
        speed = images / (now - self.last_step)
        self.last_step = now
        self._write({"step": step, "epoch": epoch, "lr": rate, "images_per_second": round(speed, 2), **values})
        for name, value in {**values, "lr": rate}.items():
            self.events.add_scalar(f"train/{name}", value, step)
        self.seen += images
        average = self.seen / (now - self.started)
        losses = "  ".join(f"{name.split('/')[-1]} {value:.3f}" for name, value in self.smooth.items())
        status = f"{losses}  lr {rate:.1e}  {average:.1f} img/s"
        self.bar.update(self.task, completed=step, description=f"epoch {epoch + 1}", status=status)
        if not self.console.is_terminal and (now - self.last_line > LINE_SECONDS or step == self.total):
            self.last_line = now
            print(f"epoch {epoch + 1}  step {step}/{self.total}  {status}", flush=True)

    def evaluation(self, epoch: int, step: int, numbers: Mapping[str, float | None], seconds: float, better: bool) -> None:
        """After an evaluation at the end of ``epoch`` (1-based)."""
        self.last_step = time.perf_counter()
        if not self.active:
            return
        self._write({"step": step, "epoch": epoch, "evaluation": dict(numbers), "seconds": round(seconds, 2)})
        for name, value in numbers.items():
            self.events.add_scalar(f"val/{name}", math.nan if value is None else value, step)
        text = "  ".join(f"{name} {'-' if value is None else format(value, '.3f')}" for name, value in numbers.items())
        self.bar.console.print(f"epoch {epoch}: {text}{'  (best)' if better else ''}", highlight=False, soft_wrap=True)

    def track(self, batches: Iterable[Any], what: str) -> Iterator[Any]:
        """Yields the batches under a second bar that goes away at the end."""
        task = self.bar.add_task(what, total=len(batches), status="")  # type: ignore[arg-type]
        for batch in batches:
            yield batch
            self.bar.advance(task)
        self.bar.remove_task(task)

    def _write(self, line: Mapping[str, Any]) -> None:
        self.jsonl.write(json.dumps(line) + "\n")
        self.jsonl.flush()
