"""Which training pictures an epoch shows, and in which order: pure functions of seed and epoch.

====================  ==============================================================================================
shuffle               every picture once
repeat_factor         pictures of rare classes more often: LVIS's repeat-factor sampling (Gupta et al. 2019, appendix B)
class_balanced        each class equally often: a class is drawn in turn, then one of its pictures
task_balanced         every batch has the same share of each data set's (or each task's) pictures
====================  ==============================================================================================

An epoch of each has a fixed length, so that the steps of a run are known before it starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import Field

from vistasks.datasets.annotations import Dataset
from vistasks.registry import SAMPLINGS

Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Sampling(Protocol):
    """An order of indices for each epoch."""

    def __len__(self) -> int:
        """Indices in an epoch."""
        ...

    def order(self, seed: int, epoch: int, *, batch_size: int, world: int) -> np.ndarray:
        """(len,) int64 indices. Process r of ``world`` takes every ``world``-th from the r-th on, by
        ``batch_size``.
        """
        ...


class Shuffle:
    """Every index once."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def order(self, seed: int, epoch: int, *, batch_size: int, world: int) -> np.ndarray:
        """A permutation."""
        order = np.arange(self.count)
        np.random.default_rng([seed, epoch]).shuffle(order)
        return order


@SAMPLINGS.register("shuffle")
def shuffle(*, dataset: Dataset) -> Sampling:
    """Every picture once."""
    return Shuffle(len(dataset))


@SAMPLINGS.register("repeat_factor")
class RepeatFactor:
    """Each picture as often as its rarest class asks for (Gupta et al. 2019, "LVIS", appendix B).

    A class that ``f`` of the pictures have gets the factor ``max(1, sqrt(threshold / f))``, a picture the
    largest factor of its classes. Fractions are rounded by one random offset an epoch, so that each picture
    comes its factor's number of times on average, and the epoch's length is the rounded sum of the factors.

    Args:
        dataset: the training data; classes are its objects' labels (only detection is balanced).
        threshold: the share of pictures under which a class counts as rare.
    """

    def __init__(self, *, dataset: Dataset, threshold: Share = 0.001) -> None:
        classes = _classes_of_pictures(dataset)
        share = np.bincount(np.concatenate([*classes, np.zeros(0, np.int64)]), minlength=1) / len(dataset)
        factor = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-12)))
        self.factors = np.array([factor[found].max() if len(found) else 1.0 for found in classes])
        self._length = max(1, round(float(self.factors.sum())))

    def __len__(self) -> int:
        return self._length

    def order(self, seed: int, epoch: int, *, batch_size: int, world: int) -> np.ndarray:
        """Indices repeated, shuffled."""
        draws = np.random.default_rng([seed, epoch])
        shuffled = draws.permutation(len(self.factors))  # or the same neighbours would always round together
        ends = np.cumsum(self.factors[shuffled]) * (self._length / self.factors.sum())
        ends[-1] = self._length
        rounded = np.floor(ends + draws.random()).clip(max=self._length)
        order = np.repeat(shuffled, np.diff(rounded, prepend=0).astype(np.int64))
        draws.shuffle(order)
        return order


@SAMPLINGS.register("class_balanced")
class ClassBalanced:
    """Each class in turn, and of its pictures one that it has shown least in this epoch.

    Pictures without an object form a class of their own, so that negatives are still seen.

    Args:
        dataset: the training data; classes are its objects' labels.
        length: pictures in an epoch; None: as many as the data has.
    """

    def __init__(self, *, dataset: Dataset, length: Count | None = None) -> None:
        classes = _classes_of_pictures(dataset)
        members: dict[int, list[int]] = {}
        for index, found in enumerate(classes):
            for label in found.tolist() or [-1]:
                members.setdefault(label, []).append(index)
        self.members = [np.array(members[label]) for label in sorted(members)]
        self._length = length or len(dataset)

    def __len__(self) -> int:
        return self._length

    def order(self, seed: int, epoch: int, *, batch_size: int, world: int) -> np.ndarray:
        """Rounds through the classes, each round in another order."""
        draws = np.random.default_rng([seed, epoch])
        rounds = -(-self._length // len(self.members))
        columns = np.stack([_cycled(members, rounds, draws) for members in self.members], axis=1)
        return draws.permuted(columns, axis=1).reshape(-1)[: self._length]


@SAMPLINGS.register("task_balanced")
class TaskBalanced:
    """Every batch has the same share of each group, for joined data sets of very different sizes.

    A small group is gone through several times an epoch and a large one in part, other parts in other epochs.
    Where the batch size does not divide, the groups take turns with the rest.

    Args:
        dataset: the training data.
        by: ``task``: pictures with boxes, with masks, with both are groups. ``dataset``: each of the joined
            sets is one.
        length: pictures in an epoch; None: as many as the data has.
    """

    def __init__(
        self, *, dataset: Dataset, by: Literal["task", "dataset"] = "task", length: Count | None = None
    ) -> None:
        groups: dict[object, list[int]] = {}
        for index in range(len(dataset)):
            groups.setdefault(
                _task_group(dataset, index) if by == "task" else _set_group(dataset, index), []
            ).append(index)
        self.groups = [np.array(members) for members in groups.values()]
        self._length = length or len(dataset)

    def __len__(self) -> int:
        return self._length

    def order(self, seed: int, epoch: int, *, batch_size: int, world: int) -> np.ndarray:
        """The groups' pictures, interleaved so that each process's batches are balanced as well."""
        draws = np.random.default_rng([seed, epoch])
        slots = np.arange(-(-self._length // world))  # a slot is one place in the batch of every process
        group = np.repeat(slots % len(self.groups), world)[: self._length]
        order = np.zeros(self._length, dtype=np.int64)
        for number, members in enumerate(self.groups):
            places = np.flatnonzero(group == number)
            order[places] = _cycled(members, len(places), draws)
        return order


def _cycled(members: np.ndarray, count: int, draws: np.random.Generator) -> np.ndarray:
    """``count`` of the members: all once in a random order, then all again in another."""
    rounds = [draws.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate([*rounds, members[:0]])[:count]


def _classes_of_pictures(dataset: Dataset) -> Sequence[np.ndarray]:
    """Of each picture the detection classes that it has, each once; difficult and crowd objects are not
    trained on.
    """
    found = []
    for index in range(len(dataset)):
        objects = dataset.annotation(index)
        found.append(np.unique(objects.labels[~(objects.difficult | objects.crowd)]))
    if not any(len(classes) for classes in found):
        raise ValueError(
            "no image has an object, so classes cannot be balanced; use shuffle or task_balanced"
        )
    return found


def _task_group(dataset: Dataset, index: int) -> object:
    labelled = dataset.annotation(index).labelled
    return tuple(bool(covered) for _, covered in sorted(labelled.by_task().items()))


def _set_group(dataset: Dataset, index: int) -> object:
    place = getattr(dataset, "place", None)  # a data set that is joined of several tells it
    return place(index)[0] if place is not None else 0
