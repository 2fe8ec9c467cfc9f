"""One batch through model, loss and backward before a run begins: what fails there fails now, and what it
takes is measured.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from vistasks.loading.batching import collate, to_device
from vistasks.loading.loader import Pipeline
from vistasks.models import MultiTaskModel
from vistasks.system.threads import seconds_by_threads, typical_seconds
from vistasks.types import Batch, ClassNames

OUT_OF_MEMORY = (
    "to use less, reduce train.batch_size (train.accumulate keeps the step's number of images), a smaller "
    "input.max_side, train.precision=bf16-mixed (about half of the activations) or more model.freeze_stages"
)


@dataclass(frozen=True)
class Trial:
    """What one batch took.

    Attributes:
        terms: the loss terms of the batch.
        step_seconds: forward and backward, by the number of PyTorch's threads.
        weights: bytes of the model's parameters and buffers.
        trained: bytes of the parameters that are trained.
        activations: bytes that the forward pass keeps for the backward pass.
    """

    terms: dict[str, float]
    step_seconds: Mapping[int, float]
    weights: int
    trained: int
    activations: int


def load_batch(
    pipeline: Pipeline, indices: Sequence[int], classes: ClassNames, divisor: int, *, skip: bool = False
) -> tuple[Batch, float]:
    """A batch of these pictures as epoch 0 would have them, and the seconds that it took; errors name the
    file.

    With ``skip`` unreadable pictures are left out; only where none is left it is an error.
    """
    start, pairs = time.perf_counter(), []
    for number, index in enumerate(indices, start=1):
        try:
            pairs.append(pipeline[0, index])
        except (ValueError, OSError):
            if not skip or (number == len(indices) and not pairs):
                raise
    samples, originals = zip(*pairs)
    batch = collate(samples, [original.size for original in originals], classes=classes, divisor=divisor)
    return batch, time.perf_counter() - start


def try_batch(
    model: MultiTaskModel,
    batch: Batch,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    *,
    choose_threads: bool = False,
) -> Trial:
    """Forward and backward of a copy of ``model``; no weight, statistic or random number of the run changes.

    Args:
        choose_threads: time it with several numbers of threads, not only with the one that is set.

    Raises:
        FloatingPointError: a loss term is not finite.
        ValueError: the device's memory does not suffice.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            copied = copy.deepcopy(model).to(device).train()
            moved = to_device(batch, device)
            with autocast(), _counting() as count:
                terms = copied.loss(moved)
            _refuse_non_finite(terms, batch.paths)
            kept = count()

            def step() -> None:
                with autocast():
                    loss = torch.stack(list(copied.loss(moved).values())).sum()
                copied.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                if device.type == "cuda":
                    torch.cuda.synchronize(device)

            seconds = (
                seconds_by_threads(step)
                if choose_threads
                else {torch.get_num_threads(): typical_seconds(step)}
            )
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"a batch does not fit into the memory of {device} ({error}): {OUT_OF_MEMORY}"
            ) from None
    tensors = [*copied.parameters(), *copied.buffers()]
    return Trial(
        terms={name: float(value.detach()) for name, value in terms.items()},
        step_seconds=seconds,
        weights=sum(tensor.nbytes for tensor in tensors),
        trained=sum(parameter.nbytes for parameter in copied.parameters() if parameter.requires_grad),
        activations=kept,
    )


def _refuse_non_finite(terms: dict[str, Tensor], paths: tuple[str, ...]) -> None:
    if not all(torch.isfinite(value) for value in terms.values()):
        values = ", ".join(f"{name} = {value.item():.4g}" for name, value in terms.items())
        raise FloatingPointError(
            f"the loss of the first batch is not finite ({values}); its images: {', '.join(paths)}"
        )


@contextmanager
def _counting() -> Iterator[Callable[[], int]]:
    """Gives a function that tells how many bytes autograd has kept, each piece of memory once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield lambda: sum(kept.values())
