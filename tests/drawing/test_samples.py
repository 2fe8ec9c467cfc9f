"""The sheet of sample predictions."""

from __future__ import annotations

import numpy as np
import pytest

from vistasks.drawing.samples import CAPTION, GAP, HEIGHT, WIDTH, SampleSheet
from vistasks.types import ClassNames, Detections, Prediction, Sample, SegmentationMap

CLASSES = ClassNames(("cat",), ("background", "cat"))
PANEL = slice(GAP, GAP + HEIGHT)


def _pair(number: int, *, boxes: bool = True, mask: bool = True) -> tuple[Prediction, Sample]:
    image = np.full((120, 160, 3), 90, np.uint8)
    box, truth = np.array([[20, 20, 80, 80]], np.float32), np.zeros((120, 160), np.uint8)
    sample = Sample(str(number), f"{number}.png", image, box, np.array([0]), segmentation=truth)
    found = Detections(
        np.tile(box + 40, (2, 1)), np.array([0.9, 0.1], np.float32), np.array([0, 0]), CLASSES.detection
    )
    return Prediction(
        found if boxes else None, SegmentationMap(truth + 1, CLASSES.segmentation) if mask else None
    ), sample


def _halves(sheet: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return sheet[PANEL, GAP // 2 : GAP // 2 + WIDTH], sheet[
        PANEL, WIDTH + 3 * GAP // 2 : 2 * WIDTH + 3 * GAP // 2
    ]


@pytest.mark.parametrize("boxes, mask", [(True, True), (True, False), (False, True)])
def test_labels_left_prediction_right(boxes: bool, mask: bool) -> None:
    sheet = SampleSheet(["7"], CLASSES)
    sheet.update(*_pair(7, boxes=boxes, mask=mask))
    drawn = sheet.sheet()
    assert drawn is not None and drawn.shape == (HEIGHT + GAP + CAPTION, 2 * (WIDTH + GAP), 3)
    left, right = _halves(drawn)
    inside = (left[100:140, 60:140] != 90).any(), (right[200:230, 190:230] != 90).any()
    assert inside == (False, mask)  # the labelled mask is background, the predicted one is all cat
    edge = (left[45:120, 39:42] != 90).any(), (right[130:200, 119:122] != right[215, 10]).any()
    assert edge == (boxes, boxes)


def test_only_what_was_asked_for_in_that_order() -> None:
    sheet = SampleSheet(["5", "2", "9"], CLASSES)
    assert sheet.sheet() is None
    for number in (1, 2, 3, 5):
        sheet.update(*_pair(number))
    two = sheet.sheet()
    assert two is not None and two.shape[1] == 4 * (WIDTH + GAP)
    sheet.update(*_pair(9))
    three = sheet.sheet()
    assert three is not None and three.shape == (2 * two.shape[0], two.shape[1], 3)
    assert np.array_equal(three[: len(two)], two)
