"""A data set -> batches, in data workers: proposals, augmentation, scaling, padding; the order and every draw from the seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from vistasks.augment import Augment
from vistasks.batching import collate, input_size, scale_sample
from vistasks.config import InputConfig
from vistasks.datasets import Dataset
from vistasks.proposals.methods import ProposalMethod
from vistasks.types import Batch, ClassNames, Sample


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
        epoch, index = key
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


def _collate(pairs: Sequence[tuple[Sample, Sample]], *, classes: ClassNames, divisor: int) -> tuple[Batch, list[Sample]]:
    samples, originals = zip(*pairs)
    return collate(samples, [o.size for o in originals], classes=classes, divisor=divisor), list(originals)


def _single_threaded(worker: int) -> None:
    """OpenCV's and PyTorch's own threads would multiply with the workers."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def batches(pipeline: Pipeline, order: EpochOrder, *, classes: ClassNames, divisor: int, workers: int) -> DataLoader:
    """Yields (`Batch`, the original samples) in the order given; set ``order.epoch`` before each epoch."""
    return DataLoader(
        pipeline,
        batch_sampler=order,
        collate_fn=partial(_collate, classes=classes, divisor=divisor),
        num_workers=workers,
        worker_init_fn=_single_threaded,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )
