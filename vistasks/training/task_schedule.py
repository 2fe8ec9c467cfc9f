"""Which heads learn in which step of a joint training: staged schedules and per-task sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vistasks.config import Config, StageConfig


class TaskSchedule:
    """The heads of a step as a function of the step alone, so that a resumed run and every process agree.

    Args:
        tasks: the model's heads.
        stages: the heads that learn until a share of the training; after the last stage all do.
        sampling: where given, a step trains one of its stage's heads, drawn with these shares (1 where not
            named).
        seed: of the draws.

    Raises:
        ValueError: a stage or share names a head that the model does not have, or stages are not in order.
    """

    def __init__(
        self, tasks: Sequence[str], *, stages: Sequence[StageConfig], sampling: Mapping[str, float], seed: int
    ) -> None:
        self.tasks, self.stages, self.sampling, self.seed = tuple(tasks), tuple(stages), dict(sampling), seed
        named: dict[str, Sequence[str]] = {
            f"train.stages.{i}.tasks": stage.tasks for i, stage in enumerate(stages)
        }
        for where, names in {**named, "train.task_sampling": list(sampling)}.items():
            strange = [name for name in names if name not in self.tasks]
            if strange:
                raise ValueError(
                    f"{where} names {', '.join(strange)}; model.heads has {', '.join(self.tasks)}"
                )
        ends = [stage.until for stage in stages]
        if ends != sorted(set(ends)):
            raise ValueError(f"train.stages: each stage must end after the one before; received until {ends}")

    @classmethod
    def of(cls, config: Config) -> TaskSchedule:
        """A config's schedule."""
        train = config.train
        return cls(
            tuple(config.model.heads), stages=train.stages, sampling=train.task_sampling, seed=config.seed
        )

    def at(self, step: int, total: int) -> tuple[str, ...]:
        """The heads that learn in optimizer step ``step`` (0-based) of ``total``."""
        tasks = next((tuple(stage.tasks) for stage in self.stages if step < stage.until * total), self.tasks)
        if not self.sampling or len(tasks) == 1:
            return tasks
        shares = np.array([self.sampling.get(task, 1.0) for task in tasks])
        drawn = np.random.default_rng([self.seed, step]).choice(len(tasks), p=shares / shares.sum())
        return (tasks[drawn],)
