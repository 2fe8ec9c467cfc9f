"""What a report keeps of each picture (``pictures.safetensors``), so that `vistasks compare` can resample
pictures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.sparse import csr_array

from vistasks.evaluation.reports.segmentation import by_image
from vistasks.metrics.detection_record import DetectionColumns, DetectionRecord, detection_columns
from vistasks.metrics.mean_iou import PixelCounts
from vistasks.system.atomic import replacing
from vistasks.types import ClassNames

FILE = "pictures.safetensors"
_HEADER = "vistasks"
_COLUMNS = tuple(entry.name for entry in fields(DetectionRecord))


@dataclass(frozen=True, eq=False)
class PictureRecords:
    """Per picture, in the natural order of the image ids: what was asked and found, and the pixels of each
    pair of classes.

    detections: of the pictures that are labelled for boxes; pixels: of those that are labelled for classes of
    pixels; paths: the image file of each id."""

    classes: ClassNames
    paths: Mapping[str, str]
    detections: Mapping[str, DetectionRecord] = field(default_factory=dict)
    pixels: Mapping[str, PixelCounts] = field(default_factory=dict)

    def columns(self) -> DetectionColumns:
        """All pictures' boxes, one after the other."""
        return detection_columns(list(self.detections.values()))

    def confusions(self) -> csr_array:
        """(N, S * S) float64, sparse: the confusion matrix of each of the N pictures; row of the matrix: the
        truth.
        """
        return by_image(list(self.pixels.values()), len(self.classes.segmentation))

    def write(self, path: Path) -> None:
        """As one safetensors file."""
        columns = self.columns()
        arrays = {
            name: np.ascontiguousarray(getattr(columns, name))
            for name in (*_COLUMNS, "image", "detected_image")
        }
        arrays["pixel_starts"] = np.cumsum([0, *(len(cells) for cells, _ in self.pixels.values())])
        for name, part in (("pixel_cells", 0), ("pixel_counts", 1)):
            arrays[name] = np.concatenate(
                [np.zeros(0, np.int64), *(counts[part] for counts in self.pixels.values())]
            )
        header = {
            "classes": self.classes.by_task(),
            "paths": dict(self.paths),
            "detections": list(self.detections),
            "pixels": list(self.pixels),
        }
        with replacing(path) as temporary:
            save_file(arrays, temporary, {_HEADER: json.dumps(header)})


def read_records(path: Path) -> PictureRecords:
    """What `PictureRecords.write` wrote; a ``ValueError`` names a file that is missing or of another kind."""
    if not path.is_file():
        raise ValueError(f"{path}: missing; evaluate again with --report, which writes it beside report.json")
    try:
        with safe_open(path, framework="np") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        classes = ClassNames.of_tasks(header["classes"])
        return PictureRecords(
            classes,
            header["paths"],
            _records(header["detections"], arrays),
            _pixels(header["pixels"], arrays),
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not what vistasks evaluate --report writes: {error}") from None


def _records(ids: list[str], arrays: Mapping[str, np.ndarray]) -> dict[str, DetectionRecord]:
    edges = {
        name: np.searchsorted(arrays[name], np.arange(len(ids) + 1)) for name in ("image", "detected_image")
    }
    found = {}
    for row, image_id in enumerate(ids):
        parts = {name: slice(*edge[row : row + 2]) for name, edge in edges.items()}
        of = {
            name: "detected_image" if name in ("detected", "scores", "detected_labels") else "image"
            for name in _COLUMNS
        }
        found[image_id] = DetectionRecord(**{name: arrays[name][parts[of[name]]] for name in _COLUMNS})
    return found


def _pixels(ids: list[str], arrays: Mapping[str, np.ndarray]) -> dict[str, PixelCounts]:
    starts = arrays["pixel_starts"]
    parts = [slice(*starts[row : row + 2]) for row in range(len(ids))]
    return {i: (arrays["pixel_cells"][part], arrays["pixel_counts"][part]) for i, part in zip(ids, parts)}
