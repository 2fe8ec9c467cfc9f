"""Confident learning: every score is read against what the model says, on average, of the class's own labels.

A detector that gives stars .6 and circles .95 where they are labelled says as much with a .6 star as with a
.95 circle (Northcutt, Jiang and Chuang 2021, "Confident Learning", section 3.1: a label is counted as class j
where the probability of j reaches the mean probability that the labels of j have). No threshold has to be
chosen for a class or a data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vistasks.evaluation.audit.places import LABELLED, Places

UNSEEN = 0.3  # part of the usual confidence: with less, a class is as good as not seen
PRIOR = (
    5.0  # labels of the mean class that each class is given beforehand: three labels say little about a class
)


@dataclass(frozen=True, eq=False)
class SelfConfidence:
    """Means over each class's labels: scores (K + 1,), "none" last, seen (K,), marked (K,), placed (K,), NaN
    where nobody says anything. ``labels`` (K,) is how many there were."""

    scores: np.ndarray
    seen: np.ndarray
    marked: np.ndarray
    placed: np.ndarray
    labels: np.ndarray


def self_confidence(places: Places, background: tuple[float, int]) -> SelfConfidence:
    """The means over all judged labels; ``background``: sum and number of the probabilities of "none" where
    nothing is.
    """
    own = np.flatnonzero((places.source == LABELLED) & places.judged)
    given, classes = places.given[own], places.classes
    total, count = background
    scores = _means(places.scores[own, given], given, classes)
    return SelfConfidence(
        np.append(scores, total / count if count else 1.0),
        _means(places.seen[own, given], given, classes),
        _means(places.marked[own, given], given, classes),
        _means(places.placed[own], given, classes),
        np.bincount(given, minlength=classes),
    )


def _means(values: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    known = np.isfinite(values)
    if not known.any():
        return np.full(classes, np.nan)
    values, labels = values[known].astype(np.float64), labels[known]
    sums, counts = np.bincount(labels, values, minlength=classes), np.bincount(labels, minlength=classes)
    return np.maximum((sums + PRIOR * values.mean()) / (counts + PRIOR), 1e-6)


@dataclass(frozen=True, eq=False)
class Suspicion:
    """Of N places: other (N,) the class that speaks most against what is given; margin (N,) float from -1,
    the label is right, to 1, it is wrong; confident (N,) bool: the other class reaches its own
    self-confidence."""

    other: np.ndarray
    margin: np.ndarray
    confident: np.ndarray


def suspicion(places: Places, usual: SelfConfidence, allowed: np.ndarray) -> Suspicion:
    """How much speaks against what is given at each place.

    Region classifier and class map each say for every class how much of its usual confidence is there (at
    most 1), and by how much another class has more than the given one; the mean of both is taken for the
    class for which it is greatest. The labelled mask has a say only where it contradicts the box.

    Args:
        places: what is judged.
        usual: what the model says of right labels.
        allowed: (N, K + 1) bool, the classes that may be proposed instead.
    """
    rows = np.arange(len(places))
    parts = np.minimum(places.scores / usual.scores, 1.0)
    marked = _differences(places.marked / usual.marked, places.given)
    voices = np.stack([
        parts - parts[rows, places.given][:, None],
        _differences(places.seen / usual.seen, places.given),
        np.where(marked > 0, marked, np.nan),
    ])  # fmt: skip  # (voices, N, K + 1)
    heard = np.isfinite(voices)
    margin = np.where(heard, voices, 0).sum(axis=0) / np.maximum(heard.sum(axis=0), 1)
    # of another class the region classifier must have seen something itself: the map also sees the neighbours
    # in a box
    margin[:, :-1][(parts[:, :-1] < UNSEEN) & (places.given < places.classes)[:, None]] = -1.0
    margin[~allowed] = -1.0
    margin[rows, places.given] = -1.0
    other = margin.argmax(axis=1)
    return Suspicion(other, margin[rows, other], places.scores[rows, other] >= usual.scores[other])


def _differences(parts: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N, K) parts of what is usual -> (N, K + 1), by how much each class, and "none" last, has more than the
    given one.

    "None" is the lack of the class in question alone: what lies in a box besides may be its neighbours.
    """
    parts = np.minimum(parts, 1.0)
    nothing = given == parts.shape[1]
    own = parts[np.arange(len(parts)), np.where(nothing, 0, given)]
    against_none = 2 * parts - 1
    differences = np.where(nothing[:, None], against_none, parts - own[:, None])
    return np.concatenate([differences, np.where(nothing, np.nan, 1 - 2 * own)[:, None]], axis=1)
