"""Weighted boxes fusion (Solovyev, Wang and Gabruseva 2021): the boxes of several views or models become one
set.

Where non-maximum suppression keeps the best of overlapping boxes, fusion takes their mean: every box counts
by its score, and what few of the sources have found loses score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from vistasks.ops.box_arrays import iou
from vistasks.types import Detections

Score = Literal["mean", "max"]
Agreement = Literal["sources", "boxes", "none"]
_TINY = 1e-12


@dataclass(frozen=True)
class BoxFusion:
    """How boxes are fused.

    Attributes:
        iou: a box joins the cluster whose fused box it overlaps most, if by more than this.
        score: of a cluster: the "mean" of its boxes' (the paper's), or the greatest, "max".
        agreement: what that is multiplied by: the share of the "sources" that the cluster has a box of; or
            "boxes", the paper's min(T, N) / N of T boxes and N sources, where two boxes of one source count
            for two; or "none".

    Where sources have votes, a box counts by its score times its source's vote in the fused box, and by the
    vote in the mean score; the shares of "sources" and "boxes" are of votes. With equal votes that is the
    same as without."""

    iou: float = 0.55
    score: Score = "mean"
    agreement: Agreement = "sources"

    def __post_init__(self) -> None:
        if not 0 < self.iou < 1:
            raise ValueError(f"box fusion: the IoU must be between 0 and 1; received {self.iou}")
        for name, choices in (("score", get_args(Score)), ("agreement", get_args(Agreement))):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"box fusion: {name} is one of {', '.join(choices)}; received '{getattr(self, name)}'"
                )


def fuse_detections(
    answers: Sequence[Detections],
    fusion: BoxFusion,
    *,
    limit: int | None = None,
    votes: Sequence[float] | None = None,
) -> Detections:
    """What one or more sources say about one picture, in the same pixels and of the same classes, as one; the
    best ``limit``.

    ``votes``: of each source, over 0; None: one each.
    """
    boxes = np.concatenate([answer.boxes for answer in answers])
    scores = np.concatenate([answer.scores for answer in answers])
    labels = np.concatenate([answer.labels for answer in answers])
    sources = np.repeat(np.arange(len(answers)), [len(answer) for answer in answers])
    shares = np.ones(len(answers)) if votes is None else np.array(votes, dtype=np.float64)
    boxes, scores, labels = fuse_boxes(boxes, scores, labels, sources, votes=shares, fusion=fusion)
    return Detections(boxes[:limit], scores[:limit], labels[:limit], answers[0].class_names)


def fuse_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    sources: np.ndarray,
    *,
    votes: np.ndarray,
    fusion: BoxFusion,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (F, 4) float32, scores (F,) float32 and labels (F,) int64 of the clusters, best first.

    A class's boxes come one after the other, as each may move a fused box; all classes go side by side. The
    order of the input does not matter, not even among equal scores.

    Args:
        boxes: (N, 4) of all sources.
        scores: (N,) from 0 to 1.
        labels: (N,) class ids; boxes of different classes never meet.
        sources: (N,) from 0 to S - 1: who found it.
        votes: (S,) over 0, of each source that looked, those that found nothing among them.
        fusion: the rules.
    """
    if not len(boxes):
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    order = np.lexsort((*boxes.T[::-1], -scores))
    boxes, scores = boxes[order].astype(np.float64), scores[order].astype(np.float64)
    names, group, sizes = np.unique(labels[order], return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    row = np.argsort(group, kind="stable")
    starts = np.cumsum(sizes) - sizes
    clusters = _Clusters(len(names), int(sizes.max()), votes / votes.mean())
    for rank in range(int(sizes.max())):
        active = np.flatnonzero(sizes > rank)  # the classes that have a box of this rank
        chosen = row[starts[active] + rank]
        clusters.add(active, boxes[chosen], scores[chosen], sources[order][chosen], fusion.iou)
    return clusters.result(names, fusion)


class _Clusters:
    """Up to M clusters of each of G classes, as padded arrays."""

    def __init__(self, groups: int, most: int, votes: np.ndarray) -> None:
        self.votes = votes  # 1 on average
        self.used = np.zeros(groups, np.int64)
        self.fused = np.zeros((groups, most, 4))
        self.moments = np.zeros((groups, most, 4))  # sums of vote * score * box
        self.weights = np.zeros((groups, most))  # sums of vote * score
        self.best = np.zeros((groups, most))
        self.boxes = np.zeros((groups, most))  # sums of the votes
        self.sources = np.zeros((groups, most, len(votes)), bool)

    def add(
        self, groups: np.ndarray, boxes: np.ndarray, scores: np.ndarray, sources: np.ndarray, threshold: float
    ) -> None:
        """One box (G', 4) of each of the groups (G',) joins the cluster that it overlaps most, or begins
        one.
        """
        width = int(self.used[groups].max(initial=0))
        place = self.used[groups]
        if width:
            near = iou(boxes[:, None], self.fused[groups, :width])
            near[np.arange(width) >= place[:, None]] = -1
            nearest = near.argmax(axis=1)
            joins = near[np.arange(len(groups)), nearest] > threshold
            place = np.where(joins, nearest, place)
        self.used[groups] = np.maximum(self.used[groups], place + 1)
        at = (groups, place)
        vote = self.votes[sources]
        weight = np.maximum(scores, _TINY) * vote
        self.moments[at] += weight[:, None] * boxes
        self.weights[at] += weight
        self.fused[at] = self.moments[at] / self.weights[at][:, None]
        self.best[at] = np.maximum(self.best[at], scores)
        self.boxes[at] += vote
        self.sources[groups, place, sources] = True

    def result(self, names: np.ndarray, fusion: BoxFusion) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.nonzero(self.boxes)
        total, number = len(self.votes), self.boxes[at]
        scores = self.best[at] if fusion.score == "max" else self.weights[at] / number
        if fusion.agreement == "sources":
            scores = scores * (self.sources[at] @ self.votes) / total
        elif fusion.agreement == "boxes":
            scores = scores * np.minimum(number, total) / total
        order = np.argsort(-scores, kind="stable")
        boxes, labels = self.fused[at][order], names[at[0]][order]
        return boxes.astype(np.float32), scores[order].astype(np.float32), labels.astype(np.int64)
