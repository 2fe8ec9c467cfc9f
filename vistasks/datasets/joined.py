"""Several data sets as one, over one list of class names: how a batch comes to mix samples labelled for
different things.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vistasks.datasets.annotations import Annotation, Dataset
from vistasks.datasets.packed import PackedStrings
from vistasks.system.text import few
from vistasks.task import all_tasks
from vistasks.types import ClassNames, Labelled, Sample


def joined_classes(parts: Sequence[ClassNames]) -> ClassNames:
    """All names of each task, in order of first appearance."""
    names: dict[str, dict[str, None]] = {}
    for part in parts:
        for task, own in part.by_task().items():
            names.setdefault(task, {}).update(dict.fromkeys(own))
    return ClassNames.of_tasks({task: tuple(found) for task, found in names.items()})


class JoinedDataset:
    """The samples of all ``datasets`` in order; class ids mapped by name onto ``classes``.

    Raises a ``ValueError`` where a set has a class that ``classes`` lacks. Where an image id stands in
    several sets, all ids are prefixed by their set's number."""

    def __init__(self, datasets: Sequence[Dataset], classes: ClassNames | None = None) -> None:
        self.datasets = list(datasets)
        self.classes = classes or joined_classes([d.classes for d in datasets])
        self._maps = [_Maps(d.classes, self.classes) for d in datasets]
        self._starts = np.cumsum([0, *(len(d) for d in datasets)])
        self.ids = _together([d.ids for d in datasets])
        if len(set(self.ids)) < len(self.ids):
            self.ids = PackedStrings(
                [f"{number}/{image_id}" for number, d in enumerate(datasets) for image_id in d.ids]
            )
        self.paths = _together([d.paths for d in datasets])
        self.notes = [note for d in datasets for note in d.notes]
        self.skipped = [fault for d in datasets for fault in d.skipped]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def place(self, index: int) -> tuple[int, int]:
        """Which of the data sets image ``index`` belongs to, and which of its images it is."""
        index = range(len(self))[index]  # an IndexError beyond the end, which ends loops over the data set
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])

    def __getitem__(self, index: int) -> Sample:
        number, inner = self.place(index)
        return self._joined(index, number, self.datasets[number][inner])

    def sample(self, index: int, image: np.ndarray) -> Sample:
        """Image ``index`` with the pixels given."""
        number, inner = self.place(index)
        return self._joined(index, number, self.datasets[number].sample(inner, image))

    def _joined(self, index: int, number: int, sample: Sample) -> Sample:
        maps = self._maps[number]
        for task in all_tasks():
            sample = task.mapped(sample, maps.ids[task.name])
        return replace(sample, image_id=self.ids[index], labelled=maps.labelled(sample.labelled))

    def annotation(self, index: int) -> Annotation:
        """The objects of image ``index`` without decoding the image."""
        number, inner = self.place(index)
        found: Annotation = self.datasets[number].annotation(inner)
        maps = self._maps[number]
        for task in all_tasks():
            found = task.mapped_annotation(found, maps.ids[task.name])
        return replace(found, labelled=maps.labelled(found.labelled))


def _together(lists: Sequence[Sequence[str]]) -> Sequence[str]:
    return lists[0] if len(lists) == 1 else PackedStrings([text for texts in lists for text in texts])


class _Maps:
    """The class ids of one data set -> those of the common list, by task."""

    def __init__(self, source: ClassNames, target: ClassNames) -> None:
        tasks = [task.name for task in all_tasks()]
        self.ids = {
            task: np.array(_positions(source.of(task), target.of(task), task), dtype=np.int64)
            for task in tasks
        }

    def labelled(self, labelled: Labelled) -> Labelled:
        covered = labelled.by_task()
        return Labelled.of_tasks(
            {task: frozenset(int(ids[i]) for i in covered.get(task, ())) for task, ids in self.ids.items()}
        )


def _positions(names: tuple[str, ...], target: tuple[str, ...], task: str) -> list[int]:
    unknown = [name for name in names if name not in target]
    if unknown:
        raise ValueError(
            f"{task}: the data has {len(unknown)} classes that the model lacks: {few(unknown)}. "
            f"The data's: {few(names)}; the model's: {few(target) or 'none'}"
        )
    return [target.index(name) for name in names]
