"""Semantic maps of a COCO data set: from its instances, from index pngs or from panoptic pngs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from vistasks.datasets.class_names import labelled_ids
from vistasks.datasets.files import existing_file, existing_folder, inside, without_image_suffix
from vistasks.datasets.formats.coco_json import CocoImage, CocoObject, load_json, read_categories
from vistasks.datasets.formats.coco_masks import (
    PanopticImage,
    check_segmentation,
    paint_instances,
    panoptic_images,
)
from vistasks.datasets.masks import MaskCoding, index_coding
from vistasks.datasets.packed import PackedStrings, PackedValues
from vistasks.registry import nearest
from vistasks.system.text import few
from vistasks.types import IGNORE_INDEX

Semantic = Literal["instances", "png", "panoptic"]

BACKGROUND = "background"


@dataclass(frozen=True)
class SemanticOptions:
    """The reader's options that concern semantic maps, ``{split}`` filled in; see
    `vistasks.datasets.formats.coco.CocoDataset`.
    """

    kind: Semantic
    folder: str | None
    panoptic_json: str | None
    mask_values: Mapping[int, str] | None
    classes: Sequence[str] | None


@dataclass(frozen=True, eq=False)
class CocoContent:
    """What the json says: per image its entry, its objects and its size (height, width)."""

    root: Path
    json_path: Path
    images: Sequence[CocoImage]
    objects: Sequence[Sequence[CocoObject]]
    sizes: Sequence[tuple[int, int]]


Faults = list[tuple[int | None, str]]  # which of the images (None: of none), and what is wrong


class SemanticMaps(Protocol):
    """``classes`` in the order of their ids; ``covered`` the ids whose pixels are all marked."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def covered(self) -> frozenset[int]: ...

    def read(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """(H, W) uint8 class ids of image ``index``, 255 = ignore."""
        ...


@dataclass(frozen=True, eq=False)
class InstanceMaps:
    """Painted from polygons and RLEs when an image is read."""

    classes: tuple[str, ...]
    covered: frozenset[int]
    uncovered: int
    objects: PackedValues  # of each image: annotation id, class id, crowd and segmentation of each object
    source: str

    def read(self, index: int, size: tuple[int, int]) -> np.ndarray:
        return paint_instances(self.objects[index], size, uncovered=self.uncovered, source=self.source)


@dataclass(frozen=True, eq=False)
class PngMaps:
    """Index masks, one file an image."""

    coding: MaskCoding
    paths: Sequence[str]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.coding.classes

    @property
    def covered(self) -> frozenset[int]:
        return self.coding.covered

    def read(self, index: int, size: tuple[int, int]) -> np.ndarray:
        return self.coding.read(Path(self.paths[index]), size)


@dataclass(frozen=True, eq=False)
class PanopticMaps:
    """Panoptic pngs: segments with an id each, their classes in a json."""

    classes: tuple[str, ...]
    covered: frozenset[int]
    images: PackedValues  # of each image: the path of its png, and its segments' ids and class ids

    def read(self, index: int, size: tuple[int, int]) -> np.ndarray:
        path, segments = self.images[index]
        return PanopticImage(path, dict(segments)).read(size)


def semantic_maps(
    options: SemanticOptions,
    content: CocoContent,
    detection: Sequence[str],
    labelled: Sequence[str] | None,
    faults: Faults,
) -> SemanticMaps:
    """The maps that the options ask for. Options that contradict each other are a ``ValueError``; faults of
    entries are added.
    """
    if options.kind != "png" and options.mask_values is not None:
        raise ValueError(
            f"mask_values belongs to semantic: png; with semantic: {options.kind} it has no effect"
        )
    if options.kind == "instances":
        return _instance_maps(options, content, detection, labelled, faults)
    if options.folder is None:
        raise ValueError(f"semantic_png is missing: semantic: {options.kind} needs the folder of the pngs")
    folder = existing_folder(content.root, options.folder, "semantic_png")
    if options.kind == "png":
        return _png_maps(options, content, folder, faults)
    return _panoptic_maps(options, content, folder, faults)


def _instance_maps(
    options: SemanticOptions,
    content: CocoContent,
    detection: Sequence[str],
    labelled: Sequence[str] | None,
    faults: Faults,
) -> InstanceMaps:
    classes = tuple(options.classes or (BACKGROUND, *(name for name in detection if name != BACKGROUND)))
    for name in detection:
        if name not in classes:
            both = f"classes: {few(detection)}; segmentation_classes: {few(classes)}"
            raise ValueError(
                f"segmentation_classes: '{name}' is missing.{nearest(name, list(classes))} "
                f"With semantic: instances every class is painted. {both}"
            )
    if len(classes) > IGNORE_INDEX:
        raise ValueError(
            f"segmentation_classes: at most {IGNORE_INDEX} classes fit into a mask of bytes, not {len(classes)}"
        )
    ids = {name: classes.index(name) for name in detection}
    rows = []
    for position, (objects, size) in enumerate(zip(content.objects, content.sizes, strict=True)):
        known = [found for found in objects if found.category in ids]
        for found in known:
            if fault := check_segmentation(found.segmentation, size):
                faults.append(
                    (
                        position,
                        f"{content.json_path} annotation id {found.number} '{found.category}': {fault}",
                    )
                )
        rows.append([(found.number, ids[found.category], found.crowd, found.segmentation) for found in known])
    uncovered = classes.index(BACKGROUND) if BACKGROUND in classes else IGNORE_INDEX
    # where only some classes are marked, what is not covered may be anything, so background is not known
    # either
    marked = labelled_ids(detection, labelled)
    covered = frozenset(ids[detection[index]] for index in marked)
    if len(marked) == len(detection) and uncovered != IGNORE_INDEX:
        covered |= {uncovered}
    return InstanceMaps(classes, covered, uncovered, PackedValues(rows), str(content.json_path))


def _png_maps(options: SemanticOptions, content: CocoContent, folder: Path, faults: Faults) -> PngMaps:
    coding = index_coding(options.mask_values, options.classes)
    paths = []
    for position, image in enumerate(content.images):
        source = f"{content.json_path} image id {image.number}"
        try:
            paths.append(
                inside(content.root, folder, f"{without_image_suffix(image.file_name)}.png", source=source)
            )
        except ValueError as error:
            faults.append((position, str(error)))
            continue
        if not paths[-1].is_file():
            faults.append((position, f"{paths[-1]}: missing mask"))
    return PngMaps(coding, PackedStrings([str(path) for path in paths]))


def _panoptic_maps(
    options: SemanticOptions, content: CocoContent, folder: Path, faults: Faults
) -> PanopticMaps:
    if options.panoptic_json is None:
        raise ValueError(
            "panoptic_json is missing: semantic: panoptic needs the json that names the segments"
        )
    path = existing_file(content.root, options.panoptic_json, "panoptic_json")
    lists = load_json(path, ("annotations", "categories"))
    of_json: list[str] = []
    categories = read_categories(lists["categories"], path, of_json)
    classes = tuple(options.classes or categories.values())
    for name in classes:
        if name not in categories.values():
            known = list(categories.values())
            raise ValueError(
                f"segmentation_classes: '{name}' is not among the categories of {path}.{nearest(name, known)} "
                f"categories: {', '.join(known)}"
            )
    if len(classes) > IGNORE_INDEX:
        raise ValueError(
            f"segmentation_classes: at most {IGNORE_INDEX} classes fit into a mask of bytes, not {len(classes)}"
        )
    ids = {name: index for index, name in enumerate(classes)}
    found = panoptic_images(
        lists["annotations"], categories, ids, content.root, folder, of_json, where=str(path)
    )
    faults += [(None, fault) for fault in of_json]
    images = []
    for position, image in enumerate(content.images):
        entry = found.get(image.number)
        if entry is None:
            faults.append(
                (position, f"{path}: no annotation for image id {image.number} ({image.file_name})")
            )
        elif not Path(entry.path).is_file():
            faults.append((position, f"{entry.path}: missing panoptic png"))
        else:
            images.append((entry.path, list(entry.classes.items())))
    return PanopticMaps(classes, frozenset(range(len(classes))), PackedValues(images))
