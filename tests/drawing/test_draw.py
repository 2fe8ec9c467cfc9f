from __future__ import annotations

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
    assert (extent(box) >= unhindered - 5).all(), "the name is cut off at the border"  # its edge may lie on the box's line


def test_lines_grow_with_the_picture() -> None:
    def share(side: int) -> int:
        image = np.zeros((side, side, 3), dtype=np.uint8)
        drawn = draw(image, Prediction(detections((side / 4, side / 4, side / 2, side / 2))), labels=False)
        return int((drawn[side // 3] > 0).any(axis=1).sum())

    assert share(2560) > 2 * share(640)


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the class map is \(10, 10\), the picture \(120, 160\)"):
        draw(picture(), Prediction(segmentation=SegmentationMap(np.zeros((10, 10), np.uint8), NAMES)))


def test_the_smallest_pictures_work() -> None:
    labels = np.ones((1, 1), dtype=np.uint8)
    drawn = draw(picture(1, 1), Prediction(detections((0, 0, 1, 1)), SegmentationMap(labels, NAMES)))
    assert drawn.shape == (1, 1, 3)
