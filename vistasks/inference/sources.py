"""``--source`` -> what it is: images, images as a video, a video file or a live stream. Asked once, here.

Files are recognised by what they hold; their suffixes decide only which files of a folder are meant.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vistasks.datasets.images import IMAGE_SUFFIXES as SUFFIXES
from vistasks.inference.video.containers import VIDEO_SUFFIXES, holds_video


@dataclass(frozen=True)
class Images:
    """Image files, each predicted by itself.

    Attributes:
        where: the source as it was given.
        paths: the files, sorted.
        folder: the folder that they lie in or below.
        left_out: files there whose suffix is not an image's.
    """

    where: str
    paths: tuple[Path, ...]
    folder: Path
    left_out: tuple[Path, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What was left out, counted by suffix."""
        if not self.left_out:
            return []
        counts = Counter(path.suffix.lower() or "no suffix" for path in self.left_out)
        kinds = ", ".join(f"{number} {suffix}" for suffix, number in counts.most_common(8))
        videos = [path for path in self.left_out if path.suffix.lower() in VIDEO_SUFFIXES]
        hint = f"; give a video by its name, such as {videos[0]}" if videos else ""
        return [
            f"{self.where}: {len(self.left_out)} files are not images by their suffix and were left out "
            f"({kinds}){hint}"
        ]


@dataclass(frozen=True)
class ImagesAsVideo:
    """Images as the frames of a video, ``rate`` a second."""

    images: Images
    rate: Fraction

    @property
    def where(self) -> str:
        """The source as it was given."""
        return self.images.where


@dataclass(frozen=True)
class VideoFile:
    """A file that holds a video."""

    path: Path

    @property
    def where(self) -> str:
        """The source as it was given."""
        return str(self.path)


@dataclass(frozen=True)
class Live:
    """A camera, by OpenCV's number, or the address of a stream."""

    address: str
    camera: int | None

    @property
    def where(self) -> str:
        """What to call it; the address may hold a password."""
        return "the address" if self.camera is None else f"camera {self.camera}"


Moving = ImagesAsVideo | VideoFile | Live
Source = Images | Moving


def recognise(source: str | Path, *, frame_rate: float | None = None, output: Path | None = None) -> Source:
    """What ``source`` is.

    Args:
        source: a file, a folder (with its subfolders, without hidden files), a glob pattern (``*``, ``?``,
            ``[``; ``**`` goes through subfolders), a camera's number or /dev/videoN, or an address. A file or
            folder with a number for a name comes before the camera.
        frame_rate: images are the frames of a video, so many a second.
        output: a folder whose files do not count where it lies within the source's, such as the output of an
            earlier run.

    Raises:
        ValueError: nothing there, or no image among it.
    """
    text, path = str(source), Path(source)
    camera = _camera(text)
    if camera is not None or (isinstance(source, str) and "://" in text):
        return Live(text, camera)
    if path.is_file():
        if holds_video(path):
            return VideoFile(path)
        images = Images(text, (path,), path.parent)
    else:
        images = _images(source, output)
    return images if frame_rate is None else ImagesAsVideo(images, Fraction(frame_rate))


def _camera(text: str) -> int | None:
    found = re.fullmatch(r"(/dev/video)?(\d{1,3})", text)
    if found is None or (found.group(1) is None and Path(text).exists()):
        return None
    return int(found.group(2))


def _images(source: str | Path, output: Path | None) -> Images:
    path, folder = Path(source), _folder(source)
    found = _below(path) if path.is_dir() else _matching(source)
    found = sorted(p for p in found if p.is_file())
    if output is not None and folder.resolve() in output.resolve().parents:
        found = [p for p in found if output.resolve() not in p.resolve().parents]
    images = [p for p in found if p.suffix.lower() in SUFFIXES]
    if not images:
        raise ValueError(_nothing(source, found))
    left_out = [p for p in found if p.suffix.lower() not in SUFFIXES]
    return Images(str(source), tuple(images), folder, tuple(left_out))


def _folder(source: str | Path) -> Path:
    """The folder itself, or a pattern's fixed part."""
    path = Path(source)
    if path.is_dir():
        return path
    fixed = Path(path.anchor)
    for part in path.parts[bool(path.anchor) : -1]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


def _below(folder: Path) -> list[Path]:
    everything = folder.rglob("*")
    return [p for p in everything if not any(part.startswith(".") for part in p.relative_to(folder).parts)]


def _matching(source: str | Path) -> list[Path]:
    """What a pattern matches; ``**`` goes into no link, since links may lead round in circles."""
    if "**" not in Path(source).parts:
        return [Path(found) for found in glob.glob(str(source))]  # noqa: PTH207
    fixed = _folder(source)
    found = fixed.glob(str(Path(source).relative_to(fixed)))
    return [p for p in found if not any(part.startswith(".") for part in p.relative_to(fixed).parts)]


def _nothing(source: str | Path, found: list[Path]) -> str:
    """What to say where a source means no image."""
    path = Path(source)
    if path.is_dir():
        what = "no image in this folder"
    elif found:
        what = "this pattern matches no image"
    else:
        what = "no such file or folder, and no file matches it as a pattern"
    videos = [p for p in found if p.suffix.lower() in VIDEO_SUFFIXES]
    hint = f". There are {len(videos)} videos; give one by its name, such as {videos[0]}" if videos else ""
    return f"{path.absolute()}: {what}; images end in {', '.join(sorted(SUFFIXES))}{hint}"
