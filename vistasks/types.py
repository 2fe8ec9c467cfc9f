"""What flows through vistasks, and every convention about it, stated once.

Boxes
    float32, (N, 4), ``x1, y1, x2, y2`` in absolute pixels of the image they belong to, ``x2 > x1`` and ``y2 >
    y1``, width = ``x2 - x1`` (no +1). A pixel (column i, row j) covers ``[i, i + 1) x [j, j + 1)``. Readers
    convert on the way in (VOC's 1-based inclusive corners, COCO's xywh), writers on the way out.
Class ids
    ``0 .. K-1`` in the order of the class names. Names are the keys between datasets; a file's own ids never
    leave its reader. The detector's background is the head's business (logit K), never a dataset's. A
    segmentation class called "background" is a class like any other.
Segmentation
    (H, W) uint8 class ids, 255 = ignore.
Images
    uint8 RGB (H, W, 3) until batching; float in the trunk.
Labelled
    What is not labelled never enters a loss; an image without any object is a first-class negative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

IGNORE_INDEX = 255
_OWN_TASKS = ("detection", "segmentation")  # whose labels `Sample` and `Batch` have fields for


@dataclass(frozen=True)
class ClassNames:
    """The names behind the class ids of each task; an empty tuple means that the task is absent.

    ``others``: (task, names) of further tasks.
    """

    detection: tuple[str, ...] = ()
    segmentation: tuple[str, ...] = ()
    others: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @classmethod
    def of_tasks(cls, names: Mapping[str, Sequence[str]]) -> ClassNames:
        """From task -> names."""
        own = {task: tuple(names.get(task, ())) for task in _OWN_TASKS}
        others = sorted((task, tuple(found)) for task, found in names.items() if task not in own)
        return cls(**own, others=tuple(others))

    def of(self, task: str) -> tuple[str, ...]:
        """A task's names."""
        names: tuple[str, ...] = (
            getattr(self, task) if task in _OWN_TASKS else dict(self.others).get(task, ())
        )
        return names

    def by_task(self) -> dict[str, tuple[str, ...]]:
        """Task -> names."""
        return {**{task: self.of(task) for task in _OWN_TASKS}, **dict(self.others)}


@dataclass(frozen=True)
class Labelled:
    """Class ids that one image's annotations cover exhaustively, per task; empty = the task is not labelled
    at all. ``others``: (task, ids) of further tasks.
    """

    detection: frozenset[int] = frozenset()
    segmentation: frozenset[int] = frozenset()
    others: tuple[tuple[str, frozenset[int]], ...] = ()

    @classmethod
    def of_tasks(cls, ids: Mapping[str, frozenset[int]]) -> Labelled:
        """From task -> class ids."""
        own = {task: ids.get(task, frozenset()) for task in _OWN_TASKS}
        others = sorted(
            ((task, found) for task, found in ids.items() if task not in own), key=lambda one: one[0]
        )
        return cls(**own, others=tuple(others))

    def of(self, task: str) -> frozenset[int]:
        """A task's ids."""
        ids: frozenset[int] = (
            getattr(self, task) if task in _OWN_TASKS else dict(self.others).get(task, frozenset())
        )
        return ids

    @classmethod
    def common(cls, parts: Sequence[Labelled]) -> Labelled:
        """What all of them cover."""
        tasks = {task for part in parts for task in part.by_task()}
        return cls.of_tasks(
            {task: frozenset.intersection(*(part.of(task) for part in parts)) for task in tasks}
        )

    def by_task(self) -> dict[str, frozenset[int]]:
        """Task -> ids."""
        return {**{task: self.of(task) for task in _OWN_TASKS}, **dict(self.others)}


