"""A model that costs nearly nothing and whose answers depend on the frame, and clips to run it on."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.inference.video.clips import numbered
from vistasks.inference.backend import Backend
from vistasks.types import ClassNames, Detections, Prediction, SegmentationMap

NAMES = ClassNames(("box",), ("background", "box"))


class CheapBackend(Backend):
    """Finds one box whose place, score and class map follow the picture's brightness."""

    def __init__(self) -> None:
        self.classes = NAMES
        self.proposed: list[int] = []

    def propose(self, image: np.ndarray) -> np.ndarray | None:
        self.proposed.append(int(image[0, 0, 0]))
        return np.array([[0, 0, 4, 4]], dtype=np.float32)

    def make_batch(
        self, images: Sequence[np.ndarray], proposals: Sequence[np.ndarray] | None
    ) -> list[np.ndarray]:
        return list(images)

    def predict(self, batch: list[np.ndarray], *, rows: Any = None, regions: Any = None) -> list[Prediction]:
        return [self._one(image) for image in batch]

    def _one(self, image: np.ndarray) -> Prediction:
        light = float(image[::4, ::4].mean())
        box = np.array([[light / 16, 2, light / 16 + 9.25, 12]], dtype=np.float32)
        labels = np.zeros(image.shape[:2], dtype=np.uint8)
        labels[: 1 + int(light) // 16] = 1
        found = Detections(
            box, np.array([0.5 + light / 600], dtype=np.float32), np.array([0]), self.classes.detection
        )
        return Prediction(found, SegmentationMap(labels, self.classes.segmentation))


def write_with_sound(path: Path, frames: int, *, codec: str = "aac", rate: int = 25) -> Path:
    """A clip of `numbered` frames with a tone of the same length."""
    with av.open(str(path), mode="w") as container:
        video = container.add_stream("libx264", rate=rate, options={"bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, rate=44100, layout="mono")
        for number in range(frames):
            container.mux(video.encode(av.VideoFrame.from_ndarray(numbered(number % 60), format="rgb24")))
        kind, dtype, peak = ("fltp", np.float32, 0.5) if codec == "aac" else ("s16", np.int16, 9000)
        total = 44100 * frames // rate
        for start in range(0, total, 1024):
            tone = np.sin(np.arange(start, min(start + 1024, total)) * 0.06) * peak
            frame = av.AudioFrame.from_ndarray(tone.astype(dtype)[None], format=kind, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
            container.mux(sound.encode(frame))
        for stream in (video, sound):
            container.mux(stream.encode(None))
    return path


def sound_of(path: Path) -> list[tuple[float, bytes]]:
    """(seconds, data) of each packet of a file's sound."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[0])
        return [(float(p.pts * p.time_base), bytes(p)) for p in packets if p.pts is not None and p.size]
