"""A model and labelled pictures -> what the model says of every label, and of what it sees besides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vistasks.evaluation.audit.areas import Components, components, map_evidence
from vistasks.evaluation.audit.places import DETECTED, LABELLED, MAPPED, PictureEvidence, Places, Vocabulary
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.heads.region_predictor import own_column
from vistasks.heads.segmentation import SegmentationHead
from vistasks.models import MultiTaskModel
from vistasks.ops.box_arrays import areas, intersections, overlaps
from vistasks.types import IGNORE_INDEX, Batch, Detections, Features, Sample

LEAST_SCORE = 0.2  # of a detection that is looked at
FAR, FAR_BOXES = (
    0.1,
    20,
)  # proposals with less IoU with every object show what "nothing" looks like; so many a picture
SAME, APART, BESIDE = (
    0.5,
    0.3,
    0.2,
)  # IoU of one place; less: another place; less: not even where a label of the class should be
PART_OF = 0.7  # share of a box within another, of which it is a part


class AuditModel:
    """A loaded model that is asked about pictures with their labels.

    Args:
        model: in evaluation mode.
        words: the model's `vocabulary`.
    """

    def __init__(self, model: MultiTaskModel, words: Vocabulary) -> None:
        self.model, self.words = model, words
        heads = dict(model.heads.items())
        detector, segmenter = heads.get(RegionClassifier.task), heads.get(SegmentationHead.task)
        if detector is not None and not isinstance(detector, RegionClassifier):
            raise ValueError(
                f"an audit needs a region_classifier; this detector is a {type(detector).__name__}"
            )
        self.detector = detector
        self.segmenter = segmenter if isinstance(segmenter, SegmentationHead) else None

    @torch.inference_mode()
    def __call__(
        self, batch: Batch, originals: Sequence[Sample], numbers: Sequence[int]
    ) -> list[PictureEvidence]:
        """The evidence of a batch, whose pictures have these numbers in their data set."""
        features = self.model.features(batch)
        found: list[Detections | None] = [None] * len(batch)
        proposals: Sequence[Tensor] = ()
        if self.detector is not None:
            found = list(self.detector.predict(features, batch, self.model.encode))
            proposals = self.detector.proposals(features, batch)
        evidence = []
        for index, sample in enumerate(originals):
            maps = None if self.segmenter is None else self._probabilities(features, batch, index)
            boxes, background, unsure = None, (0.0, 0), 0.0
            detections = found[index]
            if detections is not None:
                seen = [] if maps is None else components(maps, self.words.columns, self.words.background)
                asked = _Boxes(sample, detections, seen, proposals[index], batch.sizes[index])
                scores, moved = self._asked(features, batch, index, asked)
                boxes, background = (
                    asked.places(scores, moved, self._marks(maps, sample, asked)),
                    asked.background(scores),
                )
                scores = detections.scores[detections.scores >= LEAST_SCORE]
                unsure = float((4 * scores * (1 - scores)).sum())
            areas = None
            if maps is not None and (self.words.areas or detections is None):
                truth = None if batch.segmentation is None else batch.segmentation[index].cpu().numpy()
                areas, unsure_areas = map_evidence(maps, truth, sample, self.words)
                unsure += unsure_areas if detections is None else 0.0
            labelled = bool((sample.labelled.detection and boxes is not None) or areas is not None)
            evidence.append(
                PictureEvidence(
                    numbers[index], sample.path, sample.size, boxes, areas, background, labelled, unsure
                )
            )
        return evidence

    def _probabilities(self, features: Features, batch: Batch, index: int) -> np.ndarray:
        """(S, h, w) float32 of one picture as the network sees it, without padding."""
        size = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
        assert self.segmenter is not None
        height, width = batch.sizes[index]
        logits = self.segmenter(features.rows([index]), size)[0, :, :height, :width]
        return np.asarray(logits.float().softmax(dim=0).cpu().numpy())

    def _asked(
        self, features: Features, batch: Batch, index: int, asked: _Boxes
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (R, K + 1) of the asked boxes, and (R, K, 4) where each class would be, in pixels of
        the picture.
        """
        assert self.detector is not None
        regions = torch.from_numpy(asked.asked * asked.scale).to(batch.images.device)
        if not len(regions):
            return np.zeros((0, len(self.words.boxes) + 1), np.float32), np.zeros(
                (0, len(self.words.boxes), 4), np.float32
            )
        scores, moved = self.detector.score_regions(features.rows([index]), [regions], self.model.encode)
        labels = torch.arange(len(self.words.boxes), device=moved.device)
        return scores.cpu().numpy(), (moved[:, own_column(labels, moved)].cpu().numpy() / asked.scale).astype(
            np.float32
        )

    def _marks(self, maps: np.ndarray | None, sample: Sample, asked: _Boxes) -> tuple[np.ndarray, np.ndarray]:
        """(N, K) what the class map, and what the labelled mask, has of each class in each box; NaN where it
        says nothing.
        """
        shape = (len(asked.boxes), len(self.words.boxes))
        seen, marked = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        known = [(k, column) for k, column in enumerate(self.words.columns) if column >= 0]
        columns = [column for _, column in known]
        for row, box in enumerate(asked.boxes):
            if maps is not None and known:
                part = _cut(maps, box * asked.scale[0])
                seen[row, [k for k, _ in known]] = part.reshape(len(maps), -1).mean(axis=1)[columns]
            if sample.segmentation is not None and known:
                values = _cut(sample.segmentation[None], box).ravel()
                counts = np.bincount(values, minlength=256)
                if counts[IGNORE_INDEX] < values.size:
                    marked[row, [k for k, _ in known]] = counts[columns] / (
                        values.size - counts[IGNORE_INDEX]
                    )
        return seen, marked


