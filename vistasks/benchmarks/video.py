"""The video pipeline on a generated clip: each stage alone, all of them side by side and in turn, and memory
over a long run.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

from vistasks.inference.backend import Backend
from vistasks.inference.predictor import Predictor
from vistasks.inference.video.network import Network
from vistasks.inference.video.options import InferOptions
from vistasks.inference.video.pipeline import FEED, Pipeline, Stage, in_turn
from vistasks.inference.video.reader import Frame, VideoReader
from vistasks.inference.video.report import VideoReport
from vistasks.inference.video.run import infer_frames, writing_stages
from vistasks.inference.video.sinks import VideoWriter
from vistasks.inference.video.stages import FrameJobs, predicting_stages
from vistasks.inference.video.writing import FrameResults
from vistasks.system.machine import cores, peak_bytes
from vistasks.types import ClassNames, Detections, Prediction, SegmentationMap

_WAIT = 0.005  # seconds that each stage of the waiting pipeline takes


def benchmark(
    weights: str | None = None,
    *,
    device: str = "auto",
    frames: int = 120,
    size: tuple[int, int] = (720, 1280),
    batch_size: int = 1,
    half: bool = False,
    compiled: bool = False,
    cuda_graphs: bool = False,
    memory_frames: int = 10_000,
    options: InferOptions = InferOptions(progress=False),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Runs a generated clip through `vistasks infer`'s stages.

    Args:
        weights: a trained model; None: one that costs nothing, so that everything around it is measured.
        device, batch_size, half, compiled, cuda_graphs: as of the command.
        frames: of the clip, of which the first batch has been through the network before.
        size: (height, width).
        memory_frames: of the long run, which uses the model that costs nothing; 0: none.
        options: of the run.

    Returns: "frames", "size", "cores" and how it was run; "stages": of each its "rate" alone (frames per
    second) and "cpu" (seconds of all cores for a frame); "slowest" (the stage with the lowest rate) and
    "slowest_rate"; "pipeline" and "in_turn": frames per second of all stages side by side and one after the
    other; "ratio_to_slowest" and "ratio_to_in_turn"; "cores_rate": frames per second that the cores can do if
    none ever waits; "ratio_to_limit": of "pipeline" to the lower one of that and "slowest_rate"; "waiting":
    the ratio to the slowest for stages that only wait, which shows what the pipeline itself costs; "memory":
    see `measure_memory`."""
    with tempfile.TemporaryDirectory(prefix="vistasks-") as place:
        folder = Path(place)
        predictor = _predictor(
            weights, device, batch_size, half=half, compiled=compiled, cuda_graphs=cuda_graphs
        )
        bench = _Bench(predictor, folder, options)
        write_clip(bench.clip, max(frames, batch_size), size)
        bench.warm()
        alone = bench.alone()
        sequential, rate = bench.rate(in_turn), bench.rate(Pipeline)
        slowest = min(alone, key=lambda name: alone[name]["rate"])
        slowest_rate = alone[slowest]["rate"]
        cores_rate = cores() / max(sum(stage["cpu"] for stage in alone.values()), 1e-9)
        return {
            "frames": frames,
            "size": list(size),
            "cores": cores(),
            "device": str(getattr(bench.predictor.backend, "device", "cpu")),
            "weights": weights,
            "batch": batch_size,
            "stages": alone,
            "slowest": slowest,
            "slowest_rate": slowest_rate,
            "pipeline": rate,
            "in_turn": sequential,
            "ratio_to_slowest": rate / slowest_rate,
            "ratio_to_in_turn": rate / sequential,
            "cores_rate": cores_rate,
            "ratio_to_limit": rate / min(cores_rate, slowest_rate),
            "waiting": waiting(),
            "memory": measure_memory(memory_frames, size) if memory_frames else None,
        }


class _Bench:
    """One clip and one model, measured in several ways."""

    def __init__(self, predictor: Predictor, folder: Path, options: InferOptions) -> None:
        self.predictor, self.folder, self.options, self.clip = predictor, folder, options, folder / "clip.mp4"
        self.network = Network(predictor, options, period=Network.multiple(predictor, options))

    def warm(self) -> None:
        """One batch, in which kernels are compiled and chosen."""
        jobs = islice(FrameJobs(VideoReader(self.clip), self.network), self.predictor.batch_size)
        for _ in in_turn(jobs, predicting_stages(self.network)):
            pass

    @contextmanager
    def _stages(self) -> Iterator[list[Stage]]:
        source = VideoReader(self.clip)
        results = FrameResults(
            self.folder / "out", source, self.predictor, self.options, period=self.network.period * 1_000_000
        )
        yield [
            *predicting_stages(self.network, threads=self.options.threads),
            *writing_stages(results, self.options),
        ]
        results.finish(complete=True)

    def alone(self) -> dict[str, dict[str, float]]:
        """Of each stage its rate while nothing else works, and the seconds of all cores that a frame
        takes.
        """
        with self._stages() as stages:
            found: dict[str, dict[str, float]] = {}
            things: Iterable[Any] = FrameJobs(VideoReader(self.clip), self.network)
            frames = 0
            for name, chosen in [(FEED, []), *((stage.name, [stage]) for stage in stages)]:
                start, cpu = time.perf_counter(), time.process_time()
                things = list(Pipeline(things, chosen))
                seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
                frames = frames or len(things)
                found[name] = {"rate": frames / seconds, "cpu": cpu / frames}
            return found

    def rate(self, way: Callable[[Iterable[Any], Sequence[Stage]], Iterable[Any]]) -> float:
        """Frames per second of all stages, by `Pipeline` or `in_turn`."""
        with self._stages() as stages:
            start, frames = time.perf_counter(), 0
            for _ in way(FrameJobs(VideoReader(self.clip), self.network), stages):
                frames += 1
            return frames / (time.perf_counter() - start)


