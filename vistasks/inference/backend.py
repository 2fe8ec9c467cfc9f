"""What predicts batches of images: one trained model, several as one, or a stand-in in tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vistasks.types import ClassNames, Prediction

if TYPE_CHECKING:  # PyTorch is only needed where a model is
    from vistasks.heads.test_time import TestTime
    from vistasks.models.views import Regions


class Backend(ABC):
    """A trained model as the inference code drives it.

    Attributes:
        classes: the class names of each task.
        paths: the files that it was loaded from.
        selects: `predict` takes ``rows`` and ``regions``, so that work can be spared between video frames.
    """

    classes: ClassNames
    paths: Sequence[Path] = ()
    selects: bool = False

    @property
    def tasks(self) -> Sequence[str]:
        """The names of the tasks that it answers."""
        return [task for task, names in self.classes.by_task().items() if names]

    @abstractmethod
    def propose(self, image: np.ndarray) -> np.ndarray | None:
        """Region proposals (P, 4) of one image (H, W, 3) uint8 RGB; None where no head takes any."""

    @abstractmethod
    def make_batch(self, images: Sequence[np.ndarray], proposals: Sequence[np.ndarray] | None) -> Any:
        """The batch of images (H, W, 3) uint8 RGB that `predict` takes."""

    @abstractmethod
    def predict(
        self,
        batch: Any,
        *,
        rows: Mapping[str, Sequence[int]] | None = None,
        regions: Regions | None = None,
    ) -> list[Prediction]:
        """One prediction per image, in pixels of the images as they were before batching.

        ``rows`` and ``regions``: see `vistasks.models.MultiTaskModel.predict`; only where `selects` is true.
        """

    def speed_up(self, *, half: bool = False, compiled: bool = False, cuda_graphs: bool = False) -> None:
        """Predict in 16 bits, with a compiled backbone or one from CUDA graphs."""
        raise ValueError("this model runs as it is: leave out --half, --compile and --cuda-graphs")

    def look(self, test_time: TestTime) -> None:
        """Average over views and windows of each image (test-time augmentation)."""
        raise ValueError("this model runs as it is: leave out --tta and --window")
