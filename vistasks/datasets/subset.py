"""Some pictures of a data set: a fold of a cross-validation, or the few that a model is to learn by heart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vistasks.datasets.annotations import Annotation, Dataset
from vistasks.datasets.packed import PackedStrings, SharedArrays
from vistasks.types import ClassNames, Sample


class Subset:
    """The pictures ``indices`` of ``dataset``, in this order."""

    def __init__(self, dataset: Dataset, indices: Sequence[int] | np.ndarray) -> None:
        self.dataset = dataset
        self._indices = SharedArrays({"indices": np.asarray(indices, dtype=np.int64)})
        self.classes: ClassNames = dataset.classes
        self.ids: Sequence[str] = PackedStrings([dataset.ids[index] for index in self.indices])
        self.paths: Sequence[str] = PackedStrings([dataset.paths[index] for index in self.indices])
        self.notes, self.skipped = dataset.notes, dataset.skipped
        self.numbers: np.ndarray | None = getattr(dataset, "numbers", None)
        if self.numbers is not None:
            self.numbers = self.numbers[self.indices]

    @property
    def indices(self) -> list[int]:
        """The pictures' numbers in the whole set."""
        return [int(index) for index in self._indices["indices"]]

    def __len__(self) -> int:
        return len(self.ids)

    def _inner(self, index: int) -> int:
        return int(self._indices["indices"][index])

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self._inner(index)]

    def sample(self, index: int, image: np.ndarray) -> Sample:
        """Picture ``index`` with the pixels given."""
        return self.dataset.sample(self._inner(index), image)

    def annotation(self, index: int) -> Annotation:
        """The objects of picture ``index``."""
        return self.dataset.annotation(self._inner(index))

    def place(self, index: int) -> tuple[int, int]:
        """Which of joined data sets the picture belongs to, and which of its pictures it is."""
        inner = self._inner(index)
        place: tuple[int, int] = getattr(self.dataset, "place", lambda i: (0, i))(inner)
        return place


def fold_of_pictures(dataset: Dataset, count: int, *, seed: int) -> np.ndarray:
    """(len,) int64: which of ``count`` folds each picture is evaluated in; a function of the data and
    ``seed`` alone.

    Pictures are dealt out by the rarest class that they have, so that each fold has its share of every class;
    folds differ by at most one picture. A ``ValueError`` where there are fewer pictures than folds."""
    if count > len(dataset):
        raise ValueError(
            f"data.folds.count: {count} folds need at least as many images, and there are {len(dataset)}"
        )
    found = [np.unique(dataset.annotation(index).labels) for index in range(len(dataset))]
    pictures = np.bincount(np.concatenate([*found, np.zeros(0, np.int64)]), minlength=1)
    rarest = [
        int(min(labels, key=lambda label: (pictures[label], label))) if len(labels) else -1
        for labels in found
    ]
    draws = np.random.default_rng([seed, count]).random(len(dataset))
    folds = np.empty(len(dataset), dtype=np.int64)
    folds[np.lexsort([draws, np.array(rarest)])] = np.arange(len(dataset)) % count
    return folds
