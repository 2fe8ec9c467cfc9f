"""The annotated live picture in a window."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from typing import Any

import cv2
import numpy as np

from vistasks.system.text import printable

_ENDING_KEYS = (27, ord("q"))  # 27: Escape
_LARGEST = 1280  # pixels of a new window's longer side
_TRIAL = "import cv2; cv2.namedWindow('vistasks'); cv2.waitKey(1); cv2.destroyAllWindows()"
_INSTEAD = "without a screen, --serve 8080 shows the image in a browser"


class Window:
    """Shows the newest picture; a `vistasks.inference.video.protocols.Publisher`. Q, Escape or closing the
    window ends the run.

    Raises a ``ValueError`` where no window can be opened.
    """

    needs_main_thread = True

    def __init__(self, title: str) -> None:
        os.environ.setdefault(
            "QT_LOGGING_RULES", "*.warning=false"
        )  # OpenCV's wheel lacks Qt's fonts, and Qt says so at length
        check_display()
        self.hidden: Collection[str] = frozenset()
        self.title = printable(title)
        self._open = False

    def publish(self, image: np.ndarray, stats: Mapping[str, Any]) -> bool:
        """Shows the picture (H, W, 3) uint8 RGB; False when the viewer has had enough."""
        if not self._open:
            cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            factor = min(1.0, _LARGEST / max(image.shape[:2]))
            cv2.resizeWindow(self.title, round(image.shape[1] * factor), round(image.shape[0] * factor))
            self._open = True
        elif not self._is_visible():
            return False
        cv2.imshow(self.title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(1) & 0xFF not in _ENDING_KEYS

    def _is_visible(self) -> bool:
        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # there is no window any more
            return False

    def close(self) -> None:
        """Closes the window."""
        if self._open:
            with contextlib.suppress(cv2.error):  # the viewer has closed it
                cv2.destroyWindow(self.title)


def check_display() -> None:
    """Raises a ``ValueError`` where OpenCV can open no window, and says why.

    Tried in a process of its own, as Qt aborts the whole process where it finds no display.
    """
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError(f"--show: there is no display here (DISPLAY is not set); {_INSTEAD}")
    try:
        trial = subprocess.run(
            [sys.executable, "-c", _TRIAL], capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"--show: the display does not answer; {_INSTEAD}") from None
    if "not implemented" in trial.stderr:
        raise ValueError(
            f"--show: this OpenCV is built without windows (opencv-python-headless?); {_INSTEAD}"
        )
    if trial.returncode:
        raise ValueError(
            f"--show: no window can be opened on the display {os.environ.get('DISPLAY', '')}; {_INSTEAD}"
        )
