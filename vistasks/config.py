"""The typed configuration of an experiment: one flat YAML file plus ``key.path=value`` overrides.

Nothing is inherited and nothing else in the package reads YAML. Sections with fixed keys are the classes below; a *part*
(backbone, head, dataset, ...) is a mapping whose ``name`` picks it from its registry and whose other keys are checked against
that part's own signature (`vistasks.registry.Registry.build`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vistasks.registry import nearest

Options = dict[str, Any]
Engine = Literal["hotcoco", "pycocotools"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FoldsConfig(Section):
    """Cross-validation: the training part in ``count`` folds, of which ``fold`` is evaluated and the others are trained on."""

    count: int = Field(default=5, ge=2)
    fold: int = Field(default=0, ge=0, description="0 to count - 1")
    seed: int = Field(default=0, ge=0, description="which pictures come together; not the run's seed, so that runs compare")

    @field_validator("fold")
    @classmethod
    def _one_of_them(cls, fold: int, info: ValidationInfo) -> int:
        count = info.data.get("count", fold + 1)
        if fold >= count:
            raise ValueError(f"there are {count} folds, numbered from 0; received: {fold}")
        return fold


class DataConfig(Section):
    """Where the pictures and labels are. Further keys are the reader's options, shared by ``train`` and ``val``."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    format: str = Field(description="a registered dataset format: voc, coco, mask_folder, shapes")
    root: str
    train: Options = Field(default={}, description="reader options of the training part, such as {split: train}")
    val: Options = Field(default={}, description="reader options of the part that is evaluated")
    also: list[Options] = Field(default=[], description="further training sets: format, root and options of each")
    on_error: Literal["raise", "skip"] = Field(default="raise", description="skip: damaged pictures are left out and listed")
    decode: Literal["full", "reduced"] = Field(default="full", description="reduced: JPEGs for training at the size needed")
    cache: Literal["ram", "disk"] | None = Field(default=None, description="keeps decoded pictures")
    cache_folder: str = Field(default="data/decoded", description="where cache: disk keeps them")
    folds: FoldsConfig | None = Field(default=None, description="cross-validation; null: train and val as they are")

    def source(self, part: Literal["train", "val"]) -> Options:
        """The options for `vistasks.datasets.load_dataset` of one part."""
        own = self.train if part == "train" else self.val
        return {"format": self.format, "root": self.root, **(self.model_extra or {}), **own}

    @property
    def evaluates(self) -> bool:
        """Whether there is a part to evaluate on."""
        return bool(self.val) or self.folds is not None


class InputConfig(Section):
    """How large a picture the network sees; aspect ratio is kept, predictions are mapped back to the original size."""

    min_side: PositiveInt | None = Field(default=None, description="scale so that the shorter side has this many pixels")
    max_side: PositiveInt | None = Field(default=None, description="but the longer side not more than this")
    train_scales: list[PositiveFloat] = Field(
        default=[1.0], min_length=1, description="multi-scale training: each picture at one of these factors of that size"
    )
    predict_scale: float | None = Field(
        default=None,
        ge=0.1,
        le=10,
        description="evaluate and predict at this factor of that size (null: 1); over 1 where augmentation enlarges on average",
    )


class ProposalsConfig(Section):
    method: Options = Field(default={"name": "selective_search"}, description="a registered proposal method and its options")
    cache: str | None = Field(default="data/proposals", description="folder of the proposal cache; null: compute every time")


