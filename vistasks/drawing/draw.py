"""Predictions drawn onto a picture: the class map blended by one look-up table, boxes and names by
supervision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import supervision as sv

from vistasks.drawing.lettering import put_text, text_size
from vistasks.drawing.palette import BACKGROUND, Colour, model_colours
from vistasks.system.text import printable
from vistasks.task import answers
from vistasks.types import ClassNames, Detections, Prediction, SegmentationMap

OPACITY = 0.5  # of the class map
_LETTERS = 0.42  # OpenCV's font scale at scale 1: capitals 9 pixels high
_INK: Colour = (255, 255, 255)


def draw(
    image: np.ndarray,
    prediction: Prediction,
    *,
    labels: bool = True,
    legend: bool = True,
    colours: Mapping[str, Colour] | None = None,
) -> np.ndarray:
    """A new picture (H, W, 3) uint8 RGB with everything that ``prediction`` says about ``image`` of the same
    size.

    A class has one colour in boxes and map. Line widths and letters grow with the picture.

    Args:
        image: (H, W, 3) uint8 RGB; unchanged.
        prediction: in pixels of ``image``.
        labels: write class names and scores at the boxes, after "#" and the object's number where it is
            tracked.
        legend: name the classes of the map that the picture has.
        colours: of class names, (red, green, blue) 0 to 255; for the others the palette's.

    Raises:
        ValueError: the map has another size than the picture, or a label has no class name.
    """
    found = list(answers(prediction))
    classes = ClassNames.of_tasks({task.name: task.classes_of(answer) for task, answer in found})
    chosen = {**model_colours(classes), **(colours or {})}
    canvas = np.ascontiguousarray(image).copy()
    for task, answer in found:
        canvas = task.draw(canvas, answer, chosen, labels=labels)
    for task, answer in found if legend else ():
        task.draw_legend(canvas, answer, chosen)
    return canvas


def blend_map(image: np.ndarray, segmentation: SegmentationMap, colours: Sequence[Colour]) -> np.ndarray:
    """A new picture: ``image`` with the map's colours over it; black classes and ids without a name leave it
    as it is.

    Raises a ``ValueError`` where the map has another size than the image.
    """
    labels = segmentation.labels
    if labels.shape != image.shape[:2]:
        raise ValueError(
            f"the segmentation map is {labels.shape}, the image {image.shape[:2]} (height, width)"
        )
    table = np.zeros((256, 1, 3), dtype=np.uint8)
    table[: len(colours), 0] = colours
    # applyColorMap is OpenCV's look-up from one channel to three: 14 times as quick as table[labels] on
    # 1280x720
    blended = cv2.addWeighted(image, 1 - OPACITY, cv2.applyColorMap(labels, table), OPACITY, 0)
    plain = np.where((table == BACKGROUND).all(axis=2), 255, 0).astype(np.uint8)
    cv2.copyTo(image, cv2.LUT(labels, plain), blended)
    return np.asarray(blended)


def draw_boxes(
    image: np.ndarray, detections: Detections, colours: Sequence[Colour], *, labels: bool = True
) -> np.ndarray:
    """``image`` (changed in place) with boxes in their classes' colours and, with ``labels``, "name score"
    inside the picture.

    Better detections lie over worse ones.
    """
    if detections.labels.max() >= len(colours):
        raise ValueError(
            f"a detection has the class id {detections.labels.max()}, but only {len(colours)} classes have a name"
        )
    scale, (height, width) = drawing_scale(image), image.shape[:2]
    order = np.arange(len(detections))[::-1]
    # supervision takes pictures with blue first; in ours red is first, so its colours are given the other way
    # round
    palette = sv.ColorPalette([sv.Color(*reversed(colour)) for colour in colours])
    # the first and the last pixel that the box covers, all of them in the picture
    corners = np.concatenate(
        [np.floor(detections.boxes[order, :2]), np.ceil(detections.boxes[order, 2:]) - 1], axis=1
    )
    corners = np.clip(corners, 0, [width - 1, height - 1] * 2).astype(np.float32)
    thickness = max(1, round(2 * scale))
    image = sv.BoxAnnotator(color=palette, thickness=thickness).annotate(
        image, sv.Detections(xyxy=corners, class_id=detections.labels[order])
    )
    return _draw_names(image, detections, order, corners, colours, palette) if labels else image


def _draw_names(
    image: np.ndarray,
    detections: Detections,
    order: np.ndarray,
    corners: np.ndarray,
    colours: Sequence[Colour],
    palette: sv.ColorPalette,
) -> np.ndarray:
    scale = drawing_scale(image)
    texts = [_text(detections, index) for index in order]
    weight, padding = max(1, round(scale)), max(2, round(3 * scale))
    measured = np.array([text_size(text, _LETTERS * scale, weight) for text in texts]) + 2 * padding
    places = corners.copy()  # a name stands on its box's upper left corner, or as near as it finds room
    places[:, 1] = np.maximum(places[:, 1], measured[:, 1])
    places[:, 0] = np.clip(places[:, 0], 0, np.maximum(0, image.shape[1] - measured[:, 0]))
    inks = sv.ColorPalette([sv.Color.BLACK if _is_bright(colour) else sv.Color.WHITE for colour in colours])
    annotator = sv.LabelAnnotator(
        color=palette,
        text_color=inks,
        text_scale=_LETTERS * scale,
        text_thickness=weight,
        text_padding=padding,
    )
    return annotator.annotate(
        image, sv.Detections(xyxy=places, class_id=detections.labels[order]), labels=texts
    )


def _text(detections: Detections, index: int) -> str:
    identity = -1 if detections.ids is None else detections.ids[index]
    number = f"#{identity} " if identity >= 0 else ""
    name = printable(detections.class_names[detections.labels[index]])
    return f"{number}{name} {detections.scores[index]:.2f}"


def _is_bright(colour: Colour) -> bool:
    red, green, blue = colour
    return 0.3 * red + 0.59 * green + 0.11 * blue > 130


def draw_tag(canvas: np.ndarray, box: np.ndarray, text: str, *, letters: float = 0.38) -> None:
    """A small dark label in the corner of a box, inside the picture (changed in place); ``letters`` is
    OpenCV's font scale.
    """
    width, height = text_size(text, letters)
    x = int(np.clip(box[0], 0, max(0, canvas.shape[1] - width - 4)))
    y = int(np.clip(box[1], 0, max(0, canvas.shape[0] - height - 5)))
    cv2.rectangle(canvas, (x, y), (x + width + 4, y + height + 5), (20, 20, 20), -1)
    put_text(canvas, text, (x + 2, y + height + 2), letters, _INK)


def drawing_scale(image: np.ndarray) -> float:
    """By what lines and letters are larger than in a picture of 640 pixels.

    Grows more slowly than the picture: big ones are looked at more closely.
    """
    return max(0.8, (max(image.shape[:2]) / 640) ** 0.75)


def draw_map_legend(canvas: np.ndarray, segmentation: SegmentationMap, colours: Mapping[str, Colour]) -> None:
    """Swatches and names of the classes that cover at least a thousandth of the picture, bottom left, at most
    half its height.

    Where there is no room for all, the largest are named.
    """
    counts = cv2.calcHist([segmentation.labels], [0], None, [256], [0, 256]).ravel()[
        : len(segmentation.names)
    ]
    scale = drawing_scale(canvas)
    line, swatch, weight = round(18 * scale), round(12 * scale), max(1, round(scale))
    shown = [i for i, name in enumerate(segmentation.names) if counts[i] * 1000 >= canvas[..., 0].size]
    shown = [i for i in shown if colours[segmentation.names[i]] != BACKGROUND]
    room = max(1, canvas.shape[0] // (2 * line))
    names = [segmentation.names[i] for i in sorted(sorted(shown, key=lambda i: -counts[i])[:room])]
    if not names:
        return
    letters = max(text_size(name, _LETTERS * scale, weight)[0] for name in names)
    top = max(0, canvas.shape[0] - line * len(names) - round(6 * scale))
    corner = canvas[top:, : letters + swatch + round(18 * scale)]
    corner[:] = (corner * 0.35).astype(np.uint8)
    x = round(5 * scale)
    for index, name in enumerate(names):
        y = top + index * line + round(6 * scale)
        cv2.rectangle(canvas, (x, y), (x + swatch - 1, y + swatch - 1), colours[name], -1)
        place = (x + swatch + round(6 * scale), y + swatch - 1)
        put_text(canvas, name, place, _LETTERS * scale, _INK, weight)
