"""PASCAL VOC folders: ``Annotations/*.xml``, ``ImageSets/Main|Segmentation/*.txt``, ``JPEGImages``,
``SegmentationClass``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from vistasks.datasets.annotations import Annotation, AnnotationTable, ImageObjects, make_sample
from vistasks.datasets.box_policy import BadBoxes, BoxChecker
from vistasks.datasets.class_names import ClassTable, labelled_ids
from vistasks.datasets.files import ImageIndex, existing_root, inside
from vistasks.datasets.formats.voc_splits import SplitLists, Task, VocFolder, find_voc_folder, read_split
from vistasks.datasets.formats.voc_xml import VocFile, VocObject, read_voc_xml
from vistasks.datasets.images import image_size, read_image
from vistasks.datasets.masks import MaskCoding, index_coding
from vistasks.datasets.packed import PackedStrings
from vistasks.datasets.problems import OnError, counted, raise_if_any
from vistasks.registry import DATASETS
from vistasks.system.limits import MAX_PIXELS
from vistasks.types import ClassNames, Labelled, Sample


@DATASETS.register("voc")
class VocDataset:
    """A VOC folder, or a bare folder of xml files beside their images.

    An image is labelled for the tasks whose list names it: with both tasks the images are the union of
    ``ImageSets/Main/<split>.txt`` and ``ImageSets/Segmentation/<split>.txt``. Where Segmentation has no list
    of that name (and in a bare folder), the masks that exist count. A mask or xml file that a list promises
    and that is not there is an error; the xml's ``<segmented>`` flag is not looked at, since it is often
    wrong.

    Args:
        root: the folder that holds Annotations, ImageSets, ...
        split: the list's name, for example ``train``; None where there are no lists. In a bare layout a
            subfolder.
        classes: names of the detection classes in the order of their ids. None: all names in the xml files,
            sorted.
        tasks: what to read.
        segmentation_classes: names in the order of their ids. None: ``background`` and then ``classes``.
        mask_values: mask value -> class name, or ``ignore``. None: value i is class i, 255 is ignored.
        bad_boxes: see `vistasks.datasets.box_policy`.
        one_based: corners are 1-based and inclusive, as VOC defines them: ``x1 = xmin - 1, x2 = xmax``.
            False: as written.
        labelled_classes: the detection classes whose objects are all marked; None: all classes.
        other_classes: objects of a class that is not in ``classes`` are an error, or left out and counted.
        on_error: pictures with a damaged or missing file or a bad box are an error, or left out and listed in
            ``skipped``.
        max_pixels: a picture with more is damage.

    Raises:
        FileNotFoundError: the root, a folder or the list is missing.
        ValueError: all that is wrong with the annotations, together.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str | None = None,
        classes: list[str] | None = None,
        tasks: list[Task] = ["detect"],  # noqa: B006 (read only; pydantic needs a list)
        segmentation_classes: list[str] | None = None,
        mask_values: dict[int, str] | None = None,
        bad_boxes: BadBoxes = "error",
        one_based: bool = True,
        labelled_classes: list[str] | None = None,
        other_classes: Literal["error", "drop"] = "error",
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        folder = find_voc_folder(existing_root(root), split)
        lists = read_split(folder, split, tasks)
        coding = _mask_coding(classes, segmentation_classes, mask_values) if "segment" in tasks else None
        builder = _Builder(
            folder, lists, coding, BoxChecker(bad_boxes), one_based, "detect" in tasks, on_error, max_pixels
        )
        files = builder.read_files() if "detect" in tasks else {}
        names = _detection_names(classes, folder, files) if "detect" in tasks else ()
        table = ClassTable(names, other_classes)
        builder.read_objects(files, table)
        source = f"the VOC folder {folder.root}" + (f", split '{split}'" if split else "")
        of_pictures = [*builder.faults, *builder.boxes.errors]
        self.skipped = of_pictures if on_error == "skip" else []
        faults = table.errors if on_error == "skip" else [*of_pictures, *table.errors]
        raise_if_any(faults, source=source, advice=[table.advice, builder.boxes.advice])
        if not builder.ids:
            raise ValueError(
                f"{source}: no image is left to read"
                + "".join(f"\n{n}" for n in counted(self.skipped, "faults"))
            )
        self.classes = ClassNames(names, coding.classes if coding else ())
        self.ids: Sequence[str]
        self.paths: Sequence[str]
        self.ids, self.paths = PackedStrings(builder.ids), PackedStrings(builder.paths)
        self.notes = [
            *counted(self.skipped, "faults skipped"),
            *builder.notes(),
            *table.notes,
            *builder.boxes.notes,
        ]
        self._mask_paths = PackedStrings(builder.mask_paths)
        self._has_boxes = np.array(builder.has_boxes, dtype=np.bool_)
        self._table = AnnotationTable(builder.rows)
        self._coding = coding
        self._max_pixels = max_pixels
        self._boxes_cover = labelled_ids(names, labelled_classes)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, read_image(self.paths[index], max_pixels=self._max_pixels))

    def sample(self, index: int, image: np.ndarray) -> Sample:
        """Image ``index`` with the pixels given."""
        mask_path = self._mask_paths[index]
        size = (image.shape[0], image.shape[1])
        segmentation = self._coding.read(Path(mask_path), size) if self._coding and mask_path else None
        return make_sample(self.ids[index], self.paths[index], image, self.annotation(index), segmentation)

    def annotation(self, index: int) -> Annotation:
        """The objects of image ``index`` without decoding it."""
        detection = self._boxes_cover if self._has_boxes[index] else frozenset()
        segmentation = self._coding.covered if self._coding and self._mask_paths[index] else frozenset()
        return self._table.row(index, Labelled(detection, segmentation))