def _empty(*shape: int, dtype: type) -> np.ndarray:
    return np.zeros(shape, dtype=dtype)


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and what is known about it.

    Checked when built (and so again after augmentation); a ``ValueError`` names ``path`` and the object.

    Attributes:
        image_id: unique within its dataset (for example the file's stem).
        path: the image file, for messages.
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) float32, see the module's conventions.
        labels: (N,) int64 class ids.
        difficult: (N,) bool; VOC's "difficult": not trained on, ignored by the VOC metric.
        crowd: (N,) bool; COCO's ``iscrowd``: not trained on, ignored by the COCO metric.
        areas: (N,) float32 object areas in pixels (COCO's size ranges use them); default: the boxes' areas.
        segmentation: (H, W) uint8 class ids with 255 = ignore, or None.
        proposals: (P, 4) float32 class-free boxes, best first, or None.
        labelled: what the annotations cover.
        targets: task -> labels of further tasks, as their `vistasks.task.Task` reads them.
    """

    image_id: str
    path: str
    image: np.ndarray
    boxes: np.ndarray = field(default_factory=lambda: _empty(0, 4, dtype=np.float32))
    labels: np.ndarray = field(default_factory=lambda: _empty(0, dtype=np.int64))
    difficult: np.ndarray = None  # type: ignore[assignment] # these three are filled in below
    crowd: np.ndarray = None  # type: ignore[assignment]
    areas: np.ndarray = None  # type: ignore[assignment]
    segmentation: np.ndarray | None = None
    proposals: np.ndarray | None = None
    labelled: Labelled = Labelled()
    targets: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _expect(self.path, "boxes", self.boxes, np.float32, (None, 4))
        count = len(self.boxes)
        if self.difficult is None:
            object.__setattr__(self, "difficult", _empty(count, dtype=np.bool_))
        if self.crowd is None:
            object.__setattr__(self, "crowd", _empty(count, dtype=np.bool_))
        _expect(self.path, "image", self.image, np.uint8, (None, None, 3))
        height, width = self.image.shape[:2]
        if height < 1 or width < 1:
            raise ValueError(f"{self.path}: the image is empty ({width}x{height})")
        _check_boxes(self.path, "boxes", self.boxes, width, height)
        if self.areas is None:
            sides = self.boxes[:, 2:] - self.boxes[:, :2]
            object.__setattr__(self, "areas", sides[:, 0] * sides[:, 1])
        _expect(self.path, "labels", self.labels, np.int64, (count,))
        _expect(self.path, "difficult", self.difficult, np.bool_, (count,))
        _expect(self.path, "crowd", self.crowd, np.bool_, (count,))
        _expect(self.path, "areas", self.areas, np.float32, (count,))
        if count and self.labels.min() < 0:
            raise ValueError(
                f"{self.path}: labels must be >= 0, but object {int(self.labels.argmin())} has {self.labels.min()}"
            )
        if not (self.areas >= 0).all():  # NaN compares false
            first = int(np.flatnonzero(~(self.areas >= 0))[0])
            raise ValueError(f"{self.path}: areas[{first}] = {self.areas[first]}; expected 0 or more")
        if self.segmentation is not None:
            _expect(self.path, "segmentation", self.segmentation, np.uint8, (height, width))
        if self.proposals is not None:
            _check_boxes(self.path, "proposals", self.proposals, width, height)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[0], self.image.shape[1]


def _expect(path: str, name: str, value: object, dtype: type, shape: tuple[int | None, ...]) -> None:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{path}: {name} must be a NumPy array, not {type(value).__name__}")
    fits = value.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, value.shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(
            f"{path}: {name} must be ({wanted}) {np.dtype(dtype)}, not {value.shape} {value.dtype}"
        )


def _check_boxes(path: str, name: str, boxes: np.ndarray, width: int, height: int) -> None:
    _expect(path, name, boxes, np.float32, (None, 4))
    x1, y1, x2, y2 = boxes.T
    # written so that NaN, which compares false with everything, is bad too
    good = (x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height) & (x2 > x1) & (y2 > y1)
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        raise ValueError(
            f"{path}: {name}[{first}] = {boxes[first].tolist()} is not a box inside the {width}x{height} image; "
            "expected 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height"
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples padded to one size, as tensors, with what undoes the scaling and the padding.

    N images; H, W the padded size, divisible by the trunk's largest stride. Boxes are in pixels of the scaled
    images.

    Attributes:
        images: (N, 3, H, W) uint8 RGB; padding is 0. The model converts and normalises.
        sizes: per image (height, width) of the valid part, top left.
        original_sizes: per image (height, width) of the file.
        boxes, labels: per image (M, 4) float32 and (M,) int64; neither crowd nor difficult objects.
        ignored: per image (M, 4) float32; crowd and difficult objects: neither positive nor negative
            examples.
        proposals: per image (P, 4) float32 (P may be 0).
        segmentation: (N, H, W) int64, 255 where padded or not labelled; None without a segmentation task.
        detection_labelled: (N, K) bool: the classes whose boxes are all there.
        segmentation_labelled: (N, S) bool: the classes whose pixels are all marked.
        image_ids, paths: per image, for results and messages.
        targets: task -> name -> (N, ...) tensor, of further tasks.
    """

    images: Tensor
    sizes: tuple[tuple[int, int], ...]
    original_sizes: tuple[tuple[int, int], ...]
    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    ignored: tuple[Tensor, ...]
    proposals: tuple[Tensor, ...]
    segmentation: Tensor | None
    detection_labelled: Tensor
    segmentation_labelled: Tensor
    image_ids: tuple[str, ...]
    paths: tuple[str, ...]
    targets: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sizes)

    def rows(self, indices: Sequence[int]) -> Batch:
        """The batch of some of its images."""
        chosen: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, tuple):
                chosen[entry.name] = tuple(value[index] for index in indices)
            elif isinstance(value, Mapping):
                chosen[entry.name] = {
                    task: {name: tensor[list(indices)] for name, tensor in tensors.items()}
                    for task, tensors in value.items()
                }
            elif value is not None:
                chosen[entry.name] = value[list(indices)]
        return replace(self, **chosen)


