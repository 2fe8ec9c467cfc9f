"""Sample -> Sample, through albumentations: image, boxes, proposals and mask move together. Nothing else
imports it.

What happens to the annotations:

- A box is moved by its corners: the box of a rotated box is the upright rectangle around it, so it grows.
- After each transform boxes are clipped to the image; what is narrower or lower than 1 px goes. An object of which less
  than ``min_visibility`` of its box is left, over the whole pipeline, goes as well; a proposal stays.
- ``areas`` change by the ratio of the box areas.
- The mask is sampled by nearest neighbour; where a transform looks outside the image it is 255 (ignore) and the image 0,
  unless ``fill_mask`` or ``fill`` say otherwise. Transforms that erase parts of the image (CoarseDropout)
  leave it alone, but shrink an object's box to what is left of it.
- ``labelled``, ``image_id`` and ``path`` stay.

A thousand proposals cost about a millisecond for flips, crops and affine transforms, 30 ms for elastic and
optical distortions, and seconds for RandomGridShuffle. GridElasticDeform moves at most 512 boxes."""

from __future__ import annotations

import functools
import inspect
import os
import random
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from pydantic import ValidationError

from vistasks.loading.mixing import MIXES, Mixing
from vistasks.registry import nearest
from vistasks.types import IGNORE_INDEX, Sample

os.environ.setdefault(
    "NO_ALBUMENTATIONS_UPDATE", "1"
)  # it looks for a newer version on the network otherwise
import albumentations as A
from albumentations.augmentations.dropout.transforms import BaseDropout
from albumentations.augmentations.geometric.distortion import BaseDistortion
from albumentations.core.bbox_utils import BboxParams, BboxProcessor
from albumentations.core.composition import BaseCompose
from albumentations.core.type_definitions import Targets

MIN_SIDE = 1.0  # pixels
_ERASING = (
    BaseDropout,
    A.MaskDropout,
    A.PixelDropout,
)  # they shrink objects' boxes to what is left; a proposal stays
_ID, _VISIBLE = 4, 5  # columns of the arrays that go through albumentations, after the four corners
_NEAREST = (0, 6)  # cv2.INTER_NEAREST and INTER_NEAREST_EXACT
_ABSTRACT = {
    "BasicTransform",
    "DualTransform",
    "ImageOnlyTransform",
    "Transform3D",
    "BaseCompose",
    "Compose",
    "ReplayCompose",
}
_UNUSABLE = {
    "Lambda",
    "Morphological",
}  # takes functions, which a config cannot hold; fails on boxes with OpenCV 5
_NOT_UINT8 = {"Normalize", "ToFloat", "FromFloat", "ToTensorV2", "ToTensor3D"}
_AT_HAND = {"image", "mask", "bboxes"}  # what a transform may ask for