def _mask_coding(
    classes: list[str] | None, segmentation_classes: list[str] | None, values: dict[int, str] | None
) -> MaskCoding:
    if segmentation_classes is None and values is None:
        if classes is None:
            raise ValueError(
                "tasks: segment needs the meaning of the mask values: give classes (value 0 is background, i + 1 is classes[i]), "
                "segmentation_classes (value i is class i) or mask_values; the names in the xml files may not be all"
            )
        segmentation_classes = ["background", *classes]
    return index_coding(values, segmentation_classes)


def _detection_names(
    classes: list[str] | None, folder: VocFolder, files: dict[str, VocFile]
) -> tuple[str, ...]:
    if classes is not None:
        return tuple(classes)
    read = {file.path for file in files.values()}
    others = [read_voc_xml(path) for path in sorted(folder.annotations.glob("*.xml")) if path not in read]
    return tuple(sorted({found.name for file in [*files.values(), *others] for found in file.objects}))


@dataclass
class _Builder:
    """Goes through the lists once and gathers the rows of the data set, and every fault on the way."""

    folder: VocFolder
    lists: SplitLists
    coding: MaskCoding | None
    boxes: BoxChecker
    one_based: bool
    detect: bool
    on_error: OnError
    max_pixels: int
    faults: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    mask_paths: list[str] = field(default_factory=list)  # empty where a picture has none
    has_boxes: list[bool] = field(default_factory=list)
    rows: list[ImageObjects] = field(default_factory=list)
    without_mask: int = 0

    def __post_init__(self) -> None:
        self._promised = frozenset(self.lists.segment or ())

    def read_files(self) -> dict[str, VocFile]:
        """The xml file of each image that the detection list names."""
        files = {}
        for name in self.lists.detect or ():
            path = self.folder.annotations / f"{name}.xml"
            try:
                if not path.is_file():
                    raise ValueError(f"{path}: missing, though the list names '{name}'")
                files[name] = read_voc_xml(path)
            except ValueError as error:
                self.faults.append(str(error))
        return files

    def read_objects(self, files: dict[str, VocFile], table: ClassTable) -> None:
        """Fills the rows from the lists and the xml files; faults are kept for one error at the end."""
        images = ImageIndex(self.folder.images, deep=not self.folder.bare)
        unreadable = frozenset(self.lists.detect or ()) - files.keys() if self.detect else frozenset()
        for name in self.lists.names():
            file, errors = files.get(name), len(self.boxes.errors)
            if self.on_error == "skip" and name in unreadable:
                continue
            try:
                image_path = self._image_path(images, name, file)
                mask_path = self._mask_path(name)
                if mask_path is None and not self.detect:
                    continue
                size = image_size(image_path, max_pixels=self.max_pixels)
                if file is not None:
                    self._check_size(file, size, image_path)
                row = self._row(file, size, table)
            except (ValueError, OSError) as error:
                self.faults.append(str(error))
                continue
            if self.on_error == "skip" and len(self.boxes.errors) > errors:
                continue  # an object that is missing would be learnt as background
            self.ids.append(name)
            self.paths.append(str(image_path))
            self.mask_paths.append("" if mask_path is None else str(mask_path))
            self.has_boxes.append(file is not None)
            self.rows.append(row)

    def _image_path(self, images: ImageIndex, name: str, file: VocFile | None) -> Path:
        written = None
        if file is not None and file.filename is not None:
            written = inside(self.folder.root, self.folder.images, file.filename, source=str(file.path))
        found = images.find(name)
        if found is None and written is not None and written.is_file():
            found = written
        if found is None:
            raise ValueError(
                f"{images.folder / name}.*: no image of this name"
                + (f", nor '{written.name}'" if written else "")
            )
        return found

    def _mask_path(self, name: str) -> Path | None:
        """The image's mask, or None if it is not labelled for segmentation."""
        if self.coding is None or (self.lists.segment is not None and name not in self._promised):
            return None
        path = self.folder.masks / f"{name}.png"
        if path.is_file():
            return path
        if self.lists.segment is not None:
            raise ValueError(f"{path}: missing, though the Segmentation list names '{name}'")
        self.without_mask += 1
        return None

    @staticmethod
    def _check_size(file: VocFile, size: tuple[int, int], image_path: Path) -> None:
        if file.size is not None and file.size != size:
            turned = " (its EXIF orientation applied)" if file.size == size[::-1] else ""
            raise ValueError(
                f"{file.path}: <size> says {file.size[1]}x{file.size[0]}, but {image_path} is {size[1]}x{size[0]}{turned}, "
                "so the boxes were drawn on another image; correct them, or remove <size> if they are right"
            )

    def _row(self, file: VocFile | None, size: tuple[int, int], table: ClassTable) -> ImageObjects:
        boxes, labels, difficult = [np.zeros((0, 4), np.float32)], [], []
        for found in file.objects if file else ():
            place = f"{file.path} object {found.number} '{found.name}'" if file else ""
            label = table.find(found.name, place)
            box = None if label is None else self._box(found, size, place)
            if label is not None and box is not None:
                boxes.append(box[None])
                labels.append(label)
                difficult.append(found.difficult)
        return ImageObjects(np.concatenate(boxes), labels, difficult, [False] * len(labels), None, size)

    def _box(self, found: VocObject, size: tuple[int, int], place: str) -> np.ndarray | None:
        shift = np.array([1.0, 1.0, 0.0, 0.0]) if self.one_based else np.zeros(4)
        return self.boxes.check(
            found.corners - shift, size, place=place, text=found.text, least_side=float(self.one_based)
        )

    def notes(self) -> list[str]:
        """What was left out besides boxes."""
        notes = []
        if self.without_mask:
            left = "are not labelled for segmentation" if self.detect else "are left out"
            notes.append(f"{self.without_mask} images have no mask and {left}")
        return notes
