"""Names -> objects: the only place where a config's strings become parts."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

import vistasks.backbones
import vistasks.heads
import vistasks.necks
import vistasks.proposals  # noqa: F401 - the four imports fill the registries
from vistasks.config import Config, ModelConfig, ProposalsConfig
from vistasks.datasets import Dataset, load_dataset
from vistasks.datasets.joined import JoinedDataset
from vistasks.datasets.subset import Subset, fold_of_pictures
from vistasks.heads.head import Head, Trunk, TrunkMismatch
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
from vistasks.loading.loader import Batches, EpochOrder, Pipeline, batches
from vistasks.loading.sampling import Sampling
from vistasks.models import MultiTaskModel
from vistasks.models.weighting import TaskWeighting
from vistasks.proposals.cache import CachedProposals
from vistasks.proposals.methods import ProposalMethod
from vistasks.registry import BACKBONES, DATASETS, HEADS, NECKS, PROPOSALS, SAMPLINGS, WEIGHTINGS, Registry
from vistasks.types import ClassNames

TASK_WORDS = {
    "detection": "detect",
    "segmentation": "segment",
}  # a model's task -> the readers' `tasks` option


def build_model(config: ModelConfig, classes: ClassNames, *, pretrained: bool = True) -> MultiTaskModel:
    """The model that a config describes.

    Args:
        config: the ``model`` section.
        classes: the class names; those of an absent head are not read.
        pretrained: False: the backbone's ``weights`` are not loaded, because a checkpoint follows.

    Raises:
        ValueError: an unknown part or option, with its path; a head that the trunk cannot serve, with the
            trunks that could.
    """
    backbone_options = dict(config.backbone)
    if not pretrained:
        backbone_options.pop("weights", None)
    backbone = _built(BACKBONES, backbone_options, where="model.backbone")
    neck, trunk = (
        None,
        Trunk(name=backbone_options["name"], channels=backbone.channels, pooling=backbone.pooling),
    )
    if config.neck is not None:
        neck = _built(NECKS, config.neck, where="model.neck", given={"in_channels": backbone.channels})
        # a neck mixes the maps, so that the trunk's pooling indices no longer belong to them
        trunk = Trunk(name=f"{trunk.name} + {config.neck['name']}", channels=neck.channels, pooling={})
    heads = {task: _build_head(task, options, trunk, classes) for task, options in config.heads.items()}
    if config.gradient_checkpointing and not backbone.can_checkpoint:
        raise ValueError(
            f"model.gradient_checkpointing: the trunk '{trunk.name}' cannot do that; set it to false"
        )
    backbone.gradient_checkpointing = config.gradient_checkpointing
    try:
        backbone.freeze(stages=config.freeze_stages, batchnorm=config.freeze_batchnorm)
    except ValueError as error:
        raise ValueError(f"model.freeze_stages: {error}") from None
    return MultiTaskModel(backbone, neck, heads, config.loss_weights, _build_weighting(config, heads))


def _build_weighting(config: ModelConfig, heads: Mapping[str, Head]) -> TaskWeighting:
    """One head alone has nothing to be weighed against: it gets the fixed weighting, whatever the config says
    of two.
    """
    options = config.weighting if len(heads) > 1 else {"name": "fixed"}
    weighting: TaskWeighting = _built(
        WEIGHTINGS, options, where="model.weighting", given={"tasks": tuple(heads)}
    )
    alone = [task for task, head in heads.items() if not head.reads_image_features]
    if weighting.reads_shared_maps and alone:
        raise ValueError(
            f"model.weighting: {options['name']} compares gradients in the maps that both heads read, and {alone[0]} passes "
            "crops of its own through the trunk (roi: warp); use fixed or uncertainty"
        )
    return weighting


def _built(
    registry: Registry, options: Mapping[str, Any], *, where: str, given: Mapping[str, Any] | None = None
) -> Any:
    """`Registry.build`, where what the part itself says of its options gets their path as well."""
    try:
        return registry.build(options, where=where, given=given)
    except TrunkMismatch:
        raise
    except (ValueError, RuntimeError) as error:  # RuntimeError: PyTorch's, of a negative width for example
        text = str(error)
        raise ValueError(text if text.startswith(f"{where}.") else f"{where}: {text}") from error


def _build_head(task: str, options: Mapping[str, Any], trunk: Trunk, classes: ClassNames) -> Any:
    names = getattr(classes, task)
    where = f"model.heads.{task}"
    if not names:
        raise ValueError(
            f"{where}: the data names no class for {task}; set data.classes or data.segmentation_classes"
        )
    try:
        head = _built(HEADS, options, where=where, given={"trunk": trunk, "classes": names})
    except TrunkMismatch as error:
        fitting = ", ".join(_trunks_for(options, names)) or "none"
        raise ValueError(f"{where}: {error}. Trunks that can (without a neck): {fitting}") from None
    if head.task != task:
        raise ValueError(
            f"{where}.name: '{options['name']}' is a {head.task} head; put it under model.heads.{head.task}"
        )
    return head


def _trunks_for(options: Mapping[str, Any], classes: tuple[str, ...]) -> list[str]:
    """The registered backbones on which this head can stand by themselves, tried without memory or
    computation.
    """
    fitting = []
    for trunk in _trunks(tuple(BACKBONES)):
        with contextlib.suppress(ValueError, RuntimeError), torch.device("meta"):
            HEADS.build(options, where="head", given={"trunk": trunk, "classes": classes})
            fitting.append(trunk.name)
    return fitting


@functools.cache
def _trunks(names: tuple[str, ...]) -> list[Trunk]:
    trunks = []
    for name in names:
        # TypeError: this backbone has required options; ImportError: it belongs to an extra that is not
        # installed
        with contextlib.suppress(TypeError, ValueError, ImportError), torch.device("meta"):
            backbone: Any = BACKBONES[name]()
            trunks.append(Trunk(name=name, channels=backbone.channels, pooling=backbone.pooling))
    return trunks


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
    """The reader's ``tasks`` follow the model's heads and its ``on_error`` the data section, unless its
    options say otherwise.
    """
    name = options.get("format")
    if not isinstance(name, str) or name not in DATASETS:  # the registry says so
        return dict(options)
    common = {"tasks": [TASK_WORDS[task] for task in config.model.heads], "on_error": config.data.on_error}
    taken = inspect.signature(DATASETS[name]).parameters
    return {**{option: value for option, value in common.items() if option in taken}, **options}


def build_pipeline(config: Config, dataset: Dataset, *, training: bool) -> Pipeline:
    """What makes a data set's samples as the network sees them; augmented and perhaps decoded small only in
    training.
    """
    propose = build_proposals(config.proposals) if "detection" in config.model.heads else None
    augmented = training and config.train.overfit_batches is None
    source: PictureSource = WholeFiles()
    if training and config.data.decode == "reduced":
        if propose is not None and propose.key is not None:
            raise ValueError(
                f"data.decode=reduced: {config.proposals.method['name']} would look at smaller pictures in training than when it "
                "predicts; use data.decode=full (data.cache keeps decoded pictures), or proposals that do not look at pixels"
            )
        source = ReducedFiles(min_side=config.input.min_side, max_side=config.input.max_side)
    sizes = picture_sizes(dataset) if config.data.cache or not isinstance(source, WholeFiles) else []
    if config.data.cache == "ram":
        source = RamCache(source, dataset.paths, sizes)
    elif config.data.cache == "disk":
        source = DiskCache(source, config.data.cache_folder)
    if sizes:
        dataset = PicturesFrom(dataset, source, sizes)
    scales = (
        tuple(config.input.train_scales)
        if augmented
        else (1.0 if training else config.input.predict_scale or 1.0,)
    )
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
        pipeline, order, classes=classes, divisor=divisor, workers=workers, on_error=on_error
    )


def build_sampling(config: Config, dataset: Dataset) -> Sampling:
    """The order in which training pictures come."""
    sampling: Sampling = _built(
        SAMPLINGS, config.train.sampling, where="train.sampling", given={"dataset": dataset}
    )
    return sampling


def build_proposals(config: ProposalsConfig) -> ProposalMethod:
    """The proposal method of a config, behind its cache if it has one."""
    method: ProposalMethod = _built(PROPOSALS, config.method, where="proposals.method")
    return method if config.cache is None or method.key is None else CachedProposals(method, config.cache)


def build_augment(config: Config) -> Augment | None:
    """The training augmentation, or None where the config has none."""
    return Augment(config.augment, where="augment") if config.augment else None
