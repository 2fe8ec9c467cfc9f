"""What every metric of every task must do. A new task's metrics are tested here without an edit."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.metrics.scenes import NAMES, random_scenes
from vistasks.metrics import BoundaryQuality, Metric
from vistasks.task import all_tasks
from vistasks.types import ClassNames, Labelled, Prediction, SegmentationMap

BOTH = ClassNames(NAMES, NAMES)
BUILDERS: dict[str, Callable[[tuple[str, ...]], Metric]] = {
    f"{task.name} {key}": lambda names, task=task, key=key: task.metrics(
        ClassNames(names, names), [task.name], "hotcoco"
    )[key]
    for task in all_tasks()
    for key in task.metrics(BOTH, [task.name], "hotcoco")
}
BUILDERS["boundary"] = BoundaryQuality

every_metric = pytest.mark.parametrize("name", list(BUILDERS))


def build(name: str) -> Metric:
    return BUILDERS[name](NAMES)


def fed(name: str, scenes: list) -> Metric:
    metric = build(name)
    for prediction, sample in scenes:
        metric.update(prediction, sample)
    return metric


def numbers(result: dict) -> list:
    """Every value that is neither text nor a table, however deep."""
    flat: list = []
    for value in result.values():
        flat += numbers(value) if isinstance(value, dict) else [value]
    return [value for value in flat if not isinstance(value, str)]


@every_metric
def test_result_is_json_with_a_protocol_and_rows_per_class(name: str) -> None:
    result = fed(name, random_scenes(1)).compute()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["protocol"] and "\n" not in result["protocol"]
    assert tuple(result["per_class"]) == NAMES
    assert any(isinstance(value, float) and value > 0 for value in numbers(result))
    assert all(value is None or value >= 0 for value in numbers(result))


@every_metric
def test_empty_data_set_has_no_numbers(name: str) -> None:
    values = numbers(build(name).compute())
    assert None in values
    assert all(value is None or (isinstance(value, int) and value == 0) for value in values)


@every_metric
def test_order_of_images_and_processes_does_not_matter(name: str) -> None:
    scenes = random_scenes(2, 13)
    whole = fed(name, scenes).compute()
    assert fed(name, scenes[::-1]).compute() == whole
    ranks = [fed(name, scenes[rank::3]) for rank in range(3)]
    gathered = build(name)
    for rank in reversed(ranks):
        gathered.merge(pickle.loads(pickle.dumps(rank.state())))
    assert gathered.compute() == whole


@every_metric
def test_an_image_that_two_processes_saw_counts_once(name: str) -> None:
    scenes = random_scenes(3)
    metric = fed(name, scenes[:8])
    metric.merge(fed(name, scenes[6:]).state())
    assert metric.compute() == fed(name, scenes).compute()


@every_metric
def test_reset_forgets_and_the_state_is_a_copy(name: str) -> None:
    scenes = random_scenes(4)
    metric = fed(name, scenes)
    first, state = metric.compute(), metric.state()
    metric.reset()
    assert metric.compute() == build(name).compute()
    metric.merge(state)
    assert metric.compute() == first


@every_metric
def test_the_same_image_twice_is_an_error(name: str) -> None:
    (prediction, sample), *_ = random_scenes(5)
    metric = fed(name, [(prediction, sample)])
    with pytest.raises(
        ValueError, match=r"image 0\.jpg: an image with the id 'image 0' was evaluated before"
    ):
        metric.update(prediction, sample)


@every_metric
def test_images_not_labelled_for_the_task_are_skipped(name: str) -> None:
    scenes = random_scenes(6)
    metric = fed(name, scenes)
    expected = metric.compute()
    metric.update(Prediction(), replace(scenes[0][1], image_id="unlabelled", labelled=Labelled()))
    assert metric.compute() == expected


@every_metric
def test_a_prediction_without_the_task_is_an_error(name: str) -> None:
    _, sample = random_scenes(7)[0]
    with pytest.raises(ValueError, match=r"image 0\.jpg: the prediction holds no .* labelled for"):
        build(name).update(Prediction(), sample)


@every_metric
def test_other_class_names_are_an_error_that_shows_both(name: str) -> None:
    prediction, sample = random_scenes(8)[0]
    assert prediction.detections is not None and prediction.segmentation is not None
    other = ("WBC", "RBC", "Platelets", "never there")
    swapped = Prediction(
        replace(prediction.detections, class_names=other),
        SegmentationMap(prediction.segmentation.labels, other),
    )
    with pytest.raises(
        ValueError, match=r"image 0\.jpg: the prediction's classes \('WBC', .* are not the metric's \('RBC', "
    ):
        build(name).update(swapped, sample)


@every_metric
@pytest.mark.parametrize("names", [(), ("a", "a")])
def test_class_names_must_be_some_and_different(name: str, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="class_names must be at least one name, all different"):
        BUILDERS[name](names)
