from __future__ import annotations

import pytest

from vistasks.drawing.palette import class_colour, class_colours


def test_a_name_has_one_colour_everywhere() -> None:
    assert class_colour("cat") == class_colour("cat")
    assert class_colours(["cat"]) == class_colours(["cat", "dog"])[:1] == [class_colour("cat")]
    assert class_colour("background") == (0, 0, 0)


def test_ids_go_round_the_palette_in_shades() -> None:
    assert len({class_colour(index) for index in range(60)}) == 60
    assert class_colour(0) == (230, 25, 75) and class_colour(60) == class_colour(0)


def test_names_of_one_list_differ() -> None:
    names = [f"class {number}" for number in range(60)]
    assert len(set(class_colours(names))) == 60
    assert len(class_colours([f"class {number}" for number in range(200)])) == 200
    assert class_colours(["a", "b", "a"])[0] == class_colours(["a", "b", "a"])[2]


def test_colours_are_bytes() -> None:
    assert all(0 <= value <= 255 for index in range(70) for value in class_colour(index))


def test_negative_id() -> None:
    with pytest.raises(ValueError, match="class ids begin at 0; received -1"):
        class_colour(-1)
