"""A data set -> batches, in data workers: proposals, augmentation, scaling, padding; the order and every draw
from the seed.
"""

from __future__ import annotations

import errno
import gc
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from vistasks.config import InputConfig
from vistasks.datasets import Dataset
from vistasks.datasets.problems import OnError
from vistasks.loading.augment import Augment
from vistasks.loading.batching import collate, network_sample
from vistasks.loading.handover import IN_FLIGHT, Packed, packed_if_needed
from vistasks.loading.sampling import Sampling, Shuffle
from vistasks.proposals.methods import ProposalMethod
from vistasks.types import Batch, ClassNames, Sample

TRIES = 20  # pictures in a row that may be unreadable before `on_error: skip` gives up

Key = tuple[int, int]  # epoch, index
Collate = Callable[[Sequence[Sample], Sequence[tuple[int, int]]], Any]  # samples, original sizes -> a batch


@dataclass(frozen=True)
class Failure:
    """What a worker hands over instead of a batch that it could not make; `Batches` raises it in the main
    process.
    """

    message: str


@dataclass(frozen=True)
class Fetched:
    """What a worker hands over: None for a batch all of whose pictures were skipped; ``skipped`` is path ->
    what was wrong.
    """

    batch: tuple[Batch, list[Sample]] | None
    skipped: dict[str, str]


@dataclass(frozen=True, eq=False)
class Pipeline:
    """``pipeline[epoch, index]`` -> (sample as the network sees it, sample as the file has it).

    The draws of the augmentation and of one of the ``scales`` depend on (seed, epoch, index) alone, not on
    worker or order. Without ``scales`` the sample stays as it is, for a loader that prepares batches itself."""

    dataset: Dataset
    propose: ProposalMethod | None
    augment: Augment | None
    input: InputConfig
    seed: int
    scales: tuple[float, ...] = (1.0,)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> tuple[Sample, Sample]:
        """A ``ValueError`` or ``OSError`` of the reader, the proposals or the augmentation names the image
        file.
        """
        try:
            return self._prepared(*key)
        except (ValueError, OSError) as error:
            path = self.dataset.paths[key[1]]
            if path in str(error):
                raise
            raise ValueError(f"{path}: {error}") from error

    def _prepared(self, epoch: int, index: int) -> tuple[Sample, Sample]:
        original = self.dataset[index]
        sample = self._proposed(original)
        original = sample if self.augment is None else original  # an evaluation also asks what was proposed
        if self.augment is not None:
            draw = int(np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0])
            wanted = self.augment.mixing.wanted(len(self), seed=draw)
            others = [[self._proposed(self.dataset[other]) for other in taken] for taken in wanted]
            sample = self.augment(self.augment.mixing(sample, others, seed=draw), seed=draw)
        if not self.scales:
            return sample, original
        draw = 0
        if len(self.scales) > 1:
            draw = int(np.random.default_rng([self.seed, epoch, index, 2]).integers(len(self.scales)))
        return network_sample(sample, self.input, self.scales[draw]), original

    def _proposed(self, sample: Sample) -> Sample:
        return sample if self.propose is None else replace(sample, proposals=self.propose(sample))


