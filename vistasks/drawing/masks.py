"""Segmentation maps as files: palette and colour PNGs, run-length codes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from vistasks.drawing.palette import Colour
from vistasks.system.atomic import replacing
from vistasks.types import SegmentationMap


def write_mask(segmentation: SegmentationMap, path: Path, colours: Mapping[str, Colour]) -> None:
    """An 8-bit palette PNG: the values are class ids, and viewers show the colours."""
    image = Image.fromarray(segmentation.labels)
    image.putpalette([channel for name in segmentation.names for channel in colours[name]])
    with replacing(path) as temporary:
        image.save(temporary)


def write_colour_mask(segmentation: SegmentationMap, path: Path, colours: Mapping[str, Colour]) -> None:
    """An RGB PNG: each pixel has its class's colour."""
    table = np.zeros((256, 1, 3), dtype=np.uint8)
    table[: len(segmentation.names), 0] = [colours[name] for name in segmentation.names]
    image = Image.fromarray(np.asarray(cv2.applyColorMap(segmentation.labels, table)))
    with replacing(path) as temporary:
        image.save(temporary)


def run_lengths(segmentation: SegmentationMap) -> dict[str, Any]:
    """``size`` [height, width] and ``masks``: of each class that the map has, COCO's compressed run-length
    code.
    """
    masks = {}
    for number, name in enumerate(segmentation.names):
        pixels = segmentation.labels == number
        if pixels.any():
            masks[name] = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"].decode(
                "ascii"
            )
    return {"size": list(segmentation.labels.shape), "masks": masks}
