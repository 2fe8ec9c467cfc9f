"""The batch of a step that went wrong, kept with the weights that met it, and what `vistasks debug-batch`
finds out about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vistasks.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from vistasks.config import Config
from vistasks.loading.batching import to_device
from vistasks.models import MultiTaskModel
from vistasks.models.building import trained_model
from vistasks.system.devices import pick_device
from vistasks.training.state import seed_draws
from vistasks.types import Batch, ClassNames

_LISTED = 5  # names shown of each kind


def save_debug_batch(
    path: Path,
    batch: Batch,
    model: MultiTaskModel,
    *,
    config: Config,
    classes: ClassNames,
    draws: tuple[int, ...],
    told: str,
) -> None:
    """Writes a batch, the weights (as they were trained, not averaged) and the numbers that its draws follow
    from.

    An ``OSError`` where it cannot be written.
    """
    tensors, values = _taken_apart(batch)
    tensors |= {f"model.{name}": value for name, value in model.state_dict().items()}
    state = {"batch": values, "draws": list(draws), "active": list(model.active), "told": told}
    save_checkpoint(path, tensors, config=config, classes=classes, state=state)


def _taken_apart(batch: Batch) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A batch's tensors as ``batch.NAME`` and ``batch.NAME.INDEX``, and the rest as JSON values."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            tensors[f"batch.{field.name}"] = value
        elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
            tensors |= {f"batch.{field.name}.{index}": item for index, item in enumerate(value)}
        else:
            values[field.name] = value
    return tensors, values


def _put_together(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Batch:
    parts: dict[str, Any] = {name: _tuples(value) for name, value in values.items()}
    for name, tensor in tensors.items():
        field, _, index = name.partition(".")
        if index:
            parts.setdefault(field, {})[int(index)] = tensor
        else:
            parts[field] = tensor
    whole: dict[str, Any] = {
        name: tuple(v[i] for i in sorted(v)) if isinstance(v, dict) else v for name, v in parts.items()
    }
    return Batch(**whole)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def debug_batch(path: Path, device: str = "auto") -> list[str]:
    """Lines for a person: what is in the batch, and where its loss, computed again, stops being finite.

    A ``ValueError`` where the file holds no batch.
    """
    saved = read_checkpoint(path)
    if "batch" not in saved.state:
        raise ValueError(
            f"{path}: a checkpoint without a batch; the batch that stopped a run is in its debug/ folder"
        )
    batch = _put_together(saved.part("batch"), saved.state["batch"])
    model = trained_model(saved.config.model, saved.classes, saved.part("model"), str(path), finite=False)
    model.active = tuple(saved.state["active"])
    where = pick_device(device)
    model.to(where).to(memory_format=torch.channels_last).train()
    lines = [f"what was told  {saved.state['told']}", *_describe(batch), *_strange_weights(model)]
    precision = saved.written.train.precision
    for name in dict.fromkeys([precision, "32-true"]):
        lines += _loss_again(model, to_device(batch, where), saved, name)
    return lines


def _describe(batch: Batch) -> Iterator[str]:
    _, _, height, width = batch.images.shape
    yield f"batch          {len(batch)} images, padded to {width}x{height}"
    for index, path in enumerate(batch.paths):
        valid = batch.images[index, :, : batch.sizes[index][0], : batch.sizes[index][1]]
        boxes = batch.boxes[index]
        sides = (boxes[:, 2:] - boxes[:, :2]).min().item() if len(boxes) else None
        smallest = f", the shortest side {sides:.2f} px" if sides is not None else ""
        marked = (
            ""
            if batch.segmentation is None
            else f", {int((batch.segmentation[index] != 255).sum())} marked pixels"
        )
        yield (
            f"  {path}: values {int(valid.min())} to {int(valid.max())}, {len(boxes)} objects{smallest}, "
            f"{len(batch.proposals[index])} proposals{marked}"
        )


def _strange_weights(model: MultiTaskModel) -> list[str]:
    bad = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    sizes = [
        (value.abs().max().item(), name)
        for name, value in model.named_parameters()
        if torch.isfinite(value).all()
    ]
    largest = max(sizes, default=(0.0, "none"))
    rest = f" and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    text = f"not finite: {', '.join(bad[:_LISTED])}{rest}" if bad else "all finite"
    return [f"weights        {text}; the largest {largest[0]:.3g} in {largest[1]}"]


def _loss_again(model: MultiTaskModel, batch: Batch, saved: Checkpoint, precision: str) -> list[str]:
    """The terms of the loss in a precision, and the first module and the parameters at which numbers end."""
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    autocast = torch.autocast(batch.images.device.type, dtype=dtype) if dtype else nullcontext()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    seed_draws(*saved.state["draws"])
    model.zero_grad()
    with autocast, _first_not_finite(model) as found:
        terms = model.loss(batch)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    for name, value in model.named_buffers():
        value.copy_(buffers[name])  # BatchNorm has counted the batch
    lines = [f"{precision:14} " + ", ".join(f"{name} = {value.item():.4g}" for name, value in terms.items())]
    if found:
        lines.append(f"               first non-finite output: {found[0]}")
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    bad = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
    if bad:
        rest = f" and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        lines.append(f"               non-finite gradients: {', '.join(bad[:_LISTED])}{rest}")
    elif torch.isfinite(loss):
        norm = float(torch.nn.utils.get_total_norm(list(gradients.values())))
        lines.append(f"               everything is finite; gradient norm {norm:.3g}")
    return lines


@contextmanager
def _first_not_finite(model: nn.Module) -> Iterator[list[str]]:
    """Collects the names of modules whose output is not finite, in the order of the forward pass."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and not torch.isfinite(output).all():
                found.append(f"{name} ({type(module).__name__})")

        return hook

    hooks = [
        module.register_forward_hook(look(name))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        yield found
    finally:
        for handle in hooks:
            handle.remove()
