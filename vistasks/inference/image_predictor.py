"""Images -> predictions: what the user's `Predictor` and the video pipeline both stand on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from vistasks.inference.backend import Backend
from vistasks.inference.prediction import Picture, PicturePrediction
from vistasks.task import task_names, task_of
from vistasks.types import ClassNames, Prediction

if TYPE_CHECKING:
    from vistasks.heads.test_time import TestTime


class ImagePredictor:
    """Predicts images with a trained model; `vistasks.inference.predictor.Predictor` adds videos.

    Args:
        backend: the loaded model.
        tasks: which of its answers are given, such as "detection" (or "detect"); None: all. What the model
            cannot do is left out, unless nothing remains. Without a task that takes them no proposals are
            computed.
        score: detections below this score are left out.
        batch_size: pictures that go through the network at once.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        tasks: Sequence[str] | None = None,
        score: float = 0.5,
        batch_size: int = 1,
    ) -> None:
        wanted = None if tasks is None else task_names(tasks)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; received {batch_size}")
        if not 0 <= score <= 1:
            raise ValueError(f"score must be from 0 to 1; received {score}")
        self.tasks = tuple(task for task in backend.tasks if wanted is None or task in wanted)
        if not self.tasks:
            can = ", ".join(backend.tasks) or "nothing"
            raise ValueError(f"tasks: this model has {can}; asked for was {', '.join(wanted or ())}")
        self.backend, self.score, self.batch_size = backend, score, batch_size

    def __repr__(self) -> str:
        parts = [f"{task}: {', '.join(self.classes.of(task))}" for task in self.tasks]
        return f"<Predictor; {'; '.join(parts)}; score >= {self.score}; batches of {self.batch_size}>"

    @property
    def classes(self) -> ClassNames:
        """The class names of the two tasks."""
        return self.backend.classes

    def speed_up(self, *, half: bool = False, compiled: bool = False, cuda_graphs: bool = False) -> None:
        """Predicts in 16 bits, with a compiled backbone or one from CUDA graphs; see
        `vistasks.inference.loaded.LoadedModel.speed_up`.

        Raises a ``ValueError`` where the backend cannot.
        """
        if half or compiled or cuda_graphs:
            self.backend.speed_up(half=half, compiled=compiled, cuda_graphs=cuda_graphs)

    def look(self, test_time: TestTime) -> None:
        """Averages over views and windows of each image; see `vistasks.heads.test_time`.

        Raises a ``ValueError`` where the backend cannot.
        """
        self.backend.look(test_time)

    def predict_pictures(self, pictures: Iterable[Picture]) -> Iterator[PicturePrediction]:
        """Predictions of pictures in order, ``batch_size`` of them held at once."""
        remaining = iter(pictures)
        while chunk := list(islice(remaining, self.batch_size)):
            for picture, prediction in zip(
                chunk, self._batch([picture.image for picture in chunk]), strict=True
            ):
                yield self.answer(picture, prediction)

    def answer(self, picture: Picture, prediction: Prediction) -> PicturePrediction:
        """What the user gets of what the model says: the tasks asked for, detections from the score threshold
        on.
        """
        found = PicturePrediction(
            image=picture.image, path=picture.path, seconds=picture.seconds, classes=self.classes
        )
        for name in self.tasks:
            task = task_of(name)
            if (answer := task.answer(prediction)) is not None:
                found = task.with_answer(found, task.kept(answer, self.score))
        return found

    @property
    def takes_proposals(self) -> bool:
        """Whether one of its tasks takes region proposals."""
        return any(task_of(task).takes_proposals for task in self.tasks)

    def propose(self, image: np.ndarray) -> np.ndarray | None:
        """Region proposals (P, 4) of an image; None where no task of this predictor takes any."""
        return self.backend.propose(image) if self.takes_proposals else None

    def _batch(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        found = [self.propose(image) for image in images]
        proposals = [boxes for boxes in found if boxes is not None] or None
        return self.backend.predict(self.backend.make_batch(images, proposals))
