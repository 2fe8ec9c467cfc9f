"""Files that are there whole or not at all: written under a temporary name beside them, synced, then
renamed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write; renames it to ``path`` at the end, or removes it after an error.

    The temporary name keeps ``path``'s suffix, by which many writers choose their format. Missing folders are
    made. The file gets the rights of any new file, also from writers that make theirs unreadable for others
    (safetensors)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        temporary.touch()
        rights = temporary.stat().st_mode
        temporary.unlink()
        yield temporary
        temporary.chmod(rights)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes names that were changed in a folder last over a power failure, where the system can (Windows
    cannot).
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_leftovers(folder: Path) -> None:
    """Removes what a killed process left of files that it was writing."""
    for temporary in folder.glob(".*.tmp*"):
        temporary.unlink(missing_ok=True)
