"""Texts on pictures. OpenCV's letters are ASCII; a lone surrogate in a text ends the process."""

from __future__ import annotations

import cv2
import numpy as np

from vistasks.drawing.palette import Colour
from vistasks.system.text import printable

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def text_size(text: str, letters: float, weight: int = 1) -> tuple[int, int]:
    """(width, height) in pixels; ``letters`` is OpenCV's font scale."""
    (width, height), _ = cv2.getTextSize(printable(text), _FONT, letters, weight)
    return width, height


def put_text(
    canvas: np.ndarray, text: str, place: tuple[int, int], letters: float, colour: Colour, weight: int = 1
) -> None:
    """Writes the text from its lower left corner on (changes the canvas)."""
    cv2.putText(canvas, printable(text), place, _FONT, letters, colour, weight, cv2.LINE_AA)
