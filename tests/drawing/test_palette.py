from __future__ import annotations

import pytest

from vistasks.drawing.palette import BACKGROUND, class_colour, class_colours, model_colours
from vistasks.types import ClassNames


def test_names_get_the_strongest_colours_in_their_order() -> None:
    assert class_colours(["cat", "background", "dog", "cat"]) == [
        class_colour(0),
        BACKGROUND,
        class_colour(1),
        class_colour(0),
    ]
    assert class_colours(["cat"]) == class_colours(["cat", "dog"])[:1]


def test_a_name_has_one_colour_in_both_tasks() -> None:
    colours = model_colours(ClassNames(("cat", "dog"), ("background", "dog", "sky")))
    assert colours == {
        "cat": class_colour(0),
        "dog": class_colour(1),
        "background": BACKGROUND,
        "sky": class_colour(2),
    }


def test_ids_go_round_the_palette_in_shades() -> None:
    assert len({class_colour(index) for index in range(60)}) == 60
    assert class_colour(60) == class_colour(0)
    assert BACKGROUND not in {class_colour(index) for index in range(60)}


def test_colours_are_bytes() -> None:
    assert all(0 <= value <= 255 for index in range(70) for value in class_colour(index))


def test_negative_id() -> None:
    with pytest.raises(ValueError, match="class ids begin at 0; received -1"):
        class_colour(-1)
