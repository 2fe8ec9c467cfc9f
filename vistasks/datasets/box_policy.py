"""What happens to boxes that are not boxes inside their image.

========================  ==========  ===============================  =======
fault                     error       clip                             drop
========================  ==========  ===============================  =======
overhangs by <= 1 pixel   clipped     clipped                          clipped
overhangs by more         error       clipped (dropped if none left)   dropped
zero area                 error       dropped                          dropped
inverted (x2 < x1)        error       dropped                          dropped
NaN or infinite           error       dropped                          dropped
========================  ==========  ===============================  =======

An overhang of up to one pixel is what 0-based corners leave when they are read as 1-based ones (and what
rounding leaves in COCO files); the object is where the box says. Everything that is clipped or dropped is
counted in the reader's ``notes``, and all errors of a data set are told together."""

from __future__ import annotations

from typing import Literal

import numpy as np

from vistasks.datasets.problems import counted

BadBoxes = Literal["error", "clip", "drop"]

OVERHANG_TOLERANCE = 1.0


def box_fault(
    box: np.ndarray, height: int, width: int, *, least_side: float = 0.0
) -> tuple[str | None, float]:
    """What is wrong with one (4,) float64 ``x1, y1, x2, y2`` box, and by how many pixels it overhangs the
    image.

    Both sides must be longer than ``least_side`` (1 for inclusive integer corners, where ``xmin == xmax`` is
    a click without extent, though it covers one pixel on paper). The fault does not tell of an overhang
    unless nothing of the box lies inside."""
    if not np.isfinite(box).all():
        return "is not finite", 0.0
    x1, y1, x2, y2 = (float(value) for value in box)
    if x2 - x1 <= least_side or y2 - y1 <= least_side:
        return ("is inverted" if x2 - x1 < least_side or y2 - y1 < least_side else "has zero area"), 0.0
    overhang = max(-x1, -y1, x2 - width, y2 - height, 0.0)
    clipped = clip_box(box, height, width)
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return f"lies outside the {width}x{height} image", overhang
    return None, overhang


def clip_box(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """(4,) float32, cut to the image."""
    return np.clip(box, 0.0, [width, height, width, height]).astype(np.float32)


class BoxChecker:
    """Applies one policy to the boxes of a whole data set and keeps the account."""

    def __init__(self, policy: BadBoxes) -> None:
        self._policy = policy
        self._errors: list[str] = []
        self._dropped: list[str] = []
        self._clipped: list[str] = []
        self._nudged: list[str] = []

    def check(
        self, box: np.ndarray, size: tuple[int, int], *, place: str, text: str, least_side: float = 0.0
    ) -> np.ndarray | None:
        """The box to use, (4,) float32 inside the image of ``size`` (height, width), or None to leave it out.

        ``place`` names file and object, ``text`` is the box as the file writes it; both are for the messages.
        """
        fault, overhang = box_fault(box, *size, least_side=least_side)
        too_far = overhang > OVERHANG_TOLERANCE
        if fault is None and too_far and self._policy != "clip":
            fault = f"overhangs the {size[1]}x{size[0]} image by {overhang:g} pixels"
        if fault is not None:
            (self._errors if self._policy == "error" else self._dropped).append(
                f"{place}: box {text} {fault}"
            )
            return None
        if overhang > 0:
            (self._clipped if too_far else self._nudged).append(f"{place}: box {text}")
        return clip_box(box, *size)

    @property
    def errors(self) -> list[str]:
        """The faults so far that the policy makes errors, one line each."""
        return self._errors

    @property
    def advice(self) -> str:
        """The way out, if there are errors."""
        return (
            "bad_boxes: drop (or clip) leaves out (or cuts) such boxes and counts them"
            if self._errors
            else ""
        )

    @property
    def notes(self) -> list[str]:
        """What was dropped and clipped, for `Dataset.notes`."""
        return [
            *counted(self._dropped, "box dropped" if len(self._dropped) == 1 else "boxes dropped"),
            *counted(self._clipped, "boxes clipped to their image"),
            *counted(
                self._nudged, f"boxes overhung by at most {OVERHANG_TOLERANCE:g} pixel and were clipped"
            ),
        ]