class ModelConfig(Section):
    backbone: Options
    neck: Options | None = None
    heads: dict[str, Options] = Field(description="one or two of: detection, segmentation; null takes a head away")
    loss_weights: dict[str, PositiveFloat] = Field(default={}, description="factor of each head's losses; 1 where not named")
    weighting: Options = Field(default={"name": "fixed"}, description="of two heads: fixed, uncertainty or gradient_norm")
    gradient_checkpointing: bool = Field(default=False, description="the trunk's blocks are computed twice: less memory, slower")
    freeze_stages: int = Field(default=0, ge=0, description="the first n stages of the backbone are not trained")
    freeze_batchnorm: bool = Field(default=False, description="the backbone's BatchNorm statistics and affine stay fixed")

    @field_validator("heads", mode="before")
    @classmethod
    def _without_absent(cls, heads: Any) -> Any:
        return {task: head for task, head in heads.items() if head is not None} if isinstance(heads, dict) else heads

    @field_validator("heads")
    @classmethod
    def _tasks(cls, heads: dict[str, Options]) -> dict[str, Options]:
        tasks = ("detection", "segmentation")
        if not heads or any(task not in tasks for task in heads):
            raise ValueError(f"heads must name one or two of {', '.join(tasks)}; received: {', '.join(heads) or 'none'}")
        return heads

    @field_validator("loss_weights")
    @classmethod
    def _of_heads(cls, weights: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        heads = info.data.get("heads", weights)  # missing where they were wrong themselves
        for task in weights:
            if task not in heads:
                raise ValueError(f"loss_weights names '{task}', but heads has {', '.join(heads)}")
        return weights


class OptimizerConfig(Section):
    name: Literal["sgd", "adamw"] = "adamw"
    lr: PositiveFloat = Field(default=1e-3, description="peak learning rate of the heads and the neck, for one optimizer step")
    backbone_lr: PositiveFloat | None = Field(default=None, description="peak learning rate of the trunk; null: lr")
    weight_decay: float = Field(default=1e-4, ge=0, description="not applied to biases and normalisation layers")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd only")


class ScheduleConfig(Section):
    name: Literal["constant", "cosine", "poly", "step"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0, description="linear from 0 to the peak rate")
    final_factor: float = Field(default=0.01, ge=0, le=1, description="cosine: last rate over peak rate")
    power: PositiveFloat = Field(default=0.9, description="poly: (1 - progress) ** power")
    milestones: list[float] = Field(default=[0.7, 0.9], description="step: shares of the training after which the rate drops")
    gamma: float = Field(default=0.1, gt=0, le=1, description="step: factor of each drop")

    @field_validator("milestones")
    @classmethod
    def _shares(cls, milestones: list[float]) -> list[float]:
        if not all(0 < milestone < 1 for milestone in milestones):
            raise ValueError(f"milestones are shares of the training, between 0 and 1, such as 0.7; received: {milestones}")
        return milestones


class StageConfig(Section):
    """A part of a joint training in which only some heads learn."""

    tasks: list[Literal["detection", "segmentation"]] = Field(min_length=1)
    until: float = Field(gt=0, le=1, description="share of the training at which the stage ends")


class TrainConfig(Section):
    epochs: PositiveInt = 10
    batch_size: PositiveInt = Field(default=4, description="pictures of a device at once; a step has this x devices x accumulate")
    accumulate: PositiveInt = Field(default=1, description="batches whose gradients are averaged before an update")
    workers: int = Field(default=1, ge=0, description="data loading processes")
    sampling: Options = Field(
        default={"name": "shuffle"}, description="shuffle, repeat_factor, class_balanced or task_balanced, with options"
    )
    overfit_batches: PositiveInt | None = Field(
        default=None, description="for debugging: train and evaluate on so many batches of pictures, without augmentation"
    )
    preflight: Literal["none", "sample", "full"] = Field(
        default="sample", description="what is tried before the first step; full: every file is read"
    )
    stages: list[StageConfig] = Field(default=[], description="heads that learn until a share of the training; afterwards all")
    task_sampling: dict[str, PositiveFloat] = Field(default={}, description="one head a step, drawn with these shares; {}: all")
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip_grad_norm: PositiveFloat | None = None
    ema: float | None = Field(default=None, gt=0, lt=1, description="decay of the averaged weights, which are then evaluated")
    early_stopping: PositiveInt | None = Field(default=None, description="stop after so many evaluations without a better one")
    validate_every: PositiveInt = Field(default=1, description="epochs between evaluations; the last is always evaluated")
    samples: int = Field(default=4, ge=0, description="validation pictures drawn at each evaluation, into samples/; 0: none")
    monitor: str | None = Field(default=None, description="what 'best' means: AP, AP50, VOC_mAP, mIoU; null: mean of AP and mIoU")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: PositiveInt = Field(default=1, description="processes of this machine, each with a device; torchrun says it itself")
    sync_batchnorm: bool = Field(default=False, description="BatchNorm over all devices' pictures (CUDA, devices > 1)")
    deterministic: bool = Field(default=False, description="only deterministic kernels; slower")


class CheckpointConfig(Section):
    every_minutes: PositiveFloat | None = Field(
        default=15.0, description="also save within an epoch when the last save is so long ago; null: at the ends of epochs only"
    )
    keep: PositiveInt = Field(default=2, description="complete states kept, last.safetensors among them; best comes on top")


class EvaluateConfig(Section):
    batch_size: PositiveInt = 4
    engine: Engine = "hotcoco"


class Config(Section):
    """A whole experiment."""

    output: str = Field(description="the run folder")
    seed: int = Field(default=0, ge=0, lt=2**32)  # NumPy takes no more
    data: DataConfig
    input: InputConfig = InputConfig()
    augment: list[Any] = Field(default=[], description="albumentations transforms by name with their arguments, in order")
    proposals: ProposalsConfig = ProposalsConfig()
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _rpn_is_there(self) -> Config:
        head = self.model.heads.get("detection", {})
        if _asks_for_rpn(self.proposals.method) and head.get("name") == "region_classifier" and head.get("rpn") is None:
            raise ValueError(
                "proposals.method 'rpn' leaves the proposals to the detector's own network: give it one, such as "
                "model.heads.detection.rpn={stride: [8, 16, 32]}, or name a trained run in proposals.method.weights"
            )
        return self


def _asks_for_rpn(method: Options) -> bool:
    parts = method.get("methods")
    if isinstance(parts, list) and any(isinstance(part, dict) and _asks_for_rpn(part) for part in parts):
        return True
    return method.get("name") == "rpn" and method.get("weights") is None


class _Loader(yaml.SafeLoader):
    """YAML where ``1e-3`` is a number (PyYAML follows YAML 1.1 and reads text) and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in written]  # type: ignore[no-untyped-call]
        for index, (key_node, key) in enumerate(zip(written, keys)):
            if key in keys[:index]:
                raise yaml.MarkedYAMLError(problem=f"the key '{key}' stands twice", problem_mark=key_node.start_mark)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """Quotes a text such as ``1e-3``, which `_Loader` would read as a number."""


_EXPONENT = re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
for _kind in (_Loader, Dumper):
    _kind.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


Where = Callable[[tuple[Any, ...]], str]  # key path -> where its value was written


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads, overrides and checks a config file.

    Raises a ``ValueError`` that lists every problem with file, line, full key path, what was expected and what came.
    """
    values, where = read_config(path, overrides)
    return parse_config(values, where=where)


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Where]:
    """The plain values of a config file with its overrides, and where each was written; nothing is checked yet."""
    path = Path(path)
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ValueError(f"{path}: there is no such config file.{nearest(path.name, beside)}")
    values, lines = read_yaml(path)
    overridden: dict[tuple[Any, ...], str] = {}
    for override in overrides:
        keys = apply_override(values, override)
        # what stood under the key before is gone, and so are the places where it was written
        lines = {k: line for k, line in lines.items() if k[: len(keys)] != keys}
        overridden = {k: text for k, text in overridden.items() if k[: len(keys)] != keys} | {keys: override}

    def where(keys: tuple[Any, ...]) -> str:
        for length in range(len(keys), 0, -1):
            if keys[:length] in overridden:
                return f"command line, {overridden[keys[:length]]}"
            if keys[:length] in lines:
                return f"{path}:{lines[keys[:length]]}"
        return str(path)

    return values, where


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[Any, ...], int]]:
    """The values of a YAML file, and the line of each key path."""
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, _Loader)
        lines = dict(_key_lines(yaml.compose(text, _Loader), ()))
    except yaml.MarkedYAMLError as error:
        mark, what = error.problem_mark, f"{error.context}: {error.problem}" if error.context else error.problem
        raise ValueError(f"{path}:{mark.line + 1 if mark else 1}: not readable as YAML: {what}") from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:  # such as the date 2024-99-99
        raise ValueError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected keys and values (output, data, model, ...), received {type(values).__name__}")
    return values, lines


