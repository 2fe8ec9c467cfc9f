"""What the options that spare work on video cost in accuracy and gain in rate, on generated clips with labels
for every frame.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from vistasks.datasets.shapes.drawing import CLASSES, Scene
from vistasks.datasets.shapes.scenes import clip_scenes, scene_mask, scene_objects
from vistasks.inference.prediction import PicturePrediction
from vistasks.inference.predictor import Predictor, load
from vistasks.inference.video.network import Network
from vistasks.inference.video.options import InferOptions
from vistasks.inference.video.pipeline import Pipeline
from vistasks.inference.video.reader import Frame
from vistasks.inference.video.stages import FrameJobs, predicting_stages
from vistasks.metrics import CocoAveragePrecision, MeanIoU
from vistasks.ops.box_arrays import overlaps
from vistasks.system.devices import pick_device
from vistasks.types import Detections, Labelled, Sample

SCORE = 0.05  # detections from here on count for AP
SURE = 0.5  # and from here on they are looked for again in the answers with an option
SAME_IOU = 0.9


@dataclass(frozen=True)
class Setting:
    """One way to run the model; the fields are the command's options."""

    propose_every: int = 1
    segment_every: int = 1
    proposals: str = "method"
    half: bool = False
    compiled: bool = False
    cuda_graphs: bool = False

    def __str__(self) -> str:
        words = [f"--propose-every {self.propose_every}"] * (self.propose_every > 1)
        words += [f"--segment-every {self.segment_every}"] * (self.segment_every > 1)
        words += [f"--proposals {self.proposals}"] * (self.proposals != "method")
        words += [
            *["--half"] * self.half,
            *["--compile"] * self.compiled,
            *["--cuda-graphs"] * self.cuda_graphs,
        ]
        return " ".join(words) or "every frame"


SETTINGS = (
    Setting(),
    Setting(propose_every=2),
    Setting(propose_every=5),
    Setting(propose_every=10),
    Setting(segment_every=3),
    Setting(propose_every=5, segment_every=3),
    Setting(proposals="segmentation"),
    Setting(half=True),
    Setting(compiled=True),
    Setting(cuda_graphs=True),
    Setting(half=True, cuda_graphs=True),
)


class _Scenes:
    """Drawn scenes as a `vistasks.inference.video.protocols.FrameSource`, as fast as they are taken."""

    live, dropped, rate = False, 0, Fraction(25)
    name = where = "scenes"

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self._scenes, self.frames = scenes, len(scenes)
        self.warnings: list[str] = []

    def stop(self) -> None:
        """Nothing to do: it keeps nobody waiting."""

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(scene.image, number, number / 25) for number, scene in enumerate(self._scenes))


def benchmark(
    weights: str,
    *,
    device: str = "auto",
    clips: int = 3,
    frames: int = 60,
    size: tuple[int, int] = (240, 320),
    settings: Sequence[Setting] = SETTINGS,
) -> dict[str, Any]:
    """Runs generated clips through `vistasks infer`'s stages up to the predictions, once for each setting.

    Args:
        weights: a model of the generated shapes with a detector, as `vistasks demo` trains it; settings that
            need a class map are left out where it has none, and CUDA graphs where it runs on the CPU.
        device: "auto", "cpu" or "cuda".
        clips, frames: how many, and how long each is.
        size: (height, width) of the clips.

    Returns: "settings": {words: "AP" and "AP50" over all frames, "mIoU" where there is a class map, "rate" in
    frames per second, "gain": that over the rate with every frame computed; "same": the share of the plain
    run's detections from a score of .5 on that are there again (same class, IoU >= .9), and
    "score_difference": the largest of these}.

    Raises:
        ValueError: a model of other classes, or without a detector.
    """
    predictor = load(weights, device, score=SCORE)
    _check(weights, predictor)
    scenes = [
        list(clip_scenes(seed=seed, frames=frames, height=size[0], width=size[1])) for seed in range(clips)
    ]
    usable = [
        s
        for s in settings
        if predictor.classes.segmentation or (s.segment_every == 1 and s.proposals == "method")
    ]
    usable = [s for s in usable if not s.cuda_graphs or pick_device(device).type == "cuda"]
    found: dict[str, Any] = {}
    plain: list[PicturePrediction] = []
    for setting in usable:
        predictor = load(weights, device, score=SCORE)
        predictor.speed_up(half=setting.half, compiled=setting.compiled, cuda_graphs=setting.cuda_graphs)
        seconds, answers = _run(predictor, setting, scenes)
        plain = plain or answers
        row = _accuracy(predictor, answers, [scene for clip in scenes for scene in clip])
        row["rate"] = len(answers) / seconds
        found[str(setting)] = {**row, **_sameness(plain, answers)}
    first = found[str(usable[0])]["rate"]
    for row in found.values():
        row["gain"] = row["rate"] / first
    return {
        "weights": weights,
        "device": device,
        "clips": clips,
        "frames": frames,
        "size": list(size),
        "settings": found,
    }


