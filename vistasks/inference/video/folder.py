"""A folder of pictures -> the frames of a video."""

from __future__ import annotations

from collections.abc import Iterator

from vistasks.datasets.images import read_image
from vistasks.inference.sources import ImagesAsVideo
from vistasks.inference.video.reader import Frame
from vistasks.system.limits import MAX_PIXELS


class FolderReader:
    """Iterates over a folder's (or a pattern's) pictures, sorted by name, as frames at a given rate.

    It is a `vistasks.inference.video.protocols.FrameSource`. A picture that cannot be read leaves a gap in
    the times.

    Args:
        source: the pictures and the rate.
        skips: pass over pictures that cannot be read, with a warning; else they are errors.
        max_pixels: a picture with more cannot be read.

    Attributes:
        first: number of the first frame to give.

    Raises:
        ValueError: when iterated, one that cannot be read, or none that can.
    """

    def __init__(
        self,
        source: ImagesAsVideo,
        *,
        skips: bool = True,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        images = source.images
        self.paths, self._notes = images.paths, images.notes
        self.where, self.name = images.where, images.folder.resolve().name or "frames"
        self.rate, self.frames, self.live, self.dropped, self.first = (
            source.rate,
            len(self.paths),
            False,
            0,
            0,
        )
        self.warnings = list(self._notes)
        self._skips, self._max_pixels = skips, max_pixels

    def stop(self) -> None:
        """Nothing to do: files keep nobody waiting."""

    def __iter__(self) -> Iterator[Frame]:
        self.warnings, number = list(self._notes), 0
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
                f"{self.where}: none of these {len(self.paths)} images can be read; {self.warnings[-1]}"
            )
