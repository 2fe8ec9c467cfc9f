"""When memory runs out in a training step: what takes it, and which values of the config give how much of it
back.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vistasks.config import Config
from vistasks.training.state import TrainingState
from vistasks.types import Batch

GIB = 2**30


def ran_out(error: RuntimeError) -> bool:
    """Whether PyTorch's error is of memory, on a GPU or in the computer."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def advice(state: TrainingState, batch: Batch, config: Config, step: int) -> str:
    """The message for a step that did not fit, with what each knob saves of what the step took.

    What does not depend on the batch (weights, gradients, optimizer, averaged weights) is counted; the rest
    of the peak so far is what the batch takes, and grows with the number of its pixels."""
    fixed = _bytes(state)
    _, _, height, width = batch.images.shape
    lines = [
        f"step {step}: out of memory with {len(batch)} images of {width}x{height}. Weights, gradients"
        f"{', averaged weights' if state.averaged is not None else ''} and optimizer take {fixed / GIB:.2f} GiB"
    ]
    device = batch.images.device
    taken = None
    if device.type == "cuda":
        taken = max(0, torch.cuda.max_memory_allocated(device) - fixed)
        total = torch.cuda.get_device_properties(device).total_memory
        lines[0] += (
            f" of the {total / GIB:.1f} GiB of {device}; this batch wanted more than {taken / GIB:.2f} GiB on top"
        )
    lines.append("To save memory (share of what the batch takes):")
    lines += [f"  {knob}: {_saved(share, taken)}" for knob, share in _knobs(config, len(batch))]
    return "\n".join(lines)


def _bytes(state: TrainingState) -> int:
    """Of weights, gradients, optimizer and averaged weights; gradients counted as if they were all there."""
    parameters = list(state.model.parameters())
    total = sum(p.nbytes for p in parameters) + sum(p.nbytes for p in parameters if p.requires_grad)
    total += sum(
        value.nbytes
        for held in state.optimizer.state.values()
        for value in held.values()
        if torch.is_tensor(value)
    )
    if state.averaged is not None:
        total += sum(p.nbytes for p in state.averaged.model.parameters())
    return total


def _saved(share: float, taken: int | None) -> str:
    return f"about {share:.0%}" + (f", {share * taken / GIB:.2f} GiB" if taken is not None else "")


def _knobs(config: Config, pictures: int) -> Iterator[tuple[str, float]]:
    """(what to write, the share of the batch's memory that it saves)."""
    train, model = config.train, config.model
    half = pictures // 2
    if half:
        same = train.accumulate * pictures // half
        yield (
            f"train.batch_size={half} train.accumulate={same} (an update still sees as many images)",
            1 - half / pictures,
        )
    for key in ("max_side", "min_side"):
        if (side := getattr(config.input, key)) is not None:
            yield f"input.{key}={int(side * 0.8)}", 1 - 0.8**2
            break
    if not model.gradient_checkpointing and model.backbone["name"] != "timm":
        yield "model.gradient_checkpointing=true (a third more time)", CHECKPOINTING
    if train.precision == "32-true":
        yield "train.precision=bf16-mixed", MIXED
    if model.freeze_stages < 2:
        yield "model.freeze_stages=2", FROZEN


# Shares of what is kept for the backward pass, measured on ResNet-50 + FPN with both heads at 512x512;
# docs/decisions.md says how
CHECKPOINTING, MIXED, FROZEN = 0.58, 0.32, 0.41
