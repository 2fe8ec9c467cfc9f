"""Names -> objects: the only place where a config's strings become parts."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch

import vistasks.backbones
import vistasks.heads
import vistasks.necks
import vistasks.proposals  # noqa: F401 - the four imports fill the registries
from vistasks.augment import Augment
from vistasks.config import Config, ModelConfig, ProposalsConfig
from vistasks.datasets import Dataset, load_dataset
from vistasks.datasets.joined import JoinedDataset
from vistasks.heads.head import Head, Trunk, TrunkMismatch
from vistasks.models import MultiTaskModel
from vistasks.models.weighting import TaskWeighting
from vistasks.proposals.cache import CachedProposals
from vistasks.proposals.methods import ProposalMethod
from vistasks.registry import BACKBONES, DATASETS, HEADS, NECKS, PROPOSALS, WEIGHTINGS, Registry
from vistasks.types import ClassNames

TASK_WORDS = {"detection": "detect", "segmentation": "segment"}  # a model's task -> the readers' `tasks` option


def build_model(config: ModelConfig, classes: ClassNames, *, pretrained: bool = True) -> MultiTaskModel:
    """The model that a config describes.

    Args:
        config: the ``model`` section.
        classes: the class names; those of an absent head are not read.
        pretrained: False: the backbone's ``weights`` are not loaded, because a checkpoint follows.

    Raises:
        ValueError: an unknown part or option, with its path; a head that the trunk cannot serve, with the trunks that could.
    """
    backbone_options = dict(config.backbone)
    if not pretrained:
        backbone_options.pop("weights", None)
    backbone = _built(BACKBONES, backbone_options, where="model.backbone")
    neck, trunk = None, Trunk(name=backbone_options["name"], channels=backbone.channels, pooling=backbone.pooling)
    if config.neck is not None:
        neck = _built(NECKS, config.neck, where="model.neck", given={"in_channels": backbone.channels})
        # a neck mixes the maps, so that the trunk's pooling indices no longer belong to them
        trunk = Trunk(name=f"{trunk.name} + {config.neck['name']}", channels=neck.channels, pooling={})
    heads = {task: _build_head(task, options, trunk, classes) for task, options in config.heads.items()}
    try:
        backbone.freeze(stages=config.freeze_stages, batchnorm=config.freeze_batchnorm)
    except ValueError as error:
        raise ValueError(f"model.freeze_stages: {error}") from None
    return MultiTaskModel(backbone, neck, heads, config.loss_weights, _build_weighting(config, heads))


def _build_weighting(config: ModelConfig, heads: Mapping[str, Head]) -> TaskWeighting:
    """One head alone has nothing to be weighed against: it gets the fixed weighting, whatever the config says of two."""
    options = config.weighting if len(heads) > 1 else {"name": "fixed"}
    weighting: TaskWeighting = _built(WEIGHTINGS, options, where="model.weighting", given={"tasks": tuple(heads)})
    alone = [task for task, head in heads.items() if not head.reads_image_features]
    if weighting.reads_shared_maps and alone:
        raise ValueError(
            f"model.weighting: {options['name']} compares gradients in the maps that both heads read, and {alone[0]} passes "
            "crops of its own through the trunk (roi: warp); use fixed or uncertainty"
        )
    return weighting


def _built(registry: Registry, options: Mapping[str, Any], *, where: str, given: Mapping[str, Any] | None = None) -> Any:
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
        raise ValueError(f"{where}: the data names no class for {task}; set data.classes or data.segmentation_classes")
    try:
        head = _built(HEADS, options, where=where, given={"trunk": trunk, "classes": names})
    except TrunkMismatch as error:
        fitting = ", ".join(_trunks_for(options, names)) or "none"
        raise ValueError(f"{where}: {error}. Trunks that can (without a neck): {fitting}") from None
    if head.task != task:
        raise ValueError(f"{where}.name: '{options['name']}' is a {head.task} head; put it under model.heads.{head.task}")
    return head


def _trunks_for(options: Mapping[str, Any], classes: tuple[str, ...]) -> list[str]:
    """The registered backbones on which this head can stand by themselves, tried without memory or computation."""
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
        # TypeError: this backbone has required options; ImportError: it belongs to an extra that is not installed
        with contextlib.suppress(TypeError, ValueError, ImportError), torch.device("meta"):
            backbone: Any = BACKBONES[name]()
            trunks.append(Trunk(name=name, channels=backbone.channels, pooling=backbone.pooling))
    return trunks


def build_dataset(config: Config, part: str, classes: ClassNames | None = None) -> Dataset:
    """The training or validation data of a config, over one common list of class names.

    Args:
        config: the experiment.
        part: "train" (with the sets of ``data.also``) or "val".
        classes: the class names to map onto; None: those of the data, in order of appearance.
    """
    sources = [("data", config.data.source("train" if part == "train" else "val"))]
    if part == "train":
        sources += [(f"data.also.{index}", options) for index, options in enumerate(config.data.also)]
    datasets = [load_dataset(_with_tasks(options, config), where=where) for where, options in sources]
    return JoinedDataset(datasets, classes)


def _with_tasks(options: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The reader's ``tasks`` follow the model's heads unless the config says otherwise."""
    name = options.get("format")
    known = isinstance(name, str) and name in DATASETS  # if not, the registry says so
    if "tasks" in options or not known or "tasks" not in inspect.signature(DATASETS[str(name)]).parameters:
        return dict(options)
    return {**options, "tasks": [TASK_WORDS[task] for task in config.model.heads]}


def build_proposals(config: ProposalsConfig) -> ProposalMethod:
    """The proposal method of a config, behind its cache if it has one."""
    method: ProposalMethod = _built(PROPOSALS, config.method, where="proposals.method")
    return method if config.cache is None or method.key is None else CachedProposals(method, config.cache)


def build_augment(config: Config) -> Augment | None:
    """The training augmentation, or None where the config has none."""
    return Augment(config.augment, where="augment") if config.augment else None
