"""From evidence to a ranked list of what is probably wrong, each entry with its reason in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vistasks.evaluation.audit.confidence import UNSEEN, SelfConfidence, self_confidence, suspicion
from vistasks.evaluation.audit.places import LABELLED, MAPPED, PictureEvidence, Places, joined
from vistasks.evaluation.audit.words import misplaced_words, unsure_words, words
from vistasks.ops.box_arrays import overlaps

MISSING, WRONG, SPURIOUS, MISPLACED = "missing label", "wrong label", "nothing there", "badly placed"
DISAGREEMENT = "heads disagree"
FAULTS = (MISSING, WRONG, SPURIOUS, MISPLACED)
FAR_OFF, LEAST_OF_USUAL = (
    0.7,
    0.75,
)  # a label with less IoU, and with less than this part of the usual one, is badly placed
SURE = 1.0  # part of the usual confidence: one head is sure
SILENCE = (
    0.5  # weight of what the model does not see: it overlooks objects more often than people invent them
)
ONE_PLACE = 0.5  # IoU from which on two entries are about one place


@dataclass(frozen=True, eq=False)
class Finding:
    """One entry of the list.

    Attributes:
        kind: one of `FAULTS`, or `DISAGREEMENT`.
        index, path: the picture.
        box: (4,) float32 in its pixels, the place in question.
        given: the class that is labelled there, "" where none is.
        suggested: what the model says, "" for nothing.
        score: from 0 to 1, how much speaks for the entry; .5 is undecided.
        confident: the model is as sure as it usually is of right labels of the suggested class.
        reason: why, in plain words.
        better: (4,) where the model would put the box, for `MISPLACED`.
    """

    kind: str
    index: int
    path: str
    box: np.ndarray
    given: str
    suggested: str
    score: float
    confident: bool
    reason: str
    better: np.ndarray | None = None


@dataclass(frozen=True)
class Frame:
    """How much annotating a picture would settle: its faults and disagreements, weighted by score, and unsure
    objects.
    """

    index: int
    path: str
    faults: float
    disagreements: float
    unsure: float

    @property
    def worth(self) -> float:
        return self.faults + self.disagreements + self.unsure


@dataclass(frozen=True, eq=False)
class AuditFindings:
    """What an audit comes to: faults and disagreements, likeliest first; frames, most worth annotating first;
    the self-confidence of the detector's classes and of the areas', where there are any."""

    faults: list[Finding]
    disagreements: list[Finding]
    frames: list[Frame]
    of_boxes: SelfConfidence | None
    of_areas: SelfConfidence | None


def judge_all(
    evidence: Sequence[PictureEvidence], boxes: tuple[str, ...], areas: tuple[str, ...]
) -> AuditFindings:
    """Ranks everything; ``boxes`` and ``areas`` are the class names of the two kinds of places."""
    faults: list[Finding] = []
    disagreements: list[Finding] = []
    usual: dict[str, SelfConfidence | None] = {}
    for kind, names in (("boxes", boxes), ("areas", areas)):
        pictures = [(one, places) for one in evidence if (places := getattr(one, kind)) is not None]
        usual[kind] = None
        if not pictures or not names:
            continue
        total, count = (sum(one.background[part] for one, _ in pictures) for part in (0, 1))
        means = self_confidence(joined([places for _, places in pictures]), (total, int(count)))
        usual[kind] = means
        for one, places in pictures:
            if len(places):
                faults += _faults(one, places, means, names)
                disagreements += _disagreements(one, places, means, names)
    frames = _frames(evidence, faults, disagreements)
    return AuditFindings(_ranked(faults), _ranked(disagreements), frames, usual["boxes"], usual["areas"])


def _ranked(found: list[Finding]) -> list[Finding]:
    return sorted(found, key=lambda finding: (-finding.score, finding.path, finding.box.tolist()))


def _faults(
    one: PictureEvidence, places: Places, usual: SelfConfidence, names: tuple[str, ...]
) -> list[Finding]:
    allowed = np.ones((len(places), len(names) + 1), bool)
    besides = places.source != LABELLED
    allowed[besides] = False
    allowed[besides, places.claimed[besides]] = True
    doubt = suspicion(places, usual, allowed)
    found = []
    for row in np.flatnonzero(places.judged).tolist():
        given, other = int(places.given[row]), int(doubt.other[row])
        weight = SILENCE if other == len(names) else 1.0
        entry = Finding(
            kind=MISSING if given == len(names) else SPURIOUS if other == len(names) else WRONG,
            index=one.index,
            path=one.path,
            box=places.boxes[row],
            given="" if given == len(names) else names[given],
            suggested="" if other == len(names) else names[other],
            score=(1 + weight * float(doubt.margin[row])) / 2,
            confident=bool(doubt.confident[row]),
            reason="",
        )
        far = _far_off(places, row, usual)
        if (
            far is not None and entry.kind != WRONG
        ):  # a box beside its object also looks like a box around nothing
            reason = misplaced_words(places, row, usual, names)
            entry = replace(
                entry, kind=MISPLACED, suggested=entry.given, score=max(far, entry.score), reason=reason
            )
            found.append(replace(entry, better=places.moved[row]))
        elif doubt.margin[row] > 0:
            found.append(replace(entry, reason=words(places, row, other, usual, names)))
    return _one_a_place(found)


def _far_off(places: Places, row: int, usual: SelfConfidence) -> float | None:
    """The score of a label that the model would put elsewhere; None where it would not."""
    placed = float(places.placed[row])
    if not np.isfinite(placed):
        return None
    given = int(places.given[row])
    part = placed / float(usual.placed[given])
    sure = float(places.scores[row, given]) >= UNSEEN * usual.scores[given]
    near = overlaps(places.boxes[row : row + 1], places.moved[row : row + 1])[0, 0] > 0
    if placed >= FAR_OFF or part >= LEAST_OF_USUAL or not (sure and near):
        return None
    return 1 - part / 2


def _one_a_place(found: list[Finding]) -> list[Finding]:
    """The likeliest entry of each place: a missing label that two classes claim is one entry."""
    kept: list[Finding] = []
    for finding in _ranked(found):
        others = [other.box for other in kept if other.kind == finding.kind == MISSING]
        if not others or overlaps(finding.box[None], np.stack(others)).max() < ONE_PLACE:
            kept.append(finding)
    return kept


def _disagreements(
    one: PictureEvidence, places: Places, usual: SelfConfidence, names: tuple[str, ...]
) -> list[Finding]:
    """Where one head is as sure as it usually is of a class, and the other sees next to nothing of it."""
    found = []
    for row in np.flatnonzero(places.source != LABELLED).tolist():
        label = int(places.claimed[row])
        if not np.isfinite(places.seen[row, label]):
            continue
        box = float(places.scores[row, label] / usual.scores[label])
        mapped = float(places.seen[row, label] / usual.seen[label])
        by_map = places.source[row] == MAPPED
        sure, other = (mapped, box) if by_map else (box, mapped)
        if sure >= SURE and other < UNSEEN:
            reason = unsure_words(places, row, usual, names, by_map=by_map)
            given, said = "", names[label]
            found.append(
                Finding(
                    DISAGREEMENT, one.index, one.path, places.boxes[row], given, said, 1 - other, True, reason
                )
            )
    return found


def _frames(
    evidence: Sequence[PictureEvidence], faults: Sequence[Finding], disagreements: Sequence[Finding]
) -> list[Frame]:
    sums = [dict.fromkeys((one.index for one in evidence), 0.0) for _ in range(2)]
    for total, found in zip(sums, (faults, disagreements)):
        for finding in found:
            total[finding.index] += finding.score
    frames = [
        Frame(one.index, one.path, sums[0][one.index], sums[1][one.index], one.unsure) for one in evidence
    ]
    return sorted(frames, key=lambda frame: (-frame.worth, frame.path))
