"""First version of the proposal cache (one .npy an entry, atomic writes); the full one replaces it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from vistasks.proposals.methods import ProposalMethod
from vistasks.types import Sample


class CachedProposals:
    def __init__(self, method: ProposalMethod, folder: str, max_bytes: int | None = None) -> None:
        self.method, self.folder, self.key = method, Path(folder), method.key

    def __call__(self, sample: Sample) -> np.ndarray:
        digest = hashlib.sha256(str(sample.image.shape).encode() + sample.image.tobytes() + str(self.key).encode()).hexdigest()
        path = self.folder / digest[:2] / f"{digest}.npy"
        if path.is_file():
            return np.load(path, allow_pickle=False)
        boxes = self.method(sample)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.npy")
        np.save(temporary, boxes)
        temporary.replace(path)
        return boxes
