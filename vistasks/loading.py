"""A data set -> batches, in data workers: proposals, augmentation, scaling, padding; the order and every draw from the seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from vistasks.augment import Augment
from vistasks.batching import collate, input_size, scale_sample
from vistasks.config import InputConfig
from vistasks.datasets import Dataset
from vistasks.proposals.methods import ProposalMethod
from vistasks.types import Batch, ClassNames, Sample


@dataclass(frozen=True)
class Failure:
    """What a worker hands over instead of a batch that it could not make; `Batches` raises it in the main process."""

    message: str


@dataclass(frozen=True, eq=False)
class Pipeline(TorchDataset):
    """``pipeline[epoch, index]`` -> (sample as the network sees it, sample as the file has it).

    The draws of the augmentation depend on (seed, epoch, index) alone, not on the worker or the order.
    """

    dataset: Dataset
    propose: ProposalMethod | None
    augment: Augment | None
    input: InputConfig
    seed: int

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Sample, Sample]:
        """A ``ValueError`` or ``OSError`` of the reader, the proposals or the augmentation names the image file."""
        try:
            return self._prepared(*key)
        except (ValueError, OSError) as error:
            path = self.dataset.paths[key[1]]
            if path in str(error):
                raise
            raise ValueError(f"{path}: {error}") from error

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[tuple[Sample, Sample]] | Failure:
        """What PyTorch calls for a batch. In a worker a fault of the data is an answer: an exception would come out of it with
        the worker's traceback as its message."""
        try:
            return [self[key] for key in keys]
        except (ValueError, OSError) as error:
            if get_worker_info() is None:
                raise
            return Failure(str(error))

    def _prepared(self, epoch: int, index: int) -> tuple[Sample, Sample]:
        original = self.dataset[index]
        sample = original
        if self.propose is not None:
            sample = replace(sample, proposals=self.propose(sample))
        if self.augment is not None:
            draw = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0]
            sample = self.augment(sample, seed=int(draw))
        size = input_size(sample.size, min_side=self.input.min_side, max_side=self.input.max_side)
        return scale_sample(sample, size), original


class EpochOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index); a new shuffle each epoch, from the seed; each of ``world`` processes gets its share.

    With ``shuffle`` an incomplete last batch is left out (it would weigh its pictures more), unless it is the only one.
    Without, every index comes exactly once over all processes.
    """

    def __init__(self, count: int, *, batch_size: int, shuffle: bool, seed: int, rank: int = 0, world: int = 1) -> None:
        self.count, self.batch_size, self.shuffle = count, batch_size, shuffle
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0

    def __len__(self) -> int:
        if self.shuffle:
            return max(1, self.count // (self.batch_size * self.world))
        return math.ceil(len(range(self.rank, self.count, self.world)) / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.count)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
            order = np.resize(order, max(self.count, self.world))  # every process has at least one
        mine = order[self.rank :: self.world]
        for step in range(len(self)):
            yield [(self.epoch, int(index)) for index in mine[step * self.batch_size : (step + 1) * self.batch_size]]


def _collate(
    pairs: Sequence[tuple[Sample, Sample]] | Failure, *, classes: ClassNames, divisor: int
) -> tuple[Batch, list[Sample]] | Failure:
    if isinstance(pairs, Failure):
        return pairs
    samples, originals = zip(*pairs)
    try:
        return collate(samples, [o.size for o in originals], classes=classes, divisor=divisor), list(originals)
    except ValueError as error:
        if get_worker_info() is None:
            raise
        return Failure(str(error))


def _single_threaded(worker: int) -> None:
    """OpenCV's and PyTorch's own threads would multiply with the workers."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class Batches(DataLoader):
    """A loader whose workers' faults are raised here as a ``ValueError``, in the words of who found them."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override] # PyTorch names its private class
        try:
            for item in super().__iter__():
                if isinstance(item, Failure):
                    raise ValueError(item.message)
                yield item
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error) and "killed by signal" not in str(error):
                raise
            raise ChildProcessError(
                f"a data worker died ({error}), as it does when memory runs out: try a smaller train.workers, 0 for none"
            ) from error


def batches(pipeline: Pipeline, order: EpochOrder, *, classes: ClassNames, divisor: int, workers: int) -> Batches:
    """Yields (`Batch`, the original samples) in the order given; set ``order.epoch`` before each epoch."""
    return Batches(
        pipeline,
        batch_sampler=order,
        collate_fn=partial(_collate, classes=classes, divisor=divisor),
        num_workers=workers,
        worker_init_fn=_single_threaded,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
        generator=torch.Generator(),  # its own: a loader that is started must not move the run's random numbers
    )