class EpochOrder(Sampler[list[Key]]):
    """Batches of (epoch, index); a new order each epoch, from seed and epoch; each of ``world`` processes
    gets its share.

    With ``shuffle`` an incomplete last batch is left out (it would weigh its pictures more), unless it is the
    only one. Without, every index comes exactly once over all processes, in the batches that a single process
    would have: a prediction can depend on what its picture is padded to.

    Attributes:
        epoch: which epoch the next iteration gives.
        start: so many batches of it are left out, because an interrupted run has made them already.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world: int = 1,
        sampling: Sampling | None = None,
    ) -> None:
        self.count, self.batch_size, self.shuffle = count, batch_size, shuffle
        self.seed, self.rank, self.world, self.epoch, self.start = seed, rank, world, 0, 0
        self.sampling = sampling or Shuffle(count)

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        if self.shuffle:
            return max(1, len(self.sampling) // (self.batch_size * self.world))
        return len(range(self.rank, math.ceil(self.count / self.batch_size), self.world))

    def __iter__(self) -> Iterator[list[Key]]:
        size, steps = self.batch_size, range(self.start, len(self))
        if self.shuffle:
            order = self.sampling.order(self.seed, self.epoch, batch_size=size, world=self.world)
            mine = np.resize(order, max(len(order), self.world))[
                self.rank :: self.world
            ]  # every process has at least one
            shares = [mine[step * size : (step + 1) * size] for step in steps]
        else:
            indices = np.arange(self.count)
            shares = [indices[(step * self.world + self.rank) * size :][:size] for step in steps]
        for share in shares:
            yield [(self.epoch, int(index)) for index in share]


class _Fetcher(TorchDataset):
    """What a worker runs: keys of a batch -> `Fetched`, or a `Failure`.

    In a worker a fault of the data is an answer: an exception would come out of it with the worker's
    traceback as its message.

    Args:
        pipeline: makes the samples.
        on_error: what happens to a picture that cannot be read.
        replaced: for a skipped picture another one is taken, drawn from seed, epoch and index, so that
            batches stay full.
        reading: a number for each worker, in shared memory: what each worker is reading, -1 for nothing.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        on_error: OnError,
        replaced: bool,
        reading: MutableSequence[int],
        collating: Collate,
    ) -> None:
        self.pipeline, self.on_error, self.replaced, self.reading = pipeline, on_error, replaced, reading
        self.collating = collating

    def __len__(self) -> int:
        return len(self.pipeline)

    def __getitems__(self, keys: Sequence[Key]) -> Fetched | Packed | Failure:
        try:
            skipped: dict[str, str] = {}
            found = [self._sample(key, skipped) for key in keys]
            pairs = [pair for pair in found if pair is not None]
            fetched = Fetched(self._collated(pairs) if pairs else None, skipped)
            worker = get_worker_info()
            return fetched if worker is None else packed_if_needed(fetched, worker.num_workers)
        except (ValueError, OSError) as error:
            if get_worker_info() is None:
                raise
            return Failure(str(error))

    def _sample(self, key: Key, skipped: dict[str, str]) -> tuple[Sample, Sample] | None:
        for index in self._candidates(key):
            self._now(index)
            try:
                return self.pipeline[key[0], index]
            except (ValueError, OSError) as error:
                if self.on_error == "raise":
                    raise
                skipped[self.pipeline.dataset.paths[index]] = str(error)
            finally:
                self._now(-1)
        if not self.replaced:
            return None
        raise ValueError(
            f"data.on_error=skip: {TRIES} images in a row could not be read, so the cause is probably not a damaged file; "
            f"the last: {list(skipped.values())[-1]}"
        )

    def _candidates(self, key: Key) -> list[int]:
        epoch, index = key
        if self.on_error == "raise" or not self.replaced:
            return [index]
        draws = np.random.default_rng([self.pipeline.seed, epoch, index, 1])
        return [index, *(int(other) for other in draws.integers(len(self), size=TRIES - 1))]

    def _now(self, index: int) -> None:
        worker = get_worker_info()
        if worker is not None:
            self.reading[worker.id] = index

    def _collated(self, pairs: Sequence[tuple[Sample, Sample]]) -> tuple[Any, list[Sample]]:
        samples, originals = zip(*pairs)
        return self.collating(samples, [o.size for o in originals]), list(originals)


def _as_fetched(fetched: Any) -> Any:
    return fetched  # whole already; PyTorch's default would look for tensors to stack


def _start_worker(worker: int) -> None:
    """OpenCV's and PyTorch's own threads would multiply with the workers.

    What the worker shares with its siblings is left out of garbage collection, which would write to every
    page of it.

    Ctrl-C and SIGTERM often go to a whole group of processes: the run then finishes its step with what the
    workers give it, and ends them itself (by a second SIGTERM where they are stuck)."""
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _end_with_the_run() -> None:
    """Ends this worker as soon as the run's process has gone, however it went.

    PyTorch's own watch ends the worker's loop, but its exit then waits for the last batches to be read from a
    pipe: nobody does, and what shares the run's output (``train | tee log``) would wait with it."""
    run = multiprocessing.parent_process()
    if run is not None:
        run.join()
        os.kill(os.getpid(), signal.SIGKILL)


def _end(workers: Sequence[BaseProcess]) -> None:
    """Ends workers that still live when their loader, or this process, goes.

    A process that exits while something still holds a loader sends its workers one SIGTERM, which
    `_start_worker` lets pass, and would then wait for them forever."""
    for worker in workers:
        if worker.is_alive():
            worker.kill()


