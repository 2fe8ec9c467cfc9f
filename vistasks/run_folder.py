"""A training run's folder: whether it may be used, what it says about the run, and how a run that was cut off goes on."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import vistasks
from vistasks.atomic import remove_leftovers, write_text
from vistasks.checkpoint import Checkpoint, read_checkpoint
from vistasks.class_weights import taken_over
from vistasks.config import Config, to_yaml
from vistasks.types import ClassNames

LAST = "last.safetensors"


@dataclass
class Progress:
    """Where a run stands: what ``last`` saves besides tensors."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished optimizer steps
    best: float | None = None
    best_epoch: int = 0
    results: dict[str, Any] = field(default_factory=dict)


def refuse_used(folder: Path) -> None:
    """A ``ValueError`` where a run has saved its weights already."""
    if (folder / LAST).exists():
        raise ValueError(
            f"{folder.resolve()} holds a run already ({LAST}). Go on with it by --resume, or choose another folder "
            "by output=..., or remove it"
        )


def checkpoint_to_resume(folder: Path, config: Config) -> Checkpoint:
    """The run's last checkpoint; a ``ValueError`` where there is none or the config is of another model."""
    path = folder / LAST
    if not path.is_file():
        raise ValueError(f"--resume: there is no {path.resolve()} to go on from")
    checkpoint = read_checkpoint(path)
    if checkpoint.config.model != taken_over(config, checkpoint.config).model:
        raise ValueError(f"--resume: the model section of the config is not that of {path}; a resumed run keeps its model")
    was, wanted = checkpoint.config.train.optimizer.name, config.train.optimizer.name
    if was != wanted:
        raise ValueError(f"--resume: train.optimizer.name is {wanted}, but {path} was trained with {was}, whose state it has")
    return checkpoint


def restored_progress(checkpoint: Checkpoint, classes: ClassNames, steps_per_epoch: int) -> Progress:
    """Where the run stood; a ``ValueError`` where classes or the steps of an epoch have changed."""
    path = checkpoint.path
    for task in ("detection", "segmentation"):
        was, found = getattr(checkpoint.classes, task), getattr(classes, task)
        if was != found:
            raise ValueError(
                f"--resume: the {task} classes of the data are {', '.join(found) or 'none'}, "
                f"but {path} has {', '.join(was) or 'none'}, in this order"
            )
    progress = Progress(**{key: checkpoint.state[key] for key in Progress.__dataclass_fields__})
    if progress.step != progress.epoch * steps_per_epoch:
        raise ValueError(
            f"--resume: an epoch has {steps_per_epoch} steps now, but {path} made {progress.step} steps in {progress.epoch} "
            "epochs; keep the data, train.batch_size, train.accumulate and train.devices as they were"
        )
    return progress


def start(folder: Path, config: Config, device: torch.device) -> None:
    """Makes the folder, with config.yaml and environment.json, and without what a killed process was writing."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    write_text(folder / "config.yaml", to_yaml(config))
    environment = {
        "vistasks": vistasks.__version__,
        "python": sys.version,
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }
    write_text(folder / "environment.json", json.dumps(environment, indent=1))


def keep_finished_steps(metrics: Path, done: int) -> None:
    """Removes from metrics.jsonl the lines after step ``done``: steps that no checkpoint holds and that are made again."""
    if not metrics.exists():
        return
    kept = []
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= done:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # cut off in the middle
    write_text(metrics, "".join(f"{line}\n" for line in kept))


def how_to_go_on(folder: Path) -> str:
    """What a person should know who has interrupted a run."""
    if not (folder / LAST).exists():
        return f"no epoch was finished, so there is nothing to go on from in {folder.resolve()}"
    return f"{(folder / LAST).resolve()} holds the last finished epoch; the same command with --resume goes on from there"
