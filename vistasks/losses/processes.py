"""Means over a step's examples where several processes have a part of them each."""

from __future__ import annotations

import torch
from torch import Tensor


def count_of_all(count: Tensor) -> Tensor:
    """How many examples a process has on average; in a run of one process, its own number.

    The gradients of all processes are averaged. A sum divided by this, instead of by the process's own count, so becomes the mean
    over the examples of all of them: the same loss as one process with the whole batch, however unevenly they are spread, and
    also where a process has none. All processes must come here equally often.

    Args:
        count: () examples, or their weight.
    """
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return count
    total = count.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
