"""What two processes do together: `python -m tests.training.two_processes FOLDER` starts the second as
train.devices=2 does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import DoublePrecision

from tests.tiny_data import config_values, mask_data, voc_data, write_mask_folder, write_voc
from vistasks.config import Config, parse_config
from vistasks.registry import PROPOSALS
from vistasks.training import fabric
from vistasks.training.loop import train
from vistasks.training.progress import TrainingDisplay
from vistasks.training.state import Progress
from vistasks.training.stop import Stopped
from vistasks.types import Sample

STEPS = 20


@PROPOSALS.register("every_other_picture")
class EveryOtherPicture:
    """Four boxes, or none at all."""

    key = None

    def __call__(self, sample: Sample) -> np.ndarray:
        number = int(sample.image_id.rsplit("_", 1)[1])
        corners = [[0, 0], [32, 0], [0, 32], [32, 32]] if number % 2 else np.zeros((0, 2))
        boxes = np.array(corners, dtype=np.float32)
        return np.concatenate([boxes, boxes + 32], axis=1)


def write_data(base: Path) -> None:
    """Seven pictures with both tasks, and one set for each task alone, of which two pictures have no
    object.
    """
    write_voc(base / "both", count=7, empty=(2,))
    write_voc(base / "boxes", count=4, masks=False, empty=(0, 3), first=20)
    write_mask_folder(base / "masks", count=4, first=30)


def equal_config(base: Path, name: str, *, devices: int, batch_size: int) -> Config:
    """A run without any draw: all regions are taken, nothing is dropped; BatchNorm is frozen."""
    values = config_values(base / name, voc_data(base / "both"), "detection", "segmentation")
    values["model"]["heads"]["detection"] = values["model"]["heads"]["detection"] | {
        "sampling": {"per_image": 2000, "foreground_fraction": 0.5, "background_iou": [0.0, 0.5]}
    }
    values["model"]["heads"]["segmentation"] = {"name": "fcn32s", "hidden": 0}
    values["model"]["freeze_batchnorm"] = True
    values["train"] |= {
        "epochs": STEPS,
        "batch_size": batch_size,
        "devices": devices,
        "validate_every": STEPS,
    }
    values["train"] |= {"optimizer": {"name": "sgd", "lr": 0.01}}
    values["evaluate"] = {"batch_size": 2}
    return parse_config(values)


class Float64(DoublePrecision):
    """Float64 weights; the batch stays as it is."""

    def convert_input(self, data: Any) -> Any:
        return data


def train_in_float64(config: Config) -> None:
    """`train`, computed in float64: a difference that is left is no rounding error that the steps have amplified."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fabric, "Fabric", lambda **options: Fabric(**options | {"plugins": Float64()}))
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        train(config)


def uneven_config(base: Path) -> Config:
    """One picture a process: of one task alone, without objects, without proposals, as it comes."""
    masks = mask_data(base / "masks")
    also = {key: masks[key] for key in ("format", "root", "mask_values")} | masks["train"]
    data = voc_data(base / "boxes") | {"tasks": ["detect"], "also": [also], "val": {"split": "val"}}
    values = config_values(
        base / "uneven", data, "detection", "segmentation", epochs=3, batch_size=1, devices=2, accumulate=2
    )
    values["proposals"] = {"method": {"name": "every_other_picture"}, "cache": None}
    return parse_config(values)


def stopped_at(step: int, rank: int) -> Any:
    """A display that sends SIGTERM to one of the processes."""
    original = TrainingDisplay.step

    def stopping(self: TrainingDisplay, progress: Progress, *values: Any, **named: Any) -> None:
        original(self, progress, *values, **named)
        if progress.step == step and int(os.environ["LOCAL_RANK"]) == rank:
            os.kill(os.getpid(), signal.SIGTERM)

    return original, stopping


def main(base: Path) -> None:
    results = {"equal": train(equal_config(base, "equal", devices=2, batch_size=2))}
    train_in_float64(equal_config(base, "exact", devices=2, batch_size=2))
    results["uneven"] = train(uneven_config(base))
    cut = equal_config(base, "cut", devices=2, batch_size=2)
    original, TrainingDisplay.step = stopped_at(7, rank=1)  # type: ignore[method-assign]
    try:
        train(cut)
    except Stopped as stopped:
        results["stopped"] = str(stopped)
    TrainingDisplay.step = original  # type: ignore[method-assign]
    results["resumed"] = train(cut, resume=True)
    (base / f"results_{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
