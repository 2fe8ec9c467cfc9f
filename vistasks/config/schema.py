"""The typed configuration of an experiment: one flat YAML file plus ``key.path=value`` overrides.

Nothing is inherited and nothing else in the package reads YAML. Sections with fixed keys are the classes
below; a *part* (backbone, head, dataset, ...) is a mapping whose ``name`` picks it from its registry and
whose other keys are checked against that part's own signature (`vistasks.registry.Registry.build`)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vistasks.registry import TASKS
from vistasks.system.limits import MAX_PIXELS
from vistasks.task import task_of

Options = dict[str, Any]
Engine = Literal["hotcoco", "pycocotools"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FoldsConfig(Section):
    """Cross-validation: the training part in ``count`` folds, of which ``fold`` is evaluated and the others
    are trained on.
    """

    count: int = Field(default=5, ge=2)
    fold: int = Field(default=0, ge=0, description="the fold to evaluate, 0 to count - 1")
    seed: int = Field(
        default=0,
        ge=0,
        description="seed of the split; separate from the run's seed, so that runs are comparable",
    )

    @field_validator("fold")
    @classmethod
    def _one_of_them(cls, fold: int, info: ValidationInfo) -> int:
        count = info.data.get("count", fold + 1)
        if fold >= count:
            raise ValueError(f"expected a fold from 0 to {count - 1}; received: {fold}")
        return fold


class DataConfig(Section):
    """Where the pictures and labels are. Further keys are the reader's options, shared by ``train`` and
    ``val``.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    format: str = Field(description="a registered data format: voc, coco, mask_folder, shapes")
    root: str
    train: Options = Field(
        default={}, description="reader options of the training part, such as {split: train}"
    )
    val: Options = Field(default={}, description="reader options of the evaluated part")
    also: list[Options] = Field(
        default=[], description="further training sets, each with format, root and reader options"
    )
    on_error: Literal["raise", "skip"] = Field(
        default="raise", description="skip: skip damaged images and list them"
    )
    allow_empty: bool = Field(
        default=False, description="train although there is no object, or no labelled pixel, to learn from"
    )
    max_pixels: PositiveInt = Field(
        default=MAX_PIXELS, description="larger images count as damaged and are not decoded"
    )
    decode: Literal["full", "reduced"] = Field(
        default="full", description="reduced: decode training JPEGs at the size needed"
    )
    cache: Literal["ram", "disk"] | None = Field(
        default=None, description="keep decoded images in memory or on disk"
    )
    cache_folder: str = Field(default="data/decoded", description="folder of the disk cache")
    folds: FoldsConfig | None = Field(
        default=None, description="cross-validation; null: train and val as they are"
    )

    def source(self, part: Literal["train", "val"]) -> Options:
        """The options for `vistasks.datasets.load_dataset` of one part."""
        own = self.train if part == "train" else self.val
        return {"format": self.format, "root": self.root, **(self.model_extra or {}), **own}

    @property
    def evaluates(self) -> bool:
        """Whether there is a part to evaluate on."""
        return bool(self.val) or self.folds is not None


class InputConfig(Section):
    """How large a picture the network sees; aspect ratio is kept, predictions are mapped back to the original
    size.
    """

    min_side: PositiveInt | None = Field(
        default=None, description="scale the shorter side to this many pixels"
    )
    max_side: PositiveInt | None = Field(default=None, description="maximum of the longer side")
    train_scales: list[PositiveFloat] = Field(
        default=[1.0],
        min_length=1,
        description="multi-scale training: factors of that size, one drawn per image",
    )
    predict_scale: float | None = Field(
        default=None,
        ge=0.1,
        le=10,
        description="factor of that size for evaluation and prediction (null: 1); above 1 where augmentation enlarges on average",
    )


class ProposalsConfig(Section):
    method: Options = Field(
        default={"name": "selective_search"}, description="a registered proposal method and its options"
    )
    cache: str | None = Field(
        default="data/proposals", description="folder of the proposal cache; null: no cache"
    )


