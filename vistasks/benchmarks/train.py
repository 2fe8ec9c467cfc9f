"""What the training loop costs beside the network itself: overhead over a bare loop, and the share of waiting
for data.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vistasks.config import Config
from vistasks.loading.batching import to_device
from vistasks.training.fabric import build_fabric
from vistasks.training.loop import Run
from vistasks.training.preflight import prepare
from vistasks.training.progress import TrainingDisplay
from vistasks.types import Batch

ROUNDS = 3


def benchmark(config: Config, *, steps: int = 20) -> dict[str, Any]:
    """Trains ``config`` for some steps in three ways, in a folder that is removed afterwards.

    First through `vistasks.training.loop.Run` with its loader: images per second, and the share of the time
    that a step waits for data. Then, on the same batches kept in memory, in turns of one step each: the
    loop's own step (draws, guards, gradient norm, display, metrics.jsonl) and a bare ``zero_grad, loss,
    backward, step`` of the same model with an optimizer like the run's.

    Args:
        config: one device; proposals come from its cache, which should be filled.
        steps: optimizer steps of each way; the first of each is left out.

    Returns:
        "images_per_second", "data_wait" (a share), "step_seconds" of the loop and of the bare one (medians),
        "overhead" (loop over bare - 1), and what was trained.
    """
    with tempfile.TemporaryDirectory() as folder:
        train = config.train.model_copy(update={"epochs": 10**6, "devices": 1, "preflight": "none"})
        config = config.model_copy(update={"output": folder, "train": train})
        fabric = build_fabric(config.train)
        fabric.launch()
        torch.manual_seed(config.seed)
        run = Run(prepare(config, fabric, None), fabric, None)
        with run.watch, TrainingDisplay(Path(folder), steps, run.progress, active=True) as display:
            numbers, batches = _with_loader(run, display, steps)
            return {**numbers, **_beside_bare(run, display, batches), **_what(config, run)}


def _with_loader(run: Run, display: TrainingDisplay, steps: int) -> tuple[dict[str, Any], list[Batch]]:
    """Steps with the loader, from the second step on; the batches that came."""
    run.begin_epoch()
    arriving, batches, images = iter(run.loader), list[Batch](), 0
    run.step(arriving, display, steps)  # workers start, buffers are made
    started, waited = time.perf_counter(), run.watch.waited
    for _ in range(steps - 1):
        if run.progress.position == run.steps_per_epoch:
            run.progress.epoch, run.progress.position = run.progress.epoch + 1, 0
            run.begin_epoch()
            arriving = iter(run.loader)
        batches.append(run.step(arriving, display, steps))
        images += len(batches[-1]) * run.accumulate
    seconds = time.perf_counter() - started
    return {
        "images_per_second": images / seconds,
        "data_wait": (run.watch.waited - waited) / seconds,
    }, batches


def _beside_bare(run: Run, display: TrainingDisplay, batches: Sequence[Batch]) -> dict[str, Any]:
    """Each batch by the loop and bare, in turns; medians over all of them."""
    model, config = run.state.model, run.config.train
    optimizer = type(run.optimizer.optimizer)(model.parameters(), lr=1e-5)
    loop, bare = [], []
    for number, batch in enumerate(list(batches) * ROUNDS):
        run.progress.position = 0
        start = time.perf_counter()
        run.step(iter([(batch, None)] * run.accumulate), display, 10**6)
        middle = time.perf_counter()
        optimizer.zero_grad()
        for _ in range(run.accumulate):
            with run.fabric.autocast():
                loss = (
                    torch.stack(list(model.loss(to_device(batch, run.fabric.device)).values())).sum()
                    / run.accumulate
                )
            run.fabric.strategy.precision.backward(loss, model)
        if config.clip_grad_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        if number:
            loop.append(middle - start)
            bare.append(time.perf_counter() - middle)
    ratios = [a / b for a, b in zip(loop, bare)]
    return {
        "step_seconds": {"loop": statistics.median(loop), "bare": statistics.median(bare)},
        "overhead": statistics.median(ratios) - 1,
    }


def _what(config: Config, run: Run) -> dict[str, Any]:
    return {
        "trunk": config.model.backbone["name"],
        "heads": list(config.model.heads),
        "pictures": len(run.data),
        "batch_size": config.train.batch_size,
        "workers": config.train.workers,
        "precision": config.train.precision,
        "device": str(run.fabric.device),
        "threads": torch.get_num_threads(),
    }
