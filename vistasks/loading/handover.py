"""How a data worker hands a batch over: in shared memory, or through a pipe where there is too little of it."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from vistasks.system.machine import open_files_limit

IN_FLIGHT = 2  # batches of each worker that wait to be taken: PyTorch's prefetch_factor
SHARED = "/dev/shm"  # noqa: S108 - where Linux keeps it
_OTHER_FILES = 64  # that a run has open beside its batches


@dataclasses.dataclass(frozen=True)
class Packed:
    """Something that goes through the pipe as a whole, and why."""

    data: bytes
    reason: str

    def unpacked(self) -> Any:
        return pickle.loads(self.data)  # noqa: S301 - from our own worker


def packed_if_needed(fetched: Any, workers: int) -> Any:
    """What a worker returns: ``fetched`` itself, whose tensors PyTorch moves to shared memory, or `Packed`.

    PyTorch keeps a file open for each tensor on its way. Where it gets no memory or no file, the batch is
    lost in a thread of the worker, and the run waits for it for ever."""
    tensors = list(_tensors(fetched))
    size = sum(tensor.nbytes for tensor in tensors)
    free, files = _free_shared_memory(), open_files_limit()
    reason = ""
    if free is not None and free < size * (workers + 1):  # the others may be about to take as much
        reason = f"shared memory ({SHARED}) has {free / 1e6:.1f} MB free"
    elif files is not None and files < _OTHER_FILES + len(tensors) * (IN_FLIGHT * workers + 2):
        reason = f"a process may open only {files} files (ulimit -n)"
    return Packed(pickle.dumps(fetched, pickle.HIGHEST_PROTOCOL), reason) if reason else fetched


def _free_shared_memory() -> int | None:
    """Bytes; None where the system does not say."""
    try:
        found = os.statvfs(SHARED)
    except (OSError, AttributeError):
        return None
    return found.f_bavail * found.f_frsize


def _tensors(thing: Any) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        yield thing
    elif dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            yield from _tensors(getattr(thing, field.name))
    elif isinstance(thing, (list, tuple)):
        for part in thing:
            yield from _tensors(part)
    elif isinstance(thing, Mapping):
        yield from _tensors(list(thing.values()))