def _cut(values: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(C, H, W) within a box of the same pixels; at least one of them."""
    height, width = values.shape[1:]
    x1, y1 = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
    x2, y2 = max(x1 + 1, round(float(box[2]))), max(y1 + 1, round(float(box[3])))
    return values[:, y1:y2, x1:x2]


class _Boxes:
    """The boxes of one picture that the region classifier is asked about: labels, detections, parts of the
    class map; and proposals far from all of them."""

    def __init__(
        self, sample: Sample, found: Detections, seen: Components, proposals: Tensor, size: tuple[int, int]
    ) -> None:
        self.sample, self.classes = sample, len(found.class_names)
        height, width = sample.size
        self.scale = np.array([[size[1] / width, size[0] / height] * 2], np.float32)
        kept = found.scores >= LEAST_SCORE
        self.detected, self.detected_labels = found.boxes[kept], found.labels[kept]
        mapped = np.array([part.box for part in seen], np.float32).reshape(-1, 4) / self.scale
        alone = overlaps(mapped, self.detected).max(axis=1, initial=0) < SAME
        self.mapped = mapped[alone].astype(np.float32)
        self.mapped_labels = np.array([part.label for part in seen], np.int64)[alone]
        self.boxes = np.concatenate([sample.boxes, self.detected, self.mapped])
        far = proposals.cpu().numpy() / self.scale
        far = far[overlaps(far, self.boxes).max(axis=1, initial=0) < FAR][:FAR_BOXES]
        self.asked = np.concatenate([self.boxes, far]).astype(np.float32)

    def background(self, scores: np.ndarray) -> tuple[float, int]:
        """Sum and number of the probabilities of "none" far from every object."""
        far = scores[len(self.boxes) :, -1]
        return float(far.sum()), len(far)

    def places(self, scores: np.ndarray, moved: np.ndarray, marks: tuple[np.ndarray, np.ndarray]) -> Places:
        """All but the far ones."""
        sample, labels = self.sample, len(self.sample.boxes)
        claimed = np.concatenate([sample.labels, self.detected_labels, self.mapped_labels])
        sources = [np.full(len(part), kind) for kind, part in
                   ((LABELLED, sample.boxes), (DETECTED, self.detected), (MAPPED, self.mapped))]  # fmt: skip
        placed, target, by_detection = self._placed(moved)
        easy = ~(np.asarray(sample.difficult) | np.asarray(sample.crowd))
        return Places(
            boxes=self.boxes.astype(np.float32),
            source=np.concatenate(sources),
            given=np.concatenate([sample.labels, np.full(len(claimed) - labels, self.classes)]),
            claimed=claimed,
            scores=scores[: len(self.boxes)],
            seen=marks[0],
            marked=marks[1],
            placed=np.concatenate([placed, np.full(len(claimed) - labels, np.nan, np.float32)]),
            moved=np.concatenate([target, self.boxes[labels:]]).astype(np.float32),
            judged=np.concatenate([easy, self._free(by_detection)])
            & np.isin(claimed, list(sample.labelled.detection)),
        )

    def _placed(self, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(G,) and (G, 4): the IoU of each label with where the model would put it, the better of the
        regressed box and the best detection of its class that has no nearer label; and that detection, or
        else the regressed box. (G,) the IoU with the detection alone, 0 without one."""
        sample = self.sample
        rows = np.arange(len(sample.boxes))
        height, width = sample.size
        target = np.clip(moved[rows, sample.labels], 0, [width, height, width, height]).astype(np.float32)
        placed = np.array(
            [overlaps(a[None], b[None])[0, 0] for a, b in zip(sample.boxes, target)], np.float32
        )
        best = np.zeros((len(rows), 1), np.float32)
        if len(self.detected) and len(rows):
            iou = overlaps(sample.boxes, self.detected)
            own = (sample.labels[:, None] == self.detected_labels[None]) & (
                iou == iou.max(axis=0, keepdims=True)
            )
            best = np.where(own, iou, 0)
            nearest = best.argmax(axis=1)
            some = best.max(axis=1) >= BESIDE
            target[some] = self.detected[nearest[some]]
            placed = np.maximum(placed, best.max(axis=1)).astype(np.float32)
        return placed, target, best.max(axis=1)

    def _free(self, by_detection: np.ndarray) -> np.ndarray:
        """(D,) of detections and parts of the map: whether a label could be missing there."""
        sample, others = self.sample, self.boxes[len(self.sample.boxes) :]
        labels = np.concatenate([self.detected_labels, self.mapped_labels])
        if not len(sample.boxes):
            return np.ones(len(others), bool)
        iou = overlaps(sample.boxes, others)  # (G, D)
        same = sample.labels[:, None] == labels[None]
        shared = intersections(sample.boxes[:, None], others[None])
        inside = shared / np.maximum(areas(others), 1e-6)[None]
        hard = np.asarray(sample.difficult) | np.asarray(sample.crowd)
        taken = (iou >= APART) | (same & (inside >= PART_OF)) | (hard[:, None] & (inside >= SAME))
        taken |= same & (iou >= BESIDE) & (by_detection < SAME)[:, None]  # where that label should be
        return np.asarray(~taken.any(axis=0))
