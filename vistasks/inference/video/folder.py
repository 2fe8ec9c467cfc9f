"""A folder of pictures -> the frames of a video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from vistasks.datasets.images import read_image
from vistasks.inference.sources import list_pictures, source_folder
from vistasks.inference.video.reader import Frame
from vistasks.system.limits import MAX_PIXELS


class FolderReader:
    """Iterates over a folder's (or a pattern's) pictures, sorted by name, as frames at a given rate.

    It is a `vistasks.inference.video.protocols.FrameSource`. A picture that cannot be read leaves a gap in
    the times.

    Args:
        source: a folder, with its subfolders, or a glob pattern.
        rate: frames per second.
        skips: pass over pictures that cannot be read, with a warning; else they are errors.
        leave_out: a folder within, whose pictures do not count.
        max_pixels: a picture with more cannot be read.

    Attributes:
        first: number of the first frame to give.

    Raises:
        ValueError: no picture there; when iterated, one that cannot be read, or none that can.
    """

    def __init__(
        self,
        source: str | Path,
        rate: float,
        *,
        skips: bool = True,
        leave_out: Path | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.paths = list_pictures(source, leave_out=leave_out)
        self.where, self.name = str(source), source_folder(source).resolve().name or "frames"
        self.rate, self.frames, self.live, self.dropped, self.first = (
            Fraction(rate),
            len(self.paths),
            False,
            0,
            0,
        )
        self.warnings: list[str] = []
        self._skips, self._max_pixels = skips, max_pixels

    def stop(self) -> None:
        """Nothing to do: files keep nobody waiting."""

    def __iter__(self) -> Iterator[Frame]:
        self.warnings, number = [], 0
        for index, path in enumerate(self.paths):
            try:
                image = read_image(path, max_pixels=self._max_pixels)
            except (ValueError, OSError) as error:
                if not self._skips:
                    raise
                self.warnings.append(str(error))
                continue
            if number >= self.first:
                yield Frame(image, number, float(index / self.rate))
            number += 1
        if not number:
            raise ValueError(
                f"{self.where}: none of these {len(self.paths)} pictures can be read; {self.warnings[0]}"
            )
