"""The worst pictures of each kind of error, truth beside prediction, in bounded memory."""

from __future__ import annotations

import base64
import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vistasks.drawing.draw import draw, draw_tag
from vistasks.drawing.palette import Colour
from vistasks.evaluation.reports.section import Flaws
from vistasks.task import task_of
from vistasks.types import Prediction, Sample

SIDE = 420  # pixels of the longer side of a picture in the gallery


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture of the gallery: errors by kind, the class names that they are about, and a JPEG of truth |
    prediction.
    """

    path: str
    errors: dict[str, int]
    kinds: tuple[str, ...]
    classes: tuple[str, ...]
    wrong_pixels: float | None
    jpeg: bytes

    def entry(self) -> dict[str, Any]:
        """For the page."""
        image = base64.b64encode(self.jpeg).decode()
        return {
            "path": self.path,
            "errors": self.errors,
            "kinds": self.kinds,
            "classes": self.classes,
            "wrong_pixels": self.wrong_pixels,
            "image": image,
        }


class Gallery:
    """Keeps the ``each`` pictures with the most errors of every kind."""

    def __init__(self, each: int, colours: Mapping[str, Colour]) -> None:
        self.each, self.colours = each, colours
        self._heaps: dict[str, list[tuple[float, int, Shown]]] = {}
        self._offered = 0

    def offer(self, sample: Sample, flaws: Mapping[str, Flaws]) -> None:
        """Considers one image; it is drawn only if it is among the worst of a kind so far.

        ``flaws``: by task, what is wrong with it.
        """
        self._offered += 1
        badness = {kind: value for own in flaws.values() for kind, value in own.badness.items()}
        wanted = [kind for kind, value in badness.items() if value > 0 and self._has_room(kind, value)]
        if not wanted:
            return
        errors = {kind: number for own in flaws.values() for kind, number in own.counts.items()}
        shares = [own.share for own in flaws.values() if own.share is not None]
        classes = sorted({name for own in flaws.values() for name in own.classes})
        jpeg = _drawn(sample, flaws, self.colours)
        kinds = tuple(kind for kind, value in badness.items() if value > 0)
        share = shares[0] if shares else None
        shown = Shown(sample.path, errors, kinds, tuple(classes), share, jpeg)
        for kind in wanted:
            heap = self._heaps.setdefault(kind, [])
            # the number keeps ties from comparing images
            heapq.heappush(heap, (badness[kind], -self._offered, shown))
            if len(heap) > self.each:
                heapq.heappop(heap)

    def _has_room(self, kind: str, value: float) -> bool:
        heap = self._heaps.get(kind, [])
        return len(heap) < self.each or value > heap[0][0]

    def pictures(self) -> list[Shown]:
        """Each picture once, the most errors first."""
        found = {shown.path: shown for heap in self._heaps.values() for _, _, shown in heap}
        return sorted(
            found.values(),
            key=lambda shown: (-sum(shown.errors.values()), -(shown.wrong_pixels or 0), shown.path),
        )


def _drawn(sample: Sample, flaws: Mapping[str, Flaws], colours: Mapping[str, Colour]) -> bytes:
    height, width = sample.size
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    image = np.asarray(cv2.resize(sample.image, size[::-1], interpolation=cv2.INTER_AREA))
    truth = found = Prediction()
    for name, own in flaws.items():
        task = task_of(name)
        if own.truth is not None:
            truth = task.with_answer(truth, task.resized(own.truth, sample.size, size))
        if own.found is not None:
            found = task.with_answer(found, task.resized(own.found, sample.size, size))
    panels = [draw(image, answers, labels=False, legend=False, colours=colours) for answers in (truth, found)]
    factor = np.array([size[1] / width, size[0] / height] * 2, np.float32)
    for panel, tags in zip(panels, zip(*((own.truth_tags, own.found_tags) for own in flaws.values()))):
        for box, text in (tag for own in tags for tag in own):
            draw_tag(panel, box * factor, text)
    gap = np.full((size[0], 6, 3), 255, np.uint8)
    sheet = np.concatenate([panels[0], gap, panels[1]], axis=1)
    _, encoded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return encoded.tobytes()
