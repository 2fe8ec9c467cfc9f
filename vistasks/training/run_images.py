"""What a run folder shows of a run while it goes on: curves.html, curves.png and sample predictions."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from vistasks.drawing.curves import save_curves
from vistasks.evaluation.reports.curves import save_curves_page
from vistasks.system.atomic import replacing

EVERY = 60.0  # seconds between two drawings of the curves while the run goes on; the end of the run draws them in any case


class RunPictures:
    """Writes a run's pictures; a file that cannot be written is told, and the run goes on.

    Args:
        folder: the run folder.
        note: prints a line for a person.
    """

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        self.folder, self.note = folder, note
        self._drawn = time.monotonic()
        self._samples: Path | None = max(
            folder.glob("samples/epoch_*.jpg"), default=None
        )  # of the run before a resume

    def samples(self, sheet: np.ndarray, epoch: int) -> bool:
        """``samples/epoch_NNN.jpg`` from a sheet (H, W, 3) uint8 RGB, ``epoch`` from 1 on; whether it could
        be written.
        """
        path = self.folder / "samples" / f"epoch_{epoch:03d}.jpg"
        _, encoded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])

        def write() -> None:
            with replacing(path) as temporary:
                temporary.write_bytes(encoded.tobytes())

        written = self._attempt(write, path)
        self._samples = path if written else self._samples
        return written

    def curves(self, *, insist: bool = False) -> None:
        """Draws the curves of metrics.jsonl if they are older than `EVERY`, or in any case."""
        if not insist and time.monotonic() - self._drawn < EVERY:
            return
        self._drawn = time.monotonic()
        metrics, page, picture = (
            self.folder / name for name in ("metrics.jsonl", "curves.html", "curves.png")
        )
        self._attempt(lambda: save_curves_page(metrics, page, samples=self._samples), page)
        self._attempt(lambda: save_curves(metrics, picture), picture)

    def _attempt(self, write: Callable[[], None], path: Path) -> bool:
        try:
            write()
        except OSError as error:
            self.note(f"warning: {path} could not be written ({error.strerror or error})")
            return False
        return True
