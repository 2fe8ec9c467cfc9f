"""What only one task knows, in one place: `Task`. Everything else asks the table `vistasks.registry.TASKS`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from vistasks.registry import TASKS
from vistasks.types import Batch, ClassNames, Prediction, Sample

Some = TypeVar("Some", bound=Prediction)


class Task:
    """One task, such as detection. A subclass overrides what its task has; the rest says nothing.

    A new task is one file: a subclass registered in ``TASKS`` under its name, and a head
    (`vistasks.heads.head.Head`) whose ``task`` is that name.

    Attributes:
        name: in configs, checkpoints and reports, such as "detection".
        verb: in the readers' ``tasks`` option and after --tasks, such as "detect".
        unit: what a class's labels are counted in, such as "objects".
        has_classes: its labels are of named classes.
        read: the readers give its labels; else it makes them of the image itself.
        takes_proposals: its head takes region proposals.
        layer: where its answers are drawn: higher ones over lower ones.
        headline: name -> (metric, number): the few numbers that a run is followed by.
        monitored: which of them is "best", when the config does not say.
    """

    name: ClassVar[str]
    verb: ClassVar[str]
    unit: ClassVar[str] = "labels"
    has_classes: ClassVar[bool] = True
    read: ClassVar[bool] = True
    takes_proposals: ClassVar[bool] = False
    layer: ClassVar[int] = 0
    headline: ClassVar[Mapping[str, tuple[str, str]]] = {}
    monitored: ClassVar[str | None] = None

    # Config

    def check_config(self, head: Mapping[str, Any], config: Any) -> None:
        """A ``ValueError`` where the options of the task's head contradict the rest of the config."""

    def resolved(self, head: Mapping[str, Any], dataset: Any) -> Mapping[str, Any]:
        """The head's options with what the training data decide, such as class weights by frequency."""
        return head

    def taken_over(self, head: Mapping[str, Any], earlier: Mapping[str, Any]) -> Mapping[str, Any]:
        """The head's options for a resumed run: what the data decided then, from its ``earlier`` options."""
        return head

    # Labels

    def check_sample(self, sample: Sample, classes: ClassNames) -> None:
        """A ``ValueError`` that names the image of a class id without a name."""

    def targets(
        self, samples: Sequence[Sample], size: tuple[int, int], classes: ClassNames
    ) -> dict[str, Any]:
        """Name -> (N, ...) tensor of the labels of images padded to ``size`` (height, width); they become
        ``batch.targets[self.name]``.
        """
        return {}

    def batch_fields(
        self, samples: Sequence[Sample], size: tuple[int, int], classes: ClassNames
    ) -> dict[str, Any]:
        """As `targets`, for the tasks whose labels `Batch` has fields of its own for."""
        return {}

    def labelled(self, batch: Batch) -> Any:
        """(N, K) bool: which classes each image's labels cover; all of them, unless the task says otherwise."""
        return batch.images.new_ones(len(batch), 1).bool()

    def mapped(self, sample: Sample, ids: np.ndarray) -> Sample:
        """The sample with the task's class ids replaced by ``ids[old]``, of another list of classes."""
        return sample

    def mapped_annotation(self, annotation: Any, ids: np.ndarray) -> Any:
        """As `mapped`, of a `vistasks.datasets.annotations.Annotation`."""
        return annotation

    def counts(self, sample: Sample) -> np.ndarray:
        """(C,) int64: how many of its units a sample has of each class id, up to the highest that it has."""
        return np.zeros(0, np.int64)

    def truth(self, sample: Sample, classes: ClassNames) -> Any:
        """A sample's labels as an answer, or None where it has none."""
        return None

    # Answers

    def answer(self, prediction: Prediction) -> Any:
        """The task's answer in a prediction, or None."""
        return prediction.others.get(self.name)

    def with_answer(self, prediction: Some, answer: Any) -> Some:
        """The prediction with another answer of this task."""
        others = {task: found for task, found in prediction.others.items() if task != self.name}
        return replace(prediction, others=others if answer is None else {**others, self.name: answer})

    def classes_of(self, answer: Any) -> tuple[str, ...]:
        """The class names that the answer's ids stand for."""
        return ()

    def kept(self, answer: Any, score: float) -> Any:
        """The answer without what scores less."""
        return answer

    def without(self, answer: Any, hidden: set[str]) -> Any:
        """The answer without some classes."""
        return answer

    def resized(self, answer: Any, before: tuple[int, int], after: tuple[int, int]) -> Any:
        """The answer for the image at another (height, width)."""
        return answer

    def regions(self, answer: Any) -> np.ndarray | None:
        """Boxes (P, 4) float32 that the answer suggests as region proposals, or None where it has none."""
        return None

    def summary(self, answer: Any) -> str:
        """The answer in a few words, such as "2 cat, 1 dog"."""
        return str(answer)

    # Metrics

    def metrics(self, classes: ClassNames, tasks: Sequence[str], engine: Any) -> dict[str, Any]:
        """The metrics by their key in reports; ``tasks`` are all of the model's."""
        return {}

    # Drawing

    def draw(
        self, canvas: np.ndarray, answer: Any, colours: Mapping[str, Any], *, labels: bool
    ) -> np.ndarray:
        """The image (H, W, 3) uint8 RGB with the answer drawn, possibly in place; ``labels``: with text."""
        return canvas

    def draw_legend(self, canvas: np.ndarray, answer: Any, colours: Mapping[str, Any]) -> None:
        """Draws what the colours mean, in place, over everything."""

    # Files

    writes_coco: ClassVar[bool] = False  # `coco_results` go into results.json, images.json explains their ids
    csv_file: ClassVar[str | None] = None  # which file `csv_rows` go into
    csv_columns: ClassVar[Sequence[str]] = ()
    tracked: ClassVar[bool] = False  # its answers are objects that can be followed through a video

    def coco_results(self, answer: Any, image_id: int) -> list[dict[str, Any]]:
        """The answer as COCO results; a category's id is the class id + 1."""
        return []

    def csv_rows(self, answer: Any) -> list[list[str]]:
        """Rows of `csv_columns`."""
        return []

    def crops(self, answer: Any) -> list[tuple[str, np.ndarray]]:
        """(class name, box) of each part of the image that --crop cuts out."""
        return []

    def save_files(self, answer: Any, folder: Path, name: str, colours: Mapping[str, Any]) -> None:
        """Writes the image's own files, such as masks, below ``folder``."""

    def save_mask(self, answer: Any, path: Path, colours: Mapping[str, Any]) -> None:
        """Writes the answer as a PNG, where it is one (--masks png)."""

    def run_lengths(self, answer: Any) -> dict[str, Any] | None:
        """The answer as run-length codes, where it is a mask (--masks rle)."""
        return None

    def facts(self, answer: Any) -> dict[str, Any]:
        """The entries of a frame's line in results.jsonl."""
        return {}

    def stored(self, answer: Any) -> Any:
        """The answer as JSON, exactly: `restored` gives an equal one."""
        return answer

    def restored(self, stored: Any, classes: ClassNames) -> Any:
        """See `stored`."""
        return stored

    # Reports

    protocols: ClassVar[Sequence[str]] = ()  # the keys of its metrics that name their protocol

    def report(self, classes: ClassNames, *, score: float) -> Any:
        """A `vistasks.evaluation.reports.section.Section` of the evaluation report, or None."""
        return None

    def report_html(self, content: Mapping[str, Any], colours: Mapping[str, str]) -> str:
        """Its section of the report's page, from the report's content; ``colours`` of the classes, as CSS."""
        return ""

    def comparison(self) -> Any:
        """A `vistasks.evaluation.reports.compared.TaskComparison`, or None."""
        return None


def task_of(name: str) -> Task:
    """The registered task of a name; a ``ValueError`` lists the known ones."""
    return _instance(TASKS[name])


@functools.cache
def _instance(kind: Any) -> Task:
    task: Task = kind()
    return task


def task_names(words: Sequence[str]) -> list[str]:
    """The names of tasks that are given by name or verb ("detection" or "detect"), each once.

    A ``ValueError`` names what is neither.
    """
    names = {word: task.name for task in all_tasks() for word in (task.verb, task.name)}
    unknown = [word for word in words if word not in names]
    if unknown or not words:
        verbs = ", ".join(task.verb for task in all_tasks())
        raise ValueError(f"tasks are among {verbs}; received: {', '.join(words) or 'none'}")
    return list(dict.fromkeys(names[word] for word in words))


def all_tasks() -> Iterator[Task]:
    """Every registered task."""
    for name in TASKS:
        yield task_of(name)


def answers(prediction: Prediction) -> Iterator[tuple[Task, Any]]:
    """The tasks that a prediction answers, with the answers, in the order in which they are drawn."""
    for task in sorted(all_tasks(), key=lambda one: one.layer):
        if (answer := task.answer(prediction)) is not None:
            yield task, answer
