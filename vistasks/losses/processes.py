"""Means over a step's examples where several processes have a part of them each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_TOGETHER: ContextVar[bool] = ContextVar("together", default=False)


@contextmanager
def all_processes() -> Iterator[None]:
    """While it is open, the processes of a run compute the losses of one step together. Outside of it each is
    for itself: one of them may then look at a loss alone, as the preflight does."""
    token = _TOGETHER.set(True)
    try:
        yield
    finally:
        _TOGETHER.reset(token)


def count_of_all(count: Tensor) -> Tensor:
    """How many examples a process has on average; its own number outside of `all_processes` and in a run of one
    process.

    The gradients of all processes are averaged. A sum divided by this, instead of by the process's own count,
    so becomes the mean over the examples of all of them: the same loss as one process with the whole batch,
    however unevenly they are spread, and also where a process has none. Within `all_processes` all processes must
    come here equally often.

    Args:
        count: () examples, or their weight.
    """
    distributed = torch.distributed
    if not _TOGETHER.get() or not distributed.is_available() or not distributed.is_initialized():
        return count
    total = count.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
