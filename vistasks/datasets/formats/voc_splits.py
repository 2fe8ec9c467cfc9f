"""Which images a VOC folder's split has, where their files lie, and for which tasks their lists name them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vistasks.datasets.files import existing_folder, inside, read_list, without_image_suffix
from vistasks.registry import nearest

Task = Literal["detect", "segment"]
_LIST_FOLDER: dict[Task, str] = {"detect": "Main", "segment": "Segmentation"}


@dataclass(frozen=True)
class VocFolder:
    """The folders of one data set; ``bare`` = xml files beside the images, no lists."""

    root: Path
    annotations: Path
    images: Path
    masks: Path
    bare: bool


def find_voc_folder(root: Path, split: str | None) -> VocFolder:
    """The devkit's layout if ``Annotations`` or ``ImageSets`` is there, else the bare one (in the subfolder
    ``split``).
    """
    if (root / "Annotations").is_dir() or (root / "ImageSets").is_dir():
        images = existing_folder(root, "JPEGImages", "voc")
        return VocFolder(root, root / "Annotations", images, root / "SegmentationClass", bare=False)
    folder = existing_folder(root, split, "split") if split is not None else root
    if not any(folder.glob("*.xml")):
        raise FileNotFoundError(
            f"{folder.absolute()} is no VOC folder: expected Annotations, ImageSets and JPEGImages in it, "
            "or xml files beside the images"
        )
    return VocFolder(root, folder, folder, folder / "SegmentationClass", bare=True)


@dataclass(frozen=True)
class SplitLists:
    """The image names (without suffix) that each task's list holds; None where that task has no list of its
    own.
    """

    detect: tuple[str, ...] | None
    segment: tuple[str, ...] | None

    def names(self) -> list[str]:
        """All names once, in the order of the lists, those for detection first."""
        return list(dict.fromkeys((*(self.detect or ()), *(self.segment or ()))))


def read_split(folder: VocFolder, split: str | None, tasks: Collection[Task]) -> SplitLists:
    """The lists of ``split``.

    Detection is named by ``ImageSets/Main/<split>.txt`` (or ``ImageSets/<split>.txt``), segmentation by
    ``ImageSets/Segmentation/<split>.txt``; without the latter ``segment`` is None and ``detect`` holds the
    images to look at."""
    if folder.bare or (split is None and not (folder.root / "ImageSets").is_dir()):
        return SplitLists(tuple(path.stem for path in sorted(folder.annotations.glob("*.xml"))), None)
    if split is None:
        raise ValueError(
            f"split is missing: {folder.root / 'ImageSets'} has the lists {_known_lists(folder)}"
        )
    lists = {task: _find_list(folder, split, task) for task in _LIST_FOLDER}
    if "segment" not in tasks:
        lists["segment"] = None
    if "detect" not in tasks and lists["segment"] is not None:
        lists["detect"] = None
    if lists["detect"] is None and ("detect" in tasks or lists["segment"] is None):
        names, missing = _known_lists(folder), folder.root / "ImageSets" / "Main" / f"{split}.txt"
        raise FileNotFoundError(
            f"split: there is no list {missing.absolute()}.{nearest(split, names.split(', '))} Lists: {names}"
        )
    read = {task: None if path is None else _names(folder, path) for task, path in lists.items()}
    return SplitLists(read["detect"], read["segment"])


def _find_list(folder: VocFolder, split: str, task: Task) -> Path | None:
    places = [folder.root / "ImageSets" / _LIST_FOLDER[task]]
    if task == "detect":
        places.append(folder.root / "ImageSets")
    for place in places:
        path = inside(folder.root, place, f"{split}.txt", source="split")
        if path.is_file():
            return path
    return None


def _known_lists(folder: VocFolder) -> str:
    names = {path.stem for path in (folder.root / "ImageSets").rglob("*.txt")}
    return ", ".join(sorted(names)) or "none"


def _names(folder: VocFolder, path: Path) -> tuple[str, ...]:
    names = read_list(path)
    for name in names:
        inside(folder.root, folder.images, name, source=str(path))
    return tuple(without_image_suffix(name) for name in names)
