"""Names -> objects: the only place where a config's strings become parts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from vistasks.config import Config, ProposalsConfig
from vistasks.datasets import Dataset, load_dataset
from vistasks.datasets.joined import JoinedDataset
from vistasks.datasets.subset import Subset, fold_of_pictures
from vistasks.loading.augment import Augment
from vistasks.loading.image_sources import (
    DiskCache,
    PicturesFrom,
    PictureSource,
    RamCache,
    ReducedFiles,
    WholeFiles,
    picture_sizes,
)
from vistasks.loading.loader import Batches, Collate, EpochOrder, Pipeline, batches
from vistasks.loading.sampling import Sampling
from vistasks.models.building import build_model
from vistasks.proposals.cache import CachedProposals
from vistasks.proposals.methods import ProposalMethod
from vistasks.registry import DATASETS, PROPOSALS, SAMPLINGS, build_part
from vistasks.task import task_of
from vistasks.types import ClassNames

__all__ = [
    "build_augment",
    "build_dataset",
    "build_loader",
    "build_model",
    "build_pipeline",
    "build_proposals",
    "build_sampling",
]


def build_dataset(config: Config, part: str, classes: ClassNames | None = None) -> Dataset:
    """The training or validation data of a config, over one common list of class names.

    Args:
        config: the experiment.
        part: "train" (with the sets of ``data.also``) or "val". With ``data.folds`` both come from the
            training part; with ``train.overfit_batches`` both are the same few training pictures.
        classes: the class names to map onto; None: those of the data, in order of appearance.
    """
    folds, few, training = (
        config.data.folds,
        config.train.overfit_batches,
        part == "train" or config.train.overfit_batches,
    )
    sources = [("data", config.data.source("train" if training or folds else "val"))]
    if training:
        sources += [(f"data.also.{index}", options) for index, options in enumerate(config.data.also)]
    datasets: list[Dataset] = [
        load_dataset(_with_policies(options, config), where=where) for where, options in sources
    ]
    if folds is not None:
        held_out = fold_of_pictures(datasets[0], folds.count, seed=folds.seed) == folds.fold
        datasets[0] = Subset(datasets[0], np.flatnonzero(~held_out if training else held_out))
    dataset = JoinedDataset(datasets, classes)
    if few is None:
        return dataset
    wanted = few * config.train.batch_size * config.train.devices
    return Subset(dataset, np.random.default_rng(config.seed).permutation(len(dataset))[:wanted])


def _with_policies(options: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The reader's ``tasks`` follow the model's heads, its ``on_error`` and ``max_pixels`` the data section,
    unless its options say otherwise.
    """
    name = options.get("format")
    if not isinstance(name, str) or name not in DATASETS:  # the registry says so
        return dict(options)
    read = [task for task in map(task_of, config.model.heads) if task.read]
    common: dict[str, Any] = {"on_error": config.data.on_error, "max_pixels": config.data.max_pixels}
    if read:
        common["tasks"] = [task.verb for task in read]
    taken = inspect.signature(DATASETS[name]).parameters
    return {**{option: value for option, value in common.items() if option in taken}, **options}


def build_pipeline(config: Config, dataset: Dataset, *, training: bool, scaled: bool = True) -> Pipeline:
    """Makes a data set's samples as the network sees them.

    Only training augments them and may decode images at a reduced size. ``scaled=False`` leaves them at the
    size of their files, for a loader that is given a ``prepare`` of its own.
    """
    wanted = any(task_of(task).takes_proposals for task in config.model.heads)
    propose = build_proposals(config.proposals) if wanted else None
    augmented = training and config.train.overfit_batches is None
    source: PictureSource = WholeFiles(config.data.max_pixels)
    if training and config.data.decode == "reduced":
        if propose is not None and propose.key is not None:
            raise ValueError(
                f"data.decode=reduced: {config.proposals.method['name']} would look at smaller images in training than when it "
                "predicts; use data.decode=full (data.cache keeps decoded images), or proposals that do not look at pixels"
            )
        source = ReducedFiles(
            min_side=config.input.min_side,
            max_side=config.input.max_side,
            max_pixels=config.data.max_pixels,
        )
    sizes = []
    if config.data.cache or not isinstance(source, WholeFiles):
        sizes = picture_sizes(dataset, max_pixels=config.data.max_pixels)
    if config.data.cache == "ram":
        source = RamCache(source, dataset.paths, sizes)
    elif config.data.cache == "disk":
        source = DiskCache(source, config.data.cache_folder)
    if sizes:
        dataset = PicturesFrom(dataset, source, sizes)
    scales: tuple[float, ...] = (1.0,) if training else (config.input.predict_scale or 1.0,)
    if augmented:
        scales = tuple(config.input.train_scales)
    if not scaled:
        scales = ()
    return Pipeline(
        dataset, propose, build_augment(config) if augmented else None, config.input, config.seed, scales
    )


def build_loader(
    config: Config,
    pipeline: Pipeline,
    *,
    classes: ClassNames,
    divisor: int,
    training: bool,
    rank: int = 0,
    world: int = 1,
    prepare: Collate | None = None,
) -> tuple[EpochOrder, Batches]:
    """The batches of one of ``world`` processes, and their order, whose ``epoch`` and ``start`` are set
    before each pass.
    """
    order = EpochOrder(
        len(pipeline),
        batch_size=config.train.batch_size if training else config.evaluate.batch_size,
        shuffle=training,
        seed=config.seed,
        rank=rank,
        world=world,
        sampling=build_sampling(config, pipeline.dataset) if training else None,
    )
    workers = config.train.workers if training else min(1, config.train.workers)
    on_error = config.data.on_error
    return order, batches(
        pipeline,
        order,
        classes=classes,
        divisor=divisor,
        workers=workers,
        on_error=on_error,
        prepare=prepare,
    )


def build_sampling(config: Config, dataset: Dataset) -> Sampling:
    """The order in which training pictures come."""
    sampling: Sampling = build_part(
        SAMPLINGS, config.train.sampling, where="train.sampling", given={"dataset": dataset}
    )
    return sampling


def build_proposals(config: ProposalsConfig) -> ProposalMethod:
    """The proposal method of a config, behind its cache if it has one."""
    method: ProposalMethod = build_part(PROPOSALS, config.method, where="proposals.method")
    return method if config.cache is None or method.key is None else CachedProposals(method, config.cache)


def build_augment(config: Config) -> Augment | None:
    """The training augmentation, or None where the config has none."""
    return Augment(config.augment, where="augment") if config.augment else None
