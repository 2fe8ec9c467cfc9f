"""What ``--source`` may be, and which pictures it means."""

from __future__ import annotations

import glob
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jfif"})


def list_pictures(source: str | Path, *, leave_out: Path | None = None) -> list[Path]:
    """The pictures that a file, a folder (with its subfolders) or a glob pattern means, sorted.

    Args:
        source: a path or a pattern with ``*``, ``?`` or ``[``; ``**`` goes through subfolders.
        leave_out: a folder whose files do not count, such as the output within the source.

    Raises:
        ValueError: nothing there, or no picture among it.
    """
    path = Path(source)
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()]
    elif path.is_file():
        return [path]
    else:
        matches = glob.glob(str(source), recursive=True)  # noqa: PTH207 - pathlib globs no absolute patterns
        found = [Path(p) for p in matches if Path(p).suffix.lower() in SUFFIXES]
    if leave_out is not None:
        output = leave_out.resolve()
        found = [p for p in found if output != p.resolve() and output not in p.resolve().parents]
    if not found:
        kind = "no picture in this folder" if path.is_dir() else "no such file, folder or pattern that matches a picture"
        raise ValueError(f"{path.absolute()}: {kind}; pictures end in {', '.join(sorted(SUFFIXES))}")
    return sorted(found)
