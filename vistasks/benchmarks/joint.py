"""One joint pass of ours (proposals, boxes, class map) beside torchvision's detector and segmenter one after
the other.

All three have random weights: no pass depends on what the weights know, except for how many boxes reach the
non-maximum suppression, which is reported. The rounds of the three alternate, so that other load on the
machine hits all of them."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision

from vistasks.benchmarks.stages import StageClock
from vistasks.build import build_proposals
from vistasks.config import parse_config
from vistasks.datasets.images import read_image
from vistasks.datasets.shapes.scenes import still_scene
from vistasks.loading.batching import collate
from vistasks.models import MultiTaskModel
from vistasks.models.building import build_model
from vistasks.models.folding import fold_batchnorm
from vistasks.types import ClassNames, Prediction, Sample

HEIGHT, WIDTH, CLASSES, SCORE = 480, 640, 20, 0.05
OURS: dict[str, Any] = {
    "output": "unused",
    "data": {"format": "voc", "root": "unused"},
    "proposals": {"method": {"name": "selective_search", "mode": "fast", "max_boxes": 1000}, "cache": None},
    "model": {
        "backbone": {"name": "resnet18"},
        "neck": {"name": "fpn", "channels": 96},
        "heads": {
            "detection": {
                "name": "region_classifier",
                "align": {"stride": 8, "size": 7},
                "hidden": [256],
                "decoding": {"score": SCORE, "nms": 0.5, "max_detections": 100},
            },
            "segmentation": {"name": "fcn8s", "hidden": 0},
        },
    },
}


def benchmark(*, image: Path | None = None, threads: int = 2, rounds: int = 7) -> dict[str, Any]:
    """Median and least seconds of a picture for ours and the peers, our ratio to them, and the share of our
    stages.

    Args:
        image: a picture, scaled to 640 x 480; None: a generated one with textures and shapes.
        threads: of PyTorch and of selective search.
        rounds: timed passes of each, after one that is not timed.

    Raises:
        ValueError: fewer than one thread or round.
    """
    if threads < 1 or rounds < 1:
        raise ValueError(f"--threads and --rounds must be at least 1; received {threads} and {rounds}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _benchmark(_picture(image), image, threads, rounds)
    finally:
        torch.set_num_threads(before)


def _benchmark(picture: np.ndarray, image: Path | None, threads: int, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    ours, (detector, segmenter) = JointPass(threads), _peers()
    passes: dict[str, Callable[[np.ndarray], Any]] = {
        "ours_joint": ours,
        "fasterrcnn_mobilenet_v3_large_fpn": detector,
        "deeplabv3_mobilenet_v3_large": segmenter,
    }
    counts = {name: _boxes(run(picture)) for name, run in passes.items()}
    ours.clock.seconds.clear()
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name, run in passes.items():
            start = time.perf_counter()
            run(picture)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    apart = [sum(values) for values in zip(*(seconds[name] for name in list(passes)[1:]))]
    stages, total = ours.clock.seconds, sum(ours.clock.seconds.values())
    return {
        "picture": f"{WIDTH}x{HEIGHT}, {'generated' if image is None else image.name}",
        "trunk": OURS["model"]["backbone"]["name"],
        "classes": CLASSES,
        "weights": "random for all",
        "threads": threads,
        "rounds": rounds,
        "machine": f"{platform.machine()}, torch {torch.__version__}, torchvision {torchvision.__version__}",
        "median_seconds": {name: round(value, 4) for name, value in medians.items()},
        "least_seconds": {name: round(min(values), 4) for name, values in seconds.items()},
        "ours_over_both_median": round(
            statistics.median(a / b for a, b in zip(seconds["ours_joint"], apart)), 3
        ),
        "ours_over_both_least": round(min(seconds["ours_joint"]) / min(apart), 3),
        "our_stages_share": {name: round(value / total, 3) for name, value in stages.items()},
        "our_stages_seconds": {name: round(value / rounds, 4) for name, value in stages.items()},
        "proposals": ours.proposed,
        "boxes_found": {name: count for name, count in counts.items() if count is not None},
    }


def _picture(image: Path | None) -> np.ndarray:
    if image is None:
        return still_scene(seed=7, split="test", index=3, height=HEIGHT, width=WIDTH).image
    picture = read_image(image)
    return np.asarray(cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))


def _boxes(answer: Any) -> int | None:
    if isinstance(answer, Prediction):
        return None if answer.detections is None else len(answer.detections)
    return len(answer["boxes"]) if isinstance(answer, dict) else None


class JointPass:
    """Our model on one picture: proposals, boxes and class map, with the time of each stage."""

    def __init__(self, threads: int) -> None:
        config = parse_config(OURS)
        names = tuple(f"class {number}" for number in range(CLASSES))
        self.classes = ClassNames(names, ("background", *names))
        self.model: MultiTaskModel = (
            build_model(config.model, self.classes).to(memory_format=torch.channels_last).eval()
        )
        fold_batchnorm(self.model)
        method = {**config.proposals.method, "threads": threads}
        self.propose = build_proposals(config.proposals.model_copy(update={"method": method}))
        self.clock = StageClock(torch.device("cpu"))
        self.proposed = 0

    def __call__(self, picture: np.ndarray) -> Prediction:
        clock, model = self.clock, self.model
        sample = Sample(image_id="picture", path="picture", image=picture)
        boxes = clock.timed("proposals", lambda: self.propose(sample))
        self.proposed = len(boxes)
        sample = Sample(image_id="picture", path="picture", image=picture, proposals=boxes)
        batch = clock.timed(
            "batch", lambda: collate([sample], [sample.size], classes=self.classes, divisor=model.divisor)
        )
        with torch.inference_mode():
            features = clock.timed("trunk and neck", lambda: model.features(batch))
            found: dict[str, Any] = {}
            for task, stage, rest in (
                ("detection", "region head", "boxes"),
                ("segmentation", "map head", "class map"),
            ):
                head = model.heads[task]
                inside = clock.seconds.get(stage, 0.0)
                with clock.watching({stage: head}):
                    predict = partial(head.predict, features, batch, model.encode)
                    found[task] = clock.timed(rest, predict)[0]
                clock.add(rest, inside - clock.seconds[stage])  # what was not the head's forward pass
        return Prediction(found["detection"], found["segmentation"])


def _peers() -> tuple[Callable[[np.ndarray], Mapping[str, Any]], Callable[[np.ndarray], Any]]:
    """torchvision's two models as functions of the picture (H, W, 3) uint8, at their own default settings."""
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    random: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": CLASSES + 1}
    detector = fasterrcnn_mobilenet_v3_large_fpn(**random).eval()
    segmenter = deeplabv3_mobilenet_v3_large(**random, aux_loss=False).eval()
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )

    def tensor(picture: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(picture).permute(2, 0, 1).float() / 255

    @torch.inference_mode()
    def detect(picture: np.ndarray) -> Mapping[str, Any]:
        found: dict[str, Any] = detector([tensor(picture)])[0]
        return found

    @torch.inference_mode()
    def segment(picture: np.ndarray) -> np.ndarray:
        logits = segmenter((tensor(picture)[None] - mean) / std)["out"]
        return np.asarray(logits[0].argmax(0).to(torch.uint8).numpy())

    return detect, segment
