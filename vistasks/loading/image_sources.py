"""Where the pixels of a data set's pictures come from: files, files decoded small, a cache in memory or on
disk.

data.decode: reduced      a JPEG is decoded at 1/2, 1/4 or 1/8 of its sides (libjpeg does it in the frequency domain) where that
                          is still at least the network's input size; boxes and masks are scaled along
data.cache: ram           decoded pictures stay in one block of memory that all workers share
data.cache: disk          decoded pictures are kept as .npz in a folder; an entry that is damaged is made again
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from vistasks.datasets.annotations import Annotation, Dataset
from vistasks.datasets.images import image_size, read_image
from vistasks.datasets.packed import SharedArrays, SharedBlock
from vistasks.loading.batching import input_size, scale_sample
from vistasks.system.atomic import replacing
from vistasks.system.limits import MAX_PIXELS
from vistasks.system.machine import available_memory, gigabytes
from vistasks.types import ClassNames, Sample

Size = tuple[int, int]  # height, width

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})


class PictureSource(Protocol):
    """Gives pixels for a picture's index and path."""

    @property
    def key(self) -> str:
        """A text that tells apart sources that give other pixels for the same file."""
        ...

    def size(self, path: str, full: Size) -> Size:
        """The size of what `read` gives of a file whose picture has the size ``full``."""
        ...

    def read(self, index: int, path: str, full: Size) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright."""
        ...


class WholeFiles:
    """Each file decoded as it is."""

    key = "whole"

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self.max_pixels = max_pixels

    def size(self, path: str, full: Size) -> Size:
        """``full``."""
        return full

    def read(self, index: int, path: str, full: Size) -> np.ndarray:
        """`read_image`."""
        return read_image(path, max_pixels=self.max_pixels)


class ReducedFiles:
    """JPEGs decoded at 1/2, 1/4 or 1/8 where that is still as large as the network's input; other files as
    they are.
    """

    def __init__(self, *, min_side: int | None, max_side: int | None, max_pixels: int = MAX_PIXELS) -> None:
        self.min_side, self.max_side, self.max_pixels = min_side, max_side, max_pixels
        self.key = f"reduced min_side={min_side} max_side={max_side}"

    def _divisor(self, path: str, full: Size) -> int:
        if Path(path).suffix.lower() not in JPEG_SUFFIXES:
            return 1
        wanted = input_size(full, min_side=self.min_side, max_side=self.max_side)
        fitting = (d for d in (8, 4, 2) if full[0] // wanted[0] >= d and full[1] // wanted[1] >= d)
        return next(fitting, 1)

    def size(self, path: str, full: Size) -> Size:
        """``full`` over the divisor, rounded up as libjpeg does."""
        divisor = self._divisor(path, full)
        return -(-full[0] // divisor), -(-full[1] // divisor)

    def read(self, index: int, path: str, full: Size) -> np.ndarray:
        """`read_image` at a fraction."""
        return read_image(path, divisor=self._divisor(path, full), max_pixels=self.max_pixels)


class RamCache:
    """Pictures of ``source``, each decoded once, in one block that all workers share; not within reach of
    other runs.

    A ``ValueError`` where the pictures need more memory than there is.
    """

    def __init__(self, source: PictureSource, paths: Sequence[str], sizes: Sequence[Size]) -> None:
        self.source, self.key = source, source.key
        lengths = [3 * height * width for height, width in (source.size(*pair) for pair in zip(paths, sizes))]
        starts = np.cumsum(
            [len(paths), *lengths], dtype=np.int64
        )  # the first bytes say which pictures are there
        total, free = int(starts[-1]), available_memory()
        if free is not None and total > 0.9 * free:
            raise ValueError(
                f"data.cache=ram: {len(paths)} decoded images take {gigabytes(total)}, and {gigabytes(free)} of memory are "
                "available; use data.cache=disk, or data.decode=reduced where the input is scaled down"
            )
        self._starts = SharedArrays({"starts": starts})
        self._block = SharedBlock(total)

    def size(self, path: str, full: Size) -> Size:
        """The source's."""
        return self.source.size(path, full)

    def read(self, index: int, path: str, full: Size) -> np.ndarray:
        """From the block, or from the source and into the block."""
        shape = (*self.size(path, full), 3)
        start, end = (int(place) for place in self._starts["starts"][index : index + 2])
        there = self._block.bytes[start:end]
        if self._block.bytes[index] and there.size == np.prod(shape):
            return there.reshape(shape).copy()
        image = self.source.read(index, path, full)
        if image.nbytes == there.size and image.shape == shape:
            there[:] = image.reshape(-1)
            self._block.bytes[index] = (
                1  # after the pixels: another worker sees it whole or decodes it itself
            )
        return image


