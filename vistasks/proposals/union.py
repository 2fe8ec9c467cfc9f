"""The union of several proposal methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from vistasks.proposals.methods import ProposalMethod
from vistasks.registry import PROPOSALS
from vistasks.types import Sample


@PROPOSALS.register("union")
class Union:
    """The boxes of several methods, in their order; a box that an earlier one has gives is left out.

    Args:
        methods: each with its ``name`` and options, as ``proposals.method`` has them.
    """

    def __init__(self, methods: list[dict[str, Any]]) -> None:
        if not methods:
            raise ValueError("union: methods names none")
        self.members: list[ProposalMethod] = [
            PROPOSALS.build(cast(Mapping[str, Any], options), where=f"proposals.method.methods[{index}]")
            for index, options in enumerate(methods)
        ]
        self.within_detector = any(member.within_detector for member in self.members)
        keys = [member.key for member in self.members]
        self.key: str | None = None if None in keys else f"union-1 {' + '.join(map(str, keys))}"

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32 boxes."""
        return merged([member(sample) for member in self.members])


def merged(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Several (P, 4) as one, each box once, in their order."""
    boxes = np.concatenate([np.zeros((0, 4), dtype=np.float32), *parts])
    _, once = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(once)]
