"""The places of a picture that are judged: its labels, and where the model sees something that is not
labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from vistasks.heads.region_classifier import RegionClassifier
from vistasks.heads.segmentation import SegmentationHead
from vistasks.types import ClassNames

LABELLED, DETECTED, MAPPED = 0, 1, 2  # who names a place: the annotation, the detector, the class map


@dataclass(frozen=True)
class Vocabulary:
    """Class names of both kinds of places.

    Attributes:
        boxes: the detector's classes; empty without one.
        areas: the classes that only the class map judges: those that are no class of boxes, without the
            background.
        columns: for each class of boxes its index in the class map, -1 where it has none.
        of_areas: for each class of areas likewise.
        background: index of "background" in the class map, -1 where there is none.
    """

    boxes: tuple[str, ...]
    areas: tuple[str, ...]
    columns: tuple[int, ...]
    of_areas: tuple[int, ...]
    background: int


def vocabulary(classes: ClassNames, tasks: Sequence[str]) -> Vocabulary:
    """What a model with these heads can judge."""
    boxes = classes.detection if RegionClassifier.task in tasks else ()
    mapped = classes.segmentation if SegmentationHead.task in tasks else ()
    areas = tuple(name for name in mapped if name not in boxes and name != "background")
    return Vocabulary(
        boxes=boxes,
        areas=areas,
        columns=tuple(mapped.index(name) if name in mapped else -1 for name in boxes),
        of_areas=tuple(mapped.index(name) for name in areas),
        background=mapped.index("background") if "background" in mapped else -1,
    )


@dataclass(frozen=True, eq=False)
class Places:
    """N places of one picture, over K classes; column K of ``scores`` stands for "none of them".

    Attributes:
        boxes: (N, 4) float32 in pixels of the original picture; of an area the box around it.
        source: (N,) int64, `LABELLED`, `DETECTED` or `MAPPED`.
        given: (N,) int64, the class that is labelled here; K where none is.
        claimed: (N,) int64, the class that the source names.
        scores: (N, K + 1) float32, what the region classifier says of the box; of an area the class map's
            mean probabilities.
        seen: (N, K) float32, mean probability of each class in the box by the class map; NaN where it has no
            such class.
        marked: (N, K) float32, share of the box that the labelled mask gives each class; NaN where there is
            none.
        placed: (N,) float32, of a label the IoU with the nearest place where the model would put it; NaN
            otherwise.
        moved: (N, 4) float32, of a label the model's box for it; otherwise the box itself.
        judged: (N,) bool: a label that is neither difficult nor a crowd, or a place where a label could be
            missing.
    """

    boxes: np.ndarray
    source: np.ndarray
    given: np.ndarray
    claimed: np.ndarray
    scores: np.ndarray
    seen: np.ndarray
    marked: np.ndarray
    placed: np.ndarray
    moved: np.ndarray
    judged: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def classes(self) -> int:
        """K."""
        return self.scores.shape[1] - 1


@dataclass(frozen=True, eq=False)
class PictureEvidence:
    """What the model says about one picture.

    Attributes:
        index: of the picture in its data set.
        path: of its file.
        size: (height, width) in pixels.
        boxes: places judged by the detector; None without one.
        areas: places judged by the class map alone; None without one, or where the picture has no mask.
        background: sum and number of the detector's probabilities of "none" at proposals far from every
            object.
        labelled: whether anything is labelled there that the model could judge.
        unsure: how many objects the model is unsure about: the sum of 4 p (1 - p) over what it finds, p its
            score.
    """

    index: int
    path: str
    size: tuple[int, int]
    boxes: Places | None
    areas: Places | None
    background: tuple[float, int]
    labelled: bool
    unsure: float


def joined(parts: list[Places]) -> Places:
    """The places of several pictures one after the other; at least one part."""
    return Places(
        **{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Places)}
    )
