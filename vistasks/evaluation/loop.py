"""Predict, update, compute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vistasks.build import build_dataset, build_loader, build_pipeline
from vistasks.config import Config, Engine, to_json
from vistasks.config.files import flat
from vistasks.datasets import Dataset
from vistasks.evaluation.prediction_log import PredictionLog, Step, data_facts, file_digest
from vistasks.evaluation.reports import EvaluationReport
from vistasks.heads.test_time import TestTime
from vistasks.inference.ensemble import Ensemble, EnsembleModel, load_models
from vistasks.loading.batching import to_device
from vistasks.metrics.metric import Metric
from vistasks.models import MultiTaskModel
from vistasks.ops.box_fusion import BoxFusion
from vistasks.system.locks import owned
from vistasks.system.version import VERSION
from vistasks.task import all_tasks, task_of
from vistasks.types import Batch, ClassNames, Sample

Steps = Iterator[Step]


def build_metrics(classes: ClassNames, tasks: Iterable[str], engine: Engine) -> dict[str, Any]:
    """The metrics of each task, by the key under which a report has them."""
    names = list(tasks)
    metrics: dict[str, Any] = {}
    for task in names:
        metrics |= task_of(task).metrics(classes, names, engine)
    return metrics


def order_metrics(metrics: Mapping[str, Any], data: Dataset) -> None:
    """Lets AP take the images as COCO's own code does, by the ids of the file, where the data set has them:
    with equal scores AP depends on the order.
    """
    numbers = getattr(data, "numbers", None)
    if numbers is not None:
        ids = [data.ids[index] for index in np.argsort(numbers, kind="stable").tolist()]
        for metric in metrics.values():
            if isinstance(metric, Metric):
                metric.order(ids)


def evaluate_model(
    model: MultiTaskModel,
    loader: Iterable[tuple[Batch, list[Sample]]],
    metrics: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    """Updates the metrics over all batches; returns counts and the seconds spent in the model per image.

    The model is put into ``eval()`` mode and back.
    """
    return _tally(_predicted(model, loader, device), metrics)


def _predicted(
    model: MultiTaskModel | EnsembleModel, loader: Iterable[tuple[Any, list[Sample]]], device: torch.device
) -> Steps:
    was_training = model.training
    model.eval()
    for batch, originals in loader:
        start = time.perf_counter()
        predictions = model.predict(_placed(batch, device))
        yield Step(predictions, originals, time.perf_counter() - start)
    model.train(was_training)


def _placed(batch: Any, device: torch.device) -> Any:
    """A batch, or each member's batch of an ensemble, on the device."""
    if isinstance(batch, list):
        return [_placed(own, device) for own in batch]
    return to_device(batch, device) if isinstance(batch, Batch) else batch


def _tally(steps: Iterable[Step], metrics: Mapping[str, Any]) -> dict[str, Any]:
    images, seconds = 0, 0.0
    for predictions, samples, taken in steps:
        seconds += taken
        images += len(samples)
        for prediction, sample in zip(predictions, samples):
            for metric in metrics.values():
                metric.update(prediction, sample)
    return {"images": images, "model_seconds_per_image": seconds / max(1, images)}


def headline(report: Mapping[str, Any]) -> dict[str, float | None]:
    """The few numbers that a run is followed by, those of them that a report has; see `Task.headline`."""
    named = [item for task in all_tasks() for item in task.headline.items()]
    return {name: report[metric][number] for name, (metric, number) in named if metric in report}


