"""Averaged predictions of class maps: over flips and scales of the picture, and over windows that slide across a large one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vistasks.heads.layers import upsample

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


@dataclass(frozen=True)
class TestTime:
    """How a picture is looked at in prediction. The plain picture is always among the views.

    Attributes:
        scales: besides 1.
        flip: every view also mirrored.
        window: side in pixels of square windows; a view larger than that goes through the network window by window.
        overlap: part of a window, 0 up to .9, that its neighbour sees as well.
    """

    __test__ = False  # no test class, whatever pytest thinks of the name

    scales: tuple[float, ...] = ()
    flip: bool = False
    window: int | None = None
    overlap: float = 0.25

    def __post_init__(self) -> None:
        wrong = [scale for scale in self.scales if not 0.1 <= scale <= 10]
        if wrong:
            raise ValueError(f"scales of test-time averaging are from 0.1 to 10; received {', '.join(map(str, wrong))}")
        if self.window is not None and self.window < 32:
            raise ValueError(f"the window's side must be at least 32 pixels; received {self.window}")
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(f"the windows' overlap must be from 0 to 0.9 of their side; received {self.overlap}")

    @property
    def views(self) -> list[View]:
        """The plain view first."""
        scales = dict.fromkeys([1.0, *self.scales])
        return [View(scale, flip) for scale in scales for flip in ([False, True] if self.flip else [False])]

    def probabilities(self, images: Tensor, scores: Scores, divisor: int) -> Tensor:
        """The mean over all views of the class probabilities, (N, S, H, W), of normalised images (N, 3, H, W) of any size."""
        size = (images.shape[-2], images.shape[-1])
        total = torch.zeros((), device=images.device)
        for view in self.views:
            seen = view.apply(images)
            total = total + view.undo(self._windows(seen, scores, divisor), size)
        return total / len(self.views)

    def _windows(self, images: Tensor, scores: Scores, divisor: int) -> Tensor:
        height, width = images.shape[-2:]
        if self.window is None or max(height, width) <= self.window:
            return _padded_probabilities(images, scores, divisor)
        side = math.ceil(self.window / divisor) * divisor
        total, counts = torch.zeros((), device=images.device), images.new_zeros(height, width)
        for top in _starts(height, side, self.overlap):
            for left in _starts(width, side, self.overlap):
                rows, columns = slice(top, min(top + side, height)), slice(left, min(left + side, width))
                found = _padded_probabilities(images[..., rows, columns], scores, divisor)
                if total.ndim == 0:
                    total = found.new_zeros(*found.shape[:2], height, width)
                total[..., rows, columns] += found
                counts[rows, columns] += 1
        return total / counts


def _starts(length: int, side: int, overlap: float) -> Iterator[int]:
    """Where windows of ``side`` begin so that they cover ``length`` evenly, each sharing at least ``overlap`` with the next."""
    if length <= side:
        yield 0
        return
    count = math.ceil((length - side) / (side * (1 - overlap))) + 1
    for index in range(count):
        yield round(index * (length - side) / (count - 1))


def _padded_probabilities(images: Tensor, scores: Scores, divisor: int) -> Tensor:
    """Probabilities of images of any size: padded at the right and below by their last column and row for the network."""
    height, width = images.shape[-2:]
    right, below = -width % divisor, -height % divisor
    padded = functional.pad(images, (0, right, 0, below), mode="replicate") if right or below else images
    padded = padded.contiguous(memory_format=torch.channels_last)
    return scores(padded)[..., :height, :width].float().softmax(dim=1)


def parse_views(text: str, *, window: int | None = None, overlap: float = 0.25) -> TestTime:
    """``flip,0.75,1.25`` -> the `TestTime` that averages over those scales and 1, each also mirrored; "" for the plain picture.

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
            raise ValueError(f"test-time averaging takes 'flip' and scales, such as flip,0.75,1.25; received '{part}'") from None
    return TestTime(scales=tuple(scales), flip=flip, window=window, overlap=overlap)