def _check(weights: str, predictor: Predictor) -> None:
    if predictor.classes.detection != CLASSES:
        raise ValueError(
            f"{weights}: the clips show {', '.join(CLASSES)}; this model detects "
            f"{', '.join(predictor.classes.detection) or 'nothing'}. Train one with vistasks demo or configs/shapes_joint.yaml"
        )


def _run(
    predictor: Predictor, setting: Setting, clips: Sequence[Sequence[Scene]]
) -> tuple[float, list[PicturePrediction]]:
    """Seconds for the clips after one frame to warm up, and what was found in each frame."""
    options = InferOptions(
        progress=False,
        propose_every=setting.propose_every,
        segment_every=setting.segment_every,
        proposals="segmentation" if setting.proposals == "segmentation" else "method",
    )

    def stream(scenes: Sequence[Scene]) -> list[PicturePrediction]:
        network = Network(predictor, options, period=Network.multiple(predictor, options))
        return [
            job.prediction
            for job in Pipeline(FrameJobs(_Scenes(scenes), network), predicting_stages(network))
        ]

    stream(clips[0][:1])
    start = time.perf_counter()
    answers = [prediction for scenes in clips for prediction in stream(scenes)]
    return time.perf_counter() - start, answers


def _accuracy(
    predictor: Predictor, answers: Sequence[PicturePrediction], scenes: Sequence[Scene]
) -> dict[str, Any]:
    maps = bool(predictor.classes.segmentation)
    ap = CocoAveragePrecision(predictor.classes.detection)
    iou = MeanIoU(predictor.classes.segmentation) if maps else None
    for number, (answer, scene) in enumerate(zip(answers, scenes, strict=True)):
        sample = _sample(f"frame {number}", scene, maps=maps)
        ap.update(answer, sample)
        if iou is not None:
            iou.update(answer, sample)
    boxes = ap.compute()
    return {
        "AP": boxes["AP"],
        "AP50": boxes["AP50"],
        **({} if iou is None else {"mIoU": iou.compute()["mIoU"]}),
    }


def _sample(name: str, scene: Scene, *, maps: bool) -> Sample:
    objects = scene_objects(scene)
    return Sample(
        image_id=name,
        path=name,
        image=scene.image,
        boxes=np.array([each.box for each in objects], np.float32).reshape(-1, 4),
        labels=np.array([each.label for each in objects], np.int64),
        difficult=np.array([each.difficult for each in objects], bool),
        segmentation=scene_mask(scene) if maps else None,
        labelled=Labelled(frozenset(range(len(CLASSES))), frozenset(range(len(CLASSES) + 1 if maps else 0))),
    )


def _sameness(plain: Sequence[PicturePrediction], answers: Sequence[PicturePrediction]) -> dict[str, float]:
    count = again = 0
    largest = 0.0
    for before, after in zip(plain, answers, strict=True):
        if before.detections is None or after.detections is None:
            continue
        sure = before.detections.scores >= SURE
        count += int(sure.sum())
        near = _near(before.detections, after.detections)[sure]
        again += int((near >= 0).sum())
        rows = np.flatnonzero(sure)[near >= 0]
        difference = np.abs(before.detections.scores[rows] - after.detections.scores[near[near >= 0]])
        largest = max(largest, float(difference.max(initial=0)))
    return {"same": again / max(1, count), "score_difference": largest}


def _near(before: Detections, after: Detections) -> np.ndarray:
    """For each detection (D,) the index of the nearest one of its class afterwards; -1 where none has
    `SAME_IOU`.
    """
    if not len(after.boxes):
        return np.full(len(before.boxes), -1)
    iou = np.where(before.labels[:, None] == after.labels[None], overlaps(before.boxes, after.boxes), 0)
    return np.where(iou.max(axis=1) >= SAME_IOU, iou.argmax(axis=1), -1)
