"""The receptive field of every tensor in a pass, followed through PyTorch's own operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten


class Field(NamedTuple):
    """``size``: pixels of the input, a side, that a cell can see; ``jump``: pixels between neighbouring
    cells.
    """

    size: float
    jump: float


class ReceptiveFields(TorchDispatchMode):
    """While it is open, `of` says what each tensor that comes from the watched input can see.

    A window of F cells adds (F - 1) dilation x jump (Araujo, Norris and Sim 2019, "Computing receptive fields
    of convolutional neural networks", eq. 2); its stride multiplies the jump. Where paths meet, the larger
    field counts. Along the width only."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self._fields: Any = WeakTensorKeyDictionary()
        self._fields[image] = Field(1.0, 1.0)

    def of(self, tensor: Tensor) -> Field | None:
        """None for a tensor that does not come from the input, or no longer has the form of a map."""
        found: Field | None = self._fields.get(tensor)
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = [f for f in (self.of(t) for t in _tensors(args)) if f is not None]
        if known:
            before = Field(max(f.size for f in known), max(f.jump for f in known))
            after = _after(func, args, before)
            for tensor in _tensors([result]):
                if tensor.ndim >= 3:
                    self._fields[tensor] = after
        return result


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _after(func: Any, args: Sequence[Any], before: Field) -> Field:
    name = func.overloadpacket
    if name is aten.convolution:
        _, weight, _, stride, _, dilation, transposed, *_ = args
        if transposed:
            # a cell reads ceil(F / S) cells of the coarser map
            return Field(
                before.size + (-(-weight.shape[-1] // stride[-1]) - 1) * before.jump, before.jump / stride[-1]
            )
        return _window(before, weight.shape[-1], stride[-1], dilation[-1])
    if name in (aten.max_pool2d_with_indices, aten.avg_pool2d):
        kernel = args[1]
        stride = (args[2] if len(args) > 2 else None) or kernel
        dilation = args[4] if name is aten.max_pool2d_with_indices and len(args) > 4 else [1]
        return _window(before, kernel[-1], stride[-1], dilation[-1])
    if name in (aten.upsample_bilinear2d, aten.upsample_nearest2d):
        scale = args[1][-1] / args[0].shape[-1] if args[1] else 1.0
        reads = 2 if name is aten.upsample_bilinear2d else 1
        return Field(before.size + (reads - 1) * before.jump, before.jump / scale)
    return before


def _window(before: Field, kernel: int, stride: int, dilation: int) -> Field:
    return Field(before.size + (kernel - 1) * dilation * before.jump, before.jump * stride)
