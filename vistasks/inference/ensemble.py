"""Several trained models that answer as one: boxes by weighted boxes fusion, class maps by the mean of the
probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vistasks.config import ProposalsConfig
from vistasks.heads.test_time import TestTime
from vistasks.inference.backend import Backend
from vistasks.inference.loaded import LoadedModel, load_model
from vistasks.loading.batching import Preparation
from vistasks.models.views import Regions
from vistasks.ops.box_fusion import BoxFusion
from vistasks.task import task_of
from vistasks.types import Batch, ClassNames, Prediction, Sample


class EnsembleModel(nn.Module):
    """What an `Ensemble` predicts with. A batch is a list: each member's `Batch` of the same pictures.

    A task that one member alone has is answered by that member, exactly as without the others.

    Args:
        members: the models.
        classes: of all of them.
        fusion: how boxes of several members become one set.
        votes: of each member, over 0: what its boxes and probabilities count.
    """

    def __init__(
        self, members: Sequence[LoadedModel], classes: ClassNames, fusion: BoxFusion, votes: Sequence[float]
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(member.model for member in members)
        self.classes, self.fusion, self.votes = classes, fusion, tuple(votes)
        self._heads = [member.model.heads for member in members]
        self._owners = {
            task: [number for number, heads in enumerate(self._heads) if task in heads]
            for task in dict.fromkeys(task for heads in self._heads for task in heads)
        }

    def predict(self, batch: list[Batch]) -> list[Prediction]:
        """One `Prediction` per image, in pixels of the original images."""
        members: Any = self.members
        alone = [task for task, owners in self._owners.items() if len(owners) == 1]
        said = [
            member.opinions(own, decided=[task for task in alone if task in member.heads])
            for member, own in zip(members, batch, strict=True)
        ]
        found = []
        for index, size in enumerate(batch[0].original_sizes):
            prediction = Prediction()
            for task, owners in self._owners.items():
                own = [said[owner][index][task] for owner in owners]
                answer = own[0] if task in alone else self._elected(task, own, size)
                prediction = task_of(task).with_answer(prediction, answer)
            found.append(prediction)
        return found

    def _elected(self, task: str, said: Sequence[Any], size: tuple[int, int]) -> Any:
        owners = self._owners[task]
        heads = [self._heads[number][task] for number in owners]
        votes = [self.votes[number] for number in owners]
        return heads[0].elected(said, votes, size=size, fusion=self.fusion, peers=heads)


class Ensemble(Backend):
    """Several `LoadedModel`s; what a `Predictor` and an evaluation drive.

    Each member sees pictures at its own input size. Proposals are those of the first member that takes any
    from outside; a member that only uses its own region proposal network gets none.

    Args:
        members: two or more, on one device; of each task all that have it know the same classes, in the same
            order.
        fusion: how boxes of several members become one set.
        votes: of each member, over 0: what its boxes and probabilities count; None: all the same.

    Raises:
        ValueError: the class lists differ (both files and lists are named), or there is not a vote over 0 for
            each member.
    """

    def __init__(
        self,
        members: Sequence[LoadedModel],
        fusion: BoxFusion = BoxFusion(),  # noqa: B008 - frozen
        votes: Sequence[float] | None = None,
    ) -> None:
        votes = [1.0] * len(members) if votes is None else list(votes)
        _check_votes(votes, len(members))
        self.members = list(members)
        self.paths = [path for member in members for path in member.paths]
        tasks = {task for member in members for task in member.classes.by_task()}
        self.classes = ClassNames.of_tasks({task: _common_classes(members, task) for task in tasks})
        self.device = members[0].device
        self.prepare = MemberPreparation(
            tuple((member.prepare, member.takes_proposals) for member in members)
        )
        self.model = EnsembleModel(members, self.classes, fusion, votes).eval()

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks that it answers."""
        return list(self.heads)

    @property
    def heads(self) -> dict[str, Mapping[str, Any]]:
        """By task, the options of the first member's head that has it, as a config has them."""
        found: dict[str, Mapping[str, Any]] = {}
        for member in self.members:
            found = {**member.heads, **found}
        return found

    def speed_up(self, *, half: bool = False, compiled: bool = False, cuda_graphs: bool = False) -> None:
        """As `LoadedModel.speed_up`, each member."""
        for member in self.members:
            member.speed_up(half=half, compiled=compiled, cuda_graphs=cuda_graphs)

    def look(self, test_time: TestTime) -> None:
        """As `LoadedModel.look`, each member; windows only where there is a class map."""
        sliding = [member for member in self.members if member.slides_windows]
        if test_time.window is not None and not sliding:
            self.members[0].look(test_time)  # which refuses it
        for member in self.members:
            member.look(test_time if member in sliding else replace(test_time, window=None))

    def decode_with(self, decoding: Mapping[str, Any]) -> None:
        """As `LoadedModel.decode_with`, each member."""
        for member in self.members:
            member.decode_with(decoding)

    def predict_at(self, scale: float) -> None:
        """As `LoadedModel.predict_at`, each member."""
        for member in self.members:
            member.predict_at(scale)

    def propose(self, image: np.ndarray) -> np.ndarray | None:
        """Region proposals (P, 4) of one picture (H, W, 3) uint8 RGB; None where no member has a detector."""
        owners = [member for member in self.members if member.wants_proposals]
        if not owners:
            return None
        return next((member for member in owners if member.takes_proposals), owners[0]).propose(image)

    def predict(
        self,
        batch: list[Batch],
        *,
        rows: Mapping[str, Sequence[int]] | None = None,
        regions: Regions | None = None,
    ) -> list[Prediction]:
        """As `EnsembleModel.predict`."""
        return self.model.predict(batch)

    def make_batch(self, images: Sequence[np.ndarray], proposals: Sequence[np.ndarray] | None) -> list[Batch]:
        """Each member's batch of the pictures (H, W, 3) uint8 RGB, on its device."""
        none = None if proposals is None else [np.zeros((0, 4), np.float32)] * len(images)
        return [
            member.make_batch(images, proposals if member.takes_proposals else none)
            for member in self.members
        ]