class NoModel(Backend):
    """A backend that finds one box and a half of the picture, for nothing."""

    def __init__(self) -> None:
        self.classes = ClassNames(("box",), ("background", "box"))

    def propose(self, image: np.ndarray) -> np.ndarray | None:
        """The whole picture."""
        return np.array([[0, 0, image.shape[1], image.shape[0]]], dtype=np.float32)

    def make_batch(self, images: Sequence[np.ndarray], proposals: Sequence[np.ndarray] | None) -> Any:
        """The pictures' sizes."""
        return [image.shape[:2] for image in images]

    def predict(self, batch: Any, *, rows: Any = None, regions: Any = None) -> list[Prediction]:
        """The same for every picture of a size."""
        return [self._one(*size) for size in batch]

    def _one(self, height: int, width: int) -> Prediction:
        box = np.array([[width / 4, height / 4, width / 2, height / 2]], dtype=np.float32)
        found = Detections(
            box, np.ones(1, dtype=np.float32), np.zeros(1, dtype=np.int64), self.classes.detection
        )
        labels = np.zeros((height, width), dtype=np.uint8)
        labels[height // 2 :] = 1
        return Prediction(found, SegmentationMap(labels, self.classes.segmentation))


def write_clip(path: Path, frames: int, size: tuple[int, int]) -> Path:
    """A clip of squares that move over a textured ground."""
    height, width = size
    rng = np.random.default_rng(0)
    ground = np.kron(
        rng.integers(40, 200, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8),
        np.ones((16, 16, 1), np.uint8),
    )
    side = height // 6
    with VideoWriter(path, rate=Fraction(25)) as writer:
        for number in range(frames):
            image = ground[:height, :width].copy()
            for index, colour in enumerate(((220, 30, 30), (30, 200, 40), (20, 40, 210))):
                x, y = (
                    (number * (5 + 3 * index)) % (width - side),
                    (index * 2 * side + 3 * number) % (height - side),
                )
                image[y : y + side, x : x + side] = colour
            writer.write(image, number / 25)
    return path


def _predictor(weights: str | None, device: str, batch_size: int, **speed: bool) -> Predictor:
    if weights is None:
        return Predictor(NoModel(), batch_size=batch_size)
    from vistasks.inference.predictor import load

    predictor = load(weights, device, batch_size=batch_size)
    predictor.speed_up(**speed)
    return predictor


def waiting(things: int = 100, stages: int = 5) -> float:
    """The pipeline's rate over its slowest stage's alone, for stages that only wait: what the pipeline itself
    costs.
    """

    def wait(found: list[Any]) -> list[Any]:
        time.sleep(_WAIT)
        return found

    def seconds(count: int) -> float:
        start = time.perf_counter()
        for _ in Pipeline(range(things), [Stage(str(number), wait) for number in range(count)]):
            pass
        return time.perf_counter() - start

    return seconds(1) / seconds(stages)


class _Loop:
    """A clip over and over, as one long `vistasks.inference.video.protocols.FrameSource`."""

    def __init__(self, clip: Path, frames: int) -> None:
        self._reader = VideoReader(clip)
        self.name, self.where, self.live, self.dropped, self.frames = "long", "loop", False, 0, frames
        self.rate = self._reader.rate
        self.warnings: list[str] = []

    def stop(self) -> None:
        """Nothing to do: a file keeps nobody waiting."""

    def __iter__(self) -> Iterator[Frame]:
        again = chain.from_iterable(repeat(self._reader))
        for number, frame in enumerate(islice(again, self.frames)):
            yield Frame(frame.image, number, float(number / self.rate))


def measure_memory(frames: int = 10_000, size: tuple[int, int] = (720, 1280)) -> dict[str, Any]:
    """Resident memory of this process on a long clip with the model that costs nothing, everything else as
    `vistasks infer` does.

    Returns "bytes" at a tenth of the frames and at all of them, under these numbers, "growth" from one to the
    other as a share, and "rate", frames per second."""
    found: dict[int, int] = {}

    def note(report: VideoReport) -> None:
        if report.frames in (frames // 10, frames):
            found[report.frames] = resident_bytes()

    with tempfile.TemporaryDirectory(prefix="vistasks-") as folder:
        clip = write_clip(Path(folder) / "clip.mp4", min(frames, 250), size)
        options = InferOptions(progress=False)
        report = infer_frames(
            Predictor(NoModel()), _Loop(clip, frames), Path(folder) / "out", options, shown=note
        )
    growth = found[frames] / found[frames // 10] - 1
    return {
        "bytes": {str(number): value for number, value in found.items()},
        "growth": growth,
        "rate": report.rate,
    }


def resident_bytes() -> int:
    """This process's resident memory now; where the system does not say (no /proc), the most that it ever
    had.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")
