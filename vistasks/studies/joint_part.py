"""One of the trainings of the joint study, in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vistasks.build import build_dataset, build_loader, build_pipeline, build_proposals
from vistasks.checkpoint import read_checkpoint
from vistasks.config import Config, parse_config
from vistasks.datasets import Dataset
from vistasks.inference.loaded import load_model
from vistasks.loading.batching import to_device
from vistasks.loading.class_weights import resolved_config
from vistasks.models import MultiTaskModel
from vistasks.models.building import build_model, restore
from vistasks.studies.gradients import gradient_conflict
from vistasks.system.atomic import write_text
from vistasks.system.devices import pick_device
from vistasks.system.machine import peak_bytes
from vistasks.task import task_of
from vistasks.training.loop import train
from vistasks.training.optimization import build_optimizer
from vistasks.types import Batch

JOINT = "joint"
TIMED_STEPS, TIMED_PICTURES, GRADIENT_BATCHES = 5, 10, 8


def parts_of(config: Config) -> list[str]:
    """The parts of a joint study: each task alone, and all together."""
    return [*config.model.heads, JOINT]


def part_config(config: Config, part: str, output: Path, epochs: int) -> Config:
    """The config of one part: the joint one with one head taken away, and with it what only two heads
    have.
    """
    values = config.model_dump()
    values["output"], values["train"]["epochs"] = str(output / part), epochs
    if part != JOINT:
        values["model"]["heads"] = {part: values["model"]["heads"][part]}
        values["model"] |= {"loss_weights": {}, "weighting": {"name": "fixed"}}
        values["train"] |= {"stages": [], "task_sampling": {}}
        if values["train"]["monitor"] not in task_of(part).headline:
            values["train"]["monitor"] = None
    return parse_config(values)


def time_steps(values: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of an optimizer step of a config (as plain values), the fastest of a few, and the steps of an
    epoch.
    """
    config = parse_config(values)
    data = build_dataset(config, "train")
    config = resolved_config(config, data)
    device = _device(config)
    model = build_model(config.model, data.classes).to(device).to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(model, config.train.optimizer)
    seconds = []
    for batch in _batches(config, data, model, device, TIMED_STEPS):
        start = _now(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16-mixed"):
            loss = torch.stack(list(model.loss(batch).values())).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(_now(device) - start)
    steps = max(1, len(data) // config.train.batch_size)
    return {"step_seconds": min(seconds), "epoch_seconds": min(seconds) * steps, "steps_per_epoch": steps}


def run_part(values: Mapping[str, Any], finished: str) -> dict[str, Any]:
    """Trains (or goes on with) one part, measures it, and writes the facts to ``finished``, which says that
    it is done.
    """
    config = parse_config(values)
    folder = Path(config.output)
    results = train(config, resume=(folder / "last.safetensors").is_file())
    memory = peak_memory(_device(config))  # before anything else is built
    facts: dict[str, Any] = {
        "results": results,
        "epochs": config.train.epochs,
        "training_seconds": round(training_seconds(folder, config), 1),
        "training_peak_memory_mib": memory,
        **_pass(config, folder),
    }
    if len(config.model.heads) == 2:
        facts |= _shared(config, folder)
    write_text(Path(finished), json.dumps(facts, indent=1))
    return facts


def peak_memory(device: torch.device) -> int:
    """MiB that this process held at most; on a GPU, that were allocated there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    return peak_bytes() >> 20


def training_seconds(folder: Path, config: Config) -> float:
    """Seconds in training steps, over all sessions of the run, from its metrics.jsonl; evaluations are not in
    it.
    """
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    images = config.train.batch_size * config.train.accumulate
    return sum(images / line["images_per_second"] for line in lines if line.get("images_per_second"))


def _device(config: Config) -> torch.device:
    return pick_device(config.train.accelerator)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _batches(
    config: Config, data: Dataset, model: MultiTaskModel, device: torch.device, count: int
) -> Iterator[Batch]:
    """The first batches of the first epoch, made in this process."""
    alone = config.model_copy(update={"train": config.train.model_copy(update={"workers": 0})})
    pipeline = build_pipeline(alone, data, training=True)
    _, loader = build_loader(alone, pipeline, classes=data.classes, divisor=model.divisor, training=True)
    for batch, _originals in islice(loader, count):
        yield to_device(batch, device)


def _pass(config: Config, folder: Path) -> dict[str, Any]:
    """The best model's parameters and seconds of one pass over one picture, proposals given; the median of a
    few pictures.
    """
    loaded = load_model(folder, str(_device(config)), proposals=config.proposals)
    data = build_dataset(config, "val", loaded.classes)
    propose = build_proposals(config.proposals) if loaded.wants_proposals else None
    seconds = []
    for index in range(0, len(data), math.ceil(len(data) / TIMED_PICTURES)):
        sample = data[index]
        proposals = None if propose is None else [propose(replace(sample, proposals=None))]
        batch = loaded.make_batch([sample.image], proposals)
        loaded.model.predict(batch)
        start = _now(loaded.device)
        loaded.model.predict(batch)
        seconds.append(_now(loaded.device) - start)
    parameters = sum(p.numel() for p in loaded.model.parameters())
    return {
        "pass_seconds": round(statistics.median(seconds), 4),
        "parameters_millions": round(parameters / 1e6, 3),
    }


def _shared(config: Config, folder: Path) -> dict[str, Any]:
    """How the two heads share the trunk: gradients before and after the training, and the factors that it
    ended with.
    """
    data, device = build_dataset(config, "train"), _device(config)
    config = resolved_config(config, data)
    torch.manual_seed(config.seed)
    model = build_model(config.model, data.classes).to(device)
    found = {}
    for when in ("before", "after"):
        if when == "after":
            checkpoint = read_checkpoint(folder / "last.safetensors", trust=True)
            restore(model, checkpoint.part("raw") or checkpoint.part("model"), str(checkpoint.path))
        factors = model.weighting.factors()
        found[when] = gradient_conflict(model, _batches(config, data, model, device, GRADIENT_BATCHES))
    return {"gradients": found, "factors": factors}
