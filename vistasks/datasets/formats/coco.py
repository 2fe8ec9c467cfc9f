"""COCO: an instances json and a folder of images; semantic maps from the instances, index pngs or panoptic
pngs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vistasks.datasets.annotations import Annotation, AnnotationTable, ImageObjects, check_size, make_sample
from vistasks.datasets.box_policy import BadBoxes, BoxChecker
from vistasks.datasets.class_names import ClassTable, OtherClasses, labelled_ids
from vistasks.datasets.files import (
    existing_file,
    existing_folder,
    existing_root,
    fill_split,
    inside,
    without_image_suffix,
)
from vistasks.datasets.formats.coco_json import CocoFile, CocoImage, CocoObject, read_coco_json
from vistasks.datasets.formats.coco_semantic import (
    CocoContent,
    Faults,
    Semantic,
    SemanticMaps,
    SemanticOptions,
    semantic_maps,
)
from vistasks.datasets.formats.voc_splits import Task
from vistasks.datasets.images import image_size, read_image
from vistasks.datasets.packed import PackedStrings
from vistasks.datasets.problems import OnError, counted, raise_if_any
from vistasks.registry import DATASETS, nearest
from vistasks.system.limits import MAX_PIXELS
from vistasks.system.text import few
from vistasks.types import ClassNames, Labelled, Sample


@DATASETS.register("coco")
class CocoDataset:
    """Images with COCO annotations. Images without any annotation are read as images without an object.

    Args:
        root: the data folder.
        images, annotations: the folder and the json file under it; ``{split}`` in them is replaced by
            ``split``.
        split: what ``{split}`` stands for, for example ``train2017``.
        classes: names of the detection classes in the order of their ids. None: all categories, in the order
            of the file's ids (which may have gaps; ours do not).
        tasks: what to read.
        semantic: where the semantic map comes from. ``instances``: the annotations' polygons and RLEs,
            painted large to small; crowds are ignored (255); pixels of no object are ``background`` if there
            is such a class and else ignored. ``png``: index masks ``<image name>.png`` in the folder
            ``semantic_png``, through ``mask_values``. ``panoptic``: panoptic pngs in the folder
            ``semantic_png`` with the file ``panoptic_json``.
        semantic_png, panoptic_json: see ``semantic``; ``{split}`` is replaced as well.
        mask_values: for ``png``, value -> class name or ``ignore``. None: value i is class i, 255 is ignored.
        segmentation_classes: names in the order of their ids. None: ``background`` and then ``classes``
            (instances), the names in ``mask_values`` (png), or all categories of the panoptic json.
        bad_boxes: see `vistasks.datasets.box_policy`.
        labelled_classes: the detection classes whose objects are all marked; None: all classes.
        other_classes: objects of a category that is not in ``classes`` are an error, or left out and counted
            (and count as background in a semantic map from instances).
        on_error: pictures with a damaged or missing file or a bad annotation are an error, or left out and
            listed in ``skipped``.
        max_pixels: a picture with more is damage.

    Attributes:
        numbers: the file's id of each image.

    Raises:
        FileNotFoundError: the root, the images' folder or the json is missing.
        ValueError: all that is wrong with the annotations, together.
    """

    def __init__(
        self,
        *,
        root: str,
        images: str = "{split}",
        annotations: str = "annotations/instances_{split}.json",
        split: str | None = None,
        classes: list[str] | None = None,
        tasks: list[Task] = ["detect"],  # noqa: B006 (read only; pydantic needs a list)
        semantic: Semantic = "instances",
        semantic_png: str | None = None,
        panoptic_json: str | None = None,
        mask_values: dict[int, str] | None = None,
        segmentation_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "error",
        labelled_classes: list[str] | None = None,
        other_classes: OtherClasses = "error",
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        base = existing_root(root)
        named = {
            "images": images,
            "annotations": annotations,
            "semantic_png": semantic_png,
            "panoptic_json": panoptic_json,
        }
        names = fill_split(named, split)
        folder = existing_folder(base, names["images"] or "", "images")
        file = read_coco_json(existing_file(base, names["annotations"] or "", "annotations"))
        class_names = _class_names(file, classes)
        rows = _Rows(
            base,
            folder,
            file,
            ClassTable(class_names, other_classes),
            BoxChecker(bad_boxes),
            on_error,
            max_pixels,
        )
        rows.read(boxes="detect" in tasks)
        self._maps: SemanticMaps | None = None
        if "segment" in tasks:
            options = SemanticOptions(
                semantic, names["semantic_png"], names["panoptic_json"], mask_values, segmentation_classes
            )
            self._maps = rows.semantic_maps(options, class_names, labelled_classes)
        rows.raise_faults()
        self.classes = ClassNames(
            class_names if "detect" in tasks else (), self._maps.classes if self._maps else ()
        )
        self.ids: Sequence[str]
        self.paths: Sequence[str]
        self.ids, self.paths = PackedStrings(rows.ids()), PackedStrings(rows.paths)
        self.notes, self.skipped = rows.notes, rows.skipped
        self.numbers = np.array([image.number for image in rows.images], dtype=np.int64)
        self._max_pixels = max_pixels
        self._table = AnnotationTable(rows.objects)
        detection = labelled_ids(class_names, labelled_classes)
        self._labelled = Labelled(
            detection if "detect" in tasks else frozenset(), self._maps.covered if self._maps else frozenset()
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, read_image(self.paths[index], max_pixels=self._max_pixels))

    def sample(self, index: int, image: np.ndarray) -> Sample:
        """Image ``index`` with the pixels given."""
        found = self.annotation(index)
        size = (image.shape[0], image.shape[1])
        check_size(self.paths[index], size, found)  # the map is painted at the size that the json says
        segmentation = None if self._maps is None else self._maps.read(index, size)
        return make_sample(self.ids[index], self.paths[index], image, found, segmentation)

    def annotation(self, index: int) -> Annotation:
        """The objects of image ``index`` without decoding it."""
        return self._table.row(index, self._labelled)


def _class_names(file: CocoFile, classes: list[str] | None) -> tuple[str, ...]:
    """``classes``, all of which the file must have as categories; all categories for None."""
    known = list(file.categories.values())
    for name in classes or ():
        if name not in known:
            raise ValueError(
                f"classes: '{name}' is not among the categories of {file.path}.{nearest(name, known)} "
                f"classes: {few(classes or ())}; categories: {few(known)}"
            )
    return tuple(known if classes is None else classes)


class _Rows:
    """Goes through the json's images once and gathers the rows of the data set, and every fault on the
    way.
    """

    def __init__(
        self,
        base: Path,
        folder: Path,
        file: CocoFile,
        table: ClassTable,
        checker: BoxChecker,
        on_error: OnError,
        max_pixels: int,
    ) -> None:
        self._base, self._folder, self._file, self._table, self._checker = base, folder, file, table, checker
        self._skip, self._max_pixels = on_error == "skip", max_pixels
        self.faults = file.faults
        self.images: list[CocoImage] = []
        self.paths: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.objects: list[ImageObjects] = []

    def read(self, *, boxes: bool) -> None:
        """Fills the rows; without ``boxes`` the objects are left out."""
        for image in self._file.images:
            try:
                path = inside(
                    self._base,
                    self._folder,
                    image.file_name,
                    source=f"{self._file.path} image id {image.number}",
                )
                if not path.is_file():
                    raise ValueError(f"{path}: missing, though {self._file.path.name} lists it")
                size = image.size or image_size(path, max_pixels=self._max_pixels)
                if size[0] * size[1] > self._max_pixels:
                    raise ValueError(
                        f"{self._file.path} image id {image.number}: {size[1]}x{size[0]} pixels are more than "
                        f"data.max_pixels, {self._max_pixels:,}"
                    )
            except ValueError as error:
                self.faults.append(str(error))
                continue
            errors = len(self._checker.errors)
            row = self._row(image, size, self._file.objects[image.number] if boxes else [])
            incomplete = image.number in self._file.incomplete or len(self._checker.errors) > errors
            if self._skip and incomplete:
                continue  # an object that is missing would be learnt as background
            self.images.append(image)
            self.paths.append(str(path))
            self.sizes.append(size)
            self.objects.append(row)

    def _row(self, image: CocoImage, size: tuple[int, int], objects: list[CocoObject]) -> ImageObjects:
        boxes, kept, labels = [np.zeros((0, 4), np.float32)], [], []
        for found in objects:
            place = f"{self._file.path} annotation id {found.number} '{found.category}' ({image.file_name})"
            label = self._table.find(found.category, place)
            if label is None:
                continue
            x, y, width, height = found.bbox
            corners = np.array([x, y, x + width, y + height])
            box = self._checker.check(
                corners, size, place=place, text=f"{list(found.bbox)} (x, y, width, height)"
            )
            if box is not None:
                boxes.append(box[None])
                kept.append(found)
                labels.append(label)
        joined = np.concatenate(boxes)
        sides = joined[:, 2:] - joined[:, :2]
        areas = [
            float(side[0] * side[1]) if found.area is None else found.area
            for side, found in zip(sides, kept, strict=True)
        ]
        difficult, crowd = [found.difficult for found in kept], [found.crowd for found in kept]
        return ImageObjects(joined, labels, difficult, crowd, areas, size)

    def semantic_maps(
        self, options: SemanticOptions, detection: tuple[str, ...], labelled: list[str] | None
    ) -> SemanticMaps:
        """The maps of the rows; where faults are skipped, rows whose map is faulty are taken away."""
        while True:
            objects = [self._file.objects[image.number] for image in self.images]
            content = CocoContent(self._base, self._file.path, self.images, objects, self.sizes)
            found: Faults = []
            maps = semantic_maps(options, content, detection, labelled, found)
            self.faults += [fault for _, fault in found if fault not in self.faults]
            faulty = {position for position, _ in found if position is not None}
            if not (self._skip and faulty):
                return maps
            for position in sorted(faulty, reverse=True):
                del self.images[position], self.paths[position], self.sizes[position], self.objects[position]

    def ids(self) -> list[str]:
        """The file names without suffix; with it, if that alone tells two images apart."""
        stems = [without_image_suffix(image.file_name) for image in self.images]
        return stems if len(set(stems)) == len(stems) else [image.file_name for image in self.images]

    @property
    def notes(self) -> list[str]:
        return [*counted(self.skipped, "faults skipped"), *self._table.notes, *self._checker.notes]

    @property
    def skipped(self) -> list[str]:
        return [*self.faults, *self._checker.errors] if self._skip else []

    def raise_faults(self) -> None:
        """One error with all that was found wrong, if anything was."""
        names = [image.file_name for image in self._file.images]
        faults = list(self._table.errors)
        if len(set(names)) < len(names):
            double = next(name for name in names if names.count(name) > 1)
            faults.append(f"{self._file.path}: the image '{double}' is listed {names.count(double)} times")
        if not self._skip:
            faults = [*self.faults, *faults, *self._checker.errors]
        raise_if_any(faults, source=str(self._file.path), advice=[self._table.advice, self._checker.advice])
        if not self.images:
            left = "".join(f"\n{note}" for note in counted(self.skipped, "faults"))
            raise ValueError(
                f"{self._file.path}: the list 'images' is empty, or no image in it can be used{left}"
            )
