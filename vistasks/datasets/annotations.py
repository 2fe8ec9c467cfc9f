"""What a reader promises (`Dataset`), and how it keeps the boxes of all its images (`AnnotationTable`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from vistasks.datasets.packed import SharedArrays
from vistasks.types import ClassNames, Labelled, Sample


@dataclass(frozen=True, eq=False)
class Annotation:
    """The objects of one image, as in `Sample`, without its pixels.

    boxes (N, 4) float32; labels (N,) int64; difficult and crowd (N,) bool; areas (N,) float32 in pixels;
    size (height, width) of the upright image, or None where no file tells it cheaply.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    size: tuple[int, int] | None
    labelled: Labelled


@runtime_checkable
class Dataset(Protocol):
    """A sequence of samples read from files; every format's reader is one.

    Attributes:
        classes: the names behind the ids of both tasks.
        ids: `Sample.image_id` of each index, unique.
        paths: the image file of each index.
        notes: what the reader mended, dropped or left out, counted, for people to read; empty if nothing.
        skipped: what was wrong with pictures that ``on_error: skip`` left out, one line a fault.
    """

    classes: ClassNames
    ids: Sequence[str]
    paths: Sequence[str]
    notes: list[str]
    skipped: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def sample(self, index: int, image: np.ndarray) -> Sample:
        """Image ``index`` with the pixels given, which must be what `read_image` gives of its file; its mask
        is read.
        """
        ...

    def annotation(self, index: int) -> Annotation:
        """The objects of image ``index`` without decoding the image."""
        ...


@dataclass(frozen=True, eq=False)
class ImageObjects:
    """One image's row of an `AnnotationTable`, while a reader builds it."""

    boxes: np.ndarray
    labels: Sequence[int]
    difficult: Sequence[bool]
    crowd: Sequence[bool]
    areas: Sequence[float] | None
    size: tuple[int, int] | None


NO_OBJECTS = ImageObjects(np.zeros((0, 4), np.float32), (), (), (), None, None)


class AnnotationTable:
    """The objects of all images in a few flat arrays, which data workers share."""

    def __init__(self, rows: Sequence[ImageObjects]) -> None:
        areas = [
            _box_areas(row.boxes) if row.areas is None else np.asarray(row.areas, dtype=np.float32)
            for row in rows
        ]
        self._arrays = SharedArrays(
            {
                "starts": np.cumsum([0, *(len(row.labels) for row in rows)]),
                "boxes": np.concatenate([np.zeros((0, 4), np.float32), *(row.boxes for row in rows)]),
                "labels": np.array([label for row in rows for label in row.labels], dtype=np.int64),
                "difficult": np.array([flag for row in rows for flag in row.difficult], dtype=np.bool_),
                "crowd": np.array([flag for row in rows for flag in row.crowd], dtype=np.bool_),
                "areas": np.concatenate([np.zeros(0, np.float32), *areas]),
                "sizes": np.array([row.size or (0, 0) for row in rows], dtype=np.int32).reshape(-1, 2),
            }
        )

    def __len__(self) -> int:
        return len(self._arrays["sizes"])

    def row(self, index: int, labelled: Labelled) -> Annotation:
        """The objects of image ``index``, as copies that the caller may change."""
        starts = self._arrays["starts"]
        part = slice(starts[index], starts[index + 1])
        height, width = (int(side) for side in self._arrays["sizes"][index])
        return Annotation(
            boxes=self._arrays["boxes"][part].copy(),
            labels=self._arrays["labels"][part].copy(),
            difficult=self._arrays["difficult"][part].copy(),
            crowd=self._arrays["crowd"][part].copy(),
            areas=self._arrays["areas"][part].copy(),
            size=(height, width) if height and width else None,
            labelled=labelled,
        )


def _box_areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def check_size(path: str, size: tuple[int, int], found: Annotation) -> None:
    """A ``ValueError`` where the image of ``size`` (height, width) has another size than announced."""
    if found.size is not None and found.size != size:
        raise ValueError(
            f"{path}: the image is {size[1]}x{size[0]} pixels, but its annotation says {found.size[1]}x{found.size[0]}; "
            "the boxes would lie in the wrong places: correct the annotation or the file"
        )


def make_sample(
    image_id: str, path: str, image: np.ndarray, found: Annotation, segmentation: np.ndarray | None
) -> Sample:
    """Puts pixels and objects together; a ``ValueError`` where the image or the mask has another size than
    announced.
    """
    height, width = image.shape[:2]
    check_size(path, (height, width), found)
    if segmentation is not None and segmentation.shape != (height, width):
        raise ValueError(
            f"{path}: the image is {width}x{height} pixels, but its mask is {segmentation.shape[1]}x{segmentation.shape[0]}; "
            "they must have one size (masks are read without EXIF rotation)"
        )
    return Sample(
        image_id=image_id,
        path=path,
        image=image,
        boxes=found.boxes,
        labels=found.labels,
        difficult=found.difficult,
        crowd=found.crowd,
        areas=found.areas,
        segmentation=segmentation,
        labelled=found.labelled,
    )
