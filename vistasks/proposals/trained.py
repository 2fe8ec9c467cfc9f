"""Proposals of trained models: of a region proposal network, and of a segmentation head's class map; and
unions of methods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from vistasks.proposals.methods import ProposalMethod, clipped
from vistasks.registry import PROPOSALS
from vistasks.types import IGNORE_INDEX, Sample

if TYPE_CHECKING:
    from vistasks.inference.loaded import LoadedModel


@PROPOSALS.register("rpn")
class LearnedProposals:
    """What a region proposal network finds.

    Without ``weights``: nothing, because the detector's own network (``model.heads.detection.rpn``) adds its
    boxes in the model; this is Faster R-CNN. With ``weights``: the boxes of the network of that run, as the
    fixed proposals of another detector.

    Args:
        weights: a checkpoint or a run folder whose detector has an rpn.
        max_boxes: the best.
    """

    def __init__(self, weights: str | None = None, *, max_boxes: int | None = 1000) -> None:
        self.max_boxes = max_boxes
        self.trained = _Trained(weights, "detection") if weights else None
        self.key: str | None = (
            f"rpn-1 {self.trained.digest} max_boxes={max_boxes}" if self.trained else "rpn of the detector"
        )

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32 boxes, best first."""
        import torch

        if self.trained is None:
            return np.zeros((0, 4), dtype=np.float32)
        loaded = self.trained.model()
        head: Any = loaded.model.heads["detection"]
        if head.rpn is None:
            raise ValueError(f"proposals.method.weights: the detector of {loaded.path} has no rpn")
        with torch.inference_mode():
            batch = loaded.make_batch([sample.image], [np.zeros((0, 4), dtype=np.float32)])
            found = head.proposals(loaded.model.features(batch), batch)[0].cpu().numpy()
        (height, width), (scaled_height, scaled_width) = sample.size, batch.sizes[0]
        back = np.array([width / scaled_width, height / scaled_height] * 2)
        return clipped(found * back, height, width)[: self.max_boxes]


@PROPOSALS.register("class_map")
class ClassMapProposals:
    """Boxes around the connected parts of each class of a segmentation head's class map, the largest first.

    Touching objects are one part; so the class's mask is also eroded by several radii, and the boxes of what
    remains are widened by as much again.

    Args:
        weights: a checkpoint or a run folder with a segmentation head.
        erosions: radii in pixels.
        min_area: smaller parts are left out, in pixels.
        leave_out: names of classes that are no objects, such as background.
        max_boxes: the largest.
    """

    def __init__(
        self,
        weights: str,
        *,
        erosions: tuple[int, ...] = (0, 2, 4, 8, 16),
        min_area: int = 25,
        leave_out: tuple[str, ...] = ("background",),
        max_boxes: int | None = 500,
    ) -> None:
        if not erosions or min(*erosions, min_area, 0) < 0:
            raise ValueError(f"class_map: erosions and min_area must be >= 0, not {erosions} and {min_area}")
        self.erosions, self.min_area, self.leave_out, self.max_boxes = (
            erosions,
            min_area,
            leave_out,
            max_boxes,
        )
        self.trained = _Trained(weights, "segmentation")
        options = f"erosions={erosions} min_area={min_area} leave_out={leave_out} max_boxes={max_boxes}"
        self.key: str | None = f"class_map-1 {self.trained.digest} {options}"

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32 boxes, the largest first."""
        import torch

        loaded = self.trained.model()
        names = loaded.classes.segmentation
        unknown = sorted(set(self.leave_out) - set(names) - {"background"})
        if unknown:
            raise ValueError(
                f"class_map: leave_out names {', '.join(unknown)}; the classes are {', '.join(names)}"
            )
        with torch.inference_mode():
            batch = loaded.make_batch([sample.image], None)
            found = loaded.model.heads["segmentation"].predict(
                loaded.model.features(batch), batch, loaded.model.encode
            )[0]
        ids = [label for label, name in enumerate(names) if name not in self.leave_out]
        return map_boxes(found.labels, ids, erosions=self.erosions, min_area=self.min_area)[: self.max_boxes]


def map_boxes(
    labels: np.ndarray, ids: Sequence[int], *, erosions: Sequence[int], min_area: int
) -> np.ndarray:
    """Boxes (P, 4) float32 of the parts of a class map (H, W) uint8, as `ClassMapProposals` says; each box
    once.
    """
    boxes, areas = [np.zeros((0, 4))], [np.zeros(0)]
    for label in np.intersect1d(np.unique(labels[labels != IGNORE_INDEX]), list(ids)):
        mask = (labels == label).astype(np.uint8)
        for radius in erosions:
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
            # what lies outside the picture is not the end of an object
            left = cv2.erode(mask, kernel) if radius else mask
            _, _, stats, _ = cv2.connectedComponentsWithStats(left, connectivity=8)
            x, y, width, height, area = stats[1:].T.astype(np.float64)  # the first is the background
            large = area >= min_area
            boxes.append(
                np.stack([x - radius, y - radius, x + width + radius, y + height + radius], axis=1)[large]
            )
            areas.append(area[large])
    found = clipped(np.concatenate(boxes)[np.argsort(-np.concatenate(areas), kind="stable")], *labels.shape)
    _, once = np.unique(found, axis=0, return_index=True)
    return cast(np.ndarray, found[np.sort(once)])


@PROPOSALS.register("union")
class Union:
    """The boxes of several methods, in their order; a box that an earlier one has gives is left out.

    Args:
        methods: each with its ``name`` and options, as ``proposals.method`` has them.
    """

    def __init__(self, methods: list[dict[str, Any]]) -> None:
        if not methods:
            raise ValueError("union: methods names none")
        self.members: list[ProposalMethod] = [
            PROPOSALS.build(cast(Mapping[str, Any], options), where=f"proposals.method.methods[{index}]")
            for index, options in enumerate(methods)
        ]
        keys = [member.key for member in self.members]
        self.key: str | None = None if None in keys else f"union-1 {' + '.join(map(str, keys))}"

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32 boxes."""
        return together([member(sample) for member in self.members])


def together(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Several (P, 4) as one, each box once, in their order."""
    boxes = np.concatenate([np.zeros((0, 4), dtype=np.float32), *parts])
    _, once = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(once)]


def within_the_model(method: object) -> bool:
    """Whether (a part of) the boxes is only found in the detector, so that the method alone does not have
    them.
    """
    if isinstance(method, Union):
        return any(within_the_model(member) for member in method.members)
    return isinstance(method, LearnedProposals) and method.trained is None


class _Trained:
    """A checkpoint that is read when first needed, in the process that needs it."""

    def __init__(self, weights: str, task: str) -> None:
        path = Path(weights)
        self.weights, self.task = weights, task
        file = path / "best.safetensors" if path.is_dir() else path
        if not file.is_file():
            raise ValueError(
                f"{weights}: there is no such checkpoint; expected a .safetensors file or a run folder with one"
            )
        self.digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        self._loaded: LoadedModel | None = None

    def model(self) -> LoadedModel:
        from vistasks.inference.loaded import (
            load_model,
        )  # which builds proposals itself: the room knows models only here

        if self._loaded is None:
            self._loaded = load_model(self.weights, "cpu")
            if self.task not in self._loaded.model.heads:
                raise ValueError(f"{self.weights}: this model has no {self.task} head to take proposals from")
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}  # a data worker reads its own
