"""What a comparison of evaluated runs is made of: the runs, rows of numbers, and each task's part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vistasks.evaluation.reports.records import PictureRecords


@dataclass(frozen=True, eq=False)
class Run:
    """An evaluated run: its name among the others, the folder of its report, and what that holds."""

    name: str
    folder: Path
    report: Mapping[str, Any]
    records: PictureRecords


def row(
    name: str, values: Sequence[float | None], intervals: Sequence[Sequence[float] | None], **more: Any
) -> dict[str, Any]:
    differences = [
        {
            "difference": None if value is None or values[0] is None else value - values[0],
            "low": interval[0] if interval else None,
            "high": interval[1] if interval else None,
        }
        for value, interval in zip(values[1:], intervals)
    ]
    return {"name": name, "values": list(values), "differences": differences, **more}


def by_difference(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(
        rows, key=lambda row: -max((abs(d["difference"] or 0) for d in row["differences"]), default=0)
    )


class TaskComparison(ABC):
    """How runs are compared on one task.

    Attributes:
        errors_title: what a picture's errors are, such as "share of the pixels wrong".
        classes_title: of the table by class.
        pictures_title: of the tables of pictures gained and lost.
        count: which key of the rows by class says how many labels there are.
        whole: errors are whole numbers.
    """

    errors_title: str
    classes_title: str
    pictures_title: str
    count: str
    whole: bool = False

    @abstractmethod
    def pictures(self, records: PictureRecords) -> Mapping[str, Any]:
        """What a run keeps of each picture, by image id; empty where the task was not evaluated."""

    @abstractmethod
    def other_labels(self, one: PictureRecords, other: PictureRecords) -> list[str]:
        """The ids of the pictures whose labels differ."""

    @abstractmethod
    def classes(self, runs: Sequence[Run], samples: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows by class, and of each other run the intervals of the headline numbers.

        ``samples``: of the bootstrap, where it is slow.
        """

    @abstractmethod
    def errors(self, records: PictureRecords) -> np.ndarray:
        """(N,) float64: of each picture."""
