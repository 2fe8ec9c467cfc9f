"""One process at a time writes into an output folder."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from vistasks.system.text import printable

LOCK = ".lock"  # in the folder, while somebody has it
_LONGEST_COMMAND = 300  # characters
_held: dict[tuple[Path, int], int] = {}  # (folder, thread) -> how often


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """While it is open, no other process (and no other thread) has the folder, which is made if missing.

    It may be taken again within. The system gives it free when the process ends, however it ends. A folder
    that was made for it and stayed empty is removed.

    Raises:
        ValueError: another process has it; the message says which.
    """
    key = folder.resolve(), threading.get_ident()
    if key in _held:
        _held[key] += 1
        try:
            yield
        finally:
            _held[key] -= 1
        return
    fresh = not folder.exists()
    path = folder / LOCK
    lock = _locked(path)
    _held[key] = 1
    try:
        _note(path, _myself())
        yield
    finally:
        del _held[key]
        with contextlib.suppress(OSError):  # Windows removes no open file; or somebody has removed the folder
            path.unlink()
            if fresh and not any(folder.iterdir()):
                folder.rmdir()
        lock.release()


def _locked(path: Path) -> FileLock:
    lock = FileLock(path, timeout=0)
    while True:
        with contextlib.suppress(FileNotFoundError):  # its last owner removes it at this moment
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            before = path.stat().st_ino
            _acquire(lock, path)
            if path.stat().st_ino == before:
                return lock
        lock.release()  # of a file that is removed already, where it was locked


def _acquire(lock: FileLock, path: Path) -> None:
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{path.parent.resolve()}: another process is writing to this folder: {_holder(path)}. Wait until it has ended, "
            "stop it, or choose another folder"
        ) from None


def _myself() -> str:
    """This process in words, without the passwords of addresses."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    command = re.sub(r"//[^/@\s]*@", "//", " ".join([program, *sys.argv[1:]]))
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}: {printable(command)[:_LONGEST_COMMAND]}"


def _note(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk; Windows, where others may not touch a locked file
        path.write_text(text, encoding="utf-8", errors="replace")


def _holder(path: Path) -> str:
    try:
        return printable(path.read_text(encoding="utf-8", errors="replace")) or "it does not say which"
    except OSError:
        return "it does not say which"