def parse_config(values: Mapping[str, Any], *, where: Where = lambda keys: "config") -> Config:
    """A checked `Config` from plain values; ``where(keys)`` says where a key was written, for the messages."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(e, where) for e in error.errors())) from None


def apply_override(values: dict[str, Any], override: str) -> tuple[Any, ...]:
    """Puts ``a.b=value`` (value in YAML; a number picks a list's entry) into nested values; returns the key path."""
    dotted, equals, text = override.partition("=")
    if not equals or not all(dotted.split(".")):
        raise ValueError(f"command line: expected key.path=value, received '{override}'")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise ValueError(f"command line, {override}: the value is not readable as YAML") from None
    keys: list[Any] = dotted.split(".")
    node: Any = values
    for depth, key in enumerate(keys):
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                place, known = ".".join(map(str, keys[:depth])), f"must be 0 to {len(node) - 1}" if node else "is not in it"
                raise ValueError(f"command line, {override}: {place} is a list of {len(node)}; '{key}' {known}")
            keys[depth] = key = int(key)
        elif not isinstance(node, dict):
            raise ValueError(f"command line, {override}: {'.'.join(map(str, keys[:depth]))} is a value, it has no '{key}'")
        elif key not in node and key.isdigit() and int(key) in node:  # such as data.mask_values.11=ignore
            keys[depth] = key = int(key)
        if depth == len(keys) - 1:
            node[key] = value
        elif isinstance(node, list):
            node = node[key]
        else:
            if node.get(key) is None:
                node[key] = {}
            node = node[key]
    return tuple(keys)


def _key_lines(node: yaml.Node | None, keys: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], int]]:
    found = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            found.append(((*keys, key.value), key.start_mark.line + 1))
            found += _key_lines(value, (*keys, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found.append(((*keys, index), value.start_mark.line + 1))
            found += _key_lines(value, (*keys, index))
    return found


def _explain(error: Any, where: Any) -> str:
    keys = tuple(error["loc"])
    place = f"{where(keys)}: {'.'.join(str(key) for key in keys)}"
    if error["type"] == "extra_forbidden":
        known = list(_section_at(keys[:-1]).model_fields)
        return f"{place}: unknown key.{nearest(str(keys[-1]), known)} Known: {', '.join(known)}"
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "value_error":  # of our own checks, which say what was received
        return f"{place}: {error['ctx']['error']}" if keys else f"{where(keys)}: {error['ctx']['error']}"
    return f"{place}: {error['msg']}; received {error['input']!r}"


def _section_at(keys: tuple[Any, ...]) -> type[BaseModel]:
    section: Any = Config
    for key in keys:
        section = section.model_fields[key].annotation
    return section


def to_yaml(config: Config) -> str:
    """The whole config with every default written out; `load_config` reads it back to an equal config."""
    return yaml.dump(config.model_dump(), Dumper=Dumper, sort_keys=False, width=130, allow_unicode=True)