def _context() -> BaseContext:
    """How workers are started: from a server process that has imported what they need once, so that they
    share it.

    Forking this process would copy locks that its threads (OpenMP, numba, progress bars) hold.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


class Batches(DataLoader):
    """A loader of (`Batch`, the original samples). Workers' faults are raised here, in the words of who found
    them.

    Attributes:
        skipped: of each picture that was left out so far, path -> what was wrong.
    """

    dataset: _Fetcher

    def __init__(self, fetcher: _Fetcher, order: EpochOrder, *, workers: int) -> None:
        self.skipped: dict[str, str] = {}
        self._ending: Finalize | None = None
        self._piped = False
        super().__init__(
            fetcher,
            batch_sampler=order,
            collate_fn=_as_fetched,
            num_workers=workers,
            prefetch_factor=IN_FLIGHT if workers else None,
            worker_init_fn=_start_worker,
            persistent_workers=workers > 0,
            multiprocessing_context=_context() if workers else None,
            generator=torch.Generator(),  # its own: a loader that is started must not move the run's random numbers
        )

    def __iter__(self) -> Iterator[tuple[Batch, list[Sample]]]:  # type: ignore[override] # PyTorch names its private class
        try:
            arriving = self._arriving()
            if self._iterator is not None and self._ending is None:
                self._ending = Finalize(self._iterator, _end, args=(self._workers(),), exitpriority=0)
            for item in arriving:
                if isinstance(item, Failure):
                    raise ValueError(item.message)
                item = self._opened(item)
                self.skipped |= item.skipped
                if item.batch is not None:
                    yield item.batch
        except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
            # the last three: it died between a batch's arrival and the opening of the memory that the batch
            # lies in
            known = "exited unexpectedly" in str(error) or "killed by signal" in str(error)
            if not known and (isinstance(error, RuntimeError) or self._all_alive()):
                raise
            what = str(error) or type(error).__name__
            raise ChildProcessError(f"a data worker died ({what}){self._while_reading()}") from error

    def _arriving(self) -> Iterator[Any]:
        """What the workers give; without room for their locks (also in /dev/shm) or files, it is made here."""
        try:
            return super().__iter__()
        except OSError as error:
            if not self.num_workers or error.errno not in (errno.ENOSPC, errno.EMFILE):
                raise
            print(
                f"note: data workers cannot be started ({error.strerror}; see df /dev/shm and ulimit -n): pictures are read by "
                "the run itself, which is slower",
                file=sys.stderr,
            )
            return iter(DataLoader(self.dataset, batch_sampler=self.batch_sampler, collate_fn=_as_fetched))

    def _opened(self, item: Fetched | Packed) -> Fetched:
        if not isinstance(item, Packed):
            return item
        if not self._piped:
            self._piped = True
            print(
                f"note: {item.reason}: data workers hand batches over through pipes, which is slower",
                file=sys.stderr,
            )
        return item.unpacked()

    def _workers(self) -> list[BaseProcess]:
        found: list[BaseProcess] = self._iterator._workers if self._iterator is not None else []  # type: ignore[attr-defined]
        return found

    def _all_alive(self) -> bool:
        for worker in self._workers():
            worker.join(timeout=0.5)  # one that is dying is seen as dead
        return all(worker.is_alive() for worker in self._workers())

    def reading(self) -> list[str | None]:
        """What each worker is reading now: the picture's path, or None between two pictures."""
        paths = self.dataset.pipeline.dataset.paths
        return [paths[index] if index >= 0 else None for index in self.dataset.reading]

    def _while_reading(self) -> str:
        dead = [
            path for path, worker in zip(self.reading(), self._workers()) if path and not worker.is_alive()
        ]
        if not dead:
            return (
                ", not while reading an image: memory may have run out. Try a smaller train.workers (0: none)"
            )
        return (
            f" while it read {', '.join(dead)}. Either memory ran out (try a smaller train.workers, 0 for none), or a decoder "
            "crashed on this file: leave the file out if it happens there again"
        )


def batches(
    pipeline: Pipeline,
    order: EpochOrder,
    *,
    classes: ClassNames,
    divisor: int,
    workers: int,
    on_error: OnError = "raise",
    prepare: Collate | None = None,
) -> Batches:
    """Yields (`Batch`, the original samples) in the order given; set ``order.epoch`` before each epoch.

    With ``on_error="skip"`` unreadable pictures are left out and counted in `Batches.skipped`: in a shuffled
    order others take their places, so that batches stay full and a run's steps the same; in evaluation the
    batch gets smaller. ``prepare`` makes the batches instead of `collate`, in the workers."""
    # not PyTorch's shared memory: this one lies in a file where /dev/shm is full
    reading = _context().Array("q", [-1] * workers, lock=False) if workers else []
    collating = prepare or partial(collate, classes=classes, divisor=divisor)
    return Batches(_Fetcher(pipeline, on_error, order.shuffle, reading, collating), order, workers=workers)
