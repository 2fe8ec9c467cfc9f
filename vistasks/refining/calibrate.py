"""Scores that say how often they are right: a logistic curve for each class (Platt 1999), fitted to pictures
held out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vistasks.checkpoint import free_target, read_checkpoint, save_made_of
from vistasks.config import Config, parse_config
from vistasks.evaluation.loop import evaluate_model
from vistasks.evaluation.reports.matching import KINDS, match_detections
from vistasks.heads.region_classifier import RegionClassifier
from vistasks.heads.region_decoding import LOGIT_EPS
from vistasks.inference.loaded import LoadedModel, labelled_batches, load_model
from vistasks.metrics import CocoAveragePrecision
from vistasks.types import ClassNames

BINS = 10  # of scores, in the calibration error
PRIOR = 1.0  # weight of the identity, in detections: a class with few detections keeps its scores
FOLDS = 2

Curve = tuple[float, float]  # slope above 0, offset


@dataclass(frozen=True, eq=False)
class Scored:
    """Detections: scores (D,), labels (D,), right (D,) bool (an object of the class at IoU .5), picture (D,)
    indices.
    """

    scores: np.ndarray
    labels: np.ndarray
    right: np.ndarray
    picture: np.ndarray

    def of(self, chosen: np.ndarray) -> Scored:
        """The detections of a mask (D,) bool."""
        return Scored(self.scores[chosen], self.labels[chosen], self.right[chosen], self.picture[chosen])


def fit(scores: np.ndarray, right: np.ndarray) -> Curve:
    """Slope and offset of the logit of ``scores`` (D,) at which ``right`` (D,) bool is most likely; (1, 0)
    where D = 0.
    """
    x, target = _logit(scores), torch.from_numpy(right.astype(np.float64))
    state = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # logarithm of the slope, offset
    solver = torch.optim.LBFGS([state], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def loss() -> torch.Tensor:
        solver.zero_grad()
        logits = state[0].exp() * x + state[1]
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        value = (value + PRIOR * (state**2).sum() / 2) / (len(x) + PRIOR)
        value.backward()  # type: ignore[no-untyped-call] # PyTorch's own
        return value

    solver.step(loss)  # type: ignore[no-untyped-call] # PyTorch's own
    return math.exp(state[0].item()), state[1].item()


def _logit(scores: np.ndarray) -> torch.Tensor:
    return torch.logit(torch.from_numpy(scores.astype(np.float64)), eps=LOGIT_EPS)


def apply(scored: Scored, curves: Sequence[Curve]) -> np.ndarray:
    """The calibrated scores (D,), by one curve a class."""
    slope, offset = np.array(curves).reshape(-1, 2)[scored.labels].T
    return 1 / (1 + np.exp(-(slope * _logit(scored.scores).numpy() + offset)))


def calibration_error(scores: np.ndarray, right: np.ndarray) -> float:
    """Mean, weighted by detections, of |mean score - share that is right| over bins of scores (Guo et al.
    2017, equation 5).
    """
    if not len(scores):
        return 0.0
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    off = np.bincount(bins, scores - right, minlength=BINS)  # count times (mean score - share)
    return float(np.abs(off).sum() / len(scores))


def collect(loaded: LoadedModel, config: Config, track: Any = lambda loader: loader) -> Scored:
    """What the model detects on a config's validation part, right or not; detections on ignored objects are
    left out.
    """
    loader = labelled_batches(loaded, config, "val")
    metric = CocoAveragePrecision(loaded.classes.detection)
    evaluate_model(loaded.model, track(loader), {"coco": metric}, loaded.device)
    parts = []
    for picture, record in enumerate(metric.state().values()):
        judged = match_detections(record, 0.0)
        known = judged.kinds >= 0
        rows = judged.kept[known]
        right = judged.kinds[known] == KINDS.index("correct")
        parts.append((record.scores[rows], record.detected_labels[rows], right, np.full(len(rows), picture)))
    return Scored(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def calibrate(
    config: Config,
    weights: str,
    output: str | Path,
    *,
    device: str = "auto",
    track: Any = lambda loader: loader,
    trust: bool = False,
) -> dict[str, Any]:
    """Writes the checkpoint with ``decoding.calibration``, fitted to the config's validation part; returns
    what was found.

    The errors come from two halves of the pictures, each measured with the curves of the other.

    Args:
        config: the data, the proposals and the decoding that the scores are calibrated for.
        weights: a checkpoint or a run folder with a ``region_classifier``.
        output: the folder for ``best.safetensors``, which must not be there.
        trust: the checkpoint's config may ask for any sizes.

    Raises:
        ValueError: no such head, no validation data, nothing detected, or something at ``output``.
    """
    if not config.data.evaluates:
        raise ValueError(
            "data.val is empty: calibration needs labelled images that were not trained on, such as data.val={split: val}"
        )
    target = free_target(output)
    loaded = load_model(weights, device, trust=trust, proposals=config.proposals)
    head = loaded.config.model.heads.get(RegionClassifier.task, {})
    if head.get("name") != "region_classifier":
        raise ValueError(f"{loaded.path}: no region_classifier to calibrate")
    asked = config.model.heads.get(RegionClassifier.task, {}).get("decoding")
    decoding = dict(head.get("decoding", {}) if asked is None else asked)
    decoding.pop("calibration", None)
    loaded.decode_with({**decoding, "calibration": None})
    found = collect(loaded, config, track)
    if not len(found.scores):
        raise ValueError(
            f"{loaded.path} detects nothing on {config.data.source('val')}, so it cannot be calibrated"
        )
    names = loaded.classes.detection
    curves = _curves(found, len(names))
    _save(
        target,
        weights,
        {**decoding, "calibration": {name: list(curve) for name, curve in zip(names, curves)}},
    )
    pictures = len(np.unique(found.picture))
    return {
        "classes": _rows(found, curves, loaded.classes),
        "output": str(target.resolve()),
        "pictures": pictures,
    }


def _curves(found: Scored, classes: int) -> list[Curve]:
    return [fit(found.scores[found.labels == k], found.right[found.labels == k]) for k in range(classes)]


def _held_out(found: Scored, classes: int) -> np.ndarray:
    """Calibrated scores (D,), of each half of the pictures by the other half's curves."""
    scores = np.empty(len(found.scores))
    for half in range(FOLDS):
        measured = found.picture % FOLDS == half
        scores[measured] = apply(found.of(measured), _curves(found.of(~measured), classes))
    return scores


def _rows(found: Scored, curves: Sequence[Curve], classes: ClassNames) -> list[dict[str, Any]]:
    after = _held_out(found, len(classes.detection))
    rows: list[dict[str, Any]] = []
    for k, (name, (slope, offset)) in enumerate(zip(classes.detection, curves, strict=True)):
        rows.append(
            {"class": name, "slope": slope, "offset": offset, **_errors(found, after, found.labels == k)}
        )
    return [
        *rows,
        {
            "class": "all classes",
            "slope": None,
            "offset": None,
            **_errors(found, after, np.ones(len(after), bool)),
        },
    ]


def _errors(found: Scored, after: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    right = found.right[chosen]
    return {
        "detections": int(chosen.sum()),
        "right": int(right.sum()),
        "error_before": calibration_error(found.scores[chosen], right),
        "error_after": calibration_error(after[chosen], right),
    }


def _save(target: Path, weights: str, decoding: dict[str, Any]) -> None:
    checkpoint = read_checkpoint(weights, trust=True)  # it is copied; nothing is built of it
    values = checkpoint.written.model_dump()
    values["model"]["heads"][RegionClassifier.task]["decoding"] = decoding
    save_made_of(checkpoint, target, checkpoint.part("model"), parse_config(values), how="calibrated")
