"""What is spared between neighbouring frames, with a model that writes down what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tests.inference.video.cheap import NAMES
from vistasks.inference.backend import Backend
from vistasks.inference.prediction import Picture
from vistasks.inference.predictor import Predictor
from vistasks.inference.video.network import FrameJob, Network
from vistasks.inference.video.options import InferOptions
from vistasks.proposals.connected_parts import connected_parts
from vistasks.types import ClassNames, Detections, Prediction, SegmentationMap


class Asked(Backend):
    """Its class map is 1 in the rows up to the picture's value; it detects each region that it is given."""

    def __init__(self, classes: ClassNames = NAMES) -> None:
        self.classes = classes
        self.proposed: list[int] = []
        self.rows: list[Mapping[str, Sequence[int]]] = []

    selects = True

    def propose(self, image: np.ndarray) -> np.ndarray | None:
        value = int(image[0, 0, 0])
        self.proposed.append(value)
        return np.array([[0, 0, 1 + value, 5]], dtype=np.float32)

    def make_batch(self, images: Sequence[np.ndarray], proposals: Sequence[np.ndarray] | None) -> Any:
        return list(images), proposals

    def predict(
        self,
        batch: Any,
        *,
        rows: Mapping[str, Sequence[int]] | None = None,
        regions: Callable[..., Any] | None = None,
    ) -> list[Prediction]:
        (images, proposals), rows = batch, rows or {}
        self.rows.append({task: list(indices) for task, indices in rows.items()})
        maps = [
            self._map(image) if index in rows["segmentation"] else None for index, image in enumerate(images)
        ]
        said = [Prediction(None, found) for found in maps]
        more = regions(said) if regions is not None else [np.zeros((0, 4), np.float32)] * len(images)
        boxes = [
            np.concatenate([extra, given])
            for extra, given in zip(more, proposals or [np.zeros((0, 4))] * len(images))
        ]
        found = [self._found(b) if index in rows["detection"] else None for index, b in enumerate(boxes)]
        return [Prediction(detections, segmentation) for detections, segmentation in zip(found, maps)]

    def _map(self, image: np.ndarray) -> SegmentationMap:
        labels = np.zeros(image.shape[:2], dtype=np.uint8)
        labels[: int(image[0, 0, 0])] = 1
        return SegmentationMap(labels, self.classes.segmentation)

    def _found(self, boxes: np.ndarray) -> Detections:
        moved = (boxes + np.array([0, 1, 0, 1])).astype(np.float32)  # so that detections and proposals differ
        return Detections(
            moved, np.ones(len(boxes), np.float32), np.zeros(len(boxes), np.int64), self.classes.detection
        )


def predict(
    backend: Asked,
    values: Sequence[int],
    *,
    batch: int = 1,
    first: int = 0,
    period: int = 12,
    tasks: Any = None,
    **options: Any,
) -> list[FrameJob]:
    predictor = Predictor(backend, batch_size=batch, tasks=tasks or ("detect", "segment"))
    network = Network(predictor, InferOptions(**options), period=period)
    jobs = []
    for number, value in enumerate(values, first):
        size = (20, 30) if value < 100 else (10, 30)
        jobs.append(FrameJob(number, Picture(np.full((*size, 3), value % 100, dtype=np.uint8))))
        network.plan(jobs[-1])
        network.propose(jobs[-1])
    for start in range(0, len(jobs), batch):
        group = jobs[start : start + batch]
        network.predict(group, network.batch(group))
    return jobs


def boxes(job: FrameJob) -> list[list[float]]:
    assert job.prediction.detections is not None
    return job.prediction.detections.boxes.tolist()


def test_every_frame_by_itself() -> None:
    backend = Asked()
    jobs = predict(backend, [1, 2, 3], batch=2)
    assert backend.proposed == [1, 2, 3]
    assert backend.rows == [
        {"segmentation": [0, 1], "detection": [0, 1]},
        {"segmentation": [0], "detection": [0]},
    ]
    assert [boxes(job) for job in jobs] == [[[0, 1, 1 + value, 6]] for value in (1, 2, 3)]


