"""What this machine has left: memory and disk."""

from __future__ import annotations

import shutil
from pathlib import Path


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
