"""A trunk replayed from CUDA graphs: hundreds of kernel launches become one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vistasks.types import Encoder, Features

WARM_UP = 3  # passes before a capture, in which cuDNN chooses its kernels
MOST = 4  # each graph holds the memory of its own pass


def capture(encode: Encoder, images: Tensor) -> Encoder:
    """A CUDA graph of ``encode`` at the shape and in the precision of ``images``' pass, as a function of
    further images.

    Follows the order that PyTorch's notes on CUDA graphs ask for: warm up on a side stream, capture, replay
    into the same memory."""
    given = images.clone(memory_format=torch.preserve_format)
    # what autocast makes of the weights must lie in the graph's own memory, not in a cache that is emptied
    # after this batch
    kind = images.device.type
    with torch.autocast(
        kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=False
    ):
        side = torch.cuda.Stream(images.device)
        side.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                encode(given)
        torch.cuda.current_stream(images.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads go on uploading frames meanwhile
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            made = encode(given)

    def replay(images: Tensor) -> Features:
        given.copy_(images)
        graph.replay()
        return _copy(made)  # the next replay overwrites what this one made

    return replay


class GraphedEncoder:
    """An encoder that captures a graph at the second batch of a shape, and replays it from then on.

    A shape that comes once (the last batch of a clip, a folder of photos) is not worth a capture, and only
    the first four shapes that come again get a graph; everything else runs as before. The memory format and
    the precision count as the shape.

    Args:
        encode: normalised images (N, 3, H, W) -> features; without control flow that depends on the values.
        capture: makes a replaying function from an encoder and its images.
    """

    def __init__(self, encode: Encoder, capture: Callable[[Encoder, Tensor], Encoder] = capture) -> None:
        self._encode, self._capture = encode, capture
        self._seen: set[Any] = set()
        self._graphs: dict[Any, Encoder] = {}

    def __call__(self, images: Tensor) -> Features:
        kind = images.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        key = (*images.shape, images.stride(), images.dtype, autocast)
        if key not in self._graphs:
            if len(self._graphs) == MOST or key not in self._seen:
                self._seen.add(key)
                return self._encode(images)
            self._graphs[key] = self._capture(self._encode, images)
        return self._graphs[key](images)


def _copy(features: Features) -> Features:
    return Features(
        maps={stride: found.clone() for stride, found in features.maps.items()},
        pooling={
            stride: replace(left, indices=left.indices.clone()) for stride, left in features.pooling.items()
        },
        images=features.images,
    )
