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
from torch import Tensor, nn
from torch.nn import functional

from vistasks.config import ProposalsConfig
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.heads.segmentation import class_map
from vistasks.heads.test_time import TestTime
from vistasks.inference.backend import Backend
from vistasks.inference.loaded import LoadedModel, load_model
from vistasks.loading.batching import Preparation
from vistasks.models.views import Opinion, Regions
from vistasks.ops.box_fusion import BoxFusion, fuse_detections
from vistasks.types import Batch, ClassNames, Detections, Prediction, Sample, SegmentationMap

TASKS = ("detection", "segmentation")


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
        heads = [member.model.heads["detection"] for member in members if "detection" in member.model.heads]
        self._limit = max(
            (h.decoding.max_detections for h in heads if isinstance(h, RegionClassifier)), default=None
        )
        segmenters = [member.model for member in members if "segmentation" in member.model.heads]
        self._one_segmenter = len(segmenters) == 1

    def predict(self, batch: list[Batch]) -> list[Prediction]:
        """One `Prediction` per picture, in pixels of the original pictures."""
        answers = [self._answers(member, own) for member, own in zip(self.members, batch, strict=True)]
        return [self._together(told, size) for told, size in zip(zip(*answers), batch[0].original_sizes)]

    def _answers(self, member: Any, batch: Batch) -> Sequence[Prediction | Opinion]:
        decides = self._one_segmenter and "segmentation" in member.heads
        found: Sequence[Any] = member.predict(batch) if decides else member.opinions(batch)
        return found

    def _together(self, told: Sequence[Prediction | Opinion], size: tuple[int, int]) -> Prediction:
        """What the members say of one picture, as one."""
        boxes = [
            (answer.detections, vote)
            for answer, vote in zip(told, self.votes)
            if answer.detections is not None
        ]
        maps = [
            answer.segmentation
            for answer in told
            if isinstance(answer, Prediction) and answer.segmentation is not None
        ]
        opinions = [(answer, vote) for answer, vote in zip(told, self.votes) if isinstance(answer, Opinion)]
        seen = [vote * answer.probabilities for answer, vote in opinions if answer.probabilities is not None]
        segmentation = maps[0] if maps else self._mean_map(seen, size)
        return Prediction(self._fused(boxes), segmentation)

    def _fused(self, boxes: Sequence[tuple[Detections, float]]) -> Detections | None:
        if len(boxes) < 2:
            return boxes[0][0] if boxes else None
        answers, votes = zip(*boxes)
        return fuse_detections(answers, self.fusion, limit=self._limit, votes=votes)

    def _mean_map(self, seen: Sequence[Tensor], size: tuple[int, int]) -> SegmentationMap | None:
        total: Tensor | None = None
        for one in seen:
            large = functional.interpolate(one, size=size, mode="bilinear", align_corners=False)
            total = large if total is None else total + large
        return None if total is None else class_map(total, size, self.classes.segmentation)


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
        self.classes = ClassNames(*(_common_classes(members, task) for task in TASKS))
        self.device = members[0].device
        self.prepare = MemberPreparation(
            tuple((member.prepare, member.takes_proposals) for member in members)
        )
        self.model = EnsembleModel(members, self.classes, fusion, votes).eval()

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
        if test_time.window is not None and not self.classes.segmentation:
            self.members[0].look(test_time)  # which refuses it
        for member in self.members:
            member.look(test_time if "segmentation" in member.heads else replace(test_time, window=None))

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
        detectors = [member for member in self.members if "detection" in member.heads]
        if not detectors:
            return None
        return next((member for member in detectors if member.takes_proposals), detectors[0]).propose(image)

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
    having = [member for member in members if getattr(member.classes, task)]
    for other in having[1:]:
        first, own = getattr(having[0].classes, task), getattr(other.classes, task)
        if first != own:
            raise ValueError(
                f"{having[0].path} and {other.path} cannot answer together: the {task} classes of the first are "
                f"{', '.join(first)}, those of the other {', '.join(own)}; they must be the same, in the same order"
            )
    return getattr(having[0].classes, task) if having else ()


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
