"""What each task adds to the evaluation report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vistasks.types import Prediction, Sample

Tags = list[tuple[np.ndarray, str]]  # boxes (4,) of the image, each with the text at it


@dataclass(frozen=True, eq=False)
class Flaws:
    """What is wrong about one image, for the gallery of the worst.

    Attributes:
        badness: kind of error -> by how much; the images with the most of each kind are shown.
        counts: kind of error -> how many, as its caption says.
        share: the share of the labelled pixels that are wrong, where it is pixels.
        classes: names of the classes that something is wrong with.
        truth, found: the task's answers that are drawn side by side.
        truth_tags, found_tags: what is written at boxes of them.
    """

    badness: Mapping[str, float]
    counts: Mapping[str, int] = field(default_factory=dict)
    share: float | None = None
    classes: frozenset[str] = frozenset()
    truth: Any = None
    found: Any = None
    truth_tags: Tags = field(default_factory=list)
    found_tags: Tags = field(default_factory=list)


class Section(ABC):
    """A task's part of the report; fed like a metric."""

    @abstractmethod
    def update(self, prediction: Prediction, sample: Sample) -> Flaws | None:
        """Adds one image; None where nothing can be wrong with it. ``sample.proposals``, if there, are in its
        own pixels.
        """

    @abstractmethod
    def compute(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Entries of the report's "analysis", from what was collected and the metrics by their keys."""

    @abstractmethod
    def records(self) -> dict[str, Any]:
        """Fields of `vistasks.evaluation.reports.records.PictureRecords`, after `compute`."""
