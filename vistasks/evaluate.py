"""Predict, update, compute."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vistasks.batching import to_device
from vistasks.build import build_dataset, build_loader, build_pipeline
from vistasks.config import Config, Engine
from vistasks.ensemble import Ensemble, EnsembleModel, load_models
from vistasks.heads.test_time import TestTime
from vistasks.metrics import CocoAveragePrecision, MeanIoU, VocAveragePrecision
from vistasks.models import MultiTaskModel
from vistasks.ops.box_fusion import BoxFusion
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
    model: MultiTaskModel | EnsembleModel,
    loader: Iterable[tuple[Any, list[Sample]]],
    metrics: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    """Updates the metrics over all batches; returns counts and the seconds spent in the model per image.

    The model is put into ``eval()`` mode and back.
    """
    was_training = model.training
    model.eval()
    images, seconds = 0, 0.0
    for batch, originals in loader:
        start = time.perf_counter()
        placed: Any = to_device(batch, device) if isinstance(batch, Batch) else batch
        predictions = model.predict(placed)
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
    weights: str | Sequence[str],
    *,
    device: str = "auto",
    track: Any = lambda loader: loader,
    test_time: TestTime | None = None,
    fusion: BoxFusion = BoxFusion(),  # noqa: B008 - frozen
    page: Path | None = None,
    gain: bool = False,
) -> dict[str, Any]:
    """The report of a trained model on the config's validation data: the metrics' results under their keys.

    Args:
        config: what data, which proposals, and how the detector decodes (``model.heads.detection.decoding``). The rest of the
            model and its input size are the checkpoint's.
        weights: a checkpoint or a run folder; several answer together (`vistasks.ensemble`).
        device: "auto", "cpu" or "cuda".
        track: wraps the loader, for a progress bar.
        test_time: how each picture is looked at, in several views and windows; None: once and whole.
        fusion: how the boxes of several models become one set.
        page: a folder for ``report.html`` and ``report.json`` (`vistasks.reports`); what is returned has their content then.
        gain: evaluate each model alone and in one view as well; "gain" of the report has what each gets and costs.
    """
    weights = [weights] if isinstance(weights, str) else list(weights)
    if gain and len(weights) < 2 and (test_time is None or test_time == TestTime()):
        raise ValueError("--gain: there is nothing to compare: give several --weights, or --tta")
    if not config.data.evaluates:
        raise ValueError("data.val is empty: nothing says which part of the data is evaluated, such as data.val={split: val}")
    loaded = load_models(weights, device, fusion)
    alone = [evaluate(config, path, device=device, track=track) for path in weights] if gain else []
    if test_time is not None:
        loaded.look(test_time)
    if (decoding := config.model.heads.get("detection", {}).get("decoding")) is not None:
        loaded.decode_with(decoding)
    first = loaded.members[0] if isinstance(loaded, Ensemble) else loaded
    model = first.config.model.model_copy(update={"heads": dict(loaded.heads)})
    config = config.model_copy(update={"model": model, "input": first.config.input})
    data = build_dataset(config, "val", loaded.classes)
    tasks = list(loaded.heads)
    pipeline = build_pipeline(config, data, training=False)
    _, loader = build_loader(config, pipeline, classes=loaded.classes, divisor=first.model.divisor, training=False)
    metrics = build_metrics(loaded.classes, tasks, config.evaluate.engine)
    watched = dict(metrics)
    if page is not None:
        watched["page"] = collected = EvaluationReport(loaded.classes, tasks)
    batches = _for_members(track(loader), loaded) if isinstance(loaded, Ensemble) else track(loader)
    counts = evaluate_model(loaded.model, batches, watched, loaded.device)
    paths = [str(path) for path in loaded.paths]
    report: dict[str, Any] = {"weights": paths[0] if len(paths) == 1 else paths, "data": config.data.source("val"), **counts}
    if len(paths) > 1:
        report["fusion"] = asdict(fusion)
    if test_time is not None:
        report["test_time"] = asdict(test_time)
    report |= {key: metric.compute() for key, metric in metrics.items()}
    report |= {"skipped": dict(loader.skipped)} if config.data.on_error == "skip" else {}
    report["headline"] = headline(report)
    if gain:
        report["gain"] = [_cost(one, one["weights"]) for one in alone]
        report["gain"].append(_cost(report, together(len(weights), test_time)))
    if page is not None:
        report = collected.compute(report, metrics)
        collected.write(page, report)
    return report


def _for_members(loader: Iterable[tuple[Batch, list[Sample]]], ensemble: Ensemble) -> Iterator[tuple[list[Batch], list[Sample]]]:
    """Each batch as every member wants it, from the pictures and the proposals that the loader has read."""
    for _, originals in loader:
        proposals = [sample.proposals for sample in originals if sample.proposals is not None]
        yield ensemble.make_batch([sample.image for sample in originals], proposals or None), originals


def _cost(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A row of "gain": what was got, and the seconds a picture that it took in the model."""
    return {"name": name, "numbers": report["headline"], "seconds": report["model_seconds_per_image"]}


def together(models: int, test_time: TestTime | None) -> str:
    """In words for a person: for example "all 3, --tta flip,0.75"."""
    views = ["flip"] * test_time.flip + [f"{scale:g}" for scale in test_time.scales] if test_time is not None else []
    window = [f"--window {test_time.window}"] if test_time is not None and test_time.window is not None else []
    return ", ".join([*([f"all {models}"] if models > 1 else []), *([f"--tta {','.join(views)}"] if views else []), *window])
