"""``vistasks summary``: every layer of a model in one pass over a picture."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vistasks.inspection.receptive_field import ReceptiveFields
from vistasks.loading.batching import collate, to_device
from vistasks.models import MultiTaskModel
from vistasks.types import Batch, ClassNames, Sample

WINDOWS = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d)
MIB = 1 << 20


@dataclass
class Layer:
    """One call of one layer. Sizes are height x width x channels, or numbers for vectors; windows along the
    width.
    """

    name: str
    kind: str
    part: str
    output: str
    formula: str
    kernel: str
    stride: str
    parameters: int
    multiply_adds: int
    memory_mib: float
    receptive_field: int | None
    seconds: dict[str, float]


class _Strides(Mapping[int, Tensor]):
    """Maps that note which strides are read."""

    def __init__(self, maps: Mapping[int, Tensor]) -> None:
        self.maps, self.read = maps, set[int]()

    def __getitem__(self, stride: int) -> Tensor:
        self.read.add(stride)
        return self.maps[stride]

    def __iter__(self) -> Iterator[int]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)


def summarise(
    model: MultiTaskModel, classes: ClassNames, size: tuple[int, int], *, proposals: int = 300
) -> dict[str, Any]:
    """The layers in order of their calls, the totals of trunk, neck and heads, and the strides that each head
    reads; for JSON.

    Args:
        model: on the CPU; timed there, and on a CUDA device where there is one.
        classes: the model's.
        size: (height, width) of the picture; padded as in prediction.
        proposals: boxes that the detector looks at.
    """
    model.eval()
    batch = _blank(model, classes, size, proposals)
    devices = [torch.device("cpu")] + ([torch.device("cuda")] if torch.cuda.is_available() else [])
    layers: list[Layer] = []
    wholes: dict[str, float] = {}
    read: dict[str, set[int]] = {}
    for device in devices:
        watch = _Watch(model.to(device))
        here = to_device(batch, device)
        _pass(model, here)  # the first pass chooses kernels
        with watch:
            start = time.perf_counter()
            _pass(model, here)
            watch.wait()
            wholes[device.type] = time.perf_counter() - start
        if not layers:
            layers, read = _described(model, here)
        for layer, seconds in zip(layers, watch.seconds):
            layer.seconds[device.type] = seconds
    model.to(devices[0])
    return {
        "size": list(size),
        "padded": list(batch.images.shape[-2:]),
        "proposals": proposals,
        "layers": [asdict(layer) for layer in layers],
        "parts": _totals(model, layers),
        "total": _total(sum(p.numel() for p in model.parameters()), layers),
        "seconds": wholes,
        "strides": {task: sorted(strides) for task, strides in read.items()},
    }


def _blank(model: MultiTaskModel, classes: ClassNames, size: tuple[int, int], proposals: int) -> Batch:
    height, width = size
    draw = np.random.default_rng(0).random((proposals, 4), dtype=np.float32)
    corner = draw[:, :2] * np.array([width, height], np.float32) * 0.7
    boxes = np.concatenate(
        [corner, corner + 1 + draw[:, 2:] * np.array([width, height], np.float32) * 0.25], axis=1
    )
    sample = Sample("blank", "blank", np.full((height, width, 3), 127, np.uint8), proposals=boxes)
    return collate([sample], [size], classes=classes, divisor=model.divisor)


@torch.no_grad()
def _pass(model: MultiTaskModel, batch: Batch) -> dict[str, set[int]]:
    """One pass; which strides each head has read."""
    features = model.features(batch)
    read = {}
    for task, head in model.heads.items():
        strides = _Strides(features.maps)
        head.predict(replace(features, maps=strides), batch, model.encode)
        read[task] = strides.read
    return read


def _leaves(model: nn.Module) -> dict[nn.Module, str]:
    return {module: name for name, module in model.named_modules() if not [*module.children()] and name}


class _Watch:
    """Seconds of every call of a layer, in order."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.cuda = model, next(model.parameters()).is_cuda
        self.seconds: list[float] = []

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def __enter__(self) -> None:
        self.handles = []
        for leaf in _leaves(self.model):
            self.handles += [
                leaf.register_forward_pre_hook(self._before),
                leaf.register_forward_hook(self._after),
            ]

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _before(self, module: nn.Module, inputs: Any) -> None:
        self.wait()
        self.start = time.perf_counter()

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.wait()
        self.seconds.append(time.perf_counter() - self.start)


def _described(model: MultiTaskModel, batch: Batch) -> tuple[list[Layer], dict[str, set[int]]]:
    layers: list[Layer] = []
    names = _leaves(model)
    fields = ReceptiveFields(batch.images)

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and inputs and isinstance(inputs[0], Tensor):
            layers.append(_layer(names[module], module, inputs[0], output, fields))

    handles = [leaf.register_forward_hook(after) for leaf in names]
    try:
        with fields:
            read = _pass(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return layers, read


def _layer(name: str, module: nn.Module, given: Tensor, output: Tensor, fields: ReceptiveFields) -> Layer:
    kernel = stride = formula = ""
    if isinstance(module, WINDOWS):
        f, s, p, d = (
            _last(getattr(module, key, 1)) for key in ("kernel_size", "stride", "padding", "dilation")
        )
        kernel, stride = f"{f}x{f}" + (f" /{d}" if d > 1 else ""), str(s)
        if not isinstance(module, nn.ConvTranspose2d):
            seen = d * (f - 1) + 1
            exact = (given.shape[-1] - seen + 2 * p) / s + 1
            formula = f"({given.shape[-1]}-{seen}+{2 * p})/{s}+1 = {exact:g}"
    parts = name.split(".")
    field = fields.of(output)
    return Layer(
        name=name,
        kind=type(module).__name__,
        part=".".join(parts[:2]) if parts[0] == "heads" else parts[0],
        output=_size(output),
        formula=formula,
        kernel=kernel,
        stride=stride,
        parameters=sum(p.numel() for p in module.parameters()),
        multiply_adds=_multiply_adds(module, given, output),
        memory_mib=round(output.numel() * output.element_size() / MIB, 3),
        receptive_field=None if field is None or output.ndim != 4 else round(field.size),
        seconds={},
    )


def _last(value: Any) -> int:
    return int(value[-1] if isinstance(value, list | tuple) else value)


def _size(output: Tensor) -> str:
    if output.ndim == 4:
        count, channels, height, width = output.shape
        return f"{height}x{width}x{channels}" + (f" x {count}" if count > 1 else "")
    return " x ".join(str(side) for side in reversed(output.shape))


def _multiply_adds(module: nn.Module, given: Tensor, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, nn.ConvTranspose2d):
        return given.numel() * module.weight[0].numel()
    return output.numel() * module.in_features if isinstance(module, nn.Linear) else 0


def _totals(model: MultiTaskModel, layers: list[Layer]) -> dict[str, dict[str, Any]]:
    totals = {}
    for part in dict.fromkeys(layer.part for layer in layers):
        parameters = sum(p.numel() for p in model.get_submodule(part).parameters())
        totals[part] = _total(parameters, [layer for layer in layers if layer.part == part])
    return totals


def _total(parameters: int, layers: list[Layer]) -> dict[str, Any]:
    return {
        "parameters": parameters,
        "multiply_adds": sum(layer.multiply_adds for layer in layers),
        "memory_mib": round(sum(layer.memory_mib for layer in layers), 2),
        "seconds": {device: sum(layer.seconds[device] for layer in layers) for device in layers[0].seconds},
    }
