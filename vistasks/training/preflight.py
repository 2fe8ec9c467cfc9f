"""What is tried before the first step, so that a run of hours does not fail on its second epoch.

Data, pictures, model, one batch, memory, disk and time: everything is looked at even where something before
it was wrong, and all problems are told together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric

from vistasks.build import build_augment, build_dataset, build_pipeline, build_sampling
from vistasks.checkpoint import Checkpoint
from vistasks.config import Config, DataConfig
from vistasks.datasets import Dataset
from vistasks.datasets.check import named_error
from vistasks.datasets.problems import DataFaults, listed
from vistasks.loading.class_weights import resolved_config, taken_over
from vistasks.loading.loader import EpochOrder, Pipeline
from vistasks.models import MultiTaskModel
from vistasks.models.building import build_model
from vistasks.system.machine import available_memory, free_disk, gigabytes
from vistasks.system.text import few
from vistasks.system.threads import best_count, given_by_environment
from vistasks.task import task_of
from vistasks.training import run_folder
from vistasks.training.fabric import build_fabric
from vistasks.training.trial import OUT_OF_MEMORY, Trial, load_batch, try_batch
from vistasks.training.validation import check_monitor
from vistasks.types import IGNORE_INDEX, Sample

Level = Literal["none", "sample", "full"]

_INSIST = "data.allow_empty=true trains all the same"
SAMPLED = 32  # pictures of each part that are read with level "sample"
_LENIENT = {"on_error": "skip", "bad_boxes": "drop", "other_classes": "drop"}


class PreflightFaults(ValueError):
    """All that was found wrong; ``problems`` has each by itself."""

    def __init__(self, problems: list[str], advice: Sequence[str] = ()) -> None:
        self.problems = problems
        total = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            "\n".join([f"{total} before the first step", listed(problems, limit=100), *dict.fromkeys(advice)])
        )


@dataclass
class _Seen:
    """What the pictures that were read have to be learnt from."""

    maps: int = 0
    labelled_maps: int = 0

    def add(self, sample: Sample) -> None:
        """Counts a picture."""
        if sample.segmentation is not None:
            self.maps += 1
            self.labelled_maps += bool((sample.segmentation != IGNORE_INDEX).any())

    def nothing(self, *, whole: bool) -> list[str]:
        """What there is nothing of, in words; ``whole``: all pictures were read."""
        if not self.maps or self.labelled_maps:
            return []
        those = "its class maps" if whole else f"the {self.maps} pictures that were read"
        return [f"only ignored pixels ({IGNORE_INDEX}) in {those}: the segmenter would learn nothing"]


@dataclass
class Preflight:
    """Looks at a run before it begins; ``problems`` would end it, ``notes`` and ``facts`` are for people.

    ``config`` becomes the one that the run goes on with; ``checkpoint`` is where it resumes.
    """

    config: Config
    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]]
    checkpoint: Checkpoint | None = None
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    data: Dataset | None = None
    val: Dataset | None = None
    model: MultiTaskModel | None = None
    unreadable: set[str] = field(default_factory=set)  # paths of pictures

    @contextmanager
    def collecting(self, *, strict: bool = False) -> Iterator[None]:
        """An error within becomes a problem; with ``strict`` it is raised as it is."""
        try:
            yield
        except (ValueError, OSError, ImportError, FloatingPointError) as error:
            if strict:
                raise
            found = error.faults if isinstance(error, DataFaults) and error.faults else [str(error)]
            self.problems += [fault for fault in found if fault not in self.problems]
            self.advice += error.advice if isinstance(error, DataFaults) else []

    def build(self, *, strict: bool) -> None:
        """Data and model; with ``strict`` the first error is raised."""
        with self.collecting(strict=strict):
            self.data = build_dataset(self.config, "train")
        if self.data is None:
            self.data = self._leniently("train")
        else:
            with self.collecting(strict=strict):
                known = None if self.checkpoint is None else self.checkpoint.written
                self.config = (
                    resolved_config(self.config, self.data)
                    if known is None
                    else _with_threads(taken_over(self.config, known), known)
                )
        if self.config.data.evaluates:
            with self.collecting(strict=strict):
                self.val = build_dataset(self.config, "val", None if self.data is None else self.data.classes)
            if self.val is None:
                self.val = self._leniently("val")
        if self.data is not None:
            with self.collecting(strict=strict):
                self.model = build_model(
                    self.config.model, self.data.classes, pretrained=self.checkpoint is None
                )

    def _leniently(self, part: str) -> Dataset | None:
        """What is left of faulty data, so that the rest can be looked at as well."""
        policies = _LENIENT if self.config.data.format in ("voc", "coco") else {"on_error": "skip"}
        data = DataConfig.model_validate({**self.config.data.model_dump(), **policies, "on_error": "skip"})
        try:
            return build_dataset(self.config.model_copy(update={"data": data}), part)
        except (ValueError, OSError):
            self.notes.append(f"the {part} images were not checked: the data could not be opened")
            return None

    def files(self, level: Level, track: Callable[[Any, str], Any] = lambda items, text: items) -> None:
        """Reads pictures and masks: all of them, or `SAMPLED` of each part, evenly spaced."""
        for part, dataset in (("train", self.data), ("val", self.val)):
            if dataset is None:
                continue
            seen = _Seen()
            count = len(dataset) if level == "full" else min(SAMPLED, len(dataset))
            bad = []
            for index in track(
                np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist(), f"reading {part}"
            ):
                try:
                    seen.add(dataset[index])
                except (ValueError, OSError) as error:
                    bad.append(named_error(dataset.paths[index], error))
                    self.unreadable.add(dataset.paths[index])
            self._nothing(part, seen.nothing(whole=count == len(dataset)))
            skips = self.config.data.on_error == "skip"
            self.facts[f"{part} files"] = f"{count} of {len(dataset)} images read, {len(bad)} unreadable"
            if skips:
                self.notes += [f"left out: {fault}" for fault in bad]
            else:
                self.problems += [fault for fault in bad if fault not in self.problems]

    def _nothing(self, part: str, found: Sequence[str]) -> None:
        """Notes what there is nothing of; a problem where it would be trained on, unless data.allow_empty."""
        for what in found:
            fault = f"the {part} part has {what}; {_INSIST}"
            certain = part == "train" and "pictures that were read" not in what
            (self.problems if certain and not self.config.data.allow_empty else self.notes).append(fault)

    def look_at_labels(self) -> None:
        """Classes without an object, and pictures that are trained on and evaluated."""
        if self.data is None:
            return
        names = self.data.classes.detection
        if names and any(task_of(task).takes_proposals for task in self.config.model.heads):
            counts: Counter[int] = Counter()
            for index in range(len(self.data)):
                counts.update(self.data.annotation(index).labels.tolist())
            self.facts["objects"] = few(f"{name} {counts[index]}" for index, name in enumerate(names))
            empty = [name for index, name in enumerate(names) if not counts[index]]
            if len(empty) == len(names):
                self._nothing("train", ["no object at all: the detector would learn background only"])
            elif empty:
                self.notes.append(f"no training image contains an object of: {few(empty)}")
        if self.val is not None and self.config.train.overfit_batches is None:
            both = sorted(set(self.data.paths) & set(self.val.paths))
            if both:
                self.notes.append(
                    f"{len(both)} images are in both training and validation data: {', '.join(both[:5])}"
                )

    def settings(self) -> None:
        """What needs neither data nor model."""
        with self.collecting():
            check_monitor(self.config)
        with self.collecting():
            build_augment(self.config)

    def trial(self) -> Trial | None:
        """One batch, and what it says about memory, disk and time."""
        config, data, model = self.config, self.data, self.model
        if data is None or model is None:
            self.notes.append("no trial batch: data or model could not be built")
            return None
        found = None
        with self.collecting():
            pipeline = build_pipeline(config, data, training=True)
            order = EpochOrder(
                len(data),
                batch_size=config.train.batch_size,
                shuffle=True,
                seed=config.seed,
                sampling=build_sampling(config, pipeline.dataset),
            )
            indices = self._readable(pipeline, [index for _, index in next(iter(order))])
            self._warm_up(pipeline, indices)
            load = partial(load_batch, pipeline, indices, data.classes, model.divisor)
            skips = config.data.on_error == "skip"
            batch, first = load(skip=skips)
            later = load(skip=skips)[1] if config.proposals.cache or config.data.cache else first
            found = try_batch(
                model, batch, self.device, self.autocast, choose_threads=self._chooses_threads()
            )
            proposes = any(task_of(task).takes_proposals for task in config.model.heads)
            if proposes and not any(len(boxes) for boxes in batch.proposals):
                self._nothing("train", ["no region proposal in its first batch; look at proposals.method"])
            self.facts["first batch"] = ", ".join(
                f"{name} {value:.4g}" for name, value in found.terms.items()
            )
            steps = len(order) // config.train.devices
            self._threads(found, later)
            self._memory(found)
            self._time(found, steps, first, later)
            self._disk(found)
        return found

    def _readable(self, pipeline: Pipeline, indices: list[int]) -> list[int]:
        """The batch's pictures, the first replaced by the largest one, which decides about memory.

        Pictures that are told as unreadable already are left out.
        """
        sizes = [pipeline.dataset.annotation(index).size or (0, 0) for index in range(len(pipeline))]
        largest = int(np.argmax([height * width for height, width in sizes]))
        wanted = list(dict.fromkeys([largest, *indices]))[: len(indices)]
        return [index for index in wanted if pipeline.dataset.paths[index] not in self.unreadable] or wanted

    def _warm_up(self, pipeline: Pipeline, indices: Sequence[int]) -> None:
        """Reads a picture that is not in the batch, if there is one, so that nothing is compiled where time is
        taken.
        """
        others = (index for index in range(len(pipeline)) if index not in indices)
        with suppress(ValueError, OSError):
            pipeline[0, next(others, indices[0])]

    def _chooses_threads(self) -> bool:
        """Another number of threads rounds in another way: a run that must give the same digits keeps its own."""
        train = self.config.train
        given = train.threads is not None or given_by_environment() or train.devices > 1
        return self.device.type == "cpu" and not given and not train.deterministic

    def _threads(self, found: Trial, load_seconds: float) -> None:
        """The number of threads that the run goes on with, where it is not given."""
        if len(found.step_seconds) == 1:
            return
        train = self.config.train
        count = best_count(found.step_seconds, loading=load_seconds, workers=train.workers)
        timed = ", ".join(f"{seconds:.2f} s with {n}" for n, seconds in sorted(found.step_seconds.items()))
        self.facts["threads"] = f"{count} for PyTorch (a batch in the model: {timed}); train.threads chooses"
        self.config = self.config.model_copy(update={"train": train.model_copy(update={"threads": count})})

    def _memory(self, found: Trial) -> None:
        train = self.config.train
        states = found.trained * (2 if train.optimizer.name == "adamw" else 1) + (
            found.weights if train.ema else 0
        )
        needed = found.weights + found.trained + states + found.activations
        parts = (
            f"weights {gigabytes(found.weights)}, gradients and optimizer {gigabytes(found.trained + states)}"
        )
        text = f"{gigabytes(needed)} for the model on {self.device} ({parts}, activations {gigabytes(found.activations)})"
        self.facts["memory"] = text
        cuda = self.device.type == "cuda"
        free = torch.cuda.mem_get_info(self.device)[0] if cuda else available_memory()
        if free is not None and needed > free:
            self.problems.append(f"memory: {text}, but {gigabytes(free)} are free; {OUT_OF_MEMORY}")

    def _time(self, found: Trial, steps: int, first: float, later: float) -> None:
        """``first`` and ``later``: seconds to load a batch in one process, in the first epoch and after it."""
        train, count = self.config.train, 0 if self.val is None else len(self.val)
        model = found.step_seconds.get(train.threads or 0, min(found.step_seconds.values()))

        def epoch(loading: float) -> float:
            return steps * (max(model, loading / train.workers) if train.workers else model + loading)

        evaluations = train.epochs // train.validate_every
        seconds = epoch(first) + (train.epochs - 1) * epoch(later)
        seconds += evaluations * count * model / (3 * train.batch_size)
        reading = f"{first:.2f} s to read it in one process" + (
            f", {later:.2f} s again" if later != first else ""
        )
        self.facts["time"] = f"about {_duration(seconds)} (a batch: {model:.2f} s in the model, {reading})"

    def _disk(self, found: Trial) -> None:
        train = self.config.train
        moments = found.trained * (2 if train.optimizer.name == "adamw" else 1)
        complete = found.weights + moments + (found.weights if train.ema else 0)
        # while a checkpoint is written the one that it replaces is still there
        needed, free = (
            complete * (self.config.checkpoint.keep + 1) + 2 * found.weights,
            free_disk(Path(self.config.output)),
        )
        folder = Path(self.config.output).absolute()
        self.facts["disk"] = f"{gigabytes(needed)} for checkpoints, {gigabytes(free)} free in {folder}"
        if needed > free:
            self.problems.append(
                f"disk: {self.facts['disk']}; free some, or choose another folder by output=..."
            )


def _with_threads(config: Config, earlier: Config) -> Config:
    """The config of a run that is gone on with: where it names no number of threads, the earlier one, so that
    it goes on bit for bit.
    """
    threads = config.train.threads or earlier.train.threads
    return config.model_copy(update={"train": config.train.model_copy(update={"threads": threads})})


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


@dataclass(frozen=True, eq=False)
class Parts:
    """What a run is made of: its config with what the data decided, and what that describes."""

    config: Config
    data: Dataset
    val: Dataset | None
    model: MultiTaskModel


def prepare(config: Config, fabric: Fabric, checkpoint: Checkpoint | None) -> Parts:
    """The parts of a run, looked at as far as ``train.preflight`` says; with several processes the first one
    looks.

    Raises `PreflightFaults` with all that is wrong, or with ``none`` the first error as it is.
    """
    level = config.train.preflight if fabric.is_global_zero else "none"
    look = Preflight(config, fabric.device, fabric.autocast, checkpoint)
    look.build(strict=level == "none")
    if level != "none":
        look.look_at_labels()
        look.files(level)
        look.trial()
        for note in look.notes:
            print(f"note         {note}")
        for name in ("threads", "memory", "disk", "time"):
            if name in look.facts:
                print(f"{name:12} {look.facts[name]}")
    if look.problems:
        raise PreflightFaults(look.problems, look.advice)
    assert look.data is not None and look.model is not None  # or there were problems
    if look.config.train.threads is not None:
        torch.set_num_threads(look.config.train.threads)
    return Parts(look.config, look.data, look.val, look.model)


def dry_run(config: Config, *, track: Callable[[Any, str], Any] = lambda items, text: items) -> Preflight:
    """Everything that comes before the first step, and nothing written; ``train.preflight: full`` reads every
    file.
    """
    look = Preflight(config, torch.device("cpu"), nullcontext)
    with look.collecting():
        fabric = build_fabric(config.train)
        look.device, look.autocast = fabric.device, fabric.autocast
    look.settings()
    with look.collecting():
        run_folder.refuse_used(Path(config.output))
    torch.manual_seed(config.seed)
    look.build(strict=False)
    look.look_at_labels()
    look.files("full" if config.train.preflight == "full" else "sample", track)
    look.trial()
    return look


def print_preflight(look: Preflight) -> int:
    """Facts, notes and problems; returns the exit code, 1 where there is a problem."""
    config, data = look.config, look.data
    print(f"run folder   {Path(config.output).resolve()}")
    if data is not None:
        print(f"data         {len(data)} training, {len(look.val) if look.val is not None else 0} evaluation")
        for task in config.model.heads:
            print(f"{task:12} {', '.join(data.classes.of(task))}")
    for name, text in look.facts.items():
        print(f"{name:12} {text}")
    for note in look.notes:
        print(f"note         {note}")
    if not look.problems:
        print("\nall checks passed; run without --dry-run to train")
        return 0
    print(f"\n{PreflightFaults(look.problems, look.advice)}")
    return 1
