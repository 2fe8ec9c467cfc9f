"""One PASCAL VOC annotation file (*.xml), as it is written: no conversion of coordinates, no judgement of
boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
from defusedxml import DefusedXmlException

from vistasks.datasets.problems import flag

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, eq=False)
class VocObject:
    """``number`` counts the file's objects from 1; ``corners`` (4,) float64 xmin, ymin, xmax, ymax as
    written.
    """

    number: int
    name: str
    corners: np.ndarray
    text: str
    difficult: bool


@dataclass(frozen=True, eq=False)
class VocFile:
    """``filename`` and ``size`` (height, width) as written; None where absent (or 0)."""

    path: Path
    filename: str | None
    size: tuple[int, int] | None
    objects: tuple[VocObject, ...]


def read_voc_xml(path: Path) -> VocFile:
    """Parses with defusedxml (no entities, no outside references). Whatever is malformed is a ``ValueError``
    naming the file.
    """
    try:
        root = defusedxml.ElementTree.parse(path).getroot()
    except (ParseError, UnicodeDecodeError, LookupError) as error:
        raise ValueError(f"{path}: not well-formed XML ({error})") from error
    except DefusedXmlException as error:
        raise ValueError(
            f"{path}: refused, since it declares XML entities or outside references ({error})"
        ) from error
    if root is None or root.tag != "annotation":
        found = "nothing" if root is None else f"<{root.tag}>"
        raise ValueError(
            f"{path}: expected a PASCAL VOC file with the root element <annotation>, but found {found}"
        )
    objects = tuple(
        _read_object(element, number, path) for number, element in enumerate(root.findall("object"), start=1)
    )
    return VocFile(path, _text(root, "filename") or None, _read_size(root), objects)


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _read_size(root: Element) -> tuple[int, int] | None:
    try:
        height, width = int(float(_text(root, "size/height"))), int(float(_text(root, "size/width")))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _read_object(element: Element, number: int, path: Path) -> VocObject:
    name = _text(element, "name")
    place = f"{path} object {number}" + (f" '{name}'" if name else "")
    if not name:
        raise ValueError(f"{place}: has no <name>")
    texts = [_text(element, f"bndbox/{corner}") for corner in _CORNERS]
    try:
        corners = np.array([float(text) for text in texts])
    except ValueError as error:
        written = ", ".join(
            f"{corner}={text or 'missing'}" for corner, text in zip(_CORNERS, texts, strict=True)
        )
        raise ValueError(
            f"{place}: <bndbox> needs the numbers {', '.join(_CORNERS)}, but has {written}"
        ) from error
    difficult = flag(_text(element, "difficult"), f"{place}: <difficult>")
    return VocObject(number, name, corners, f"[{', '.join(texts)}]", difficult)
