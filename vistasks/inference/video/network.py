"""Frames -> predictions, with what can be spared between neighbouring frames."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from vistasks.inference.image_predictor import ImagePredictor
from vistasks.inference.prediction import Picture, PicturePrediction
from vistasks.inference.video.options import InferOptions
from vistasks.proposals.methods import clipped
from vistasks.types import Prediction, SegmentationMap

_SMALLEST = 16  # pixels of a connected part of the class map that becomes a proposal
_GROWN = (0.0, 0.15)  # each part's box as it is, and with this share of its sides more on every side


@dataclass(eq=False)
class Shot:
    """One frame on its way; each stage adds what it found out.

    Attributes:
        number: of the frame, from 0.
        picture: its image, path and time.
        born: `time.perf_counter` when it had been decoded.
        proposals: (P, 4) float32; None where the last ones are used again, or none are needed.
        proposes, segments: whether proposals and class map are computed on it; else those of an earlier frame
            serve.
        found: what the network says; ``prediction`` is the same after the tracker.
        drawn: (H, W, 3) uint8 RGB; None where nobody needs it.
    """

    number: int
    picture: Picture
    born: float = field(default_factory=time.perf_counter)
    proposals: np.ndarray | None = None
    proposes: bool = True
    segments: bool = True
    found: PicturePrediction = field(default=None)  # type: ignore[arg-type, assignment] # until predicted
    prediction: PicturePrediction = field(default=None)  # type: ignore[arg-type, assignment]
    drawn: np.ndarray | None = None


class Network:
    """A predictor on consecutive frames.

    With ``propose_every=N`` proposals are computed on frames 0, N, 2N, ...; a frame between takes the last
    ones and, so that moving objects are not lost, the boxes of all detections of the frame before its batch.
    With ``segment_every=M`` a frame between takes the last class map. With ``proposals="segmentation"`` the
    boxes of the class map's connected parts are the proposals, and no proposal method runs. A frame of
    another size than the one before is always computed afresh.

    What a frame gets depends only on the frames since the last one whose number divides by ``period``, so
    that a run that is continued there gives the same.

    Args:
        predictor: the model with its tasks and batch size.
        options: propose_every, proposals, segment_every.
        period: a multiple of `multiple`.

    Raises:
        ValueError: ``proposals="segmentation"`` or ``segment_every`` with a model that has no such head.
    """

    def __init__(self, predictor: ImagePredictor, options: InferOptions, *, period: int) -> None:
        self.predictor, self.options, self.period = predictor, options, period
        classes, self._detects = predictor.classes, "detect" in predictor.tasks
        self._from_map = options.proposals == "segmentation" and self._detects
        if self._from_map and not classes.segmentation:
            raise ValueError(
                "--proposals segmentation needs a class map, and this model has no segmentation head"
            )
        self._maps = "segment" in predictor.tasks or self._from_map
        self.computes_proposals = self._detects and not self._from_map
        self._selects = predictor.backend.selects
        if not self._selects and (self._from_map or options.segment_every > 1 or options.propose_every > 1):
            raise ValueError(
                "this model spares no work between frames: leave out --proposals, --propose-every, --segment-every"
            )
        self._size: tuple[int, ...] | None = None
        self._boxes = np.zeros((0, 4), dtype=np.float32)
        self._extra = np.zeros((0, 4), dtype=np.float32)
        self._map: SegmentationMap | None = None

    @staticmethod
    def multiple(predictor: ImagePredictor, options: InferOptions) -> int:
        """Batches, proposals and class maps all begin anew at frames whose number divides by this."""
        return math.lcm(predictor.batch_size, options.propose_every, options.segment_every)

    def plan(self, shot: Shot) -> None:
        """Decides what is computed on a frame; called in order, before `propose`."""
        size = shot.picture.image.shape
        shot.proposes = shot.number % self.options.propose_every == 0 or size != self._size
        shot.segments = shot.number % self.options.segment_every == 0 or size != self._size
        self._size = size

    def propose(self, shot: Shot) -> None:
        """Computes a planned frame's proposals; keeps no state, so that several frames are worked on at
        once.
        """
        if shot.proposes and self.computes_proposals:
            shot.proposals = self.predictor.propose(shot.picture.image)

    def batch(self, shots: Sequence[Shot]) -> Any:
        """The network's batch; called in order."""
        boxes = [self._latest(shot) for shot in shots] if self._detects else None
        found = None if boxes is None else [each for each in boxes if each is not None]
        return self.predictor.backend.make_batch([shot.picture.image for shot in shots], found or None)

    def _latest(self, shot: Shot) -> np.ndarray | None:
        if self._from_map:
            return np.zeros((0, 4), dtype=np.float32)
        if shot.proposals is not None:
            self._boxes = shot.proposals
        return None if shot.proposes and shot.proposals is None else self._boxes

    def predict(self, shots: Sequence[Shot], batch: Any) -> None:
        """Fills in the predictions of a batch; called in order."""
        if shots[0].number % self.period == 0:
            self._extra = self._extra[:0]
        backend = self.predictor.backend
        if not self._selects:
            found = backend.predict(batch)
        else:
            rows = {
                "segmentation": [i for i, shot in enumerate(shots) if shot.segments] if self._maps else [],
                "detection": range(len(shots)) if self._detects else [],
            }
            regions = (
                (lambda maps: self._regions(shots, maps))
                if self._from_map or self.options.propose_every > 1
                else None
            )
            found = backend.predict(batch, rows=rows, regions=regions)
        for shot, prediction in zip(shots, found, strict=True):
            self._answer(shot, prediction)

    def _answer(self, shot: Shot, prediction: Prediction) -> None:
        if self._maps and self._selects:
            self._map = prediction.segmentation or self._map
            prediction = replace(prediction, segmentation=self._map)
        if prediction.detections is not None:
            height, width = shot.picture.image.shape[:2]
            self._extra = clipped(prediction.detections.boxes, height, width)
        shot.found = shot.prediction = self.predictor.answer(shot.picture, prediction)

    def _regions(self, shots: Sequence[Shot], maps: Sequence[SegmentationMap | None]) -> list[np.ndarray]:
        """Further proposals of each frame of a batch."""
        boxes, latest, parts = [], self._map, None
        for shot, found in zip(shots, maps):
            if self._from_map:
                if found is not None or parts is None:
                    latest = found or latest
                    assert latest is not None  # the first frame, and the first of each size, is segmented
                    parts = connected_parts(latest)
                boxes.append(parts)
            else:
                boxes.append(
                    self._extra[:0] if shot.proposes else clipped(self._extra, *shot.picture.image.shape[:2])
                )
        return boxes


def connected_parts(segmentation: SegmentationMap) -> np.ndarray:
    """(P, 4) float32 boxes around the 8-connected parts of each class but "background", the largest part
    first.

    Each comes as it is and a little larger: the map's edges are coarse.
    """
    labels, (height, width) = segmentation.labels, segmentation.labels.shape
    boxes, areas = [], []
    for number, name in enumerate(segmentation.names):
        if name == "background":
            continue
        count, _, stats, _ = cv2.connectedComponentsWithStats(
            (labels == number).astype(np.uint8), connectivity=8
        )
        if count > 1:
            x, y, w, h, area = stats[1:][stats[1:, cv2.CC_STAT_AREA] >= _SMALLEST].T
            boxes.append(np.stack([x, y, x + w, y + h], axis=1))
            areas.append(area)
    if not boxes:
        return np.zeros((0, 4), dtype=np.float32)
    found = np.concatenate(boxes)[np.argsort(-np.concatenate(areas), kind="stable")].astype(np.float64)
    sides = np.tile(found[:, 2:] - found[:, :2], 2) * [-1, -1, 1, 1]
    return clipped(np.stack([found + share * sides for share in _GROWN], axis=1), height, width)
