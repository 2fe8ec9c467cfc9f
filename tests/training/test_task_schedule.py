"""Which heads learn in which step."""

from __future__ import annotations

from collections import Counter

import pytest

from vistasks.config import StageConfig
from vistasks.training.task_schedule import TaskSchedule

TASKS = ("detection", "segmentation")


def schedule(
    stages: list[StageConfig] | None = None, sampling: dict[str, float] | None = None
) -> TaskSchedule:
    return TaskSchedule(TASKS, stages=stages or [], sampling=sampling or {}, seed=3)


def test_without_options_all_heads_learn() -> None:
    assert {schedule().at(step, 10) for step in range(10)} == {TASKS}


def test_stages_end_at_their_share_of_the_training() -> None:
    staged = schedule(
        [StageConfig(tasks=["detection"], until=0.4), StageConfig(tasks=["segmentation"], until=0.6)]
    )
    assert [staged.at(step, 10) for step in range(10)] == [("detection",)] * 4 + [("segmentation",)] * 2 + [
        TASKS
    ] * 4


def test_sampling_draws_one_head_with_its_share_the_same_every_time() -> None:
    drawn = [schedule(sampling={"detection": 3.0}).at(step, 4000) for step in range(4000)]
    assert drawn == [schedule(sampling={"detection": 3.0}).at(step, 4000) for step in range(4000)]
    counts = Counter(drawn)
    assert set(counts) == {("detection",), ("segmentation",)} and 2850 < counts["detection",] < 3150


def test_sampling_within_a_stage() -> None:
    staged = schedule([StageConfig(tasks=["segmentation"], until=0.5)], {"detection": 1.0})
    assert [staged.at(step, 8) for step in range(4)] == [("segmentation",)] * 4
    assert {staged.at(step, 100) for step in range(50, 100)} == {("detection",), ("segmentation",)}


def test_messages() -> None:
    alone = {"stages": [StageConfig(tasks=["segmentation"], until=0.5)], "sampling": {}, "seed": 0}
    with pytest.raises(
        ValueError, match=r"train\.stages\.0\.tasks names segmentation; model\.heads has detection"
    ):
        TaskSchedule(["detection"], **alone)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"train\.task_sampling names boxes; model\.heads has detection, segmentation"
    ):
        schedule(sampling={"boxes": 1.0})
    with pytest.raises(
        ValueError, match=r"stages: each stage must end after the one before; received until \[0\.5, 0\.2\]"
    ):
        schedule(
            [StageConfig(tasks=["detection"], until=0.5), StageConfig(tasks=["segmentation"], until=0.2)]
        )
