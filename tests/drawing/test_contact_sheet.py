"""The contact sheet: where the pictures lie, and that each mark of the legend is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from vistasks.drawing.contact_sheet import CAPTION, GAP, contact_sheet
from vistasks.drawing.palette import class_colours
from vistasks.types import ClassNames, Labelled, Sample

CLASSES = ClassNames(("cat", "dog"), ("background", "cat"))
CELL = (100, 120)


def sample_of(**changes: object) -> Sample:
    values: dict[str, object] = {
        "image": np.full((100, 120, 3), 200, np.uint8),
        "boxes": np.array([[20, 30, 60, 80]], dtype=np.float32),
        "labels": np.array([1]),
        "labelled": Labelled(frozenset({0, 1})),
        **changes,
    }
    return Sample(image_id="photo", path="photo.jpg", **values)  # type: ignore[arg-type]


def cell_of(sheet: np.ndarray, row: int = 0, column: int = 0) -> np.ndarray:
    y, x = GAP + row * (CELL[0] + CAPTION + GAP), GAP + column * (CELL[1] + GAP)
    return sheet[y : y + CELL[0], x : x + CELL[1]]


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(axis=-1).sum())


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(1, None, (1, 1)), (5, 2, (3, 2)), (2, 4, (1, 2)), (12, 3, (4, 3))]
)
def test_size_and_places(count: int, columns: int | None, shape: tuple[int, int]) -> None:
    samples = [sample_of(image=np.full((100, 120, 3), 100 + index, np.uint8)) for index in range(count)]
    sheet = contact_sheet(samples, CLASSES, cell=CELL, columns=columns)
    assert sheet.dtype == np.uint8 and sheet.shape[1] == shape[1] * (CELL[1] + GAP) + GAP
    for index in range(count):
        assert has(cell_of(sheet, *divmod(index, shape[1])), (100 + index,) * 3) > 5000


def test_boxes_have_the_colour_of_their_class_in_rgb() -> None:
    cat, dog = class_colours(["cat", "dog"])
    picture = cell_of(contact_sheet([sample_of()], CLASSES, cell=CELL))
    assert has(picture, dog) > 200 and has(picture, cat) == 0
    np.testing.assert_array_equal(picture[50, 20], dog)
    np.testing.assert_array_equal(picture[50, 40], (200, 200, 200))


def test_difficult_and_crowd_boxes_are_dashed() -> None:
    dog = class_colours(["cat", "dog"])[1]
    plain = has(cell_of(contact_sheet([sample_of()], CLASSES, cell=CELL))[40:], dog)
    for flag in ("difficult", "crowd"):
        dashed = has(
            cell_of(contact_sheet([sample_of(**{flag: np.array([True])})], CLASSES, cell=CELL))[40:], dog
        )
        assert 0.3 * plain < dashed < 0.75 * plain


def test_masks_are_blended_and_ignored_pixels_striped() -> None:
    mask = np.zeros((100, 120), np.uint8)
    mask[:, 40:80], mask[:, 80:] = 1, 255
    sample = sample_of(boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), segmentation=mask)
    picture = cell_of(contact_sheet([sample], CLASSES, cell=CELL))
    cat = np.array(class_colours(["cat"])[0])
    np.testing.assert_allclose(picture[50, 20], [100, 100, 100], atol=1)  # background: darkened
    np.testing.assert_allclose(picture[50, 60], (200 + cat) / 2, atol=1)
    assert {tuple(colour) for colour in picture[50, 85:].tolist()} == {(128, 128, 128), (120, 120, 120)}


def test_the_best_proposals_only() -> None:
    proposals = np.array([[70, 10, 90, 30], [95, 70, 115, 95]], dtype=np.float32)
    picture = cell_of(contact_sheet([sample_of(proposals=proposals)], CLASSES, cell=CELL, proposals=1))
    assert picture[20, 70, 0] > 220 and picture[80, 95, 0] == 200


def test_scaled_to_the_cell_in_the_right_shape() -> None:
    wide = sample_of(
        image=np.full((100, 400, 3), 200, np.uint8), boxes=np.array([[0, 0, 400, 100]], np.float32)
    )
    picture = cell_of(contact_sheet([wide], CLASSES, cell=CELL))
    rows = np.flatnonzero((picture == class_colours(["cat", "dog"])[1]).all(axis=-1).any(axis=1))
    assert abs(rows.min() - 35) <= 2 and abs(rows.max() - 65) <= 2


def test_samples_without_anything() -> None:
    bare = sample_of(boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), labelled=Labelled())
    picture = cell_of(contact_sheet([bare], ClassNames(), cell=CELL))
    assert has(picture, (200, 200, 200)) == 100 * 120


def test_errors() -> None:
    with pytest.raises(ValueError, match="needs at least one sample"):
        contact_sheet([], CLASSES)
    with pytest.raises(ValueError, match=r"photo.jpg: the class id 5, but only 2 classes have a name"):
        contact_sheet([sample_of(labels=np.array([5]))], CLASSES)
    with pytest.raises(
        ValueError, match=r"photo.jpg: the mask has the class id 9, but only 2 classes have a name"
    ):
        contact_sheet([sample_of(segmentation=np.full((100, 120), 9, np.uint8))], CLASSES)
