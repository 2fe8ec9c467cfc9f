"""Self-confidence of classes, and what speaks against a label."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.audit.places import places
from vistasks.evaluation.audit.confidence import PRIOR, self_confidence, suspicion

# forty good labels: cats get .9 and fill 80 % of their box, dogs get .4 and fill 20 %
CATS = [{"given": 0, "scores": [0.9, 0.05, 0.05], "seen": [0.8, 0.0]}] * 20
DOGS = [{"given": 1, "scores": [0.1, 0.4, 0.5], "seen": [0.0, 0.2]}] * 20


def _margin(row: dict, *, allowed: np.ndarray | None = None) -> tuple[int, float, bool]:
    found = places(*CATS, *DOGS, row)
    usual = self_confidence(found, (9.5, 10))
    doubt = suspicion(found, usual, np.ones((len(found), 3), bool) if allowed is None else allowed)
    return int(doubt.other[-1]), float(doubt.margin[-1]), bool(doubt.confident[-1])


def test_self_confidence_is_the_mean_over_a_classes_own_labels() -> None:
    hard = {"given": 0, "scores": [0.0, 0.0, 1.0], "judged": False}
    missing = {"given": 2, "scores": [0.3, 0.0, 0.7]}
    usual = self_confidence(places(*CATS, *DOGS, hard, missing), (9.5, 10))
    pulled = (20 * 0.9 + PRIOR * 0.65) / (20 + PRIOR)
    assert usual.scores == pytest.approx([pulled, (20 * 0.4 + PRIOR * 0.65) / (20 + PRIOR), 0.95])
    assert usual.labels.tolist() == [20, 20]
    assert np.isnan(usual.marked).all() and usual.placed == pytest.approx([0.9, 0.9])


def test_no_labels_and_no_background() -> None:
    usual = self_confidence(places({"given": 2, "scores": [0.3, 0.0, 0.7]}), (0.0, 0))
    assert np.isnan(usual.scores[:2]).all() and usual.scores[2] == 1.0


def test_a_score_is_read_against_its_class() -> None:
    """.4 is all that a dog ever gets, so a dog at .45 in a cat's box is sure, and a cat at .45 in a dog's box
    is not.
    """
    other, margin, confident = _margin({"given": 0, "scores": [0.1, 0.45, 0.45], "seen": [0.0, 0.2]})
    assert other == 1 and margin > 0.8 and confident
    _, weaker, confident = _margin({"given": 1, "scores": [0.45, 0.1, 0.45], "seen": [0.8, 0.0]})
    assert 0 < weaker < margin and not confident


@pytest.mark.parametrize("given, other", [(0, 1), (1, 0), (0, 2), (2, 0), (2, 1)])
def test_the_class_map_confirms_or_contradicts(given: int, other: int) -> None:
    scores = [0.02, 0.02, 0.02]
    scores[other] = 0.96
    agrees = [0.8 * (other == 0), 0.2 * (other == 1)]
    contradicts = [
        0.8 * (given == 0 or (given == 2 and other != 0)),
        0.2 * (given == 1 or (given == 2 and other != 1)),
    ]
    allowed = np.ones((41, 3), bool)
    if given == 2:
        allowed[-1] = np.arange(3) == other
    said = {"given": given, "scores": scores}
    alone, confirmed, opposed = (
        _margin({**said, "seen": seen}, allowed=allowed)[:2]
        for seen in ([np.nan, np.nan], agrees, contradicts)
    )
    assert alone[0] == confirmed[0] == other
    assert confirmed[1] > 0.7 and opposed[1] < 0.2 < alone[1]


def test_a_neighbour_in_the_box_is_no_other_class() -> None:
    """The map sees a dog in the box of a cat that the detector does not see: nothing there, rather than a
    dog.
    """
    other, margin, _ = _margin({"given": 0, "scores": [0.01, 0.01, 0.98], "seen": [0.0, 0.2]})
    assert other == 2 and margin > 0.9


def test_the_labelled_mask_counts_where_it_contradicts() -> None:
    row = {"given": 0, "scores": [0.5, 0.3, 0.2], "seen": [0.4, 0.1]}
    marks = [
        {"given": k % 2, "scores": [0.5, 0.5, 0.0], "marked": [0.5 * (k % 2 == 0), 0.5 * (k % 2)]}
        for k in range(18)
    ]
    found = places(*CATS, *DOGS, *marks, {**row, "marked": [0.5, 0.0]}, {**row, "marked": [0.0, 0.5]}, row)
    doubt = suspicion(found, self_confidence(found, (9.5, 10)), np.ones((len(found), 3), bool))
    same, against, silent = doubt.margin[-3:]
    assert same == silent < against and doubt.other[-2] == 1


def test_only_allowed_classes_are_proposed() -> None:
    allowed = np.ones((41, 3), bool)
    allowed[-1] = [True, False, False]
    assert _margin({"given": 0, "scores": [0.0, 1.0, 0.0]}, allowed=allowed)[1] == -1
