"""Which device, how many processes, which precision: a config's words -> Fabric, and what this machine cannot do as an error."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision

from vistasks.config import TrainConfig


class MixedModelPrecision(MixedPrecision):
    """Autocast in the model, without Fabric's cast of its inputs: bf16 would move box coordinates by whole pixels."""

    def convert_input(self, data: Any) -> Any:
        """The batch as it is."""
        return data


def available(kind: str) -> int:
    """How many devices of a kind ("cpu", "cuda", "mps") PyTorch can use here; of "cpu" any number of processes."""
    if kind == "cuda":
        return torch.cuda.device_count()
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return 2**31


def pick_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device, or the CPU. A ``ValueError`` where this machine does not have what is asked for."""
    if name == "auto":
        name = "cuda" if available("cuda") else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise ValueError(f"device '{name}': expected auto, cpu, cuda, cuda:NUMBER or mps")
    if int(number or 0) >= available(kind):
        raise ValueError(f"device '{name}': PyTorch sees {available(kind)} {kind} devices here; use device cpu or auto")
    return torch.device(name)


def build_fabric(config: TrainConfig) -> Fabric:
    """The Fabric of a training run, not yet launched. A ``ValueError`` where this machine cannot do it."""
    kind = config.accelerator if config.accelerator != "auto" else pick_device("auto").type
    if config.devices > available(kind):
        raise ValueError(
            f"train.accelerator={kind} with train.devices={config.devices}: PyTorch sees {available(kind)} {kind} devices here"
        )
    if config.precision == "16-mixed" and kind != "cuda":
        raise ValueError(f"train.precision=16-mixed needs a CUDA device, and this run is on {kind}: use bf16-mixed or 32-true")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # our first lines say what is used
    mixed = None if config.precision == "32-true" else MixedModelPrecision(config.precision, kind)
    return Fabric(accelerator=kind, devices=config.devices, plugins=mixed)
