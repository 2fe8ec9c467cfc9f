"""Images in one folder, masks in another (CamVid, Cityscapes and the like): segmentation only.

CamVid as SegNet's tutorial has it       {format: mask_folder, root: data/camvid, split: train,
                                          images: "{split}", masks: "{split}annot", mask_values: {0: Sky, ...,
                                              11: ignore}}
Cityscapes                               {images: "leftImg8bit/{split}", image_suffix: _leftImg8bit,
                                          masks: "gtFine/{split}", mask_suffix: _gtFine_labelIds, mask_values:
                                              ...}
all images in one folder, list files     {images: images, masks: labels, list_file: "{split}.txt"}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vistasks.datasets.annotations import NO_OBJECTS, Annotation, AnnotationTable, make_sample
from vistasks.datasets.files import (
    ImageIndex,
    existing_file,
    existing_folder,
    existing_root,
    fill_split,
    inside,
    read_list,
    without_image_suffix,
)
from vistasks.datasets.images import read_image
from vistasks.datasets.masks import Colour, MaskCoding, colour_coding, index_coding
from vistasks.datasets.packed import PackedStrings
from vistasks.datasets.problems import OnError, counted, raise_if_any
from vistasks.registry import DATASETS
from vistasks.system.limits import MAX_PIXELS
from vistasks.types import ClassNames, Labelled, Sample


@DATASETS.register("mask_folder")
class MaskFolderDataset:
    """Images with one mask file each, paired by their path under the two folders.

    Args:
        root: the data folder.
        images, masks: folders under it, read with their subfolders; ``{split}`` in them is replaced by
            ``split``.
        split: what ``{split}`` stands for.
        list_file: a list file under the root (``{split}`` is replaced as well): the images to use, one a
            line, under ``images``, with or without suffix; without it all images of the folder.
        image_suffix, mask_suffix: what stands between the common part of the names and the file type:
            ``<name><image_suffix>.jpg`` goes with ``<name><mask_suffix>.png``.
        mask_values: for palette and grey masks, value -> class name or ``ignore``; several values may share a
            class.
        mask_colours: for masks painted in RGB, class name or ``ignore`` -> its colour, or a list of its
            colours.
        segmentation_classes: the order of the class ids. Without it: the names of ``mask_values`` in the
            order of the values. Without either map: value i is class i, and 255 is ignored.
        on_error: pictures without a mask are an error, or left out and listed in ``skipped``.
        max_pixels: a picture with more is damage.

    Raises:
        FileNotFoundError: the root, a folder or the list is missing.
        ValueError: no image, or images without a mask, all named together.
    """

    def __init__(
        self,
        *,
        root: str,
        images: str = "{split}",
        masks: str = "{split}annot",
        split: str | None = None,
        list_file: str | None = None,
        image_suffix: str = "",
        mask_suffix: str = "",
        mask_values: dict[int, str] | None = None,
        mask_colours: dict[str, Colour | list[Colour]] | None = None,
        segmentation_classes: list[str] | None = None,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._max_pixels = max_pixels
        self._coding = _coding(mask_values, mask_colours, segmentation_classes)
        self.classes = ClassNames(segmentation=self._coding.classes)
        self._labelled = Labelled(segmentation=self._coding.covered)
        base = existing_root(root)
        names = {"images": images, "masks": masks, "list_file": list_file}
        filled = fill_split(names, split)
        image_index = ImageIndex(existing_folder(base, filled["images"] or "", "images"), deep=True)
        mask_index = ImageIndex(existing_folder(base, filled["masks"] or "", "masks"), deep=True)
        chosen, faults = _chosen(base, image_index, filled["list_file"], image_suffix)
        ids: list[str] = []
        paths: list[str] = []
        masks_found: list[str] = []
        for image_path in chosen:
            name = image_path.relative_to(image_index.folder).with_suffix("").as_posix()
            mask_path = mask_index.find(name.removesuffix(image_suffix) + mask_suffix)
            if mask_path is None:
                faults.append(
                    f"{image_path}: no mask {mask_index.folder / (name.removesuffix(image_suffix) + mask_suffix)}.*"
                )
                continue
            ids.append(name)
            paths.append(str(image_path))
            masks_found.append(str(mask_path))
        source = f"the mask folders {image_index.folder} and {mask_index.folder}"
        if on_error == "raise" or not ids:
            raise_if_any(faults, source=source)
        self.skipped, self.notes = faults, counted(faults, "faults skipped")
        self.ids: Sequence[str] = PackedStrings(ids)
        self.paths: Sequence[str] = PackedStrings(paths)
        self._mask_paths = PackedStrings(masks_found)
        self._no_objects = AnnotationTable([NO_OBJECTS])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, read_image(self.paths[index], max_pixels=self._max_pixels))

    def sample(self, index: int, image: np.ndarray) -> Sample:
        """Image ``index`` with the pixels given."""
        segmentation = self._coding.read(Path(self._mask_paths[index]), (image.shape[0], image.shape[1]))
        return make_sample(self.ids[index], self.paths[index], image, self.annotation(index), segmentation)

    def annotation(self, index: int) -> Annotation:
        """No objects: nothing says where one ends and the next begins."""
        return self._no_objects.row(0, self._labelled)


def _coding(
    values: dict[int, str] | None, colours: dict[str, Colour | list[Colour]] | None, classes: list[str] | None
) -> MaskCoding:
    if colours is None:
        return index_coding(values, classes)
    if values is not None:
        raise ValueError(
            "give mask_values (masks of values) or mask_colours (masks painted in RGB), not both"
        )
    return colour_coding(colours, classes)


def _chosen(
    base: Path, index: ImageIndex, list_name: str | None, image_suffix: str
) -> tuple[list[Path], list[str]]:
    """The images to use, and what was wrong with the names in the list file."""
    if list_name is None:
        found = [
            path
            for path in (index.find(name) for name in index if name.endswith(image_suffix))
            if path is not None
        ]
        if not found:
            raise ValueError(
                f"{index.folder}: no images" + (f" that end in '{image_suffix}'" if image_suffix else "")
            )
        return found, []
    list_path = existing_file(base, list_name, "list_file")
    chosen, faults = [], []
    for line in read_list(list_path):
        inside(base, index.folder, line, source=str(list_path))
        path = index.find(line) or index.find(without_image_suffix(line) + image_suffix)
        if path is None:
            faults.append(f"{list_path}: '{line}': no image of this name in {index.folder}")
        else:
            chosen.append(path)
    return chosen, faults
