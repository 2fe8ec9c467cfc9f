"""Augmentations that take several pictures: Mosaic, MixUp and CopyPaste; boxes, proposals and masks move with
their pixels.

They stand in a config's ``augment`` list before the transforms of one picture. Each is a class with a
probability ``p``, the number of ``others`` that it takes, and a call: sample, other samples, random numbers
-> sample. A mixed picture labels what all its parts label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Protocol

import cv2
import numpy as np
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass

from vistasks.loading.batching import scale_sample
from vistasks.ops.box_arrays import areas, intersections
from vistasks.registry import STRICT, checked_options
from vistasks.types import IGNORE_INDEX, Labelled, Sample

PER_OBJECT = ("boxes", "labels", "difficult", "crowd", "areas")
Chance = Annotated[float, Field(ge=0, le=1)]
VISIBLE = 0.25  # an object of which less is left is still in the picture, but neither learnt nor background: difficult


class Mix(Protocol):
    """What stands in `MIXES`."""

    others: ClassVar[int]

    @property
    def p(self) -> float: ...

    def __call__(self, sample: Sample, others: Sequence[Sample], rng: np.random.Generator) -> Sample: ...


@checked_dataclass(frozen=True, config=STRICT)
class Mosaic:
    """Four pictures meet at a random point of a canvas of the first one's size (Bochkovskiy et al. 2020,
    "YOLOv4").

    Each is scaled by a random factor from ``scale`` to 1, though at least so that it fills its quarter, and
    cut at random."""

    others: ClassVar[int] = 3
    p: Chance = 0.5
    scale: Annotated[float, Field(gt=0, le=1)] = 0.5

    def __call__(self, sample: Sample, others: Sequence[Sample], rng: np.random.Generator) -> Sample:
        height, width = sample.size
        if height < 4 or width < 4:
            return sample
        y, x = (int(side * rng.uniform(0.3, 0.7)) for side in (height, width))
        quarters = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
        pieces = []
        for piece, (left, top, right, bottom) in zip([sample, *others], quarters, strict=True):
            h, w = bottom - top, right - left
            factor = max(rng.uniform(self.scale, 1), h / piece.size[0], w / piece.size[1])
            size = max(h, round(piece.size[0] * factor)), max(w, round(piece.size[1] * factor))
            corner = int(rng.integers(size[1] - w + 1)), int(rng.integers(size[0] - h + 1))
            pieces.append(
                (_cut(scale_sample(piece, size), (*corner, corner[0] + w, corner[1] + h)), (left, top))
            )
        return _pasted(_blank(sample), pieces)


@checked_dataclass(frozen=True, config=STRICT)
class MixUp:
    """Two pictures shine through each other, the first at least by half (Zhang et al. 2018), with the boxes
    of both.

    The second is scaled to the first one's size. A class map stays the first one's.
    """

    others: ClassVar[int] = 1
    p: Chance = 0.15

    def __call__(self, sample: Sample, others: Sequence[Sample], rng: np.random.Generator) -> Sample:
        other = scale_sample(others[0], sample.size)
        share = 0.5 + abs(rng.beta(8, 8) - 0.5)
        image = cv2.addWeighted(sample.image, share, other.image, 1 - share, 0)
        return replace(_with_objects(sample, [sample, other]), image=image)


@checked_dataclass(frozen=True, config=STRICT)
class CopyPaste:
    """Up to ``objects`` boxes of another picture are pasted, pixels and all, where they cover nothing (after
    Ghiasi et al. 2021).

    Rectangles, as there need be no masks. Proposals inside a pasted box, for the most part, come along; those
    of the picture which it covers for the most part go."""

    others: ClassVar[int] = 1
    p: Chance = 0.5
    objects: PositiveInt = 3

    def __call__(self, sample: Sample, others: Sequence[Sample], rng: np.random.Generator) -> Sample:
        other, height, width = others[0], *sample.size
        for index in rng.permutation(np.flatnonzero(~other.crowd & ~other.difficult))[: self.objects]:
            x1, y1 = np.floor(other.boxes[index, :2]).astype(int)
            x2, y2 = np.ceil(other.boxes[index, 2:]).astype(int)
            piece = _cut(other, (int(x1), int(y1), int(x2), int(y2)))
            h, w = piece.size
            for _ in range(10 if h <= height and w <= width else 0):
                left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
                place = np.array([left, top, left + w, top + h], dtype=np.float32)
                if (
                    not (_inside(sample.boxes, place) > 0.1).any()
                    and not (_inside(place[None], sample.boxes) > 0.1).any()
                ):
                    proposals = sample.proposals
                    if proposals is not None:
                        proposals = proposals[_inside(proposals, place) < 0.5]
                    sample = _pasted(replace(sample, proposals=proposals), [(piece, (left, top))])
                    break
        return sample


MIXES: Mapping[str, Callable[..., Mix]] = {"Mosaic": Mosaic, "MixUp": MixUp, "CopyPaste": CopyPaste}


def _options(Mosaic: Mosaic = Mosaic(), MixUp: MixUp = MixUp(), CopyPaste: CopyPaste = CopyPaste()) -> None:  # noqa: B008
    """Each name with its options' type, which an entry is checked by."""


