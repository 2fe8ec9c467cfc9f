"""The colour spaces of selective search (Uijlings et al. 2013, section 3.2.1), each as uint8 planes (C, H,
W).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def _planes(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(np.atleast_3d(image), 2, 0))


def _rgb(rgb: np.ndarray) -> np.ndarray:
    return _planes(rgb)


def _intensity(rgb: np.ndarray) -> np.ndarray:
    return _planes(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


def _lab(rgb: np.ndarray) -> np.ndarray:
    return _planes(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB))


def _hsv(rgb: np.ndarray) -> np.ndarray:
    return _planes(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV_FULL))


def _hue(rgb: np.ndarray) -> np.ndarray:
    return _hsv(rgb)[:1]


def _rgi(rgb: np.ndarray) -> np.ndarray:
    """Normalised red and green with intensity."""
    total = rgb.sum(axis=2, dtype=np.float32)
    shares = rgb[..., :2] * (255 / np.maximum(total, 1))[..., None]
    return _planes(np.dstack([shares, total / 3]).astype(np.uint8))


COLOUR_SPACES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "RGB": _rgb,
    "I": _intensity,
    "Lab": _lab,
    "HSV": _hsv,
    "H": _hue,
    "rgI": _rgi,
}
