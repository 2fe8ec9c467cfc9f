"""Samples -> Batch: scaled to the network's input size, padded to a common one, with what undoes both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vistasks.config import InputConfig
from vistasks.system.limits import MAX_ENLARGED
from vistasks.task import all_tasks
from vistasks.types import Batch, ClassNames, Sample


def input_size(size: tuple[int, int], *, min_side: int | None, max_side: int | None) -> tuple[int, int]:
    """(height, width) that the network sees of a picture of ``size``: the aspect ratio kept up to rounding,
    at least 1x1.
    """
    height, width = size
    factor = min_side / min(height, width) if min_side else 1.0
    if max_side:
        factor = min(factor, max_side / max(height, width))
    return scaled_size(size, factor)


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """(height, width) times a factor, rounded: at least 1x1."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def scale_sample(sample: Sample, size: tuple[int, int], *, image: np.ndarray | None = None) -> Sample:
    """The sample at another (height, width); boxes, proposals and areas scale along, masks by nearest
    neighbour.

    ``image`` is the picture at that size where it is at hand already.
    """
    if sample.size == size:
        return sample
    height, width = size
    fy, fx = height / sample.size[0], width / sample.size[1]
    shrinks = fx * fy < 1
    if image is None:
        image = cv2.resize(
            sample.image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
    mask = sample.segmentation
    if mask is not None:
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    boxes, kept = _scaled(sample.boxes, fx, fy, size)
    proposals = None if sample.proposals is None else _scaled(sample.proposals, fx, fy, size)[0]
    return replace(
        sample,
        image=image,
        segmentation=mask,
        boxes=boxes,
        proposals=proposals,
        labels=sample.labels[kept],
        difficult=sample.difficult[kept],
        crowd=sample.crowd[kept],
        areas=(sample.areas[kept] * (fx * fy)).astype(np.float32),
    )


def network_sample(sample: Sample, size: InputConfig, factor: float = 1.0) -> Sample:
    """The sample at the network's input size, times ``factor``."""
    height_width = input_size(sample.size, min_side=size.min_side, max_side=size.max_side)
    height, width = scaled_size(height_width, factor)
    if height * width > max(MAX_ENLARGED, 2 * sample.size[0] * sample.size[1]):
        raise ValueError(
            f"{sample.path}: input.min_side={size.min_side}, input.max_side={size.max_side} and the factor {factor:g} "
            f"would enlarge it from {sample.size[1]}x{sample.size[0]} to {width}x{height} pixels, more than "
            f"{MAX_ENLARGED:,}; set input.max_side to a smaller value"
        )
    return scale_sample(sample, (height, width))


@dataclass(frozen=True)
class Preparation:
    """Samples as their files have them -> the batch that a model predicts from.

    Args:
        classes: the class names of the tasks whose targets the batch has.
        input: the network's input size.
        divisor: the sides of a batch divide by it.
    """

    classes: ClassNames
    input: InputConfig
    divisor: int

    def __call__(self, samples: Sequence[Sample], sizes: object = None) -> Batch:
        """The batch; ``sizes`` are the samples' own, and there for `collate`'s sake."""
        factor = self.input.predict_scale or 1.0
        scaled = [network_sample(sample, self.input, factor) for sample in samples]
        return collate(scaled, [s.size for s in samples], classes=self.classes, divisor=self.divisor)


def image_samples(
    images: Sequence[np.ndarray], proposals: Sequence[np.ndarray] | None = None
) -> list[Sample]:
    """Images (H, W, 3) uint8 RGB and their proposals as samples without labels."""
    boxes = [None] * len(images) if proposals is None else proposals
    return [
        Sample(image_id=str(number), path=f"image {number}", image=image, proposals=found)
        for number, (image, found) in enumerate(zip(images, boxes, strict=True))
    ]


def _scaled(boxes: np.ndarray, fx: float, fy: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes times the factors, and which were kept: float32 rounding can make a sliver empty."""
    height, width = size
    scaled = boxes * np.array([fx, fy, fx, fy], dtype=np.float32)
    scaled = np.clip(scaled, 0, np.array([width, height, width, height], dtype=np.float32))
    kept = (scaled[:, 2] > scaled[:, 0]) & (scaled[:, 3] > scaled[:, 1])
    return scaled[kept], kept


def collate(
    samples: Sequence[Sample], original_sizes: Sequence[tuple[int, int]], *, classes: ClassNames, divisor: int
) -> Batch:
    """Pads (bottom and right, with 0 and 255) to the largest of the samples, rounded up to the trunk's
    ``divisor``.

    A ``ValueError`` names the picture of a class id that ``classes`` does not have, which on a GPU would end
    without a name."""
    height = math.ceil(max(sample.size[0] for sample in samples) / divisor) * divisor
    width = math.ceil(max(sample.size[1] for sample in samples) / divisor) * divisor
    images = torch.zeros(len(samples), 3, height, width, dtype=torch.uint8)
    tasks = list(all_tasks())
    for index, sample in enumerate(samples):
        for task in tasks:
            task.check_sample(sample, classes)
        h, w = sample.size
        images.numpy()[index, :, :h, :w] = sample.image.transpose(2, 0, 1)
    own: dict[str, Any] = {}
    for task in tasks:
        own |= task.batch_fields(samples, (height, width), classes)
    targets = {task.name: task.targets(samples, (height, width), classes) for task in tasks}
    return Batch(
        images=images,
        sizes=tuple(sample.size for sample in samples),
        original_sizes=tuple(original_sizes),
        proposals=tuple(_proposals(sample) for sample in samples),
        image_ids=tuple(sample.image_id for sample in samples),
        paths=tuple(sample.path for sample in samples),
        targets={task: found for task, found in targets.items() if found},
        **own,
    )


def _proposals(sample: Sample) -> Tensor:
    # a copy: what a cache or a map of a file gives may not be writable
    return torch.zeros(0, 4) if sample.proposals is None else torch.from_numpy(sample.proposals.copy())


def with_proposals(batch: Batch, boxes: Sequence[np.ndarray]) -> Batch:
    """The batch with further proposals, per image (P, 4) float32 in pixels of its original picture, before
    those it has.
    """
    added = []
    for index, (more, size, original) in enumerate(
        zip(boxes, batch.sizes, batch.original_sizes, strict=True)
    ):
        inside = _scaled(more.astype(np.float32), size[1] / original[1], size[0] / original[0], size)[0]
        had = batch.proposals[index]
        added.append(torch.cat([torch.from_numpy(inside).to(had.device), had]))
    return replace(batch, proposals=tuple(added))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on ``device``."""
    moved = {field.name: _moved(getattr(batch, field.name), device) for field in fields(batch)}
    return replace(batch, **moved)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
        return tuple(_moved(item, device) for item in value)
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in value.items()}
    return value
