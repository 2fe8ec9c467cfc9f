"""The stages of selective search as pictures: what its documentation shows, and what to look at when it
misses something.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vistasks.drawing.lettering import put_text
from vistasks.proposals.colour import COLOUR_SPACES
from vistasks.proposals.graph_segmentation import coarser, segment, smoothed_planes
from vistasks.proposals.selective_search import (
    LEVELS,
    MODES,
    SIGMA,
    Mode,
    hierarchy,
    initial_regions,
    prepared,
    selective_search,
)
from vistasks.system.atomic import replacing

LEFT = (300, 100, 30)  # regions that are left in the pictures of the grouping
SHOWN = 25  # boxes in the last picture
COLUMNS, CELL, CAPTION, GAP = 4, 400, 24, 8  # pictures a row; pixels
_PAPER, _INK, _EDGE = (24, 26, 30), (235, 235, 235), (255, 255, 255)


def painted(rgb: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each region of ``labels`` (H, W) in its mean colour of ``rgb`` (H, W, 3) uint8, with white lines
    between regions.
    """
    _, flat = np.unique(labels, return_inverse=True)
    flat = flat.reshape(-1)
    sizes = np.bincount(flat)
    means = np.stack([np.bincount(flat, rgb[..., c].reshape(-1)) / sizes for c in range(3)], axis=1)
    picture = means[flat].astype(np.uint8).reshape(rgb.shape)
    picture[:, 1:][labels[:, 1:] != labels[:, :-1]] = _EDGE
    picture[1:][labels[1:] != labels[:-1]] = _EDGE
    return picture


def labels_after(labels: np.ndarray, joins: np.ndarray, regions: int, left: int) -> np.ndarray:
    """The (H, W) labels when only ``left`` of the ``regions`` initial ones are left; ``joins`` as `hierarchy`
    gives them.
    """
    of = np.arange(regions + len(joins))
    done = min(len(joins), max(0, regions - left))
    for made, (a, b) in zip(range(regions + done - 1, regions - 1, -1), joins[:done][::-1]):
        of[[a, b]] = of[made]  # the youngest first, so that each region learns its last owner
    return of[labels]


def stages(image: np.ndarray, mode: Mode = "fast") -> list[tuple[str, np.ndarray]]:
    """(title, picture (H, W, 3) uint8 RGB) of each stage for the first colour space and first similarities of
    a mode.

    Args:
        image: as `selective_search` takes it.
    """
    rgb, smallest = prepared(image, mode)
    strategies = MODES[mode]
    space, word, rising = strategies.colour_spaces[0], strategies.similarities[0], sorted(strategies.k)
    planes = COLOUR_SPACES[space](rgb)
    flat, size, internal, first, second, weight = segment(
        smoothed_planes(planes, SIGMA), rising[0], smallest, LEVELS
    )
    labels = flat.reshape(rgb.shape[:2])
    found = [
        ("image at working size", rgb),
        (f"{space}, k = {rising[0]:g}: {size.size} regions", painted(rgb, labels)),
    ]
    for k in rising[1:]:
        merged, count = coarser(size, internal, first, second, weight, k * LEVELS, smallest)
        found.append((f"{space}, k = {k:g}: {count} regions", painted(rgb, merged[labels])))
    _, joins = hierarchy(initial_regions(rgb, space, strategies.k, smallest)[0], word)
    for left in LEFT:
        found.append(
            (
                f"grouping by {word}: {left} regions left",
                painted(rgb, labels_after(labels, joins, size.size, left)),
            )
        )
    boxes = selective_search(image, mode)
    found.append(
        (f"best {min(SHOWN, len(boxes))} of {len(boxes)} boxes", _boxes(image, boxes[:SHOWN], rgb.shape))
    )
    spread = np.linspace(0, len(boxes) - 1, min(len(boxes), 8 * SHOWN)).astype(int)
    found.append(
        (f"every {max(1, len(boxes) // (8 * SHOWN))}th of all boxes", _boxes(image, boxes[spread], rgb.shape))
    )
    return found


def _boxes(image: np.ndarray, boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The boxes of the full picture, each in a colour of its own, on the picture at working size."""
    canvas = np.ascontiguousarray(prepared(image, "single")[0]) // 2
    factor = np.array([shape[1] / image.shape[1], shape[0] / image.shape[0]] * 2)
    for index, (x1, y1, x2, y2) in enumerate((boxes * factor).round().astype(int).tolist()):
        hue = np.full((1, 1, 3), (index * 47 % 180, 200, 255), np.uint8)
        colour = tuple(int(v) for v in cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0])
        cv2.rectangle(canvas, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), colour, 1)
    return canvas


def sheet(found: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """All stages on one (H, W, 3) uint8 sheet, `COLUMNS` a row, each with its title below."""
    height, width = found[0][1].shape[:2]
    scale = CELL / width
    high = max(1, round(height * scale))
    rows = -(-len(found) // COLUMNS)
    page = np.full((rows * (high + CAPTION + GAP) + GAP, COLUMNS * (CELL + GAP) + GAP, 3), _PAPER, np.uint8)
    for index, (title, picture) in enumerate(found):
        y = GAP + index // COLUMNS * (high + CAPTION + GAP)
        x = GAP + index % COLUMNS * (CELL + GAP)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        page[y : y + high, x : x + CELL] = cv2.resize(picture, (CELL, high), interpolation=way)
        put_text(page, title, (x, y + high + 17), 0.5, _INK)
    return page


def stages_command(image: np.ndarray, mode: Mode, output: Path) -> int:
    """Writes the sheet of all stages; the suffix chooses the format. Returns the exit code, 0."""
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--output {output}: the name must end in .png or .jpg")
    page = sheet(stages(image, mode))
    with replacing(output) as temporary:
        Image.fromarray(page).save(temporary, quality=88)
    print(f"stages of selective search: {output.resolve()}")
    return 0
