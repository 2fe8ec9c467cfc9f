"""One colour per class, the same in every picture, table and legend of a model."""

from __future__ import annotations

from collections.abc import Sequence

from vistasks.types import ClassNames

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255

# twenty that a person tells apart on photographs, the strongest first
_COLOURS: tuple[Colour, ...] = (
    (230, 25, 75),
    (67, 99, 216),
    (60, 180, 75),
    (245, 130, 49),
    (66, 212, 244),
    (240, 50, 230),
    (255, 225, 25),
    (145, 30, 180),
    (191, 239, 69),
    (70, 153, 144),
    (154, 99, 36),
    (250, 190, 212),
    (128, 0, 0),
    (170, 255, 195),
    (128, 128, 0),
    (220, 190, 255),
    (40, 60, 150),
    (255, 120, 160),
    (255, 216, 177),
    (255, 250, 200),
)
BACKGROUND: Colour = (0, 0, 0)


def class_colour(number: int) -> Colour:
    """The colour of the class with this number (>= 0); all different up to 60, then they come again."""
    if number < 0:
        raise ValueError(f"class ids begin at 0; received {number}")
    return _shade(number % len(_COLOURS), number // len(_COLOURS))


def class_colours(names: Sequence[str]) -> list[Colour]:
    """A colour for each name, in the order in which they first appear; "background" is black and takes
    none.
    """
    coloured = dict.fromkeys(name for name in names if name != "background")
    numbers = {name: number for number, name in enumerate(coloured)}
    return [class_colour(numbers[name]) if name in numbers else BACKGROUND for name in names]


def model_colours(classes: ClassNames) -> dict[str, Colour]:
    """A colour for each class name of a model; a name that both tasks have is one class to the eye."""
    names = [name for names in classes.by_task().values() for name in names]
    return dict(zip(names, class_colours(names)))


def _shade(index: int, shade: int) -> Colour:
    """The first twenty as they are, the next darker, the next lighter, and again."""
    red, green, blue = _COLOURS[index]
    if shade % 3 == 1:
        return red * 6 // 10, green * 6 // 10, blue * 6 // 10
    if shade % 3 == 2:
        return (red + 255) // 2, (green + 255) // 2, (blue + 255) // 2
    return red, green, blue