class Augment:
    """A pipeline of albumentations transforms, as a config writes it.

    >>> augment = Augment([{"HorizontalFlip": {"p": 0.5}}, {"OneOf": [{"GaussNoise": {"p": 1}}, "CLAHE"]}])
    >>> augment(sample, seed=7)  # doctest: +SKIP

    Args:
        transforms: each entry is ``{name: {argument: value}}``, or a bare name. OneOf, SomeOf, RandomOrder,
            Sequential and OneOrOther take a list, or ``{transforms: list, argument: value}``. Mosaic, MixUp
            and CopyPaste, which take further pictures, come first; they are ours (`vistasks.loading.mixing`).
        where: the config path that error messages start with.
        min_visibility: the part of an object's box, 0 to 1, that must be left for the object to be kept.

    Raises:
        ValueError: unknown transform or argument, a value out of range, a transform that needs more than one
            image or that does not move boxes; with the full path and, for a misspelling, the nearest name.
    """

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any] | str],
        *,
        where: str = "augment.train",
        min_visibility: float = 0.1,
    ) -> None:
        if not 0 <= min_visibility <= 1:
            raise ValueError(f"min_visibility must be 0 to 1, not {min_visibility}")
        self.mixing = Mixing(transforms, where)
        self.where = where
        self.min_visibility = min_visibility
        boxes = _BoxProcessor(BboxParams(format="albumentations", min_visibility=min_visibility))
        boxes.add_targets({"proposals": "bboxes"})
        self._boxes = boxes
        self._steps = _built_list(transforms, where, boxes, first=len(self.mixing.mixes))

    def __len__(self) -> int:
        return len(self.mixing.mixes) + len(self._steps)

    def __call__(self, sample: Sample, *, seed: int) -> Sample:
        """The augmented sample; the same for the same sample and seed (>= 0), whatever came before and in any
        process.

        Raises:
            ValueError: a transform failed or gave something that is no sample (not uint8 RGB, for example);
                the message names the image file and the transform.
        """
        if not self._steps:
            return sample
        data = _to_albumentations(sample)
        # one generator for all steps: albumentations' own set_random_seed gives every transform the same
        # numbers
        generator, py_random = np.random.default_rng(seed), random.Random(seed)
        for index, step in enumerate(self._steps, start=len(self.mixing.mixes)):
            step.set_random_state(generator, py_random)
            try:
                data = step(**data)
                _check_image(data["image"])
            except Exception as error:
                raise ValueError(
                    f"{sample.path}: {self.where}[{index}] ({type(step).__name__}) failed: {error}"
                ) from error
            size = {"height": data["image"].shape[0], "width": data["image"].shape[1]}
            for name in data.keys() & {"bboxes", "proposals"}:
                data[name] = self._boxes.filter(data[name], size)
        try:
            return self._to_sample(sample, data)
        except ValueError as error:
            raise ValueError(f"{error} (after the transforms of {self.where})") from error

    def _to_sample(self, sample: Sample, data: dict[str, Any]) -> Sample:
        height, width = data["image"].shape[:2]
        objects = data["bboxes"]
        boxes, ids = _to_pixels(objects[objects[:, _VISIBLE] >= self.min_visibility], width, height)
        assert (
            sample.difficult is not None and sample.crowd is not None and sample.areas is not None
        )  # set by Sample
        proposals = sample.proposals
        if proposals is not None:
            proposals = _to_pixels(data["proposals"], width, height)[0]
        return Sample(
            image_id=sample.image_id,
            path=sample.path,
            image=np.ascontiguousarray(data["image"]),
            boxes=boxes,
            labels=sample.labels[ids],
            difficult=sample.difficult[ids],
            crowd=sample.crowd[ids],
            areas=(sample.areas[ids] * (_area(boxes) / _area(sample.boxes[ids]))).astype(np.float32),
            segmentation=None if sample.segmentation is None else np.ascontiguousarray(data["mask"]),
            proposals=proposals,
            labelled=sample.labelled,
        )


class _BoxProcessor(BboxProcessor):
    """Clips boxes after each transform and keeps account of how much of each is left, over the whole
    pipeline.

    albumentations' own filter looks at one transform at a time: ten crops of 20 % each would go unnoticed.
    Arrays are (N, 6) float64: corners as fractions of the image, the row's number, the visible fraction.
    """

    def filter(self, data: np.ndarray, shape: Any) -> np.ndarray:
        """Rows that are still at least 1 px wide and high, clipped; ``shape`` is ``{"height": px, "width":
        px}``.
        """
        if len(data) == 0:
            return np.zeros((0, 6))
        clipped = data.astype(np.float64)
        np.clip(clipped[:, :4], 0, 1, out=clipped[:, :4])
        clipped[:, _VISIBLE] *= _area(clipped) / np.maximum(_area(data.astype(np.float64)), 1e-12)
        sides = (clipped[:, 2:4] - clipped[:, :2]) * (shape["width"], shape["height"])
        return clipped[(sides >= MIN_SIDE - 1e-3).all(axis=1)]


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _to_albumentations(sample: Sample) -> dict[str, Any]:
    height, width = sample.size
    data = {"image": sample.image, "bboxes": _to_fractions(sample.boxes, width, height)}
    if sample.segmentation is not None:
        data["mask"] = sample.segmentation
    if sample.proposals is not None:
        data["proposals"] = _to_fractions(sample.proposals, width, height)
    return data


