"""Many samples on one picture, with their boxes, names, proposals and masks: what the network sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import supervision as sv

from vistasks.drawing.lettering import put_text, text_size
from vistasks.drawing.palette import Colour, model_colours
from vistasks.system.text import printable
from vistasks.types import IGNORE_INDEX, ClassNames, Sample

GAP, CAPTION, LINE = 10, 22, 24  # pixels: between cells, under each picture, per line of the legend
_PAPER, _INK, _FAINT = (24, 26, 30), (235, 235, 235), (150, 155, 160)
_PROPOSAL, _IGNORED = (255, 255, 255), (128, 128, 128)
_OPACITY = 0.5  # of the masks
_LABEL_SCALE = 0.38


def contact_sheet(
    samples: Sequence[Sample],
    classes: ClassNames,
    *,
    columns: int | None = None,
    cell: tuple[int, int] = (300, 400),
    proposals: int = 30,
) -> np.ndarray:
    """(H, W, 3) uint8 RGB: the samples row by row, a legend below.

    Boxes have their class's colour and name, dashed where the object is difficult or a crowd; the best
    ``proposals`` proposals are thin white lines; masks are blended in, ignored pixels striped grey.

    Args:
        columns: None: as near to a square sheet as the count allows.
        cell: (height, width) in pixels that each picture is fitted into.

    Raises:
        ValueError: no samples, or a label that ``classes`` has no name for.
    """
    if not samples:
        raise ValueError("a contact sheet needs at least one sample")
    columns = columns or max(1, round((len(samples) * cell[0] / cell[1]) ** 0.5 + 0.25))
    columns = min(columns, len(samples))
    rows = -(-len(samples) // columns)
    step_y, step_x = cell[0] + CAPTION + GAP, cell[1] + GAP
    width = columns * step_x + GAP
    colours = model_colours(classes)
    legend = _legend(samples, colours, width, proposals)
    sheet = np.full((rows * step_y + GAP + len(legend), width, 3), _PAPER, dtype=np.uint8)
    for index, sample in enumerate(samples):
        picture = _picture(sample, classes, colours, cell, proposals)
        y, x = GAP + index // columns * step_y, GAP + index % columns * step_x
        height, wide = picture.shape[:2]
        top, left = y + (cell[0] - height) // 2, x + (cell[1] - wide) // 2
        sheet[top : top + height, left : left + wide] = picture
        _caption(sheet, sample, x, y + cell[0] + CAPTION - 7, cell[1])
    sheet[len(sheet) - len(legend) :] = legend
    return sheet


def _picture(
    sample: Sample, classes: ClassNames, colours: Mapping[str, Colour], cell: tuple[int, int], proposals: int
) -> np.ndarray:
    height, width = sample.size
    scale = min(cell[0] / height, cell[1] / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if sample.segmentation is not None:
        mask = cv2.resize(sample.segmentation, size, interpolation=cv2.INTER_NEAREST)
        own = [colours[name] for name in classes.segmentation]
        picture = _with_mask(np.asarray(picture), np.asarray(mask), own, sample.path)
    factor = np.array([size[0] / width, size[1] / height] * 2, dtype=np.float32)
    canvas = np.ascontiguousarray(picture)
    if sample.proposals is not None:
        lines = canvas.copy()
        for x1, y1, x2, y2 in (sample.proposals[:proposals] * factor).round().astype(int).tolist():
            cv2.rectangle(lines, (x1, y1), (min(x2, size[0]) - 1, min(y2, size[1]) - 1), _PROPOSAL, 1)
        canvas = np.asarray(cv2.addWeighted(canvas, 0.35, lines, 0.65, 0))
    return _with_boxes(canvas, sample, sample.boxes * factor, colours, classes.detection)


def _with_mask(picture: np.ndarray, mask: np.ndarray, colours: Sequence[Colour], path: str) -> np.ndarray:
    unnamed = sorted(set(np.unique(mask).tolist()) - set(range(len(colours))) - {IGNORE_INDEX})
    if unnamed:
        raise ValueError(
            f"{path}: the mask has the class id {unnamed[0]}, but only {len(colours)} classes have a name"
        )
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colours)] = colours
    blended = cv2.addWeighted(picture, 1 - _OPACITY, table[mask], _OPACITY, 0)
    rows, columns = np.indices(mask.shape)
    stripe = ((rows + columns) // 4 % 2 == 0)[..., None]
    striped = np.where(stripe, np.array(_IGNORED), picture * 0.6).astype(np.uint8)
    return np.where((mask == IGNORE_INDEX)[..., None], striped, blended)


def _with_boxes(
    canvas: np.ndarray,
    sample: Sample,
    boxes: np.ndarray,
    colours: Mapping[str, Colour],
    names: tuple[str, ...],
) -> np.ndarray:
    if not len(boxes):
        return canvas
    if sample.labels.max() >= len(names):
        raise ValueError(
            f"{sample.path}: the class id {sample.labels.max()}, but only {len(names)} classes have a name"
        )
    # supervision takes pictures with blue first; in ours red is first, so its colours are given the other way
    # round
    palette = sv.ColorPalette([sv.Color(*reversed(colours[name])) for name in names])
    hard = np.asarray(sample.difficult) | np.asarray(sample.crowd)
    plain = sv.Detections(xyxy=boxes[~hard], class_id=sample.labels[~hard])
    canvas = sv.BoxAnnotator(color=palette, thickness=2).annotate(canvas, plain)
    for box, label in zip(boxes[hard].round().astype(int).tolist(), sample.labels[hard]):
        _dashed(canvas, box, colours[names[label]])
    texts = [printable(names[label]) + ("?" if flag else "") for label, flag in zip(sample.labels, hard)]
    widths = [text_size(text, _LABEL_SCALE)[0] + 6 for text in texts]
    places = boxes.copy()  # the names stand above the boxes, but inside the picture
    places[:, 1] = np.maximum(places[:, 1], 15)
    places[:, 0] = np.clip(places[:, 0], 0, np.maximum(canvas.shape[1] - np.array(widths), 0))
    named = sv.Detections(xyxy=places, class_id=sample.labels)
    return _label_annotator(palette).annotate(canvas, named, labels=texts)


def _label_annotator(palette: sv.ColorPalette) -> sv.LabelAnnotator:
    bright = [0.3 * c.b + 0.59 * c.g + 0.11 * c.r > 110 for c in palette.colors]  # b is our red
    inks = sv.ColorPalette([sv.Color.BLACK if light else sv.Color.WHITE for light in bright])
    return sv.LabelAnnotator(color=palette, text_color=inks, text_scale=_LABEL_SCALE, text_padding=2)


def _dashed(canvas: np.ndarray, box: list[int], colour: tuple[int, int, int], dash: int = 6) -> None:
    x1, y1, x2, y2 = box
    for start in range(x1, x2, 2 * dash):
        for y in (y1, y2 - 1):
            cv2.line(canvas, (start, y), (min(start + dash, x2) - 1, y), colour, 2)
    for start in range(y1, y2, 2 * dash):
        for x in (x1, x2 - 1):
            cv2.line(canvas, (x, start), (x, min(start + dash, y2) - 1), colour, 2)


def _caption(sheet: np.ndarray, sample: Sample, x: int, y: int, width: int) -> None:
    height, wide = sample.size
    facts = f"{wide}x{height}"
    if sample.labelled.detection or len(sample.labels):
        facts += f"  {len(sample.labels)} object{'s' * (len(sample.labels) != 1)}"
    if sample.proposals is not None:
        facts += f"  {len(sample.proposals)} proposals"
    if not sample.labelled.detection and not sample.labelled.segmentation:
        facts += "  not labelled"
    needed, _ = text_size(facts, 0.4)
    name = _fitted(printable(sample.image_id), width - needed - 12)
    put_text(sheet, name, (x, y), 0.4, _INK)
    put_text(sheet, facts, (x + width - needed, y), 0.4, _FAINT)


def _fitted(text: str, width: int) -> str:
    while len(text) > 4 and text_size(text, 0.4)[0] > width:
        text = ".." + text[3:]  # names of pictures differ at their end
    return text


def _legend(
    samples: Sequence[Sample], colours: Mapping[str, Colour], width: int, proposals: int
) -> np.ndarray:
    """(lines * LINE, width, 3): swatches with the classes' names, and what the marks mean."""
    entries = list(colours.items())
    if any(sample.segmentation is not None for sample in samples):
        entries.append(("ignored", _IGNORED))
    if any(sample.proposals is not None for sample in samples):
        entries.append((f"proposals, the best {proposals}", _PROPOSAL))
    if any(np.any(sample.difficult) or np.any(sample.crowd) for sample in samples):
        entries.append(("name?, dashed: difficult or crowd", _FAINT))
    places, x, line = [], GAP, 0
    for text, colour in entries:
        needed = 20 + text_size(text, 0.45)[0] + 18
        if x + needed > width and x > GAP:
            x, line = GAP, line + 1
        places.append((text, colour, x, line * LINE))
        x += needed
    legend = np.full(((line + 1) * LINE + GAP, width, 3), _PAPER, dtype=np.uint8)
    for text, colour, x, y in places:
        cv2.rectangle(legend, (x, y + 5), (x + 13, y + 18), colour, -1)
        cv2.rectangle(legend, (x, y + 5), (x + 13, y + 18), _FAINT, 1)
        put_text(legend, text, (x + 20, y + 16), 0.45, _INK)
    return legend
