"""Which device PyTorch computes on."""

from __future__ import annotations

import torch


def available(kind: str) -> int:
    """How many devices of a kind ("cpu", "cuda", "mps") PyTorch can use here; of "cpu" any number of
    processes.
    """
    if kind == "cuda":
        return torch.cuda.device_count()
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return 2**31


def pick_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device, or the CPU. A ``ValueError`` where this machine does not have what
    is asked for.
    """
    if name == "auto":
        name = "cuda" if available("cuda") else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise ValueError(f"device '{name}': expected auto, cpu, cuda, cuda:NUMBER or mps")
    if int(number or 0) >= available(kind):
        raise ValueError(
            f"device '{name}': PyTorch sees {available(kind)} {kind} devices here; use device cpu or auto"
        )
    return torch.device(name)
