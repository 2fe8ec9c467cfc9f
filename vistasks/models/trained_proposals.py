"""Proposals of trained models: a region proposal network's boxes, and boxes around a class map's parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch

from vistasks.checkpoint import read_checkpoint
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.heads.segmentation import SegmentationHead
from vistasks.models.trained import TrainedModel
from vistasks.proposals.methods import clipped
from vistasks.registry import PROPOSALS
from vistasks.system.text import few
from vistasks.types import IGNORE_INDEX, Sample


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
        self.trained = _Trained(weights, RegionClassifier) if weights else None
        self.within_detector = self.trained is None
        self.key: str | None = (
            f"rpn-1 {self.trained.digest} max_boxes={max_boxes}" if self.trained else "rpn of the detector"
        )

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32 boxes, best first."""
        if self.trained is None:
            return np.zeros((0, 4), dtype=np.float32)
        loaded = self.trained.model()
        head: Any = loaded.model.head_of(RegionClassifier)
        if head.rpn is None:
            raise ValueError(f"proposals.method.weights: the detector of {loaded.path} has no rpn")
        with torch.inference_mode():
            batch = loaded.batch([replace(sample, proposals=None)])
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

    within_detector = False

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
        self.trained = _Trained(weights, SegmentationHead)
        options = f"erosions={erosions} min_area={min_area} leave_out={leave_out} max_boxes={max_boxes}"
        self.key: str | None = f"class_map-1 {self.trained.digest} {options}"

    def __call__(self, sample: Sample) -> np.ndarray:
        """(P, 4) float32 boxes, the largest first."""
        loaded = self.trained.model()
        names = loaded.classes.segmentation
        unknown = sorted(set(self.leave_out) - set(names) - {"background"})
        if unknown:
            raise ValueError(f"class_map: leave_out names {few(unknown)}; the classes are {few(names)}")
        with torch.inference_mode():
            batch = loaded.batch([sample])
            head: Any = loaded.model.head_of(SegmentationHead)
            found = head.predict(loaded.model.features(batch), batch, loaded.model.encode)[0]
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


class _Trained:
    """A checkpoint that is read when first needed, in the process that needs it."""

    def __init__(self, weights: str, kind: type[Any]) -> None:
        path = Path(weights)
        self.weights, self.kind = weights, kind
        file = path / "best.safetensors" if path.is_dir() else path
        if not file.is_file():
            raise ValueError(
                f"{weights}: no such checkpoint; expected a .safetensors file or a run folder with one"
            )
        digest = hashlib.sha256()
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
        self.digest = digest.hexdigest()[:16]
        self._loaded: TrainedModel | None = None

    def model(self) -> TrainedModel:
        if self._loaded is None:
            self._loaded = TrainedModel(read_checkpoint(self.weights))
            if self._loaded.model.head_of(self.kind) is None:
                task = self.kind.task
                raise ValueError(f"{self.weights}: this model has no {task} head to take proposals from")
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}  # a data worker reads its own
