"""When a graph is captured and when it is not; what it computes needs a GPU (tests/test_gpu.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from vistasks.models.cuda_graphs import MOST, GraphedEncoder
from vistasks.types import Encoder, Features


class Recorded:
    """An encoder and a capture that note what is asked of them."""

    def __init__(self) -> None:
        self.passes: list[tuple[int, ...]] = []
        self.captures: list[tuple[int, ...]] = []
        self.replays: list[tuple[int, ...]] = []

    def encode(self, images: Tensor) -> Features:
        self.passes.append(tuple(images.shape))
        return Features(maps={1: images * 2})

    def capture(self, encode: Encoder, images: Tensor) -> Encoder:
        self.captures.append(tuple(images.shape))

        def replay(images: Tensor) -> Features:
            self.replays.append(tuple(images.shape))
            return Features(maps={1: images * 2})

        return replay


def test_a_shape_is_captured_when_it_comes_again() -> None:
    recorded = Recorded()
    encoder = GraphedEncoder(recorded.encode, recorded.capture)
    full, last = torch.ones(4, 3, 8, 8), torch.ones(1, 3, 8, 8)
    for images in (full, full, full, last):
        assert torch.equal(encoder(images).maps[1], images * 2)
    assert recorded.passes == [(4, 3, 8, 8), (1, 3, 8, 8)]
    assert recorded.captures == [(4, 3, 8, 8)]
    assert recorded.replays == [(4, 3, 8, 8)] * 2


def test_the_memory_format_and_the_precision_count_as_the_shape() -> None:
    recorded = Recorded()
    encoder = GraphedEncoder(recorded.encode, recorded.capture)
    images = torch.ones(2, 3, 8, 8)
    encoder(images)
    encoder(images.contiguous(memory_format=torch.channels_last))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoder(images)
    assert len(recorded.passes) == 3 and not recorded.captures


def test_only_so_many_shapes_are_kept() -> None:
    recorded = Recorded()
    encoder = GraphedEncoder(recorded.encode, recorded.capture)
    for _ in range(3):
        for side in range(1, MOST + 3):
            encoder(torch.ones(1, 3, side, side))
    assert len(recorded.captures) == MOST
    assert len(recorded.replays) == 2 * MOST and len(recorded.passes) == MOST + 2 * 3
