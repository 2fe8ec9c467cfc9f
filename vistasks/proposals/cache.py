"""Proposals that are computed once for each picture and kept on disk.

One file an entry, named by a hash of the picture's pixels and the method's key, so that no picture, option or
version of the algorithm is ever mistaken for another. An entry is written whole under a temporary name and
renamed, so that any number of processes can fill one folder and be killed at any time; a checksum finds
damage."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vistasks.proposals.methods import ProposalMethod
from vistasks.types import Sample

MAGIC = b"vistasks proposals 1\n"
SUFFIX = ".proposals"
TEMPORARY = ".writing-"  # how the names of files that are being written begin
ABANDONED_SECONDS = 3600  # a temporary file as old as that was left by a killed process


class DamagedEntry(ValueError):
    """A file of the cache that is not what was written."""


def encoded(boxes: np.ndarray) -> bytes:
    """(P, 4) float32 -> magic, SHA-256 of the rest, count, boxes."""
    body = struct.pack("<Q", len(boxes)) + np.ascontiguousarray(boxes, dtype="<f4").tobytes()
    return MAGIC + hashlib.sha256(body).digest() + body


def decoded(content: bytes) -> np.ndarray:
    """The boxes of `encoded`; `DamagedEntry` where any byte differs."""
    body = content[len(MAGIC) + 32 :]
    if (
        not content.startswith(MAGIC)
        or hashlib.sha256(body).digest() != content[len(MAGIC) : len(MAGIC) + 32]
    ):
        raise DamagedEntry("checksum differs")
    boxes = np.frombuffer(body, dtype="<f4", offset=8).astype(np.float32).reshape(-1, 4)
    if len(boxes) != struct.unpack("<Q", body[:8])[0]:
        raise DamagedEntry("number of boxes differs")
    return boxes


def _entries(folder: Path) -> Iterator[Path]:
    """The entries of a cache folder: two levels, and only names that are ours."""
    for path in folder.glob(f"[0-9a-f][0-9a-f]/*{SUFFIX}"):
        if len(path.stem) == 64 and path.is_file() and not path.is_symlink():
            yield path


def _leftovers(folder: Path) -> Iterator[Path]:
    yield from folder.glob(f"[0-9a-f][0-9a-f]/{TEMPORARY}*{SUFFIX}")


class CachedProposals:
    """A proposal method with a memory; called like the method itself.

    Args:
        method: what computes the boxes. A method without a key is called every time and nothing is kept.
        folder: where entries lie; made when first needed. Where it cannot be written, a warning says so once
            and boxes are computed without being kept.
        max_bytes: where the entries take more, the oldest (by time of last use) are removed until nine tenths
            are left.
    """

    def __init__(self, method: ProposalMethod, folder: str | Path, max_bytes: int | None = None) -> None:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"proposal cache: max_bytes must be at least 1, not {max_bytes}")
        self.method = method
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self._writable = True
        self._unmeasured: int | None = (
            None  # bytes written since the folder was last measured; None: never measured
        )

    @property
    def key(self) -> str | None:
        """The method's."""
        return self.method.key

    @property
    def within_detector(self) -> bool:
        """That of the method."""
        return self.method.within_detector

    def path(self, image: np.ndarray) -> Path:
        """Where the entry of a picture (H, W, 3) uint8 lies or would lie."""
        digest = hashlib.sha256()
        digest.update(f"{self.method.key}\n{image.shape} {image.dtype}\n".encode())
        digest.update(np.ascontiguousarray(image).data)
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name}{SUFFIX}"

    def has(self, image: np.ndarray) -> bool:
        """Whether there is an entry for the picture; it may still turn out to be damaged."""
        return self.method.key is not None and self.path(image).is_file()

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32 boxes, best first: from the entry, or computed and kept."""
        if self.method.key is None:
            return self.method(sample)
        path = self.path(sample.image)
        try:
            boxes = decoded(path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, DamagedEntry) as error:
            warnings.warn(f"{path}: damaged proposal cache entry ({error}), computed again", stacklevel=2)
        else:
            with contextlib.suppress(OSError):
                os.utime(path)  # when last used, for the size limit
            return boxes
        boxes = self.method(sample)
        self._keep(path, encoded(boxes))
        return boxes

    def _keep(self, path: Path, content: bytes) -> None:
        if not self._writable:
            return
        temporary = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # a name of its own for each process and thread
            descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, suffix=SUFFIX, dir=path.parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            self._writable = False
            warnings.warn(
                f"{self.folder}: cannot cache proposals ({error}); they are computed every time",
                stacklevel=3,
            )
            return
        if self.max_bytes is not None:
            self._unmeasured = None if self._unmeasured is None else self._unmeasured + len(content)
            if self._unmeasured is None or self._unmeasured > self.max_bytes // 20:
                evict(self.folder, self.max_bytes)
                self._unmeasured = 0


def evict(folder: str | Path, max_bytes: int) -> int:
    """Where the entries take over ``max_bytes``, removes the longest unused until nine tenths are left; the
    bytes removed.

    Safe beside other processes: an entry that is gone already is no error, and one that is being read stays
    readable."""
    found = []
    for path in _entries(Path(folder)):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in found)
    if total <= max_bytes:
        return 0
    removed = 0
    for _, size, path in sorted(found):
        if total - removed <= max_bytes * 9 // 10:
            break
        path.unlink(missing_ok=True)
        removed += size
    return removed


def clear(folder: str | Path) -> tuple[int, int]:
    """Removes the entries of a cache folder, and nothing that is not ours; (files, bytes) removed.

    Temporary files go only where a killed process left them, so that running processes are not disturbed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    files = size = 0
    now = time.time()
    for path in [*_entries(folder), *_leftovers(folder)]:
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if path.name.startswith(TEMPORARY) and now - status.st_mtime < ABANDONED_SECONDS:
                continue
            path.unlink()
            files += 1
            size += status.st_size
    for part in folder.glob("[0-9a-f][0-9a-f]"):
        with contextlib.suppress(OSError):  # not empty: something of somebody else's, or being written
            part.rmdir()
    return files, size
