"""What every metric does alike: one small record per image, kept under the image's id until `compute`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from vistasks.types import Prediction, Sample

Record = TypeVar("Record")


class Metric(ABC, Generic[Record]):
    """A measure over a data set, fed image by image.

    Records are computed from in the order that `order` was given, or the natural one of the image ids ("9"
    before "10"), whatever order they came in, so that several processes that share the images get exactly the
    numbers of one. ``class_names``
    must be the prediction's."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        if not class_names or len(set(class_names)) != len(class_names):
            raise ValueError(f"class_names must be at least one name, all different, not {class_names!r}")
        self.class_names = tuple(class_names)
        self._records: dict[str, Record] = {}
        self._places: dict[str, int] = {}

    @abstractmethod
    def record(self, prediction: Prediction, sample: Sample) -> Record | None:
        """What `compute` needs to know about one image; None if nothing is labelled there for the task."""

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """Numbers by name, None where a number does not exist, and "protocol": how they were computed, in one
        line.
        """

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Adds one image; prediction and sample in pixels of the original image.

        Raises a ValueError that names ``sample.path`` for what does not fit, and for an image id that came
        before."""
        record = self.record(prediction, sample)
        if record is None:
            return
        if sample.image_id in self._records:
            raise ValueError(
                f"{sample.path}: an image with the id '{sample.image_id}' was evaluated before; "
                "ids must be unique in a data set, and reset() comes before a second pass"
            )
        self._records[sample.image_id] = record

    def order(self, ids: Sequence[str]) -> None:
        """Takes the images in this order from now on; where scores are equal, AP depends on it."""
        self._places = {image_id: place for place, image_id in enumerate(ids)}

    def state(self) -> dict[str, Record]:
        """The records by image id, for `merge` in another process (they pickle)."""
        return dict(self._records)

    def merge(self, state: Mapping[str, Record]) -> None:
        """Adds another process's records. An image that both have counts once: distributed samplers repeat
        some.
        """
        for image_id, record in state.items():
            self._records.setdefault(image_id, record)

    def reset(self) -> None:
        """Forgets all images."""
        self._records.clear()

    def ordered(self) -> dict[str, Record]:
        """The records by image id: in the order that was given, then in the natural order of the ids."""
        last = len(self._places)
        ids = sorted(
            self._records, key=lambda image_id: (self._places.get(image_id, last), natural(image_id))
        )
        return {image_id: self._records[image_id] for image_id in ids}

    def ordered_records(self) -> list[Record]:
        """The records, as `ordered` has them."""
        return list(self.ordered().values())


def natural(image_id: str) -> tuple[list[str | int], str]:
    """A sort key that takes runs of digits as numbers: COCO's numeric ids then come in pycocotools' order."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", image_id)], image_id


def mean_or_none(values: list[float]) -> float | None:
    """The mean, or None of nothing."""
    return sum(values) / len(values) if values else None
