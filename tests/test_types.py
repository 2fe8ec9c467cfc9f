"""The conventions of `vistasks.types`, held by Sample itself."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistasks.types import Detections, Sample

IMAGE = np.zeros((20, 30, 3), dtype=np.uint8)  # 30 wide, 20 high
BOX = np.array([[1, 2, 11, 7]], dtype=np.float32)
LABEL = np.array([0], dtype=np.int64)


def make(**values: Any) -> Sample:
    return Sample(**{"image_id": "a", "path": "folder/a.png", "image": IMAGE, **values})


def test_what_is_not_given_is_filled_in() -> None:
    sample = make(boxes=BOX, labels=LABEL)
    assert sample.size == (20, 30)
    assert (
        sample.areas.tolist() == [50.0] and sample.areas.dtype == np.float32
    )  # (x2 - x1) * (y2 - y1), no +1
    assert sample.difficult.tolist() == [False] and sample.crowd.tolist() == [False]


def test_an_image_without_objects_is_a_sample() -> None:
    sample = make()
    assert sample.boxes.shape == (0, 4) and sample.labels.shape == (0,) and sample.areas.shape == (0,)
    assert sample.segmentation is None and sample.proposals is None


@pytest.mark.parametrize(
    "box",
    [
        [np.nan, 2, 11, 7],
        [1, 2, np.nan, 7],
        [1, 2, np.inf, 7],
        [-1, 2, 11, 7],
        [1, -0.5, 11, 7],
        [1, 2, 31, 7],
        [1, 2, 11, 20.5],
        [11, 2, 1, 7],
        [1, 7, 11, 2],
        [1, 2, 1, 7],
        [1, 2, 11, 2],
    ],
)
@pytest.mark.parametrize("name", ["boxes", "proposals"])
def test_what_is_no_box_inside_the_image_is_refused(name: str, box: list[float]) -> None:
    boxes = np.array([BOX[0], box], dtype=np.float32)
    values = (
        {"boxes": boxes, "labels": np.zeros(2, dtype=np.int64)} if name == "boxes" else {"proposals": boxes}
    )
    with pytest.raises(
        ValueError, match=rf"folder/a\.png: {name}\[1\] = .* is not a box inside the 30x20 image; expected 0"
    ):
        make(**values)


def test_boxes_that_touch_the_border_are_inside() -> None:
    full = np.array([[0, 0, 30, 20]], dtype=np.float32)
    assert make(boxes=full, labels=LABEL, proposals=full).areas.tolist() == [600.0]


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"image": IMAGE.astype(np.float32)}, r"image must be \(any, any, 3\) uint8, not \(20, 30, 3\) float32"),
        ({"image": IMAGE[..., 0]}, r"image must be .* not \(20, 30\) uint8"),
        ({"image": IMAGE[..., :2]}, r"image must be .* not \(20, 30, 2\) uint8"),
        ({"image": IMAGE[:0]}, r"the image is empty \(30x0\)"),
        ({"image": [[0]]}, "image must be a NumPy array, not list"),
        ({"boxes": BOX.astype(np.float64), "labels": LABEL}, r"boxes must be \(any, 4\) float32, not \(1, 4\) float64"),
        ({"boxes": BOX[0], "labels": LABEL}, r"boxes must be \(any, 4\) float32, not \(4,\) float32"),
        ({"boxes": BOX.tolist(), "labels": LABEL}, "boxes must be a NumPy array, not list"),
        ({"boxes": None}, "boxes must be a NumPy array, not NoneType"),
        ({"boxes": BOX}, r"labels must be \(1\) int64, not \(0,\) int64"),
        ({"boxes": BOX, "labels": LABEL.astype(np.int32)}, r"labels must be \(1\) int64, not \(1,\) int32"),
        ({"boxes": BOX, "labels": LABEL - 1}, r"labels must be >= 0, but object 0 has -1"),
        ({"boxes": BOX, "labels": LABEL, "difficult": np.zeros(2, dtype=np.bool_)}, r"difficult must be \(1\) bool"),
        ({"boxes": BOX, "labels": LABEL, "crowd": np.zeros(1, dtype=np.int64)}, r"crowd must be \(1\) bool, not \(1,\) int64"),
        ({"boxes": BOX, "labels": LABEL, "areas": np.array([np.nan], dtype=np.float32)}, r"areas\[0\] = nan; expected 0 or more"),
        ({"boxes": BOX, "labels": LABEL, "areas": np.array([-1], dtype=np.float32)}, r"areas\[0\] = -1.0; expected 0 or more"),
        ({"segmentation": np.zeros((20, 30), dtype=np.int64)}, r"segmentation must be \(20, 30\) uint8, not \(20, 30\) int64"),
        ({"segmentation": np.zeros((30, 20), dtype=np.uint8)}, r"segmentation must be \(20, 30\) uint8, not \(30, 20\) uint8"),
        ({"proposals": BOX.astype(np.float64)}, r"proposals must be \(any, 4\) float32"),
    ],
)  # fmt: skip
def test_wrong_kinds_and_shapes_name_the_file(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=rf"folder/a\.png: {expected}"):
        make(**values)


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(-5, 35, width=32)] * 4), max_size=6))
def test_a_sample_is_accepted_exactly_if_all_its_boxes_are_boxes(boxes: list[tuple[float, ...]]) -> None:
    good = all(0 <= x1 < x2 <= 30 and 0 <= y1 < y2 <= 20 for x1, y1, x2, y2 in boxes)
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    if good:
        assert len(make(boxes=array, labels=np.zeros(len(boxes), dtype=np.int64)).areas) == len(boxes)
    else:
        with pytest.raises(ValueError, match="is not a box inside"):
            make(boxes=array, labels=np.zeros(len(boxes), dtype=np.int64))


def test_samples_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        make().path = "other"  # type: ignore[misc]


def test_detections_have_names_and_length() -> None:
    scores, labels = np.array([0.5, 0.25], dtype=np.float32), np.array([1, 0])
    found = Detections(np.repeat(BOX, 2, axis=0), scores, labels, class_names=("cat", "dog"))
    assert len(found) == 2 and found.names == ["dog", "cat"]


def test_types_need_no_torch() -> None:
    code = "import sys, vistasks.types, vistasks.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