class DiskCache:
    """Pictures of ``source`` as .npz files, named by path, length and time of change of the picture's
    file.
    """

    def __init__(self, source: PictureSource, folder: str | Path) -> None:
        self.source, self.folder, self.key = source, Path(folder), source.key
        self._writable = True

    def size(self, path: str, full: Size) -> Size:
        """The source's."""
        return self.source.size(path, full)

    def entry(self, path: str) -> Path:
        """Where the picture of a file lies or would lie."""
        status = Path(path).stat()
        text = f"{Path(path).resolve()}\n{status.st_size} {status.st_mtime_ns}\n{self.key}"
        name = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / name[:2] / f"{name}.npz"

    def read(self, index: int, path: str, full: Size) -> np.ndarray:
        """From the folder, or from the source and into the folder."""
        entry = self.entry(path)
        try:
            return read_entry(entry)
        except FileNotFoundError:
            pass
        except ValueError as error:
            warnings.warn(f"{error}; the image is decoded again", stacklevel=2)
        image = self.source.read(index, path, full)
        self._keep(entry, image)
        return image

    def _keep(self, entry: Path, image: np.ndarray) -> None:
        if not self._writable:
            return
        try:
            with replacing(entry) as temporary:
                np.savez(temporary, image=image)
        except OSError as error:
            self._writable = False
            warnings.warn(
                f"{self.folder}: cannot cache decoded images ({error}); continuing without the cache",
                stacklevel=3,
            )


def read_entry(entry: Path) -> np.ndarray:
    """The picture in a cache entry. A ``ValueError`` that names it where it is not whole (zip's checksum is
    compared).
    """
    try:
        with zipfile.ZipFile(entry) as archive:
            content = archive.read("image.npy")  # as a whole first: the checksum is only known at the end
        image = np.load(io.BytesIO(content), allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile and numpy raise a dozen kinds on damage, and all mean the same
        raise ValueError(f"{entry}: damaged entry of the image cache ({error})") from error
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{entry}: damaged entry of the image cache (it holds {image.shape} {image.dtype})")
    return np.ascontiguousarray(image)


class PicturesFrom:
    """A data set whose pixels come from ``source`` instead of straight from its files.

    A sample whose picture is smaller than its file's is scaled as a whole: boxes, areas and mask with it.
    """

    def __init__(self, dataset: Dataset, source: PictureSource, sizes: Sequence[Size] | None = None) -> None:
        self.dataset, self.source = dataset, source
        whole = np.array(picture_sizes(dataset) if sizes is None else sizes, dtype=np.int32).reshape(-1, 2)
        self._sizes = SharedArrays({"sizes": whole})
        self.classes: ClassNames = dataset.classes
        self.ids, self.paths, self.notes, self.skipped = (
            dataset.ids,
            dataset.paths,
            dataset.notes,
            dataset.skipped,
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[index]
        height, width = self._sizes["sizes"][index]
        full = (int(height), int(width))
        image = self.source.read(index, path, full)
        if image.shape[:2] == full:
            return self.dataset.sample(index, image)
        stand_in = np.broadcast_to(
            np.zeros((1, 1, 3), np.uint8), (*full, 3)
        )  # the mask is as large as the file's picture
        return scale_sample(
            self.dataset.sample(index, stand_in), (image.shape[0], image.shape[1]), image=image
        )

    def sample(self, index: int, image: np.ndarray) -> Sample:
        """Picture ``index`` with the pixels given."""
        return self.dataset.sample(index, image)

    def annotation(self, index: int) -> Annotation:
        """The objects of picture ``index`` in its file's pixels."""
        return self.dataset.annotation(index)

    def place(self, index: int) -> tuple[int, int]:
        """Which of joined data sets the picture belongs to, and which of its pictures it is."""
        place: tuple[int, int] = getattr(self.dataset, "place", lambda i: (0, i))(index)
        return place


def picture_sizes(dataset: Dataset, *, max_pixels: int = MAX_PIXELS) -> list[Size]:
    """Of each picture, from the annotations or else from the files' headers."""
    return [
        dataset.annotation(index).size or image_size(path, max_pixels=max_pixels)
        for index, path in enumerate(dataset.paths)
    ]
