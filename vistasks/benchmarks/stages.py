"""How long the stages of a model's pass take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

Result = TypeVar("Result")


class StageClock:
    """Adds up wall-clock seconds under names; on a GPU the device is waited for first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        """Seconds, after all work that was given to the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def timed(self, name: str, work: Callable[[], Result]) -> Result:
        """Runs ``work`` and books its time under ``name``."""
        start = self.now()
        result = work()
        self.add(name, self.now() - start)
        return result

    def add(self, name: str, seconds: float) -> None:
        """Books seconds, which may be negative, under a name."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @contextmanager
    def watching(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Books the time of every call of the modules under their names while it is open."""
        started: dict[nn.Module, float] = {}

        def before(module: nn.Module, inputs: Any) -> None:
            started[module] = self.now()

        def after(name: str) -> Callable[[nn.Module, Any, Any], None]:
            return lambda module, inputs, output: self.add(name, self.now() - started[module])

        handles = [module.register_forward_pre_hook(before) for module in modules.values()]
        handles += [module.register_forward_hook(after(name)) for name, module in modules.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
