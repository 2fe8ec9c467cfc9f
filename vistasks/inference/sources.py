"""What ``--source`` may be, and which pictures it means."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from vistasks.datasets.images import IMAGE_SUFFIXES as SUFFIXES
from vistasks.inference.video.reader import SUFFIXES as VIDEO_SUFFIXES


def is_video(source: str | Path) -> bool:
    """Whether the source's name ends as a video file's does."""
    return Path(source).suffix.lower() in VIDEO_SUFFIXES


def camera_index(source: str) -> int | None:
    """OpenCV's number of the camera that ``--source`` names by its number or as /dev/videoN; None where it
    names none.
    """
    found = re.fullmatch(r"(?:/dev/video)?(\d{1,3})", source)
    return int(found.group(1)) if found else None


def is_live(source: str | Path) -> bool:
    """Whether the source is a camera or an address; a file or folder with a number for a name comes first."""
    text = str(source)
    if camera_index(text) is not None:
        return text.startswith("/dev/") or not Path(text).exists()
    return isinstance(source, str) and "://" in text


def source_folder(source: str | Path) -> Path:
    """The folder that a source's pictures lie in or below: the folder itself, a file's folder, a pattern's
    fixed part.
    """
    path = Path(source)
    if path.is_dir():
        return path
    fixed = Path(path.anchor)
    for part in path.parts[bool(path.anchor) : -1]:
        if glob.has_magic(part) and not path.is_file():
            break
        fixed /= part
    return fixed


def list_pictures(source: str | Path, *, leave_out: Path | None = None) -> list[Path]:
    """The pictures that a file, a folder (with its subfolders) or a glob pattern means, sorted.

    Hidden files and folders of a folder do not count.

    Args:
        source: a path or a pattern with ``*``, ``?`` or ``[``; ``**`` goes through subfolders.
        leave_out: a folder whose files do not count where it lies within the source's, such as the output of
            an earlier run.

    Raises:
        ValueError: nothing there, or no picture among it.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    found = _below(path) if path.is_dir() else _matching(source)
    found = [p for p in found if p.is_file()]
    pictures = [p for p in found if p.suffix.lower() in SUFFIXES]
    if leave_out is not None and source_folder(source).resolve() in leave_out.resolve().parents:
        pictures = [p for p in pictures if leave_out.resolve() not in p.resolve().parents]
    if not pictures:
        raise ValueError(_nothing(source, found))
    return sorted(pictures)


def _below(folder: Path) -> list[Path]:
    everything = folder.rglob("*")
    return [p for p in everything if not any(part.startswith(".") for part in p.relative_to(folder).parts)]


def _matching(source: str | Path) -> list[Path]:
    """What a pattern matches; ``**`` goes into no link, since links may lead round in circles."""
    if "**" not in Path(source).parts:
        return [Path(found) for found in glob.glob(str(source))]  # noqa: PTH207
    fixed = source_folder(source)
    found = fixed.glob(str(Path(source).relative_to(fixed)))
    return [p for p in found if not any(part.startswith(".") for part in p.relative_to(fixed).parts)]


def _nothing(source: str | Path, found: list[Path]) -> str:
    """What to say where a source means no picture."""
    path = Path(source)
    if path.is_dir():
        what = "no picture in this folder"
    elif found:
        what = "this pattern matches no picture"
    else:
        what = "no such file or folder, and no file matches it as a pattern"
    videos = sorted(p for p in found if is_video(p))
    hint = f". There are {len(videos)} videos; give one by its name, such as {videos[0]}" if videos else ""
    return f"{path.absolute()}: {what}; pictures end in {', '.join(sorted(SUFFIXES))}{hint}"