@dataclass(frozen=True)
class MemberPreparation:
    """Samples -> each member's batch of them, in a loader's workers.

    Args:
        members: of each the preparation, and whether it takes the samples' proposals.
    """

    members: tuple[tuple[Preparation, bool], ...]

    def __call__(self, samples: Sequence[Sample], sizes: object = None) -> list[Batch]:
        """One batch per member, without targets: nothing is compared with a member's own answer."""
        none = np.zeros((0, 4), np.float32)
        bare = [Sample(s.image_id, s.path, s.image, proposals=s.proposals) for s in samples]
        without = [s if s.proposals is None else replace(s, proposals=none) for s in bare]
        return [prepare(bare if takes else without) for prepare, takes in self.members]


def _check_votes(votes: Sequence[float], members: int) -> None:
    if len(votes) != members or not all(0 < vote < math.inf for vote in votes):
        given = ", ".join(f"{vote:g}" for vote in votes)
        raise ValueError(
            f"votes: expected a number over 0 for each of the {members} models; received {given}"
        )


def _common_classes(members: Sequence[LoadedModel], task: str) -> tuple[str, ...]:
    """The classes of a task; () where no member has it."""
    having = [member for member in members if member.classes.of(task)]
    for other in having[1:]:
        first, own = having[0].classes.of(task), other.classes.of(task)
        if first != own:
            raise ValueError(
                f"{having[0].path} and {other.path} cannot answer together: the {task} classes of the first are "
                f"{', '.join(first)}, those of the other {', '.join(own)}; they must be the same, in the same order"
            )
    return having[0].classes.of(task) if having else ()


def load_models(
    paths: str | Path | Sequence[str | Path],
    device: str = "auto",
    fusion: BoxFusion = BoxFusion(),  # noqa: B008 - frozen
    votes: Sequence[float] | None = None,
    *,
    trust: bool = False,
    proposals: ProposalsConfig | None = None,
) -> LoadedModel | Ensemble:
    """One trained model from a checkpoint or a run folder, or several as an `Ensemble`; ``trust`` and
    ``proposals`` as in `load_model`.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    if not paths:
        raise ValueError("no weights are given; expected a checkpoint or a run folder, or several")
    if votes is not None:
        _check_votes(votes, len(paths))
    members = [load_model(path, device, trust=trust, proposals=proposals) for path in paths]
    return members[0] if len(members) == 1 else Ensemble(members, fusion, votes)
