"""A config's ``model`` section -> a model, and a checkpoint's weights into it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from vistasks.config import ModelConfig
from vistasks.heads.head import Head, Trunk, TrunkMismatch
from vistasks.models import MultiTaskModel
from vistasks.models.weighting import TaskWeighting
from vistasks.registry import BACKBONES, HEADS, NECKS, WEIGHTINGS, build_part
from vistasks.task import task_of
from vistasks.types import ClassNames

_COUNTED: ContextVar[dict[str, int] | None] = ContextVar("counted", default=None)  # see `at_most`
# what a tensor of the model may be in a file: other precisions, but no other kind of number
_ALIKE = {torch.float32: (torch.float32, torch.float16, torch.bfloat16, torch.float64)}


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
    backbone = build_part(BACKBONES, backbone_options, where="model.backbone")
    neck, trunk = (
        None,
        Trunk(name=backbone_options["name"], channels=backbone.channels, pooling=backbone.pooling),
    )
    if config.neck is not None:
        neck = build_part(NECKS, config.neck, where="model.neck", given={"in_channels": backbone.channels})
        # a neck mixes the maps, so that the trunk's pooling indices no longer belong to them
        trunk = Trunk(name=f"{trunk.name} + {config.neck['name']}", channels=neck.channels, pooling={})
    heads = {task: _build_head(task, options, trunk, classes) for task, options in config.heads.items()}
    if config.gradient_checkpointing and not backbone.can_checkpoint:
        raise ValueError(
            f"model.gradient_checkpointing: the backbone '{trunk.name}' cannot do that; set it to false"
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
    weighting: TaskWeighting = build_part(
        WEIGHTINGS, options, where="model.weighting", given={"tasks": tuple(heads)}
    )
    alone = [task for task, head in heads.items() if not head.reads_image_features]
    if weighting.reads_shared_maps and alone:
        raise ValueError(
            f"model.weighting: {options['name']} compares gradients in the maps that both heads read, and {alone[0]} passes "
            "crops of its own through the backbone (roi: warp); use fixed or uncertainty"
        )
    return weighting


def _build_head(task: str, options: Mapping[str, Any], trunk: Trunk, classes: ClassNames) -> Any:
    names = classes.of(task)
    where = f"model.heads.{task}"
    if not names and task_of(task).has_classes:
        raise ValueError(
            f"{where}: the data names no class for {task}; set data.classes or data.segmentation_classes"
        )
    try:
        head = build_part(HEADS, options, where=where, given={"trunk": trunk, "classes": names})
    except TrunkMismatch as error:
        fitting = ", ".join(_trunks_for(options, names)) or "none"
        raise ValueError(f"{where}: {error}. Backbones that can (without a neck): {fitting}") from None
    if head.task != task:
        raise ValueError(
            f"{where}.name: '{options['name']}' is a {head.task} head; put it under model.heads.{head.task}"
        )
    return head


def _trunks_for(options: Mapping[str, Any], classes: tuple[str, ...]) -> list[str]:
    """The registered backbones on which this head can stand by themselves, tried without memory or
    computation.
    """
    token = _COUNTED.set(None)  # what follows is no part of a model that is being built
    try:
        return _fitting(options, classes)
    finally:
        _COUNTED.reset(token)


def _fitting(options: Mapping[str, Any], classes: tuple[str, ...]) -> list[str]:
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


def trained_model(
    config: ModelConfig,
    classes: ClassNames,
    weights: Mapping[str, Tensor],
    where: str,
    *,
    finite: bool = True,
) -> MultiTaskModel:
    """The model of a checkpoint with its weights.

    It is built without memory first, so that a config that asks for more than the file has is an error and
    not an allocation.

    Args:
        config: the checkpoint's ``model`` section.
        classes: its class names.
        weights: its tensors.
        where: the file, for messages.
        finite: NaN and infinite weights are an error.

    Raises:
        ValueError: the weights are not of this model, or not numbers.
    """
    with torch.device("meta"), at_most(len(weights), where):
        frame = build_model(config, classes, pretrained=False)
    present = check_weights(frame, weights, where)
    strange = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if finite and strange:
        raise ValueError(
            f"{where}: not all of its weights are finite numbers: {'; '.join(strange[:10])} ({len(strange)} tensors)"
        )
    model = build_model(config, classes, pretrained=False)
    model.load_state_dict(present)
    return model


@contextlib.contextmanager
def at_most(tensors: int, where: str) -> Iterator[None]:
    """Within, this thread builds no more layers and parameters than weights of so many tensors can fill."""
    left = {"parameters": 2 * tensors + 1000, "layers": 20 * tensors + 10_000}

    def count(kind: str) -> Callable[..., None]:
        def one(*_: object) -> None:
            if _COUNTED.get() is left:
                left[kind] -= 1
                if left[kind] < 0:
                    raise ValueError(
                        f"{where}: its config has more {kind} than its {tensors} tensors can fill"
                    )

        return one

    token = _COUNTED.set(left)
    hooks = [
        register_module_parameter_registration_hook(count("parameters")),
        register_module_module_registration_hook(count("layers")),
    ]
    try:
        yield
    finally:
        _COUNTED.reset(token)
        for hook in hooks:
            hook.remove()


def restore(model: MultiTaskModel, weights: Mapping[str, Tensor], where: str) -> None:
    """Loads weights that `check_weights` finds to be the model's."""
    model.load_state_dict(check_weights(model, weights, where))


def check_weights(model: MultiTaskModel, weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Weights by the names of today. Names, shapes and kinds of numbers must be the model's; the ``ValueError``
    lists what differs.
    """
    own = model.state_dict()
    weights = {_present_name(name, model): tensor for name, tensor in weights.items()}
    shapes = [
        f"{name}: {tuple(weights[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    kinds = [
        f"{name}: {str(weights[name].dtype)[6:]} in the file, {str(own[name].dtype)[6:]} in the model"
        for name in own.keys() & weights.keys()
        if weights[name].dtype not in _ALIKE.get(own[name].dtype, (own[name].dtype,))
    ]
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    differing = [("missing", missing), ("unexpected", unexpected), ("other shapes", sorted(shapes))]
    differing.append(("other numbers", sorted(kinds)))
    lines = [f"  {what} ({len(names)}): {'; '.join(names[:10])}" for what, names in differing if names]
    if lines:
        raise ValueError("\n".join([f"{where}: weights do not match the model:", *lines]))
    return weights


def _present_name(name: str, model: MultiTaskModel) -> str:
    for task, head in model.heads.items():
        for before, now in head.earlier_names.items():
            if name.startswith(f"heads.{task}.{before}"):
                return f"heads.{task}.{now}{name.removeprefix(f'heads.{task}.{before}')}"
    return name