def evaluate(
    config: Config,
    weights: str | Sequence[str],
    *,
    device: str = "auto",
    track: Callable[[Steps, int], Iterable[Step]] = lambda steps, total: steps,
    test_time: TestTime | None = None,
    fusion: BoxFusion = BoxFusion(),  # noqa: B008 - frozen
    votes: Sequence[float] | None = None,
    page: Path | None = None,
    gain: bool = False,
    resume: bool = False,
    trust: bool = False,
) -> dict[str, Any]:
    """The report of a trained model on the config's validation data: the metrics' results under their keys.

    Args:
        config: what data, which proposals, how the detector decodes (``model.heads.detection.decoding``), and
            ``input.predict_scale`` where it is given. The rest of the model and its input size are the
            checkpoint's.
        weights: a checkpoint or a run folder; several answer together (`vistasks.inference.ensemble`).
        device: "auto", "cpu" or "cuda".
        track: wraps the batches, so many, for a progress bar.
        test_time: how each picture is looked at, in several views and windows; None: once and whole.
        fusion: how the boxes of several models become one set.
        votes: of each of several models, over 0: what it counts; None: all the same.
        page: a folder for ``report.html`` and ``report.json`` (`vistasks.evaluation.reports`); what is
            returned has their content then. The predictions are kept there as they come.
        gain: evaluate each model alone and in one view as well; "gain" of the report has what each gets and
            costs.
        resume: take the predictions that ``page`` has of an evaluation that was cut off, and make the others.
        trust: the checkpoints' configs may ask for any sizes.
    """
    weights = [weights] if isinstance(weights, str) else list(weights)
    _check(config, weights, test_time, gain=gain, resume=resume, page=page)
    with owned(page) if page is not None else nullcontext():
        evaluation = _Evaluation(config, weights, device, test_time, fusion, votes, trust=trust)
        alone: list[dict[str, Any]] = []
        for number, path in enumerate(weights if gain else [], 1):
            log = None if page is None else page / f"alone_{number}.jsonl"
            single = _Evaluation(config, [path], device, None, fusion, trust=trust)
            alone.append(single.run(track, log=log, resume=resume))
        collected = (
            EvaluationReport(evaluation.loaded.classes, evaluation.tasks) if page is not None else None
        )
        report = evaluation.run(
            track, page=collected, log=None if page is None else page / "predictions.jsonl", resume=resume
        )
        if gain:
            report["gain"] = [_cost(one, one["weights"]) for one in alone]
            report["gain"].append(_cost(report, ensemble_name(len(weights), test_time, votes)))
        if page is not None and collected is not None:
            report = collected.compute(report, evaluation.metrics)
            collected.write(page, report)
        return report


def _check(
    config: Config,
    weights: Sequence[str],
    test_time: TestTime | None,
    *,
    gain: bool,
    resume: bool,
    page: Path | None,
) -> None:
    if gain and len(weights) < 2 and (test_time is None or test_time == TestTime()):
        raise ValueError("--gain: nothing to compare; give several --weights, or --tta")
    if resume and page is None:
        raise ValueError("--resume needs --report: its folder holds the predictions")
    if not config.data.evaluates:
        raise ValueError("data.val is empty: set the part to evaluate, such as data.val={split: val}")


