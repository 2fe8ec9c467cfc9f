"""What a data set knows about its pictures, in a few flat arrays that data workers map instead of copying.

A list of 118,000 paths is 118,000 Python objects: each worker that receives it holds its own, and one that
only looks at it copies the pages all the same, since looking changes reference counts. An array is one block
of memory, and a block that lies in an anonymous file (``memfd_create``, Linux) is handed to a worker as a
file descriptor. Where there are no such files a worker gets a copy."""

from __future__ import annotations

import json
import mmap
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any, overload

import numpy as np

_ALIGNED = 64  # bytes; where each array of a block begins

Layout = dict[str, tuple[str, tuple[int, ...], int]]  # name -> dtype, shape, first byte


class SharedArrays:
    """Arrays by name; read-only for who maps them. Pickled for a worker, they go into an anonymous file that
    both map.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = dict(arrays)
        self._file: int | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None or not hasattr(os, "memfd_create"):
            return SharedArrays, (self._arrays,)
        layout, size = _layout(self._arrays)
        if self._file is None:
            self._move(layout, size)
        assert self._file is not None
        return _received, (reduction.DupFd(self._file), layout, size)

    def _move(self, layout: Layout, size: int) -> None:
        """Into an anonymous file, so that this process holds the arrays once as well."""
        file = os.memfd_create("vistasks", os.MFD_CLOEXEC)
        os.ftruncate(file, size)
        writable = _mapped(mmap.mmap(file, size), layout)
        for name, array in self._arrays.items():
            writable[name][...] = array
        self._arrays, self._file = _mapped(mmap.mmap(file, size, prot=mmap.PROT_READ), layout), file
        weakref.finalize(self, os.close, file)


def _layout(arrays: Mapping[str, np.ndarray]) -> tuple[Layout, int]:
    layout: Layout = {}
    end = 0
    for name, array in arrays.items():
        layout[name] = (array.dtype.str, array.shape, end)
        end += -(-array.nbytes // _ALIGNED) * _ALIGNED
    return layout, max(end, 1)  # nothing of no length can be mapped


def _mapped(block: mmap.mmap, layout: Layout) -> dict[str, np.ndarray]:
    return {
        name: np.ndarray(shape, dtype, buffer=block, offset=start)
        for name, (dtype, shape, start) in layout.items()
    }


def _received(handle: Any, layout: Layout, size: int) -> SharedArrays:
    file = handle.detach()
    try:
        return SharedArrays(_mapped(mmap.mmap(file, size, prot=mmap.PROT_READ), layout))
    finally:
        os.close(file)


class PackedStrings(Sequence[str]):
    """A list of strings as two arrays: their UTF-8 bytes and where each begins."""

    def __init__(self, texts: Sequence[str]) -> None:
        # file names that are not UTF-8 come with surrogates
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._arrays = SharedArrays(
            {"starts": starts, "bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8)}
        )

    def __len__(self) -> int:
        return len(self._arrays["starts"]) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} of {len(self)}")
        start, end = self._arrays["starts"][index % len(self) : index % len(self) + 2]
        return self._arrays["bytes"][start:end].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, str) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment] # equal to lists, which have none

    def __repr__(self) -> str:
        return f"PackedStrings({list(self[:3])}{'...' if len(self) > 3 else ''})"


class PackedValues:
    """A list of anything that json can write, as in `PackedStrings`; unpacked at each access."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._texts = PackedStrings([json.dumps(value, separators=(",", ":")) for value in values])

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Any:
        return json.loads(self._texts[index])


class SharedBlock:
    """Bytes that this process and its workers all write to; zero at first, and taking memory only where they
    were written.
    """

    def __init__(self, size: int) -> None:
        self._file: int | None = None
        if hasattr(os, "memfd_create"):
            self._file = os.memfd_create("vistasks", os.MFD_CLOEXEC)
            os.ftruncate(self._file, max(1, size))
            weakref.finalize(self, os.close, self._file)
        self.bytes = _block(self._file, size)

    def __reduce__(self) -> tuple[Any, ...]:
        size = len(self.bytes)
        if get_spawning_popen() is None or self._file is None:
            return SharedBlock, (size,)
        return _received_block, (reduction.DupFd(self._file), size)


def _block(file: int | None, size: int) -> np.ndarray:
    if file is None:  # each process has its own
        return np.zeros(size, dtype=np.uint8)
    return np.ndarray(size, np.uint8, buffer=mmap.mmap(file, max(1, size)))


def _received_block(handle: Any, size: int) -> SharedBlock:
    file = handle.detach()
    try:
        block = SharedBlock.__new__(SharedBlock)
        block.bytes, block._file = _block(file, size), None
        return block
    finally:
        os.close(file)
