"""Devices, processes and precision of a training run: the config's ``train`` section -> Fabric."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.strategies import DDPStrategy

from vistasks.config import TrainConfig
from vistasks.system.devices import available, pick_device


class MixedModelPrecision(MixedPrecision):
    """Autocast in the model, without Fabric's cast of its inputs: bf16 would move box coordinates by whole
    pixels.
    """

    def convert_input(self, data: Any) -> Any:
        """The batch as it is."""
        return data


def build_fabric(config: TrainConfig) -> Fabric:
    """The Fabric of a training run, not yet launched. A ``ValueError`` where this machine cannot do it.

    Started by torchrun, the processes and machines are those that torchrun made; otherwise ``train.devices``
    processes are started here."""
    kind = config.accelerator if config.accelerator != "auto" else pick_device("auto").type
    devices, machines = _processes(config.devices)
    if devices > available(kind):
        raise ValueError(
            f"train.accelerator={kind} with train.devices={devices}: PyTorch sees {available(kind)} {kind} devices here"
        )
    if config.precision == "16-mixed" and kind != "cuda":
        raise ValueError(
            f"train.precision=16-mixed needs a CUDA device, and this run is on {kind}: use bf16-mixed or 32-true"
        )
    if config.sync_batchnorm and kind != "cuda":
        raise ValueError(
            f"train.sync_batchnorm needs CUDA devices, and this run is on {kind}: use model.freeze_batchnorm=true, "
            "or a larger train.batch_size"
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # our first lines say what is used
    mixed = None if config.precision == "32-true" else MixedModelPrecision(config.precision, kind)
    # a detector may read one stride of a trunk that goes deeper: some parameters never get a gradient
    strategy: Any = DDPStrategy(find_unused_parameters=True) if devices * machines > 1 else "auto"
    return Fabric(accelerator=kind, devices=devices, num_nodes=machines, strategy=strategy, plugins=mixed)


def is_first_process() -> bool:
    """Whether this is the process that writes, also before Fabric has started the others."""
    return all(int(os.environ.get(name, "0")) == 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def _processes(devices: int) -> tuple[int, int]:
    """(processes on this machine, machines)."""
    if not torch.distributed.is_torchelastic_launched():
        return devices, 1
    here, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if devices not in (1, here):
        raise ValueError(
            f"train.devices={devices}, but torchrun started {here} processes here: leave train.devices out"
        )
    if world % here:
        raise ValueError(
            f"torchrun started {world} processes, {here} of them here: every machine must have the same number"
        )
    return here, world // here


def agreed(fabric: Fabric, wish: bool) -> bool:
    """Whether any process of the run has this wish; all get the same answer."""
    if fabric.world_size == 1:
        return wish
    flag = torch.tensor(float(wish), device=fabric.device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag)


def explained_error(error: RuntimeError, fabric: Fabric) -> Exception | None:
    """What an error of PyTorch's means for the user of a training run, or None."""
    text = str(error)
    if "deterministic implementation" in text:
        return ValueError(
            f"train.deterministic: PyTorch has no deterministic kernel for a part of this model on {fabric.device} "
            f"({text.split(' ', maxsplit=1)[0]}); set it to false or choose another head"
        )
    if fabric.world_size > 1 and (
        "Connection closed by peer" in text or type(error).__name__ == "DistBackendError"
    ):
        return ChildProcessError(
            f"process {fabric.global_rank}: another process of this run has failed; its own error says why"
        )
    return None
