"""From scored boxes of an image to its detections: thresholds, suppression of duplicates, box voting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor
from torchvision.ops import batched_nms

from vistasks.heads.region_sampling import Fraction
from vistasks.ops.boxes import box_iou, has_sides
from vistasks.registry import STRICT, checked_options
from vistasks.system.text import few

LOGIT_EPS = 1e-6  # scores nearer to 0 and 1 count as this far from them


@checked_dataclass(frozen=True, config=STRICT)
class Decoding:
    """From class probabilities to detections.

    Attributes:
        score: only boxes with a greater one are left.
        nms: IoU from which on the worse of two boxes is dropped (or, with ``soft_nms``, not used).
        soft_nms: sigma of the Gaussian by which overlapping boxes lose score instead (Bodla et al. 2017,
            section 3; .5 there).
        class_agnostic: duplicates are suppressed over all classes, not within each.
        voting: each detection becomes the mean, weighted by score, of its class's boxes with at least this
            IoU to it (Gidaris and Komodakis 2015, section 3.3).
        passes: 2: the detections' boxes go through the last stage once more.
        max_detections: of an image, the best.
        calibration: class name -> slope (above 0) and offset of a score's logit, applied last, so that a
            score is the share of such detections that are right (Platt 1999); fitted by ``vistasks
            calibrate``.
    """

    score: Fraction = 0.05
    nms: Fraction = 0.5
    soft_nms: PositiveFloat | None = None
    class_agnostic: bool = False
    voting: Fraction | None = None
    passes: PositiveInt = 1
    max_detections: PositiveInt = 100
    calibration: dict[str, tuple[PositiveFloat, float]] | None = None

    def check(self, classes: Sequence[str]) -> None:
        """A ``ValueError`` where the calibration is not one of these classes, each of them."""
        if self.calibration is not None and set(self.calibration) != set(classes):
            raise ValueError(
                f"decoding.calibration is of the classes {few(self.calibration)}; the head's are {few(classes)}"
            )


def region_decoding(values: Mapping[str, Any]) -> Decoding:
    """The options of a config's ``model.heads.detection.decoding``, checked; a ``ValueError`` names what is
    wrong.
    """
    options = checked_options(_taken, {"decoding": dict(values)}, where="model.heads.detection", given={})
    return cast(Decoding, options["decoding"])


def _taken(decoding: Decoding) -> None:
    """A signature to check by."""


def select_detections(scores: Tensor, boxes: Tensor, decoding: Decoding) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (R, K + 1), the background last, and boxes (R, K or 1, 4) -> boxes (D, 4), scores (D,), labels
    (D,), best first.
    """
    scores = scores[:, :-1]
    boxes = boxes.expand(-1, scores.shape[1], -1)
    region, label = torch.nonzero((scores > decoding.score) & has_sides(boxes), as_tuple=True)
    boxes, scores = boxes[region, label], scores[region, label]
    group = torch.zeros_like(label) if decoding.class_agnostic else label
    if decoding.soft_nms is None:
        kept = batched_nms(boxes, scores, group, decoding.nms)[: decoding.max_detections]
        left = scores[kept]
    else:
        kept, left = soft_nms(
            boxes, scores, group, decoding.soft_nms, decoding.score, decoding.max_detections
        )
    found = boxes[kept]
    if decoding.voting is not None:
        found = vote(found, label[kept], boxes, label, scores, decoding.voting)
    return found, left, label[kept]


def calibrated(
    scores: Tensor, labels: Tensor, names: Sequence[str], calibration: Mapping[str, tuple[float, float]]
) -> Tensor:
    """Scores (D,) of the classes ``labels`` (D,) -> calibrated ones, in the same order within a class."""
    slope, offset = scores.new_tensor([calibration[name] for name in names])[labels].unbind(dim=1)
    return torch.sigmoid(slope * torch.logit(scores, eps=LOGIT_EPS) + offset)


def soft_nms(
    boxes: Tensor, scores: Tensor, group: Tensor, sigma: float, threshold: float, count: int
) -> tuple[Tensor, Tensor]:
    """Gaussian soft-NMS within each group: which of boxes (N, 4) are kept, best first, and the scores that
    are left to them.
    """
    left, free = scores.clone(), torch.ones_like(scores, dtype=torch.bool)
    kept, values = [], []
    for _ in range(min(count, len(boxes))):
        best = int(torch.where(free, left, -1.0).argmax())
        if left[best] <= threshold:
            break
        kept.append(best)
        values.append(left[best])
        free[best] = False
        overlap = box_iou(boxes[best : best + 1], boxes)[0] * (group == group[best])
        left = torch.where(free, left * torch.exp(-(overlap**2) / sigma), left)
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device), torch.stack(
        values
    ) if values else scores[:0]


def vote(
    found: Tensor, found_label: Tensor, boxes: Tensor, label: Tensor, scores: Tensor, iou: float
) -> Tensor:
    """Found boxes (D, 4) moved to the mean, weighted by score, of the boxes (N, 4) of their class with at
    least this IoU.
    """
    near = (box_iou(found, boxes) >= iou) & (found_label[:, None] == label[None])
    weight = near * scores[None]  # (D, N)
    total = weight.sum(dim=1, keepdim=True)
    return torch.where(total > 0, weight @ boxes / total.clamp(min=1e-9), found)
