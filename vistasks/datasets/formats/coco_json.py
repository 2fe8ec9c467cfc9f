"""COCO instances json -> checked rows; ids stay the file's own here, and nothing is converted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vistasks.datasets.problems import flag


@dataclass(frozen=True, eq=False)
class CocoImage:
    """``size`` (height, width), or None where the file does not tell it."""

    number: int
    file_name: str
    size: tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class CocoObject:
    """``bbox`` x, y, width, height as written; ``segmentation`` polygons or RLE as written, or None."""

    number: int
    category: str
    bbox: tuple[float, float, float, float]
    area: float | None
    crowd: bool
    difficult: bool
    segmentation: Any


@dataclass
class CocoFile:
    """``categories`` by the file's ids, in their order; ``objects`` by image id; ``faults`` one line each.

    ``incomplete``: ids of images one of whose annotations could not be read.
    """

    path: Path
    categories: dict[int, str] = field(default_factory=dict)
    images: list[CocoImage] = field(default_factory=list)
    objects: dict[int, list[CocoObject]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    incomplete: set[int] = field(default_factory=set)


def load_json(path: Path, keys: tuple[str, ...]) -> dict[str, list[Any]]:
    """The top-level lists ``keys``. Text that is no json, or has no such lists, is a ``ValueError`` that
    names file and line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} line {error.lineno}: not valid json ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a UTF-8 json file ({error})") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists thousands deep
        raise ValueError(f"{path}: not a usable JSON file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected a COCO file with the lists {', '.join(keys)}, not a {type(content).__name__} at the top"
        )
    for key in keys:
        if not isinstance(content.get(key), list):
            raise ValueError(
                f"{path}: expected the list '{key}'; the file has: {', '.join(content) or 'nothing'}"
            )
    return {key: content[key] for key in keys}


def read_coco_json(path: Path) -> CocoFile:
    """Reads and checks the file; what is wrong with single entries is gathered in ``faults``."""
    lists = load_json(path, ("images", "annotations", "categories"))
    file = CocoFile(path)
    file.categories = read_categories(lists["categories"], path, file.faults)
    images: dict[int, CocoImage] = {}
    for image in _entries(lists["images"], f"{path} image", _image, file.faults):
        if image.number in images:
            file.faults.append(f"{path} image id {image.number}: duplicate id")
        images[image.number] = image
    file.images = list(images.values())
    file.objects = {number: [] for number in images}

    def read_object(entry: dict[str, Any]) -> tuple[int, CocoObject]:
        if entry["image_id"] not in images:
            raise ValueError(f"there is no image with the id {entry['image_id']}")
        try:
            if entry["category_id"] not in file.categories:
                raise ValueError(f"there is no category with the id {entry['category_id']}")
            return entry["image_id"], _object(entry, file.categories[entry["category_id"]])
        except Exception:
            file.incomplete.add(entry["image_id"])
            raise

    for image_number, found in _entries(lists["annotations"], f"{path} annotation", read_object, file.faults):
        file.objects[image_number].append(found)
    return file


def read_categories(entries: list[Any], path: Path, faults: list[str]) -> dict[int, str]:
    """Category id -> name, in the order of the ids. An id or name that comes twice is a ``ValueError``."""
    categories: dict[int, str] = {}
    for number, name in _entries(
        entries, f"{path} category", lambda entry: (int(entry["id"]), _name(entry["name"])), faults
    ):
        if number in categories or name in categories.values():
            raise ValueError(f"{path} category id {number} '{name}': duplicate id or name")
        categories[number] = name
    return dict(sorted(categories.items()))


def _name(name: Any) -> str:
    """A category's name; some files have numbers for names."""
    if isinstance(name, bool) or not isinstance(name, (str, int, float)):
        raise ValueError(f"the name must be text, not {_shown(name)}")
    return str(name)


def _shown(value: Any) -> str:
    return repr(value)[:60]


def _entries(
    entries: list[Any], what: str, read: Callable[[dict[str, Any]], Any], faults: list[str]
) -> Iterator[Any]:
    for position, entry in enumerate(entries):
        place = (
            f"{what} id {entry['id']}"
            if isinstance(entry, dict) and "id" in entry
            else f"{what} at position {position}"
        )
        if not isinstance(entry, dict):
            faults.append(f"{place}: expected an object with keys, not {_shown(entry)}")
            continue
        try:
            yield read(entry)
        except KeyError as error:
            faults.append(f"{place}: the key {error} is missing")
        except (TypeError, ValueError, OverflowError) as error:
            faults.append(f"{place}: {error}")


def _image(entry: dict[str, Any]) -> CocoImage:
    height, width = entry.get("height"), entry.get("width")
    size = (int(height), int(width)) if height and width else None
    if size is not None and min(size) < 1:
        raise ValueError(f"height and width must be over 0, not {height!r} and {width!r}")
    if not isinstance(entry["file_name"], str):
        raise ValueError(f"file_name must be text, not {entry['file_name']!r}")
    return CocoImage(int(entry["id"]), entry["file_name"], size)


def _object(entry: dict[str, Any], category: str) -> CocoObject:
    bbox = entry["bbox"]
    if (
        not isinstance(bbox, list)
        or len(bbox) != 4
        or not all(isinstance(value, (int, float)) for value in bbox)
    ):
        raise ValueError(f"bbox must be four numbers x, y, width, height, not {bbox!r}")
    area = entry.get("area")
    return CocoObject(
        number=int(entry["id"]) if "id" in entry else -1,
        category=category,
        bbox=(float(bbox[0]), float(bbox[1]), float(bbox[2]), float(bbox[3])),
        area=None if area is None else float(area),
        crowd=flag(entry.get("iscrowd"), "iscrowd"),
        difficult=flag(entry.get("difficult"), "difficult"),
        segmentation=entry.get("segmentation") or None,
    )
