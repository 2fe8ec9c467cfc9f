"""Files -> `Sample`: one module a format, all found by ``format`` in a config's data section.

dataset = load_dataset({"format": "voc", "root": "data/voc2007", "split": "trainval"})
len(dataset), dataset[0], dataset.classes, dataset.notes
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vistasks.datasets import shapes
from vistasks.datasets.annotations import Annotation, Dataset
from vistasks.datasets.formats import coco, mask_folder, voc  # registered by being imported
from vistasks.datasets.images import image_size, read_image
from vistasks.registry import DATASETS

__all__ = [
    "Annotation",
    "Dataset",
    "coco",
    "image_size",
    "load_dataset",
    "mask_folder",
    "read_image",
    "shapes",
    "voc",
]


def load_dataset(options: Mapping[str, Any], *, where: str = "data") -> Dataset:
    """The data set that ``options["format"]`` names, read with the other options.

    Everything that the files tell without decoding an image is checked here, and all that is wrong is told in
    one error. ``where`` is the config section that error messages name."""
    dataset: Dataset = DATASETS.build(options, where=where, key="format")
    return dataset
