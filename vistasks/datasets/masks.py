"""How a mask file's values (or colours) become class ids: always by an explicit map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from vistasks.datasets.images import read_colour_mask, read_index_mask
from vistasks.registry import nearest
from vistasks.system.text import few
from vistasks.types import IGNORE_INDEX

IGNORE_NAME = "ignore"

Colour = tuple[int, int, int]
_NOT_MAPPED = -1


class MaskCoding(Protocol):
    """Reads mask files of one coding.

    ``classes`` are the segmentation classes in the order of their ids; ``covered`` the ids that the map can
    produce."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def covered(self) -> frozenset[int]: ...

    def read(self, path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
        """(H, W) uint8 class ids, 255 = ignore.

        A mask of another ``size`` (height, width) is a ``ValueError``, before it is decoded, and so is a value that
        the map does not name, with the value, its number of pixels and the file."""
        ...


@dataclass(frozen=True, eq=False)
class IndexCoding:
    """One value a pixel: ``table`` (65536,) int16 gives the class id of each value, -1 where the map names
    none.
    """

    classes: tuple[str, ...]
    covered: frozenset[int]
    table: np.ndarray
    known: str

    def read(self, path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
        return self.ids_of(read_index_mask(path, size), path)

    def ids_of(self, mask: np.ndarray, path: Path) -> np.ndarray:
        """(H, W) integer values -> (H, W) uint8 class ids."""
        if mask.min() < 0 or mask.max() > 65535:
            raise ValueError(f"{path}: mask values {mask.min()}..{mask.max()} do not fit into 0..65535")
        result = self.table[mask]
        advice = f"mask_values ({self.known}); name it there, for example VALUE: {IGNORE_NAME}"
        _refuse_unmapped(path, result, mask, str, advice)
        return result.astype(np.uint8)


@dataclass(frozen=True, eq=False)
class ColourCoding:
    """RGB masks: ``keys`` (C,) int32 are the packed colours in ascending order, ``ids`` (C,) int16 their
    class ids.
    """

    classes: tuple[str, ...]
    covered: frozenset[int]
    keys: np.ndarray
    ids: np.ndarray
    known: str

    def read(self, path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
        rgb = read_colour_mask(path, size).astype(np.int32)
        packed = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
        place = np.minimum(np.searchsorted(self.keys, packed), len(self.keys) - 1)
        result = np.where(self.keys[place] == packed, self.ids[place], np.int16(_NOT_MAPPED))
        _refuse_unmapped(
            path, result, packed, _colour_text, f"mask_colours (its classes: {self.known}); name it there"
        )
        return result.astype(np.uint8)


def index_coding(values: Mapping[int, str] | None, classes: Sequence[str] | None) -> IndexCoding:
    """For palette and grey masks: value -> class name, ``ignore`` meaning 255.

    Without ``values``, value i means ``classes[i]`` and 255 means ignore. Without ``classes``, they are the
    names in ``values``, in the order of the values."""
    if values is None:
        if classes is None:
            raise ValueError(
                "the meaning of the mask values is unknown: set segmentation_classes (value i is class i, 255 is ignored) "
                "or mask_values (for example {0: background, 7: road, 255: ignore})"
            )
        values = {**dict(enumerate(classes)), IGNORE_INDEX: IGNORE_NAME}
    outside = [value for value in values if not 0 <= value <= 65535]
    if outside:
        raise ValueError(f"mask_values: values must lie in 0..65535, but there is {outside[0]}")
    names = [values[value] for value in sorted(values)]
    table_classes = _checked_classes(names, classes, "mask_values")
    ids = {value: _class_id(name, table_classes) for value, name in values.items()}
    table = np.full(65536, _NOT_MAPPED, dtype=np.int16)
    table[list(ids)] = list(ids.values())
    known = ", ".join(f"{value}: {values[value]}" for value in sorted(values))
    return IndexCoding(table_classes, frozenset(ids.values()) - {IGNORE_INDEX}, table, known)


def colour_coding(
    colours: Mapping[str, Colour | Sequence[Colour]], classes: Sequence[str] | None
) -> ColourCoding:
    """For masks painted in RGB: class name -> its colour or colours, ``ignore`` meaning 255.

    ``classes`` gives the order of the ids and must not be missing: the order of a table's keys is too easily
    lost."""
    if classes is None:
        raise ValueError(
            f"mask_colours needs segmentation_classes, the order of the class ids; it names: {', '.join(colours)}"
        )
    table_classes = _checked_classes(list(colours), classes, "mask_colours")
    ids: dict[int, int] = {}
    for name, given in colours.items():
        for colour in _colours_of(name, given):
            packed = (colour[0] << 16) | (colour[1] << 8) | colour[2]
            if packed in ids:
                raise ValueError(
                    f"mask_colours: the colour {list(colour)} is given to two classes, one of them '{name}'"
                )
            ids[packed] = _class_id(name, table_classes)
    keys = np.array(sorted(ids), dtype=np.int32)
    targets = np.array([ids[int(key)] for key in keys], dtype=np.int16)
    return ColourCoding(
        table_classes, frozenset(ids.values()) - {IGNORE_INDEX}, keys, targets, ", ".join(colours)
    )


def _colours_of(name: str, given: Colour | Sequence[Colour]) -> list[Colour]:
    several = [given] if isinstance(given[0], int) else list(given)
    for colour in several:
        if (
            not isinstance(colour, Sequence)
            or len(colour) != 3
            or not all(0 <= channel <= 255 for channel in colour)
        ):
            raise ValueError(f"mask_colours.{name}: a colour is three values 0..255, not {colour}")
    return [(colour[0], colour[1], colour[2]) for colour in several if isinstance(colour, Sequence)]


def _checked_classes(names: Sequence[str], classes: Sequence[str] | None, option: str) -> tuple[str, ...]:
    if classes is None:
        classes = list(dict.fromkeys(name for name in names if name != IGNORE_NAME))
    if IGNORE_NAME in classes:
        raise ValueError(
            f"segmentation_classes: '{IGNORE_NAME}' is the reserved name of pixels that do not count, not a class"
        )
    if len(classes) > IGNORE_INDEX:
        raise ValueError(
            f"segmentation_classes: at most {IGNORE_INDEX} classes fit into a mask of bytes, not {len(classes)}"
        )
    if len(set(classes)) < len(classes):
        raise ValueError(f"segmentation_classes: duplicate name in {list(classes)}")
    for name in names:
        if name != IGNORE_NAME and name not in classes:
            raise ValueError(
                f"{option} names the class '{name}', which segmentation_classes does not have.{nearest(name, list(classes))} "
                f"{option}: {few(dict.fromkeys(names))}; segmentation_classes: {few(classes)}"
            )
    return tuple(classes)


def _class_id(name: str, classes: Sequence[str]) -> int:
    return IGNORE_INDEX if name == IGNORE_NAME else classes.index(name)


def _colour_text(packed: int) -> str:
    return f"[{packed >> 16}, {packed >> 8 & 255}, {packed & 255}]"


def _refuse_unmapped(
    path: Path, result: np.ndarray, raw: np.ndarray, text: Callable[[int], str], advice: str
) -> None:
    missed = result == _NOT_MAPPED
    if missed.any():
        values, counts = np.unique(raw[missed], return_counts=True)
        pairs = list(zip(values, counts, strict=True))[:10]
        shown = ", ".join(
            f"{text(int(value))} ({count} pixel{'s' if count > 1 else ''})" for value, count in pairs
        )
        more = f" and {len(values) - 10} more" if len(values) > 10 else ""
        raise ValueError(f"{path}: mask value {shown}{more} is not in {advice}")
