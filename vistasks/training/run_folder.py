"""A training run's folder: whether it may be used, what it says about the run, and how a run that was cut off
goes on.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from vistasks.checkpoint import Checkpoint, read_checkpoint, state_of
from vistasks.config import Config, to_json, to_yaml
from vistasks.config.files import flat
from vistasks.loading.class_weights import taken_over
from vistasks.system.atomic import remove_leftovers, write_text
from vistasks.system.version import VERSION
from vistasks.training.state import Progress
from vistasks.types import ClassNames

LAST, BEST = "last.safetensors", "best.safetensors"
_EARLIER = re.compile(r"step_(\d+)\.safetensors")


def earlier_name(step: int) -> str:
    """Where a state that is no longer the last one lies in the run folder."""
    return f"checkpoints/step_{step:08d}.safetensors"


def earlier_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of the states that are kept beside the last one, the newest first."""
    files = (folder / earlier_name(0)).parent.glob("step_*.safetensors")
    found = [(int(match[1]), path) for path in files if (match := _EARLIER.fullmatch(path.name))]
    return sorted(found, reverse=True)


def candidates(folder: Path) -> list[Path]:
    """The states that a run could go on from, the newest first."""
    last = [folder / LAST] if (folder / LAST).is_file() else []
    return [*last, *(path for _, path in earlier_checkpoints(folder))]


def refuse_used(folder: Path) -> None:
    """A ``ValueError`` where a run has saved its weights already."""
    if found := candidates(folder):
        raise ValueError(
            f"{folder.resolve()} already holds a run ({found[0].name}). Continue it with --resume, or choose another folder "
            "by output=..., or remove it"
        )


def checkpoint_to_resume(
    folder: Path, config: Config, path: Path | None = None
) -> tuple[Checkpoint, dict[Path, str]]:
    """The state to go on from, and the newer ones that are damaged, each with what is wrong with it.

    Args:
        folder: the run folder; its newest good state is taken unless there is a ``path``.
        config: the config of the run that goes on.
        path: this state, and no other. In another folder it must not be joined to a run that this one holds.

    Raises:
        ValueError: there is none, none is good, or the config is of another model.
    """
    # trusted: the run is built from its own config, and the state's is only compared with it
    if path is not None:
        if path.resolve().parent not in (folder.resolve(), (folder / earlier_name(0)).resolve().parent):
            refuse_used(folder)
        checkpoint, damaged = read_checkpoint(path, trust=True), dict[Path, str]()
    else:
        checkpoint, damaged = _newest_good(folder)
    if checkpoint.written.model != taken_over(config, checkpoint.written).model:
        raise ValueError(
            f"--resume: the model section of the config is not that of {checkpoint.path}; a resumed run keeps its model"
        )
    was, wanted = checkpoint.written.train.optimizer.name, config.train.optimizer.name
    if was != wanted:
        raise ValueError(
            f"--resume: train.optimizer.name is {wanted}, but {checkpoint.path} holds the state of {was}"
        )
    if "optimizer_groups" not in checkpoint.state:
        raise ValueError(
            f"--resume: {checkpoint.path} holds only weights; resume from {LAST} or a file in checkpoints/"
        )
    return checkpoint, damaged


def _newest_good(folder: Path) -> tuple[Checkpoint, dict[Path, str]]:
    found = candidates(folder)
    if not found:
        raise ValueError(f"--resume: there is no {(folder / LAST).resolve()} to go on from")
    damaged: dict[Path, str] = {}
    for path in found:
        try:
            return read_checkpoint(path, trust=True), damaged
        except ValueError as error:
            damaged[path] = str(error)
    raise ValueError(
        "\n".join(
            [
                "--resume: no intact checkpoint in this run folder:",
                *(f"  {text}" for text in damaged.values()),
            ]
        )
    )


def set_aside(damaged: Mapping[Path, str], used: Path) -> list[str]:
    """Renames damaged states, so that they are taken for good ones no more; what to tell a person."""
    lines = []
    for path, problem in damaged.items():
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        lines.append(
            f"warning: {problem}; renamed to {aside.name}. Resuming from the previous one, {used.name}"
        )
    return lines


def restored_progress(checkpoint: Checkpoint, classes: ClassNames, steps_per_epoch: int) -> Progress:
    """Where the run stood; a ``ValueError`` where classes or the steps of an epoch have changed."""
    path = checkpoint.path
    for task, found in classes.by_task().items():
        was = checkpoint.classes.of(task)
        if was != found:
            raise ValueError(
                f"--resume: the {task} classes of the data are {', '.join(found) or 'none'}, "
                f"but {path} has {', '.join(was) or 'none'}, in this order"
            )
    # what a file of an earlier version does not say keeps its default
    values = {key: checkpoint.state[key] for key in Progress.__dataclass_fields__ if key in checkpoint.state}
    try:
        progress = TypeAdapter(Progress).validate_python(values)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{path}: its header is damaged: state.{key}: {fault['msg']}") from None
    if progress.step != progress.epoch * steps_per_epoch + progress.position:
        within = f" and {progress.position} steps" if progress.position else ""
        raise ValueError(
            f"--resume: an epoch has {steps_per_epoch} steps now, but {path} made {progress.step} steps in {progress.epoch} "
            f"epochs{within}; keep the data, train.batch_size, train.accumulate and train.devices as they were"
        )
    return progress


def announce_resumed(checkpoint: Checkpoint, damaged: Mapping[Path, str], config: Config) -> None:
    """Says where a run goes on, which newer states were damaged, and what of the config has changed."""
    for line in set_aside(damaged, checkpoint.path):
        print(line)
    print(f"resumed      {checkpoint.path.resolve()}, after step {checkpoint.state['step']}")
    for line in changed_values(checkpoint.written, config):
        print(f"changed      {line}", flush=True)


def changed_values(before: Config, now: Config) -> list[str]:
    """``key: before -> now`` of every value of a config that is another one in a run that goes on."""
    old, new = flat(to_json(before)), flat(to_json(now))
    return [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def start(folder: Path, config: Config, device: torch.device) -> None:
    """Makes the folder, with config.yaml and environment.json, and without what a killed process was
    writing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    write_text(folder / "config.yaml", to_yaml(config))
    environment = {
        "vistasks": VERSION,
        "python": sys.version,
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }
    write_text(folder / "environment.json", json.dumps(environment, indent=1))


def keep_finished_steps(metrics: Path, done: int, epochs: int) -> None:
    """Removes from metrics.jsonl what no checkpoint holds and what is made again: the lines after step
    ``done``, and the evaluations after epoch ``epochs``."""
    if not metrics.exists():
        return
    kept = []
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
            if values["step"] <= done and ("evaluation" not in values or values["epoch"] <= epochs):
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # cut off in the middle
    write_text(metrics, "".join(f"{line}\n" for line in kept))


def how_to_go_on(folder: Path) -> str:
    """What a person should know who has interrupted a run."""
    if not (folder / LAST).exists():
        return f"nothing was saved yet, so there is nothing to go on from in {folder.resolve()}"
    step = state_of(folder / LAST)["step"]
    return f"{(folder / LAST).resolve()} holds the run after step {step}; the same command with --resume goes on from there"
