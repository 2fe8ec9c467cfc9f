"""What this machine has: cores, memory and disk; and how a program's threads share it with others."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import MutableMapping
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_without_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets threads of OpenMP sleep while they wait for one another, unless the user has said how they wait.

    By default they spin, and beside another busy process each spins for threads that it keeps from running. Has
    an effect only before PyTorch is imported.
    """
    if not any(name in environment for name in WAITING):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_files_limit() -> int | None:
    """How many files this process may have open; None where there is no such limit or the system does not tell."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def peak_bytes() -> int:
    """The largest resident size of this process so far; 0 where the system does not tell (Windows)."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would begin with what the parent held
        line = next(
            text for text in status.read_text(encoding="ascii").splitlines() if text.startswith("VmHWM:")
        )
        return int(line.split()[1]) << 10
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def available_memory() -> int | None:
    """Bytes of memory that a process may still take, within the limits of its container; None where nothing
    tells.
    """
    found = [value for value in (_meminfo(), _container()) if value is not None]
    return min(found) if found else None


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _container() -> int | None:
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = (
                Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip() for name in (limit, used)
            )
        except OSError:
            continue
        if most.isdigit() and now.isdigit():
            return max(0, int(most) - int(now))
    return None


def free_disk(folder: Path) -> int:
    """Bytes that are free where ``folder`` is or would be made."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def gigabytes(count: float) -> str:
    """``1.5 GB``, or ``20 MB`` where it is little."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
