"""Predict, update, compute."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vistasks.batching import to_device
from vistasks.build import build_dataset, build_loader, build_pipeline
from vistasks.checkpoint import load_model
from vistasks.config import Config, Engine
from vistasks.heads.test_time import TestTime
from vistasks.metrics import CocoAveragePrecision, MeanIoU, VocAveragePrecision
from vistasks.models import MultiTaskModel
from vistasks.reports import EvaluationReport
from vistasks.types import Batch, ClassNames, Sample


def build_metrics(classes: ClassNames, tasks: Iterable[str], engine: Engine) -> dict[str, Any]:
    """The metrics of each task, by the key under which a report has them."""
    metrics: dict[str, Any] = {}
    if "detection" in tasks:
        metrics["coco"] = CocoAveragePrecision(classes.detection, engine=engine)
        metrics["voc_2007"] = VocAveragePrecision(classes.detection, form="11-point")
        metrics["voc_area"] = VocAveragePrecision(classes.detection, form="area")
    if "segmentation" in tasks:
        metrics["iou"] = MeanIoU(classes.segmentation)
    return metrics


def evaluate_model(
    model: MultiTaskModel, loader: Iterable[tuple[Batch, list[Sample]]], metrics: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """Updates the metrics over all batches; returns counts and the seconds spent in the model per image.

    The model is put into ``eval()`` mode and back.
    """
    was_training = model.training
    model.eval()
    images, seconds = 0, 0.0
    for batch, originals in loader:
        start = time.perf_counter()
        predictions = model.predict(to_device(batch, device))
        seconds += time.perf_counter() - start
        images += len(originals)
        for prediction, sample in zip(predictions, originals):
            for metric in metrics.values():
                metric.update(prediction, sample)
    model.train(was_training)
    return {"images": images, "model_seconds_per_image": seconds / max(1, images)}


# The few numbers that a run is followed by, each name with its protocol: (key of the metric, its number)
HEADLINE: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "detection": {
        "AP": ("coco", "AP"),
        "AP50": ("coco", "AP50"),
        "AP75": ("coco", "AP75"),
        "VOC2007_mAP": ("voc_2007", "mAP"),
        "VOC_mAP": ("voc_area", "mAP"),
    },
    "segmentation": {name: ("iou", name) for name in ("mIoU", "pixel_accuracy", "mean_class_accuracy")},
}


def headline(report: Mapping[str, Any]) -> dict[str, float | None]:
    """The `HEADLINE` numbers that a report has."""
    named = [item for numbers in HEADLINE.values() for item in numbers.items()]
    return {name: report[metric][number] for name, (metric, number) in named if metric in report}


def evaluate(
    config: Config,
    weights: str,
    *,
    device: str = "auto",
    track: Any = lambda loader: loader,
    test_time: TestTime | None = None,
    page: Path | None = None,
) -> dict[str, Any]:
    """The report of a trained model on the config's validation data: the metrics' results under their keys.

    Args:
        config: what data, which proposals, and how the detector decodes (``model.heads.detection.decoding``). The rest of the
            model and its input size are the checkpoint's.
        weights: a checkpoint or a run folder.
        device: "auto", "cpu" or "cuda".
        track: wraps the loader, for a progress bar.
        test_time: how each picture is looked at, in several views and windows; None: once and whole.
        page: a folder for ``report.html`` and ``report.json`` (`vistasks.reports`); what is returned has their content then.
    """
    if not config.data.evaluates:
        raise ValueError("data.val is empty: nothing says which part of the data is evaluated, such as data.val={split: val}")
    loaded = load_model(weights, device)
    if test_time is not None:
        loaded.look(test_time)
    if (decoding := config.model.heads.get("detection", {}).get("decoding")) is not None:
        loaded.decode_with(decoding)
    config = config.model_copy(update={"model": loaded.config.model, "input": loaded.config.input})
    data = build_dataset(config, "val", loaded.classes)
    tasks = list(loaded.config.model.heads)
    pipeline = build_pipeline(config, data, training=False)
    _, loader = build_loader(config, pipeline, classes=loaded.classes, divisor=loaded.model.divisor, training=False)
    metrics = build_metrics(loaded.classes, tasks, config.evaluate.engine)
    watched = dict(metrics)
    if page is not None:
        watched["page"] = collected = EvaluationReport(loaded.classes, tasks)
    counts = evaluate_model(loaded.model, track(loader), watched, loaded.device)
    report: dict[str, Any] = {"weights": str(loaded.path), "data": config.data.source("val"), **counts}
    if test_time is not None:
        report["test_time"] = asdict(test_time)
    report |= {key: metric.compute() for key, metric in metrics.items()}
    report |= {"skipped": dict(loader.skipped)} if config.data.on_error == "skip" else {}
    report["headline"] = headline(report)
    if page is not None:
        report = collected.compute(report, metrics)
        collected.write(page, report)
    return report