class _Evaluation:
    """Models and the data that they are evaluated on; see `evaluate`."""

    def __init__(
        self,
        config: Config,
        weights: Sequence[str],
        device: str,
        test_time: TestTime | None,
        fusion: BoxFusion,
        votes: Sequence[float] | None = None,
        *,
        trust: bool = False,
    ) -> None:
        self.loaded = loaded = load_models(
            weights, device, fusion, votes, trust=trust, proposals=config.proposals
        )
        self.test_time = test_time
        self.fusion = (
            asdict(fusion) | {"votes": list(loaded.model.votes)} if isinstance(loaded, Ensemble) else None
        )
        if test_time is not None:
            loaded.look(test_time)
        options = {task: head.get("decoding") for task, head in config.model.heads.items()}
        self.decoding = {task: decoding for task, decoding in options.items() if decoding is not None}
        for decoding in self.decoding.values():
            loaded.decode_with(decoding)
        if config.input.predict_scale is not None:
            loaded.predict_at(config.input.predict_scale)
        first = loaded.members[0] if isinstance(loaded, Ensemble) else loaded
        model = first.config.model.model_copy(update={"heads": dict(loaded.heads)})
        self.config = config.model_copy(update={"model": model, "input": first.config.input})
        self.tasks = list(loaded.heads)
        self.data = build_dataset(self.config, "val", loaded.classes)
        pipeline = build_pipeline(self.config, self.data, training=False, scaled=False)
        self.order, self.loader = build_loader(
            self.config,
            pipeline,
            classes=loaded.classes,
            divisor=first.model.divisor,
            training=False,
            prepare=loaded.prepare,
        )
        self.metrics = build_metrics(loaded.classes, self.tasks, config.evaluate.engine)
        order_metrics(self.metrics, self.data)

    def run(
        self,
        track: Callable[[Steps, int], Iterable[Step]],
        *,
        page: EvaluationReport | None = None,
        log: Path | None = None,
        resume: bool = False,
    ) -> dict[str, Any]:
        """The report; ``page`` is fed beside the metrics, predictions are kept in ``log``."""
        watched = self.metrics if page is None else {**self.metrics, "page": page}
        steps = self._steps() if log is None else self._logged_steps(log, resume)
        counts = _tally(track(steps, len(self.order)), watched)
        paths = [str(path) for path in self.loaded.paths]
        report: dict[str, Any] = {
            "weights": paths[0] if len(paths) == 1 else paths,
            "data": self.config.data.source("val"),
        }
        report |= counts
        if self.fusion is not None:
            report["fusion"] = self.fusion
        if self.test_time is not None:
            report["test_time"] = asdict(self.test_time)
        report |= {key: metric.compute() for key, metric in self.metrics.items()}
        report |= {"skipped": dict(self.loader.skipped)} if self.config.data.on_error == "skip" else {}
        return {**report, "headline": headline(report)}

    def _steps(self) -> Steps:
        return _predicted(self.loaded.model, self.loader, self.loaded.device)

    def _logged_steps(self, path: Path, resume: bool) -> Steps:
        log = PredictionLog(path, self._facts(), batch_size=self.config.evaluate.batch_size, resume=resume)
        try:
            yield from log.replay(self.data, self.loaded.classes)
            self.order.start = log.batches
            self.loader.skipped |= log.skipped
            for step in self._steps() if log.batches < len(self.order) else ():
                log.append(step, self.loader.skipped)
                yield step
        finally:
            log.close()

    def _facts(self) -> dict[str, Any]:
        """All that predictions depend on; the computer itself is left out."""
        values = to_json(self.config)
        chosen = {"seed": values["seed"], "data": values["data"], "evaluate": values["evaluate"]}
        return {
            "vistasks": VERSION,
            "device": self.loaded.device.type,
            "weights": ", ".join(file_digest(path) for path in self.loaded.paths),
            "views": self.test_time and asdict(self.test_time),
            "fusion": self.fusion,
            **flat({**chosen, "proposals": {"method": values["proposals"]["method"]}}),
            **{f"model.heads.{task}.decoding": self.decoding.get(task) for task in self.tasks},
            "input.predict_scale": self.config.input.predict_scale,
            **data_facts(self.data),
        }


def _cost(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A row of "gain": what was got, and the seconds a picture that it took in the model."""
    return {"name": name, "numbers": report["headline"], "seconds": report["model_seconds_per_image"]}


def ensemble_name(models: int, test_time: TestTime | None, votes: Sequence[float] | None) -> str:
    """In words for a person: for example "all 3, --votes 3,1,1, --tta flip,0.75"."""
    shares = [] if votes is None else [f"--votes {','.join(f'{vote:g}' for vote in votes)}"]
    views = (
        ["flip"] * test_time.flip + [f"{scale:g}" for scale in test_time.scales]
        if test_time is not None
        else []
    )
    window = (
        [f"--window {test_time.window}"] if test_time is not None and test_time.window is not None else []
    )
    names = [f"all {models}", *shares] if models > 1 else []
    return ", ".join([*names, *([f"--tta {','.join(views)}"] if views else []), *window])