def test_proposals_on_every_third_frame_and_the_detections_between() -> None:
    backend = Asked()
    jobs = predict(backend, [1, 2, 3, 4, 5], propose_every=3)
    assert backend.proposed == [1, 4]
    assert boxes(jobs[0]) == [[0, 1, 2, 6]]
    assert boxes(jobs[1]) == [
        [0, 2, 2, 7],
        [0, 1, 2, 6],
    ]  # what was detected has moved on; the old proposals
    assert boxes(jobs[2])[:2] == [[0, 3, 2, 8], [0, 2, 2, 7]]
    assert boxes(jobs[3]) == [[0, 1, 5, 6]]  # computed afresh: nothing is carried over


def test_a_class_map_on_every_second_frame() -> None:
    backend = Asked()
    jobs = predict(backend, [1, 2, 3, 4], batch=4, segment_every=2)
    assert backend.rows[0]["segmentation"] == [0, 2]
    covered = [int((job.prediction.segmentation.labels == 1).any(axis=1).sum()) for job in jobs]  # type: ignore[union-attr]
    assert covered == [1, 1, 3, 3]


def test_connected_parts_of_the_map_instead_of_proposals() -> None:
    backend = Asked()
    jobs = predict(backend, [4, 8, 9], proposals="segmentation", segment_every=2)
    assert backend.proposed == []
    assert [boxes(job)[0] for job in jobs] == [[0, 1, 30, 5], [0, 1, 30, 5], [0, 1, 30, 10]]
    hidden = predict(Asked(), [4], proposals="segmentation", tasks=["detect"])
    assert hidden[0].prediction.segmentation is None and len(boxes(hidden[0])) == 2


def test_a_frame_of_another_size_is_computed_afresh() -> None:
    backend = Asked()
    jobs = predict(backend, [1, 102, 103, 4], propose_every=4, segment_every=4)
    assert backend.proposed == [1, 2, 4]
    shapes = [job.prediction.segmentation.labels.shape for job in jobs]  # type: ignore[union-attr]
    assert shapes == [(20, 30), (10, 30), (10, 30), (20, 30)]


def test_what_comes_after_a_period_does_not_depend_on_what_was_before() -> None:
    options: dict[str, Any] = {"batch": 2, "propose_every": 4, "segment_every": 2, "period": 4}
    whole = predict(Asked(), [1, 2, 3, 4, 5, 6, 7, 8], **options)
    rest = predict(Asked(), [5, 6, 7, 8], first=4, **options)
    assert [boxes(job) for job in whole[4:]] == [boxes(job) for job in rest]


def test_a_task_that_is_not_wanted_is_not_computed() -> None:
    backend = Asked()
    predict(backend, [1], tasks=["detect"])
    predict(backend, [1], tasks=["segment"])
    assert backend.rows == [{"segmentation": [], "detection": [0]}, {"segmentation": [0], "detection": []}]
    assert backend.proposed == [1]


def test_a_detector_has_no_map_to_propose_from() -> None:
    with pytest.raises(
        ValueError,
        match=r"--proposals segmentation .* this model has none",
    ):
        predict(Asked(ClassNames(("box",))), [1], proposals="segmentation")


def test_parts_are_connected_by_corners_and_small_ones_are_left_out() -> None:
    labels = np.zeros((40, 40), dtype=np.uint8)
    labels[2:8, 2:8] = labels[8:12, 8:12] = 1  # touch at a corner
    labels[20:30, 20:30] = 2
    labels[35:38, 2:5] = 1  # 9 pixels
    found = connected_parts(SegmentationMap(labels, ("background", "a", "b")))
    np.testing.assert_allclose(found[0], [20, 20, 30, 30])
    np.testing.assert_allclose(found[1], [18.5, 18.5, 31.5, 31.5])
    np.testing.assert_allclose(found[2], [2, 2, 12, 12])
    assert len(found) == 4 and found.dtype == np.float32
    assert connected_parts(SegmentationMap(np.zeros((4, 4), np.uint8), ("background", "a"))).shape == (0, 4)
