"""From places to a ranked list with reasons."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.audit.places import NAMES, picture, places
from vistasks.evaluation.audit.findings import DISAGREEMENT, MISPLACED, MISSING, SPURIOUS, WRONG, judge_all
from vistasks.evaluation.audit.places import MAPPED

GOOD = [
    *[{"given": 0, "scores": [0.9, 0.05, 0.05], "seen": [0.8, 0.0], "box": [900, 0, 950, 50]}] * 20,
    *[{"given": 1, "scores": [0.1, 0.8, 0.1], "seen": [0.0, 0.5], "box": [900, 0, 950, 50]}] * 20,
]


def _found(*rows: dict, names: tuple[str, ...] = NAMES):
    return judge_all([picture(places(*GOOD), index=9), picture(places(*rows), index=3)], names, ())


def test_good_labels_are_no_findings() -> None:
    judgement = judge_all([picture(places(*GOOD))], NAMES, ())
    assert judgement.faults == judgement.disagreements == []
    assert judgement.of_boxes is not None and judgement.of_areas is None


@pytest.mark.parametrize(
    "row, kind, given, suggested, words",
    [
        ({"given": 2, "scores": [0.95, 0.0, 0.05], "seen": [0.7, 0.0]}, MISSING, "", "cat",
         ["nothing is labelled here", "detector says cat (0.95; usually 0.89)", "agrees (cat fills 70%; usually 77%)"]),
        ({"given": 2, "scores": [0.95, 0.0, 0.05], "seen": [0.3, 0.0]}, MISSING, "", "cat", ["map is unsure (cat fills"]),
        ({"given": 0, "scores": [0.02, 0.95, 0.03], "seen": [0.0, 0.5]}, WRONG, "cat", "dog",
         ["labelled cat", "dog (0.95; usually 0.81, against 0.02 for cat)", "agrees (dog fills 50%"]),
        ({"given": 0, "scores": [0.02, 0.03, 0.95], "seen": [0.0, 0.0]}, SPURIOUS, "cat", "",
         ["sees nothing here (background 0.95, cat 0.02)", "agrees (cat fills 0%; usually 74%)"]),
        ({"given": 1, "scores": [0.1, 0.8, 0.1], "placed": 0.3}, MISPLACED, "dog", "dog", ["elsewhere (IoU 0.30; usually 0.87)"]),
        ({"given": 0, "scores": [0.02, 0.95, 0.03], "marked": [0.0, 0.9]}, WRONG, "cat", "dog", ["labelled cat"]),
    ],
)  # fmt: skip
def test_kinds_and_reasons(row: dict, kind: str, given: str, suggested: str, words: list[str]) -> None:
    (entry,) = _found({"box": [10, 10, 60, 60], **row}).faults
    assert (entry.kind, entry.given, entry.suggested, entry.index) == (kind, given, suggested, 3)
    assert (
        entry.path == "pictures/3.jpg" and 0.5 < entry.score <= 1 and entry.box.tolist() == [10, 10, 60, 60]
    )
    assert all(text in entry.reason for text in words), entry.reason
    assert (entry.better is not None) == (kind == MISPLACED)


def test_the_labelled_mask_is_named_where_it_contradicts() -> None:
    marks = [
        {
            "given": k,
            "scores": [0.9 * (k == 0), 0.9 * (k == 1), 0.1],
            "marked": [0.8 * (k == 0), 0.8 * (k == 1)],
        }
        for k in (0, 1)
    ]
    row = {"given": 2, "scores": [0.9, 0.0, 0.1], "marked": [0.7, 0.0]}
    (entry,) = _found(*marks * 5, {**row, "box": [0, 60, 50, 99]}).faults
    assert entry.reason.endswith("the labelled mask says cat as well (70% of the box)")


def test_what_is_likelier_comes_first() -> None:
    rows = [{"given": 0, "scores": [0.9 - p, p, 0.1]} for p in (0.6, 0.9, 0.75)]
    found = _found(*rows).faults
    assert [entry.box[0] for entry in found] == [100, 200, 0]
    assert [entry.confident for entry in found] == [True, False, False]


def test_one_place_is_one_missing_label() -> None:
    box = [10, 10, 60, 60]
    cat = {"given": 2, "scores": [0.6, 0.3, 0.1], "seen": [0.8, 0.1], "box": box}
    found = _found(
        cat, {**cat, "claimed": 1, "box": [12, 10, 62, 60]}, {**cat, "box": [300, 10, 350, 60]}
    ).faults
    assert [(entry.suggested, entry.box[0]) for entry in found] == [("cat", 10), ("cat", 300)]


def test_heads_that_disagree() -> None:
    box = {"given": 2, "judged": False, "scores": [0.95, 0.0, 0.05], "seen": [0.05, 0.0]}
    area = {
        "given": 2,
        "judged": False,
        "source": MAPPED,
        "claimed": 1,
        "scores": [0.0, 0.1, 0.9],
        "seen": [0.0, 0.6],
    }
    agreed = {**box, "seen": [0.8, 0.0]}
    found = _found(box, area, agreed, {**box, "seen": [np.nan, np.nan]}).disagreements
    assert [(entry.kind, entry.suggested) for entry in found] == [
        (DISAGREEMENT, "cat"),
        (DISAGREEMENT, "dog"),
    ]
    assert (
        found[0].reason
        == "cat: the detector 0.95; usually 0.89, but the segmentation map 5%; usually 77% of the box"
    )
    assert found[1].reason.startswith("dog: the segmentation map 60%")


def test_pictures_worth_annotating() -> None:
    fault = picture(places({"given": 0, "scores": [0.0, 0.95, 0.05]}), index=1)
    good, doubtful = picture(places(*GOOD), index=2), picture(None, index=3, unsure=2.5)
    frames = judge_all([fault, good, doubtful], NAMES, ()).frames
    assert [frame.index for frame in frames] == [3, 1, 2]
    assert frames[0].worth == frames[0].unsure == 2.5 and 0.5 < frames[1].faults <= 1 and frames[2].worth == 0


def test_nothing_to_judge() -> None:
    unlabelled = places({"given": 2, "scores": [0.2, 0.0, 0.8], "judged": False})
    assert judge_all([picture(None), picture(unlabelled, index=1)], NAMES, ()).faults == []
    assert judge_all([], NAMES, ()).frames == []