class Mixing:
    """The entries of an ``augment`` list that take several pictures.

    Args:
        transforms: the list, of which those at its beginning are taken.
        where: its config path.
    """

    def __init__(self, transforms: Any, where: str) -> None:
        self.mixes: list[Mix] = []
        for index, entry in enumerate(transforms if isinstance(transforms, list) else []):
            named = {entry: {}} if isinstance(entry, str) else entry
            if not isinstance(named, Mapping) or len(named) != 1 or next(iter(named)) not in MIXES:
                break  # Augment judges the others
            name, arguments = next(iter(named.items()))
            path = f"{where}[{index}]"
            if not isinstance(arguments, Mapping | None):
                raise ValueError(
                    f"{path}.{name}: arguments are expected as {{argument: value}}; received {arguments!r}"
                )
            self.mixes.append(
                checked_options(_options, {name: dict(arguments or {})}, where=path, given={})[name]
            )

    def wanted(self, count: int, *, seed: int) -> list[list[int]]:
        """Which pictures, of ``count``, each entry takes for a picture drawn with this seed; none where it is
        not its turn.
        """
        rng = np.random.default_rng([seed, 1])
        turns = [(rng.random() < mix.p, rng.integers(count, size=mix.others).tolist()) for mix in self.mixes]
        return [indices if turn else [] for turn, indices in turns]

    def __call__(self, sample: Sample, others: Sequence[Sequence[Sample]], *, seed: int) -> Sample:
        """The mixed sample; ``others`` are the pictures that `wanted` names."""
        rng = np.random.default_rng([seed, 2])
        for mix, taken in zip(self.mixes, others, strict=True):
            if taken:
                sample = mix(sample, taken, rng)
        return sample


def _inside(boxes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """(N, 4), (4,) or (M, 4) -> (N,): the greatest share of each box that lies in a region."""
    regions = regions.reshape(-1, 4)
    if not len(regions) or not len(boxes):
        return np.zeros(len(boxes), dtype=np.float32)
    shared = intersections(boxes[:, None], regions[None])
    return (shared.max(axis=1) / np.maximum(areas(boxes), 1e-9)).astype(np.float32)


def _cut(sample: Sample, window: tuple[int, int, int, int]) -> Sample:
    """The part x1, y1, x2, y2 of a picture. Objects of which too little is left become difficult; proposals
    too, but they go.
    """
    x1, y1, x2, y2 = window
    place, shift = np.array(window, dtype=np.float32), np.array([x1, y1, x1, y1], dtype=np.float32)
    limit = np.array([x2 - x1, y2 - y1] * 2, dtype=np.float32)
    left = _inside(sample.boxes, place)
    boxes = np.clip(sample.boxes - shift, 0, limit)
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)
    proposals = sample.proposals
    if proposals is not None:
        moved = np.clip(proposals - shift, 0, limit)
        proposals = moved[
            ((moved[:, 2:] - moved[:, :2]) >= 1).all(axis=1) & (_inside(proposals, place) >= VISIBLE)
        ]
    return replace(
        sample,
        image=np.ascontiguousarray(sample.image[y1:y2, x1:x2]),
        segmentation=None
        if sample.segmentation is None
        else np.ascontiguousarray(sample.segmentation[y1:y2, x1:x2]),
        boxes=boxes[kept],
        labels=sample.labels[kept],
        difficult=(sample.difficult | (left < VISIBLE))[kept],
        crowd=sample.crowd[kept],
        areas=(sample.areas * left)[kept].astype(np.float32),
        proposals=proposals,
    )


def _blank(sample: Sample) -> Sample:
    nothing = np.zeros((0, 4), dtype=np.float32)
    mask = None if sample.segmentation is None else np.full_like(sample.segmentation, IGNORE_INDEX)
    return Sample(
        sample.image_id,
        sample.path,
        np.zeros_like(sample.image),
        segmentation=mask,
        proposals=None if sample.proposals is None else nothing,
        labelled=sample.labelled,
    )


def _pasted(canvas: Sample, pieces: Sequence[tuple[Sample, tuple[int, int]]]) -> Sample:
    """The canvas with each piece at its place (left, top)."""
    image = canvas.image.copy()
    mask = None if canvas.segmentation is None else canvas.segmentation.copy()
    moved = [canvas]
    for piece, (left, top) in pieces:
        h, w = piece.size
        image[top : top + h, left : left + w] = piece.image
        if mask is not None:
            mask[top : top + h, left : left + w] = (
                IGNORE_INDEX if piece.segmentation is None else piece.segmentation
            )
        shift = np.array([left, top, left, top], dtype=np.float32)
        proposals = None if piece.proposals is None else piece.proposals + shift
        # as parts of the canvas, so that they are checked against its size
        moved.append(
            replace(
                piece, image=canvas.image, segmentation=None, boxes=piece.boxes + shift, proposals=proposals
            )
        )
    return replace(_with_objects(canvas, moved), image=image, segmentation=mask)


def _with_objects(first: Sample, parts: Sequence[Sample]) -> Sample:
    """``first`` with the objects and proposals of all parts, labelled for what all of them label."""
    proposals = [part.proposals for part in parts if part.proposals is not None]
    objects: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in PER_OBJECT
    }
    return replace(
        first,
        **objects,
        proposals=np.concatenate(proposals) if proposals else None,
        labelled=Labelled.common([part.labelled for part in parts]),
    )
