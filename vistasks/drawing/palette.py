"""One colour per class, the same in every picture, table and legend."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255

# twenty that a person tells apart on photographs; neighbours differ most
_COLOURS: tuple[Colour, ...] = (
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (67, 99, 216),
    (245, 130, 49),
    (66, 212, 244),
    (240, 50, 230),
    (191, 239, 69),
    (145, 30, 180),
    (250, 190, 212),
    (70, 153, 144),
    (220, 190, 255),
    (154, 99, 36),
    (255, 250, 200),
    (128, 0, 0),
    (170, 255, 195),
    (128, 128, 0),
    (255, 216, 177),
    (40, 60, 150),
    (255, 120, 160),
)
BACKGROUND: Colour = (0, 0, 0)


def class_colour(key: int | str) -> Colour:
    """The colour of a class by id (>= 0) or by name.

    A name has the same colour wherever it appears, but two names may share one: for a whole list use `class_colours`.
    """
    if isinstance(key, str):
        return BACKGROUND if key == "background" else _shade(zlib.crc32(key.encode()) % len(_COLOURS), 0)
    if key < 0:
        raise ValueError(f"class ids begin at 0; received {key}")
    return _shade(key % len(_COLOURS), key // len(_COLOURS))


def class_colours(names: Sequence[str]) -> list[Colour]:
    """A colour for each name, all different up to 60 names.

    Each is `class_colour` of the name, unless an earlier name of the list has that one: then it is the next that is free.
    """
    taken: dict[str, Colour] = {}
    for name in names:
        if name not in taken:
            taken[name] = _free(class_colour(name), set(taken.values()))
    return [taken[name] for name in names]


def _free(home: Colour, taken: set[Colour]) -> Colour:
    if home not in taken or home == BACKGROUND:
        return home
    first = _COLOURS.index(home)
    for shade in range(3):
        for step in range(len(_COLOURS)):
            colour = _shade((first + step) % len(_COLOURS), shade)
            if colour not in taken:
                return colour
    return home


def _shade(index: int, shade: int) -> Colour:
    """The first twenty as they are, the next darker, the next lighter, and again."""
    red, green, blue = _COLOURS[index]
    if shade % 3 == 1:
        return red * 6 // 10, green * 6 // 10, blue * 6 // 10
    if shade % 3 == 2:
        return (red + 255) // 2, (green + 255) // 2, (blue + 255) // 2
    return red, green, blue
