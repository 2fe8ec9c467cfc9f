"""Looking at a picture in several ways: flipped, scaled, and (for class maps) window by window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vistasks.heads.layers import upsample
from vistasks.ops.box_fusion import BoxFusion
from vistasks.ops.boxes import scale_boxes
from vistasks.types import Batch, Features

# normalised images (N, 3, H, W), their sides divisible by the trunk's largest stride -> logits (N, S, H, W)
Scores = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class View:
    """One way to look at a picture: scaled by ``scale`` and, if ``flip``, mirrored left to right."""

    scale: float = 1.0
    flip: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """(N, C, H, W) as this view sees it."""
        height, width = images.shape[-2:]
        size = (max(1, round(height * self.scale)), max(1, round(width * self.scale)))
        if size != (height, width):
            images = functional.interpolate(
                images, size=size, mode="bilinear", align_corners=False, antialias=self.scale < 1
            )
        return images.flip(-1) if self.flip else images

    def undo(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps (N, S, h, w) of this view, over the picture of ``size`` (H, W) as it was before `apply`."""
        maps = maps.flip(-1) if self.flip else maps
        return maps if tuple(maps.shape[-2:]) == size else upsample(maps, size)

    def apply_boxes(self, boxes: Tensor, size: tuple[int, int], seen: tuple[int, int]) -> Tensor:
        """Boxes (P, 4) of a picture of ``size`` (H, W) where they are in this view of it, which has the size
        ``seen``.
        """
        boxes = scale_boxes(boxes, size, seen)
        return _mirrored(boxes, seen[1]) if self.flip else boxes

    def undo_boxes(self, boxes: np.ndarray, width: int) -> np.ndarray:
        """Boxes (D, 4) of this view, already in pixels of the picture, which is so wide, where they are in
        the picture itself.
        """
        return _mirrored(boxes, width) if self.flip else boxes


@dataclass(frozen=True, eq=False)
class ViewedImage:
    """One image through one view: the features, and a batch of this one image as the view sees it.

    The batch's images are normalised and padded; its ``original_sizes`` are those of the image's file.
    ``size``: the (H, W) of the image without the view."""

    view: View
    features: Features
    batch: Batch
    size: tuple[int, int]


def _mirrored(boxes: Any, width: int) -> Any:
    """(N, 4) boxes (a tensor or an array) of a picture that is mirrored left to right."""
    mirrored = boxes[:, [2, 1, 0, 3]]
    mirrored[:, [0, 2]] = width - mirrored[:, [0, 2]]
    return mirrored


@dataclass(frozen=True)
class TestTime:
    """How a picture is looked at in prediction. The plain picture is always among the views.

    Attributes:
        scales: besides 1.
        flip: every view also mirrored.
        window: side in pixels of square windows; a view larger than that goes through the network window by
            window.
        overlap: part of a window, 0 up to .9, that its neighbour sees as well.
        fusion: how the views' boxes become one set.
    """

    __test__ = False  # no test class, whatever pytest thinks of the name

    scales: tuple[float, ...] = ()
    flip: bool = False
    window: int | None = None
    overlap: float = 0.25
    fusion: BoxFusion = BoxFusion()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        wrong = [scale for scale in self.scales if not 0.1 <= scale <= 10]
        if wrong:
            raise ValueError(
                f"scales of test-time averaging are from 0.1 to 10; received {', '.join(map(str, wrong))}"
            )
        if self.window is not None and self.window < 32:
            raise ValueError(f"the window's side must be at least 32 pixels; received {self.window}")
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(
                f"the windows' overlap must be from 0 to 0.9 of their side; received {self.overlap}"
            )

    @property
    def views(self) -> list[View]:
        """The plain view first."""
        scales = dict.fromkeys([1.0, *self.scales])
        return [View(scale, flip) for scale in scales for flip in ([False, True] if self.flip else [False])]

    def window_probabilities(self, images: Tensor, scores: Scores, divisor: int) -> Tensor:
        """The class probabilities, (N, S, H, W), of one view's normalised images (N, 3, H, W) of any size.

        A pixel has the mean of those of the windows that it lies in.
        """
        height, width = images.shape[-2:]
        if self.window is None or max(height, width) <= self.window:
            return scores(padded(images, divisor))[..., :height, :width].float().softmax(dim=1)
        side = math.ceil(self.window / divisor) * divisor
        total, counts = torch.zeros((), device=images.device), images.new_zeros(height, width)
        for top in _starts(height, side, self.overlap):
            for left in _starts(width, side, self.overlap):
                rows, columns = slice(top, min(top + side, height)), slice(left, min(left + side, width))
                cut = images[..., rows, columns]
                found = (
                    scores(padded(cut, divisor))[..., : cut.shape[2], : cut.shape[3]].float().softmax(dim=1)
                )
                if total.ndim == 0:
                    total = found.new_zeros(*found.shape[:2], height, width)
                total[..., rows, columns] += found
                counts[rows, columns] += 1
        return total / counts


def _starts(length: int, side: int, overlap: float) -> Iterator[int]:
    """Where windows of ``side`` begin so that they cover ``length`` evenly, each sharing at least ``overlap``
    with the next.
    """
    if length <= side:
        yield 0
        return
    count = math.ceil((length - side) / (side * (1 - overlap))) + 1
    for index in range(count):
        yield round(index * (length - side) / (count - 1))


def padded(images: Tensor, divisor: int) -> Tensor:
    """Images (N, C, H, W) of any size, for the network: their last column and row go on to the right and
    below.
    """
    height, width = images.shape[-2:]
    right, below = -width % divisor, -height % divisor
    images = functional.pad(images, (0, right, 0, below), mode="replicate") if right or below else images
    return images.contiguous(memory_format=torch.channels_last)


def parse_views(
    text: str,
    *,
    window: int | None = None,
    overlap: float = 0.25,
    fusion: BoxFusion = BoxFusion(),  # noqa: B008 - frozen
) -> TestTime:
    """``flip,0.75,1.25`` -> the `TestTime` that looks at those scales and 1, each also mirrored; "" for the
    plain picture.

    A ``ValueError`` names what is neither ``flip`` nor a number.
    """
    scales, flip = [], False
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part == "flip":
            flip = True
            continue
        try:
            scales.append(float(part))
        except ValueError:
            raise ValueError(
                f"test-time averaging takes 'flip' and scales, such as flip,0.75,1.25; received '{part}'"
            ) from None
    return TestTime(scales=tuple(scales), flip=flip, window=window, overlap=overlap, fusion=fusion)
