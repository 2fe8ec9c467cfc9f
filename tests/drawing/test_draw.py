from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vistasks.drawing.draw import OPACITY, blend_map, draw
from vistasks.drawing.palette import class_colours
from vistasks.types import Detections, Prediction, SegmentationMap

NAMES = ("background", "cat", "dog")


def detections(*boxes: tuple[float, float, float, float]) -> Detections:
    count = len(boxes)
    array = np.array(boxes, dtype=np.float32).reshape(count, 4)
    return Detections(array, np.full(count, 0.9, np.float32), np.arange(count) % 2 + 1, NAMES)


def picture(height: int = 120, width: int = 160) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_input_stays_as_it_is() -> None:
    image = picture()
    before = image.copy()
    labels = np.ones(image.shape[:2], dtype=np.uint8)
    drawn = draw(image, Prediction(detections((10, 10, 60, 60)), SegmentationMap(labels, NAMES)))
    assert np.array_equal(image, before)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8 and not np.array_equal(drawn, image)


def test_nothing_to_draw_gives_the_picture() -> None:
    image = picture()
    assert np.array_equal(draw(image, Prediction(detections())), image)
    empty = SegmentationMap(np.zeros(image.shape[:2], dtype=np.uint8), NAMES)
    assert np.array_equal(draw(image, Prediction(segmentation=empty)), image)


def test_the_map_is_blended_where_there_is_a_class() -> None:
    image, colours = picture(), class_colours(NAMES)
    labels = np.zeros(image.shape[:2], dtype=np.uint8)
    labels[:60] = 2
    blended = blend_map(image, SegmentationMap(labels, NAMES), colours)
    expected = (1 - OPACITY) * image[:60] + OPACITY * np.array(colours[2])
    assert np.abs(blended[:60] - expected).max() <= 1
    assert np.array_equal(blended[60:], image[60:])


def test_a_box_has_its_classs_colour_in_rgb() -> None:
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    drawn = draw(image, Prediction(detections((50, 50, 150, 150))), labels=False)
    colour = class_colours(NAMES)[1]
    assert tuple(drawn[100, 50]) == colour
    assert not drawn[100, 100].any()


@pytest.mark.parametrize("box", [(0, 0, 20, 12), (140, 0, 160, 20), (0, 100, 160, 120), (0, 0, 160, 120)])
def test_names_stay_inside_the_picture(box: tuple[float, float, float, float]) -> None:
    def extent(box: tuple[float, float, float, float]) -> np.ndarray:
        image = np.zeros((120, 160, 3), dtype=np.uint8)
        with_name = draw(image, Prediction(detections(box)))
        without = draw(image, Prediction(detections(box)), labels=False)
        return np.ptp(np.argwhere((with_name != without).any(axis=2)), axis=0) + 1

    unhindered = extent((60, 60, 70, 70))
    assert (extent(box) >= unhindered - 5).all(), (
        "the name is cut off at the border"
    )  # its edge may lie on the box's line


def test_lines_grow_with_the_picture() -> None:
    def share(side: int) -> int:
        image = np.zeros((side, side, 3), dtype=np.uint8)
        drawn = draw(image, Prediction(detections((side / 4, side / 4, side / 2, side / 2))), labels=False)
        return int((drawn[side // 3] > 0).any(axis=1).sum())

    assert share(2560) > 2 * share(640)


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the segmentation map is \(10, 10\), the image \(120, 160\)"):
        draw(picture(), Prediction(segmentation=SegmentationMap(np.zeros((10, 10), np.uint8), NAMES)))


def test_the_smallest_pictures_work() -> None:
    labels = np.ones((1, 1), dtype=np.uint8)
    drawn = draw(picture(1, 1), Prediction(detections((0, 0, 1, 1)), SegmentationMap(labels, NAMES)))
    assert drawn.shape == (1, 1, 3)


def test_ignored_pixels_and_ids_without_a_name_stay_as_they_are() -> None:
    image = picture()
    labels = np.full(image.shape[:2], 255, dtype=np.uint8)
    labels[:60] = len(NAMES)
    assert np.array_equal(draw(image, Prediction(segmentation=SegmentationMap(labels, NAMES))), image)


def test_a_class_has_one_colour_in_boxes_and_map_and_it_can_be_chosen() -> None:
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    labels = np.zeros(image.shape[:2], dtype=np.uint8)
    labels[100:, :] = 1
    found = Detections(
        np.array([[20, 20, 80, 80]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64), ("cat",)
    )
    prediction = Prediction(found, SegmentationMap(labels, ("background", "cat")))
    drawn = draw(image, prediction, labels=False, legend=False)
    assert np.abs(drawn[50, 20] * OPACITY - drawn[150, 150]).max() <= 1
    chosen = draw(image, prediction, labels=False, legend=False, colours={"cat": (10, 200, 30)})
    assert tuple(chosen[50, 20]) == (10, 200, 30)


def test_the_better_detection_lies_on_top() -> None:
    boxes = np.array([[50, 50, 150, 150]] * 2, dtype=np.float32)
    found = Detections(boxes, np.array([0.9, 0.5], np.float32), np.array([1, 2]), NAMES)
    drawn = draw(np.zeros((200, 200, 3), dtype=np.uint8), Prediction(found), labels=False)
    assert tuple(drawn[100, 50]) == class_colours(NAMES)[1]


def test_all_four_sides_of_a_box_are_in_the_picture() -> None:
    drawn = draw(np.zeros((60, 80, 3), dtype=np.uint8), Prediction(detections((0, 0, 80, 60))), labels=False)
    assert all(side.any(axis=1).all() for side in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]))


def test_a_label_without_a_name_is_an_error() -> None:
    found = Detections(np.array([[0, 0, 9, 9]], np.float32), np.ones(1, np.float32), np.array([7]), NAMES)
    with pytest.raises(ValueError, match="class id 7, but only 3 classes have a name"):
        draw(picture(), Prediction(found))


def test_the_legend_names_what_is_there_and_takes_half_the_height_at_most() -> None:
    names = tuple(f"class {number}" for number in range(40))
    image = np.full((200, 300, 3), 200, dtype=np.uint8)
    labels = np.repeat(np.arange(40, dtype=np.uint8), 5)[:, None].repeat(300, axis=1)

    def rows(labels: np.ndarray) -> int:
        prediction = Prediction(segmentation=SegmentationMap(labels, names))
        changed = draw(image, prediction) != draw(image, prediction, legend=False)
        return int(changed.any(axis=(1, 2)).sum())

    assert 80 < rows(labels) <= 105
    assert 0 < rows(np.full_like(labels, 3)) < 25


def test_the_number_of_a_tracked_object_is_written_before_its_name() -> None:
    def width(ids: list[int] | None) -> int:
        found = detections((40, 60, 150, 110))
        tracked = replace(found, ids=None if ids is None else np.array(ids))
        with_name = draw(np.zeros((120, 300, 3), np.uint8), Prediction(tracked))
        without = draw(np.zeros((120, 300, 3), np.uint8), Prediction(tracked), labels=False)
        return int(np.ptp(np.flatnonzero((with_name != without).any(axis=(0, 2)))))

    assert width([7]) > width(None) + 10
    assert width([-1]) == width(None)
