"""Our metrics on what torchvision's Faster R-CNN says of generated pictures, against pycocotools on the same
boxes.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from tests.metrics.scenes import Scene, detections
from tests.metrics.test_coco_ap import as_json, pycocotools_stats
from vistasks.datasets.shapes.drawing import CLASSES
from vistasks.datasets.shapes.scenes import scene_objects, still_scene
from vistasks.metrics import CocoAveragePrecision, VocAveragePrecision
from vistasks.metrics.coco_ap import TWELVE
from vistasks.types import Labelled, Sample


def pictures(split: str, count: int) -> list[Sample]:
    found = []
    for index in range(count):
        scene = still_scene(seed=7, split=split, index=index, height=240, width=320)
        boxes = np.array([o.box for o in scene_objects(scene)], dtype=np.float32).reshape(-1, 4)
        labels = np.array([o.label for o in scene_objects(scene)], dtype=np.int64)
        everything = Labelled(detection=frozenset(range(len(CLASSES))))
        found.append(
            Sample(
                f"{split} {index}",
                f"{index}.png",
                scene.image,
                boxes=boxes,
                labels=labels,
                labelled=everything,
            )
        )
    return found


def tensor(sample: Sample) -> Tensor:
    return torch.from_numpy(sample.image).permute(2, 0, 1).float() / 255


def detector() -> Any:
    torch.manual_seed(0)
    random: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": len(CLASSES) + 1}
    return fasterrcnn_mobilenet_v3_large_320_fpn(**random, min_size=240, max_size=320, box_score_thresh=0.0)


def scenes_of(model: Any, samples: list[Sample]) -> list[Scene]:
    model.eval()
    with torch.inference_mode():
        found = [model([tensor(sample)])[0] for sample in samples]
    # torchvision's class 0 is the background
    return [
        (detections(f["boxes"], f["scores"], f["labels"] - 1, CLASSES), s) for f, s in zip(found, samples)
    ]


def trained(steps: int) -> Any:
    model, samples = detector().train(), [s for s in pictures("train", 40) if len(s.boxes)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for step in range(steps):
        chosen = [samples[(2 * step + i) % len(samples)] for i in range(2)]
        targets = [
            {"boxes": torch.from_numpy(s.boxes), "labels": torch.from_numpy(s.labels) + 1} for s in chosen
        ]
        loss = torch.stack(list(model([tensor(s) for s in chosen], targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def check_coco(scenes: list[Scene], engine: str) -> dict[str, Any]:
    metric = CocoAveragePrecision(CLASSES, engine=engine)
    for prediction, truth in scenes:
        metric.update(prediction, truth)
    result = metric.compute()
    truth, results = as_json(scenes)
    truth["categories"] = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    expected = pycocotools_stats(truth, results)
    assert {name: result[name] for name in TWELVE} == pytest.approx(expected, abs=1e-9)
    return result


def check_voc(scenes: list[Scene]) -> None:
    """pycocotools with VOC's eleven recall levels at IoU .5 is VOC's 11-point AP, where no two objects
    compete for a box.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, results = as_json(scenes)
    truth["categories"] = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = truth
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(results), "bbox")
        evaluation.params.iouThrs, evaluation.params.recThrs = np.array([0.5]), np.linspace(0, 1, 11)
        evaluation.evaluate()
        evaluation.accumulate()
    expected = evaluation.eval["precision"][0, :, :, 0, -1].mean(axis=0)  # (classes,)
    metric = VocAveragePrecision(CLASSES, form="11-point")
    for prediction, sample in scenes:
        metric.update(prediction, sample)
    found = metric.compute()["per_class"]
    assert [found[name]["AP"] for name in CLASSES] == pytest.approx(list(expected), abs=1e-9)


def test_a_random_faster_rcnn() -> None:
    scenes = scenes_of(detector(), pictures("test", 6))
    assert sum(len(prediction.detections or ()) for prediction, _ in scenes) > 100
    check_coco(scenes, "hotcoco")


@pytest.mark.slow
def test_a_faster_rcnn_trained_for_a_minute_or_two() -> None:
    scenes = scenes_of(trained(150), pictures("test", 30))
    for engine in ("hotcoco", "pycocotools"):
        result = check_coco(scenes, engine)
    assert result["AP50"] > 0.01, "it has learnt something, so that the numbers are not those of noise"
    check_voc(scenes)