class ModelConfig(Section):
    backbone: Options
    neck: Options | None = None
    heads: dict[str, Options] = Field(
        description="one head per task: detection, segmentation; null removes a head"
    )
    loss_weights: dict[str, PositiveFloat] = Field(
        default={}, description="factor of each head's losses (default: 1)"
    )
    weighting: Options = Field(
        default={"name": "fixed"},
        description="balance of several heads: fixed, uncertainty or gradient_norm",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="recompute the backbone's blocks in the backward pass: less memory, slower"
    )
    freeze_stages: int = Field(
        default=0, ge=0, description="number of backbone stages to freeze, from the first"
    )
    freeze_batchnorm: bool = Field(
        default=False, description="freeze the backbone's BatchNorm statistics and affine parameters"
    )

    @field_validator("heads", mode="before")
    @classmethod
    def _without_absent(cls, heads: Any) -> Any:
        return (
            {task: head for task, head in heads.items() if head is not None}
            if isinstance(heads, dict)
            else heads
        )

    @field_validator("heads")
    @classmethod
    def _tasks(cls, heads: dict[str, Options]) -> dict[str, Options]:
        if not heads or any(task not in TASKS for task in heads):
            raise ValueError(
                f"heads must name one or more of {', '.join(TASKS)}; received: {', '.join(heads) or 'none'}"
            )
        return heads

    @field_validator("loss_weights")
    @classmethod
    def _of_heads(cls, weights: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        heads = info.data.get("heads", weights)  # missing where they were wrong themselves
        for task in weights:
            if task not in heads:
                raise ValueError(f"loss_weights: no head '{task}'; heads: {', '.join(heads)}")
        return weights


class OptimizerConfig(Section):
    name: Literal["sgd", "adamw"] = "adamw"
    lr: PositiveFloat = Field(
        default=1e-3, description="peak learning rate of heads and neck; not scaled by the batch size"
    )
    backbone_lr: PositiveFloat | None = Field(
        default=None, description="peak learning rate of the backbone; null: lr"
    )
    weight_decay: float = Field(
        default=1e-4, ge=0, description="not applied to biases and normalisation layers"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd only")


class ScheduleConfig(Section):
    name: Literal["constant", "cosine", "poly", "step"] = "cosine"
    warmup_steps: int = Field(
        default=100, ge=0, description="steps of linear warm-up from 0 to the peak learning rate"
    )
    final_factor: float = Field(
        default=0.01, ge=0, le=1, description="cosine: final learning rate as a share of the peak"
    )
    power: PositiveFloat = Field(default=0.9, description="poly: (1 - progress) ** power")
    milestones: list[float] = Field(
        default=[0.7, 0.9],
        description="step: points of the training, from 0 to 1, at which the learning rate drops",
    )
    gamma: float = Field(default=0.1, gt=0, le=1, description="step: factor at each milestone")

    @field_validator("milestones")
    @classmethod
    def _shares(cls, milestones: list[float]) -> list[float]:
        if not all(0 < milestone < 1 for milestone in milestones):
            raise ValueError(
                f"milestones: expected shares of the training between 0 and 1, such as 0.7; received: {milestones}"
            )
        return milestones


class StageConfig(Section):
    """A part of a joint training in which only some heads learn."""

    tasks: list[str] = Field(min_length=1, description="of model.heads")
    until: float = Field(gt=0, le=1, description="share of the training at which the stage ends")

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: list[str]) -> list[str]:
        unknown = [task for task in tasks if task not in TASKS]
        if unknown:
            raise ValueError(f"unknown tasks: {', '.join(unknown)}; known: {', '.join(TASKS)}")
        return tasks


class TrainConfig(Section):
    epochs: PositiveInt = 10
    batch_size: PositiveInt = Field(
        default=4, description="images per device; an optimizer step has batch_size x devices x accumulate"
    )
    accumulate: PositiveInt = Field(
        default=1, description="batches averaged per optimizer step (gradient accumulation)"
    )
    workers: int = Field(
        default=1, ge=0, description="number of data workers (processes); 0 loads in the main process"
    )
    sampling: Options = Field(
        default={"name": "shuffle"},
        description="order of training images: shuffle, repeat_factor, class_balanced or task_balanced, with options",
    )
    overfit_batches: PositiveInt | None = Field(
        default=None,
        description="for debugging: train and evaluate on this many batches, without augmentation",
    )
    preflight: Literal["none", "sample", "full"] = Field(
        default="sample", description="preflight checks before the first step; full: read every file"
    )
    stages: list[StageConfig] = Field(
        default=[], description="heads to train until a share of the training; afterwards all"
    )
    task_sampling: dict[str, PositiveFloat] = Field(
        default={},
        description="train one head per step, drawn with these shares; {}: all heads in every step",
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip_grad_norm: PositiveFloat | None = None
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="decay of the moving average of the weights, which is evaluated and saved as best; null: none",
    )
    early_stopping: PositiveInt | None = Field(
        default=None, description="stop after this many evaluations without improvement; null: never"
    )
    validate_every: PositiveInt = Field(
        default=1, description="epochs between evaluations; the last epoch is always evaluated"
    )
    samples: int = Field(
        default=4, ge=0, description="validation images to draw at each evaluation into samples/; 0: none"
    )
    monitor: str | None = Field(
        default=None,
        description="metric that selects the best checkpoint: AP, AP50, VOC_mAP, mIoU; null: mean of AP and mIoU",
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    threads: PositiveInt | None = Field(
        default=None,
        description="PyTorch's CPU threads; null: OMP_NUM_THREADS, or the fastest number as measured by the preflight checks",
    )
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: PositiveInt = Field(
        default=1, description="devices of this machine, one process each; torchrun sets it itself"
    )
    sync_batchnorm: bool = Field(
        default=False, description="synchronise BatchNorm over all devices (CUDA, devices > 1)"
    )
    deterministic: bool = Field(default=False, description="use deterministic kernels only; slower")


class CheckpointConfig(Section):
    every_minutes: PositiveFloat | None = Field(
        default=15.0,
        description="also save within an epoch after this many minutes; null: only at the end of each epoch",
    )
    keep: PositiveInt = Field(
        default=2,
        description="number of training states to keep, including last.safetensors; best.safetensors comes on top",
    )


class EvaluateConfig(Section):
    batch_size: PositiveInt = 4
    engine: Engine = "hotcoco"


class Config(Section):
    """A whole experiment."""

    output: str = Field(description="the run folder")
    seed: int = Field(default=0, ge=0, lt=2**32)  # NumPy takes no more
    data: DataConfig
    input: InputConfig = InputConfig()
    augment: list[Any] = Field(
        default=[],
        description="albumentations transforms with their arguments, in order; Mosaic, MixUp and CopyPaste come first",
    )
    proposals: ProposalsConfig = ProposalsConfig()
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _heads_fit_the_rest(self) -> Config:
        for task, head in self.model.heads.items():
            task_of(task).check_config(head, self)
        return self
