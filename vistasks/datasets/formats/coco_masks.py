"""COCO's ways to write pixels: polygons, run lengths (RLE) and panoptic pngs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from vistasks.datasets.files import inside
from vistasks.datasets.images import read_colour_mask
from vistasks.datasets.problems import flag
from vistasks.types import IGNORE_INDEX

_MAX_STEPS = 5_000_000  # along all outlines of an object; some 80 bytes each while it is painted


def check_segmentation(segmentation: Any, size: tuple[int, int]) -> str | None:
    """What is wrong with an annotation's ``segmentation`` for an image of ``size`` (height, width); None if
    nothing.
    """
    if segmentation is None:
        return "has no segmentation (tasks: segment with semantic: instances needs one)"
    if isinstance(segmentation, list):
        return _check_polygons(segmentation, size)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        return "segmentation: expected polygons, or an RLE with size and counts"
    if segmentation["size"] != list(size):
        return f"segmentation: the RLE's size is {segmentation['size']}, but the image is [{size[0]}, {size[1]}] (height, width)"
    counts = segmentation["counts"]
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != size[0] * size[1]:
            return f"segmentation: the RLE's runs must add up to {size[0] * size[1]} pixels"
        return None
    return None if isinstance(counts, str) else "segmentation: the RLE's counts must be a list or text"


def _check_polygons(polygons: list[Any], size: tuple[int, int]) -> str | None:
    """Also that the corners lie in or about the picture, and the outlines are no longer than can mean anything:
    pycocotools takes memory for each pixel of an outline, inside of the picture or not.
    """
    (height, width), steps = size, 0.0
    limit = min(height * width + 100 * (height + width), _MAX_STEPS)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            shown = f"{len(polygon)} numbers" if isinstance(polygon, list) else repr(polygon)[:40]
            return f"segmentation: a polygon needs at least three x, y pairs, not {shown}"
        if not all(isinstance(value, (int, float)) and abs(value) < np.inf for value in polygon):
            return "segmentation: a polygon has values that are not finite numbers"
        far = [v for i, v in enumerate(polygon) if not -size[1 - i % 2] <= v <= 2 * size[1 - i % 2]]
        if far:
            return (
                f"segmentation: a polygon's corner at {str(far[0])[:20]} is far outside the {width}x{height} image; "
                "correct it, or leave the object out"
            )
        corners = np.array(polygon, dtype=np.float64).reshape(-1, 2)
        steps += float(1 + np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum()) + len(corners)
        if steps > limit:
            return (
                f"segmentation: the outlines are longer than {limit:,} pixels, which no {width}x{height} image "
                "needs; simplify the polygons"
            )
    return None


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool from polygons (joined, rasterised by pycocotools) or RLE; ``ValueError`` if it cannot be
    decoded.
    """
    fault = check_segmentation(segmentation, size)
    if fault:
        raise ValueError(fault)
    if isinstance(segmentation, list):
        counts = rle.merge(rle.frPyObjects(segmentation, *size))["counts"].decode("ascii")
    else:
        counts = segmentation["counts"]
    runs = _decompressed(counts) if isinstance(counts, str) else np.array(counts, dtype=np.int64)
    pixels = size[0] * size[1]
    if (runs < 0).any() or (runs > pixels).any() or runs.sum() != pixels:  # the sum alone may run over
        raise ValueError(f"segmentation: the RLE's runs must add up to {pixels} pixels, but they are damaged")
    values = np.arange(len(runs)) % 2 == 1  # the first run is of zeros
    return np.repeat(values, runs).reshape(size, order="F")


def _decompressed(text: str) -> np.ndarray:
    """The run lengths in COCO's text form (as pycocotools' rleFrString reads them).

    Done here because pycocotools does not look where a damaged text ends, and leaves the rest of the mask to
    chance. A character holds 5 bits, lowest first; 32 says that more follow, 16 in the last one the sign.
    From the fourth on, a number is the difference from the one two before."""
    codes = np.frombuffer(text.encode("latin-1", errors="replace"), dtype=np.uint8).astype(np.int64) - 48
    last = (codes & 32) == 0
    if not len(codes) or not last[-1] or (codes < 0).any() or (codes > 63).any():
        raise ValueError("segmentation: the RLE's counts cannot be decoded; the text is damaged or cut off")
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, np.diff([*starts, len(codes)]))
    if place.max() > 6:  # 35 bits are more than any picture needs
        raise ValueError("segmentation: the RLE's counts cannot be decoded; a number has too many digits")
    runs = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = (codes[last] & 16) != 0
    runs -= negative * (np.int64(1) << (5 * (place[last] + 1)))
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def paint_instances(
    objects: Sequence[tuple[int, int, bool, Any]], size: tuple[int, int], *, uncovered: int, source: str
) -> np.ndarray:
    """(H, W) uint8: instances painted large to small, so that what lies on or in something larger is seen.

    Crowds are 255, but give way to the instances in them; pixels of no object are ``uncovered``.
    """
    semantic = np.full(size, uncovered, dtype=np.uint8)
    instances = []
    for number, class_id, crowd, segmentation in objects:
        try:
            mask = decode_segmentation(segmentation, size)
        except ValueError as error:
            raise ValueError(f"{source} annotation id {number}: {error}") from error
        if crowd:
            semantic[mask] = IGNORE_INDEX
        else:
            instances.append((int(mask.sum()), class_id, mask))
    for _, class_id, mask in sorted(instances, key=lambda instance: -instance[0]):
        semantic[mask] = class_id
    return semantic


@dataclass(frozen=True, eq=False)
class PanopticImage:
    """``classes``: segment id -> class id (255 = ignore) of one panoptic png."""

    path: str
    classes: Mapping[int, int]

    def read(self, size: tuple[int, int]) -> np.ndarray:
        """(H, W) uint8 class ids. Segment id = R + 256 G + 65536 B; 0 is not labelled (255)."""
        rgb = read_colour_mask(self.path, size).astype(np.int64)
        ids, places = np.unique(rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2], return_inverse=True)
        table = {0: IGNORE_INDEX, **self.classes}
        unknown = [int(number) for number in ids if int(number) not in table]
        if unknown:
            raise ValueError(
                f"{self.path}: the segment ids {unknown[:10]} are in the png but not in the panoptic json"
            )
        class_ids = np.array([table[int(number)] for number in ids], dtype=np.uint8)
        return class_ids[places].reshape(rgb.shape[:2])


def panoptic_images(
    annotations: Sequence[Any],
    categories: Mapping[int, str],
    classes: Mapping[str, int],
    root: Path,
    folder: Path,
    faults: list[str],
    *,
    where: str,
) -> dict[int, PanopticImage]:
    """The panoptic pngs, which must lie within ``root``, by image id.

    Categories that ``classes`` does not have are ignored (255), crowds too. ``where`` is the json, for the
    messages."""
    images = {}
    for position, entry in enumerate(annotations):
        try:
            table = {}
            for segment in entry["segments_info"]:
                name = categories[segment["category_id"]]
                table[int(segment["id"])] = (
                    IGNORE_INDEX
                    if flag(segment.get("iscrowd"), f"{where} segment {segment['id']}: iscrowd")
                    else classes.get(name, IGNORE_INDEX)
                )
            source = f"{where} panoptic annotation at position {position}"
            images[int(entry["image_id"])] = PanopticImage(
                str(inside(root, folder, entry["file_name"], source=source)), table
            )
        except ValueError as error:
            faults.append(str(error))
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            place = f"{where} panoptic annotation at position {position}"
            faults.append(f"{place}: needs image_id, file_name and segments_info ({error!r})")
    return images
