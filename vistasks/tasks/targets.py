"""What several tasks need to put labels into a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def labelled_flags(labelled: Sequence[frozenset[int]], classes: int) -> Tensor:
    """(N, classes) bool: the class ids that each image's labels cover."""
    flags = torch.zeros(len(labelled), classes, dtype=torch.bool)
    for index, ids in enumerate(labelled):
        flags[index, sorted(ids)] = True
    return flags
