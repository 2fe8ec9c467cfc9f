"""Predictions drawn onto a picture: the class map blended by one look-up table, boxes and names by supervision."""

from __future__ import annotations

import cv2
import numpy as np
import supervision as sv

from vistasks.drawing.palette import BACKGROUND, Colour, class_colours
from vistasks.types import Detections, Prediction, SegmentationMap

OPACITY = 0.5  # of the class map
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_REFERENCE = 640  # a picture of this longer side gets lines of 2 and letters of .5


def draw(image: np.ndarray, prediction: Prediction, *, labels: bool = True, legend: bool = True) -> np.ndarray:
    """A new picture (H, W, 3) uint8 RGB with everything that ``prediction`` says about ``image`` of the same size.

    A class has one colour in boxes and map. Line widths and letters grow with the picture.

    Args:
        image: (H, W, 3) uint8 RGB; unchanged.
        prediction: in pixels of ``image``.
        labels: write class names and scores at the boxes.
        legend: name the classes of the map that the picture has.
    """
    names = [*(prediction.detections.class_names if prediction.detections else ())]
    names += [*(prediction.segmentation.names if prediction.segmentation else ())]
    colours = dict(zip(names, class_colours(names)))
    canvas = np.ascontiguousarray(image)
    if prediction.segmentation is not None:
        canvas = blend_map(canvas, prediction.segmentation, [colours[name] for name in prediction.segmentation.names])
    else:
        canvas = canvas.copy()
    if prediction.detections is not None and len(prediction.detections):
        own = [colours[name] for name in prediction.detections.class_names]
        canvas = draw_boxes(canvas, prediction.detections, own, labels=labels)
    if legend and prediction.segmentation is not None:
        _draw_legend(canvas, prediction.segmentation, colours)
    return canvas


def blend_map(image: np.ndarray, segmentation: SegmentationMap, colours: list[Colour]) -> np.ndarray:
    """``image`` with the map's colours over it; the background stays as it is.

    Raises a ``ValueError`` where the map has another size than the image.
    """
    if segmentation.labels.shape != image.shape[:2]:
        raise ValueError(f"the class map is {segmentation.labels.shape}, the picture {image.shape[:2]} (height, width)")
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colours)] = colours
    blended = cv2.addWeighted(image, 1 - OPACITY, table[segmentation.labels], OPACITY, 0)
    plain = np.zeros(256, dtype=np.uint8)
    plain[: len(colours)] = [255 * (colour == BACKGROUND) for colour in colours]
    cv2.copyTo(image, plain[segmentation.labels], blended)
    return np.asarray(blended)


def draw_boxes(image: np.ndarray, detections: Detections, colours: list[Colour], *, labels: bool = True) -> np.ndarray:
    """``image`` (changed in place) with boxes in their classes' colours and, with ``labels``, "name score" inside the picture."""
    scale = max(0.8, max(image.shape[:2]) / _REFERENCE)
    # supervision takes pictures with blue first; in ours red is first, so its colours are given the other way round
    palette = sv.ColorPalette([sv.Color(*reversed(colour)) for colour in colours])
    boxes = detections.boxes.astype(np.float32)
    found = sv.Detections(xyxy=boxes, class_id=detections.labels)
    image = sv.BoxAnnotator(color=palette, thickness=max(1, round(2 * scale))).annotate(image, found)
    if not labels:
        return image
    texts = [f"{name} {score:.2f}" for name, score in zip(detections.names, detections.scores)]
    size, padding = 0.42 * scale, max(2, round(3 * scale))
    measured = [cv2.getTextSize(text, _FONT, size, max(1, round(scale)))[0] for text in texts]
    places = boxes.copy()
    places[:, 1] = np.maximum(places[:, 1], [height + 2 * padding for _, height in measured])
    places[:, 0] = np.clip(places[:, 0], 0, [max(0, image.shape[1] - width - 2 * padding) for width, _ in measured])
    bright = [0.3 * red + 0.59 * green + 0.11 * blue > 110 for red, green, blue in colours]
    inks = sv.ColorPalette([sv.Color.BLACK if light else sv.Color.WHITE for light in bright])
    annotator = sv.LabelAnnotator(
        color=palette, text_color=inks, text_scale=size, text_thickness=max(1, round(scale)), text_padding=padding
    )
    return annotator.annotate(image, sv.Detections(xyxy=places, class_id=detections.labels), labels=texts)


def _draw_legend(canvas: np.ndarray, segmentation: SegmentationMap, colours: dict[str, Colour]) -> None:
    """Swatches and names of the classes that cover at least a thousandth of the picture, bottom left."""
    counts = np.bincount(segmentation.labels.ravel(), minlength=256)
    shown = [n for i, n in enumerate(segmentation.names) if counts[i] * 1000 >= counts.sum() and colours[n] != BACKGROUND]
    scale = max(0.8, max(canvas.shape[:2]) / _REFERENCE)
    line, swatch = round(18 * scale), round(12 * scale)
    shown = shown[: max(0, canvas.shape[0] // line - 1)]
    if not shown:
        return
    width = max(cv2.getTextSize(name, _FONT, 0.42 * scale, 1)[0][0] for name in shown) + swatch + round(16 * scale)
    top = canvas.shape[0] - line * len(shown) - round(6 * scale)
    corner = canvas[top:, :width]
    corner[:] = (corner * 0.35).astype(np.uint8)
    for index, name in enumerate(shown):
        y = top + index * line + round(4 * scale)
        x = round(5 * scale)
        cv2.rectangle(canvas, (x, y), (x + swatch, y + swatch), colours[name], -1)
        place = (x + swatch + round(6 * scale), y + swatch - 1)
        cv2.putText(canvas, name, place, _FONT, 0.42 * scale, (255, 255, 255), max(1, round(scale)), cv2.LINE_AA)