def _to_fractions(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    count = len(boxes)
    return np.column_stack(
        [boxes.astype(np.float64) / (width, height, width, height), np.arange(count), np.ones(count)]
    )


def _to_pixels(rows: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) float32 in pixels and their row numbers before (N,) int64, in the order of before."""
    rows = rows[np.argsort(rows[:, _ID], kind="stable")]
    return (rows[:, :4] * (width, height, width, height)).astype(np.float32), rows[:, _ID].astype(np.int64)


def _check_image(image: object) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"it gave {found} where (height, width, 3) uint8 is expected")


@functools.cache
def _known() -> dict[str, Any]:
    """The transforms that a config may name."""
    classes = {name: value for name, value in vars(A).items() if inspect.isclass(value)}
    kinds, left_out = (A.BasicTransform, BaseCompose), _ABSTRACT | _UNUSABLE | _NOT_UINT8
    return {
        name: value for name, value in classes.items() if issubclass(value, kinds) and name not in left_out
    }


def _built_list(entries: Any, where: str, boxes: _BoxProcessor, first: int = 0) -> list[Any]:
    if isinstance(entries, (str, Mapping)) or not isinstance(entries, Sequence):
        raise ValueError(
            f"{where} must be a list of transforms, such as [{{HorizontalFlip: {{p: 0.5}}}}]; received {entries!r}"
        )
    return [
        _built(entry, f"{where}[{index}]", boxes) for index, entry in enumerate(entries) if index >= first
    ]


def _built(entry: Any, where: str, boxes: _BoxProcessor) -> Any:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ValueError(
            f"{where}: one transform as {{Name: {{argument: value}}}} is expected per entry; received {entry!r}"
        )
    name, arguments = next(iter(entry.items()))
    where = f"{where}.{name}"
    if name in MIXES:
        raise ValueError(
            f"{where}: combines several images, so it must come before the other transforms and not inside OneOf"
        )
    if name in _NOT_UINT8:
        raise ValueError(
            f"{where}: images stay uint8 RGB here; the model converts and normalises them itself. Remove it"
        )
    if name not in _known():
        hint = nearest(str(name), list(_known()))
        raise ValueError(
            f"{where}: unknown transform.{hint} Expected the name of an albumentations 2.0.8 transform"
        )
    kind = _known()[name]
    if issubclass(kind, A.DualTransform) and not {Targets.IMAGE, Targets.BBOXES} <= set(kind._targets):
        raise ValueError(f"{where}: does not transform boxes, so it cannot be used here")
    if issubclass(kind, BaseCompose):
        return _built_composition(kind, arguments, where, boxes)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{where}: arguments are expected as {{argument: value}}; received {arguments!r}")
    return _built_transform(kind, dict(arguments), where, boxes)


def _built_composition(kind: Any, arguments: Any, where: str, boxes: _BoxProcessor) -> Any:
    if not isinstance(arguments, Mapping):
        arguments = {"transforms": arguments}
    arguments = dict(arguments)
    entries = arguments.pop("transforms", None)
    if not entries:
        raise ValueError(f"{where}: a list of transforms is expected; received {entries!r}")
    _check_names(kind, {"transforms": None, **arguments}, where)
    chance = arguments.get("p", 1)
    if not isinstance(chance, (int, float)) or not 0 <= chance <= 1:
        raise ValueError(f"{where}.p must be 0 to 1; received {chance!r}")
    transforms = _built_list(entries, where, boxes)
    composition = _called(kind, {"transforms": transforms, **arguments}, where)
    composition.check_each_transform = (boxes,)
    composition.processors = {"bboxes": boxes}
    return composition


def _built_transform(kind: Any, arguments: dict[str, Any], where: str, boxes: _BoxProcessor) -> Any:
    signature = inspect.signature(kind).parameters
    _check_names(kind, arguments, where)
    if arguments.get("mask_interpolation", 0) not in _NEAREST:
        received = arguments["mask_interpolation"]
        raise ValueError(
            f"{where}.mask_interpolation: {received!r} would mix class ids; expected nearest neighbour (0 or 6)"
        )
    # None, the default of transforms that erase, leaves the mask as it is
    if "fill_mask" in signature and signature["fill_mask"].default is not None:
        arguments.setdefault("fill_mask", IGNORE_INDEX)
    owner = next(base for base in kind.__mro__ if "__init__" in vars(base))
    if "InitSchema" in vars(
        owner
    ):  # then albumentations checks the values, but only warns unless told to be strict
        arguments["strict"] = True
    transform = _called(kind, arguments, where)
    needs = set(transform.targets_as_params) - _AT_HAND
    if needs:
        raise ValueError(
            f"{where}: needs {', '.join(sorted(needs))}, which a sample of a single image does not have"
        )
    if not issubclass(kind, _ERASING):
        transform.add_targets({"proposals": "bboxes"})
    transform.set_processors({"bboxes": boxes})
    if isinstance(transform, BaseDistortion):  # its own way takes 20 ms a box: 20 s for a thousand proposals
        transform._key2func.update(bboxes=_distorted, proposals=_distorted)
    return transform


def _distorted(rows: np.ndarray, *, map_x: Any = None, map_y: Any = None, **_: Any) -> np.ndarray:
    """Boxes under a distortion that is given backwards: the output pixel (x, y) shows the input at (map_x,
    map_y)[y, x].

    Points on the outline of each box are sent forward by fixed-point iteration, which converges where nothing
    is folded."""
    if map_x is None or map_y is None or len(rows) == 0:
        return rows
    height, width = map_x.shape
    steps = np.linspace(0, 1, 9)
    ends = np.ones_like(steps)
    x = np.concatenate([steps, steps, 0 * ends, ends])  # the four sides
    y = np.concatenate([0 * ends, ends, steps, steps])
    boxes = rows[:, :4] * (width, height, width, height) - 0.5  # in pixel indices, as the maps count
    sides = boxes[:, 2:] - boxes[:, :2]
    target = boxes[:, None, :2] + sides[:, None] * np.stack([x, y], axis=1)  # (N, 36, 2)
    columns, lines = np.meshgrid(np.arange(width), np.arange(height))
    shift = np.dstack([map_x - columns, map_y - lines]).astype(np.float32)
    found = target
    for _iteration in range(6):
        at: Any = found.astype(np.float32)
        found = target - cv2.remap(shift, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    corners = np.concatenate([found.min(axis=1), found.max(axis=1)], axis=1) + 0.5
    return np.column_stack([corners / (width, height, width, height), rows[:, 4:]])


def _check_names(kind: type, arguments: Mapping[str, Any], where: str) -> None:
    known = [name for name in inspect.signature(kind).parameters if name != "strict"]
    unknown = [name for name in arguments if name not in known]
    if unknown:
        lines = [
            f"{where}.{name}: unknown argument.{nearest(str(name), known)} Known: {', '.join(known)}"
            for name in unknown
        ]
        raise ValueError("\n".join(lines))


def _called(kind: type, arguments: dict[str, Any], where: str) -> Any:
    """The transform, with albumentations' own complaints in our form."""
    try:
        return kind(**arguments)
    except (ValueError, TypeError) as error:
        if not isinstance(error.__cause__, ValidationError):
            raise ValueError(f"{where}: {error}") from error
        problems = []
        for detail in error.__cause__.errors():
            path = ".".join([where, *(str(part) for part in detail["loc"])])
            received = "" if detail["type"] == "missing" else f"; received {detail['input']!r}"
            problems.append(f"{path}: {detail['msg']}{received}")
        raise ValueError("\n".join(problems)) from error
