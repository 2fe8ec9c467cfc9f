"""How many threads PyTorch computes with on the CPU: measured, since it depends on what else the machine does."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from vistasks.system.machine import cores

ROUNDS = 3
LONG = 5.0  # seconds of a step, of which one round is enough
MUCH_SLOWER = 1.3  # than the best number so far: no smaller number is tried
LITTLE = 1.05  # slower than the best number: then fewer threads are better company


def given_by_environment() -> bool:
    """Whether the user, or torchrun for its processes, has chosen already."""
    return "OMP_NUM_THREADS" in os.environ


def typical_seconds(step: Callable[[], object]) -> float:
    """The median of a few rounds, after one that starts the threads."""
    step()
    taken: list[float] = []
    while len(taken) < ROUNDS and sum(taken) < LONG:
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def seconds_by_threads(step: Callable[[], object]) -> dict[int, float]:
    """Seconds of ``step`` with all cores, half of them and so on, until fewer threads are much slower."""
    before, found, count = torch.get_num_threads(), dict[int, float](), cores()
    try:
        while count:
            torch.set_num_threads(count)
            found[count] = typical_seconds(step)
            if found[count] > MUCH_SLOWER * min(found.values()):
                break
            count //= 2
    finally:
        torch.set_num_threads(before)
    return found


def best_count(seconds: Mapping[int, float], *, loading: float = 0.0, workers: int = 0) -> int:
    """The number of threads with which a run is fastest, or the smallest that is hardly slower.

    Data workers load the next batches meanwhile, on the same cores: a step takes at least what the network takes,
    what the workers take, and what both together take of all cores.

    Args:
        seconds: of the network for a batch, by the number of threads.
        loading: seconds to load a batch, in one process.
        workers: processes that load; 0: the network waits.
    """

    def step(count: int) -> float:
        if not workers:
            return seconds[count] + loading
        together = (count * seconds[count] + loading) / cores()
        return max(seconds[count], loading / workers, together)

    fastest = min(step(count) for count in seconds)
    return min(count for count in seconds if step(count) <= LITTLE * fastest)
