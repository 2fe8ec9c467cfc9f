"""Reasons in plain words, with the numbers they rest on and what is usual for the class."""

from __future__ import annotations

import numpy as np

from vistasks.evaluation.audit.confidence import SelfConfidence
from vistasks.evaluation.audit.places import Places

LITTLE, CLEAR = 0.3, 0.6  # parts of what is usual: the map does not see it, the map sees it


def words(places: Places, row: int, other: int, usual: SelfConfidence, names: tuple[str, ...]) -> str:
    """Why the given class of a place is doubted in favour of ``other`` (K: nothing)."""
    given = int(places.given[row])
    start = f"labelled {names[given]}" if given < len(names) else "nothing is labelled here"
    scores = places.scores[row]
    if (
        not np.isfinite(places.seen[row]).any() and not np.isfinite(usual.placed).any()
    ):  # an area: the map alone
        return f"{start}; {_map_alone(scores, given, other, usual, names)}"
    if other == len(names):
        said = f"the detector sees nothing here (background {scores[-1]:.2f}, {names[given]} {scores[given]:.2f})"
    else:
        against = f", against {scores[given]:.2f} for {names[given]}" if given < len(names) else ""
        said = f"the detector says {names[other]} ({_of_usual(scores[other], usual.scores[other])}{against})"
    parts = [start, said, _map_words(places.seen[row], usual.seen, given, other, names)]
    parts.append(_mask_words(places.marked[row], usual.marked, given, other, names))
    return "; ".join(part for part in parts if part)


def misplaced_words(places: Places, row: int, usual: SelfConfidence, names: tuple[str, ...]) -> str:
    """Why the box of a label is doubted."""
    given, placed = int(places.given[row]), float(places.placed[row])
    return f"labelled {names[given]}; the model would put the box elsewhere (IoU {_of_usual(placed, usual.placed[given])})"


def unsure_words(
    places: Places, row: int, usual: SelfConfidence, names: tuple[str, ...], *, by_map: bool
) -> str:
    """What the two heads say of a place that one of them names."""
    label = int(places.claimed[row])
    detector = f"the detector {_of_usual(places.scores[row, label], usual.scores[label])}"
    share = (
        f"the segmentation map {_of_usual(places.seen[row, label], usual.seen[label], share=True)} of the box"
    )
    first, second = (share, detector) if by_map else (detector, share)
    return f"{names[label]}: {first}, but {second}"


def _of_usual(value: float, usual: float, *, share: bool = False) -> str:
    form = ".0%" if share else ".2f"
    return f"{value:{form}}; usually {usual:{form}}"


def _map_alone(
    scores: np.ndarray, given: int, other: int, usual: SelfConfidence, names: tuple[str, ...]
) -> str:
    said = (
        f"{names[other]} ({_of_usual(scores[other], usual.scores[other])})"
        if other < len(names)
        else "background"
    )
    against = (
        f", {names[given]} {scores[given]:.2f}" if given < len(names) else f", background {scores[-1]:.2f}"
    )
    return f"the segmentation map says {said}{against}"


def _map_words(seen: np.ndarray, usual: np.ndarray, given: int, other: int, names: tuple[str, ...]) -> str:
    """Whether the class map agrees with ``other``, or with ``given`` where other is nothing."""
    label = other if other < len(names) else given
    if not np.isfinite(seen[label]):
        return ""
    part = seen[label] / usual[label]
    numbers = f"{names[label]} fills {_of_usual(seen[label], usual[label], share=True)}"
    if other == len(names):
        verdict = "agrees" if part < LITTLE else "sees something" if part < CLEAR else "disagrees"
    else:
        verdict = "agrees" if part >= CLEAR else "is unsure" if part >= LITTLE else "does not see it"
    return f"the segmentation map {verdict} ({numbers})"


def _mask_words(marked: np.ndarray, usual: np.ndarray, given: int, other: int, names: tuple[str, ...]) -> str:
    """Says where the labelled mask contradicts the labelled box."""
    if other == len(names):
        empty = np.isfinite(marked[given]) and marked[given] < LITTLE * usual[given]
        return f"the labelled mask has no {names[given]} here either" if empty else ""
    if not np.isfinite(marked[other]) or marked[other] < CLEAR * usual[other]:
        return ""
    if given < len(names) and marked[given] >= LITTLE * usual[given]:
        return ""
    return f"the labelled mask says {names[other]} as well ({marked[other]:.0%} of the box)"