@dataclass(frozen=True, eq=False)
class Pooling:
    """What one 2x2 max pooling leaves behind for SegNet's unpooling (Badrinarayanan et al. 2017, section 3).

    ``indices`` (N, C, H/2, W/2) int64 as ``max_pool2d(return_indices=True)`` gives them; ``size`` the (H, W)
    before."""

    indices: Tensor
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Features:
    """The trunk's (or neck's) feature maps of a batch.

    ``maps[s]`` is (N, C_s, H/s, W/s) float, the last map at stride s; cell (i, j) covers the pixels ``[j*s,
    (j+1)*s) x [i*s, (i+1)*s)``. ``pooling[s]`` belongs to the pooling that made stride s, where it is
    published. The model adds ``images`` (N, 3, H, W), the normalised input, for heads that take crops of it.
    """

    maps: Mapping[int, Tensor]
    pooling: Mapping[int, Pooling] = field(default_factory=dict)
    images: Tensor | None = None

    def rows(self, indices: Sequence[int]) -> Features:
        """The features of some of the images."""
        chosen = list(indices)
        return Features(
            maps={stride: found[chosen] for stride, found in self.maps.items()},
            pooling={
                stride: Pooling(left.indices[chosen], left.size) for stride, left in self.pooling.items()
            },
            images=None if self.images is None else self.images[chosen],
        )


# A trunk with its neck, as a function: normalised images (N, 3, H, W) -> Features
Encoder = Callable[["Tensor"], Features]


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes found in one image, best first.

    boxes (N, 4) float32 in pixels of the original image, scores (N,) float32 in [0, 1], labels (N,) int64;
    ids (N,) int64 where objects were followed through a video, -1 for one without an identity yet."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    ids: np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        """The class name of each box."""
        return [self.class_names[label] for label in self.labels]

    def rows(self, chosen: np.ndarray) -> Detections:
        """Some of them: ``chosen`` are indices, or a (N,) bool mask."""
        ids = None if self.ids is None else self.ids[chosen]
        return Detections(self.boxes[chosen], self.scores[chosen], self.labels[chosen], self.class_names, ids)

    def __len__(self) -> int:
        return len(self.boxes)

    def __str__(self) -> str:
        lines = [
            f"{name} {score:.3f} [{', '.join(f'{corner:.1f}' for corner in box)}]"
            for name, score, box in zip(self.names, self.scores, self.boxes)
        ]
        return "\n".join(lines) or "no detections"


@dataclass(frozen=True, eq=False)
class SegmentationMap:
    """The class of each pixel of one image: labels (H, W) uint8 class ids; ``names[id]`` is the class's
    name.
    """

    labels: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says about one image; None for a task that it does not have.

    ``others``: task -> answer of further tasks.
    """

    detections: Detections | None = None
    segmentation: SegmentationMap | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
