"""How much each class's pixels count in the segmentation loss, worked out from the training masks.

A config names the rule (``model.heads.segmentation.class_weights: sqrt_median_frequency``); training counts
the pixels once and writes the numbers in its place, so that the run folder's config.yaml and the checkpoint
hold what was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from vistasks.config import Config
from vistasks.datasets import Dataset
from vistasks.losses.class_weights import Balance
from vistasks.task import task_of

MOST_PICTURES = 5000  # are counted, evenly spread over the data: enough for frequencies, and minutes instead of hours on COCO
_CELL = 1024  # pixels that count as one example in `effective_number`
_BETA = 0.9999


def count_pixels(data: Dataset, *, most: int = MOST_PICTURES) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each class, and all marked pixels of the pictures in which the class occurs; both (C,) int64.

    Args:
        data: reads the masks; pictures without one do not count.
        most: of larger data so many pictures, evenly spread, are counted.
    """
    classes = len(data.classes.segmentation)
    pixels, around = np.zeros(classes, dtype=np.int64), np.zeros(classes, dtype=np.int64)
    for index in np.unique(np.linspace(0, len(data) - 1, min(len(data), most)).round().astype(int)):
        mask = data[int(index)].segmentation
        if mask is None:
            continue
        found = np.bincount(mask.ravel(), minlength=256)[:classes]
        pixels += found
        around[found > 0] += found.sum()
    return pixels, around


def balanced(rule: Balance, pixels: np.ndarray, around: np.ndarray) -> np.ndarray:
    """The factors (C,) that a rule gives for the counts of `count_pixels`; 1 for a class without pixels.

    - median_frequency (Eigen and Fergus 2015, section 4.3.2; SegNet): a class's frequency is its share of the pictures in which
      it occurs; the factor is the median frequency over it.
    - sqrt_median_frequency: the square root of that, which costs the large classes less precision.
    - effective_number (Cui et al. 2019, eq. 3): 1 / ((1 - beta^n) / (1 - beta)) with beta .9999, scaled to the mean 1.
      Neighbouring pixels are near copies of each other, so n counts cells of 32x32 pixels.
    """
    factors = np.ones(len(pixels))
    present = pixels > 0
    if not present.any():
        return factors
    if rule == "effective_number":
        inverse = (1 - _BETA) / (1 - _BETA ** (pixels[present] / _CELL))
        factors[present] = inverse / inverse.mean()
        return factors
    frequency = pixels[present] / around[present]
    factors[present] = np.median(frequency) / frequency
    return np.sqrt(factors) if rule == "sqrt_median_frequency" else factors


def resolved_config(config: Config, data: Dataset) -> Config:
    """The config with what the training ``data`` decide in place of a rule's name; unchanged where it names
    none.
    """
    heads = {task: task_of(task).resolved(head, data) for task, head in config.model.heads.items()}
    return _with_heads(config, heads)


def taken_over(config: Config, earlier: Config) -> Config:
    """The config of a resumed run: where it names a rule, the numbers that ``earlier`` was trained with."""
    before = earlier.model.heads
    heads = {
        task: task_of(task).taken_over(head, before.get(task, {}))
        for task, head in config.model.heads.items()
    }
    return _with_heads(config, heads)


def numbers_instead_of_rule(head: Mapping[str, Any], data: Dataset) -> Mapping[str, Any]:
    """A segmentation head's options with its ``class_weights`` worked out, where they name a rule."""
    rule = rule_of(head)
    if rule is None:
        return head
    factors = balanced(rule, *count_pixels(data))
    weights = {name: float(f"{factor:.4g}") for name, factor in zip(data.classes.segmentation, factors)}
    return {**head, "class_weights": weights}


def rule_of(head: Mapping[str, Any]) -> Balance | None:
    """The rule that a head's ``class_weights`` name, or None."""
    named = head.get("class_weights")
    return named if named in get_args(Balance) else None


def _with_heads(config: Config, heads: Mapping[str, Mapping[str, Any]]) -> Config:
    if heads == config.model.heads:
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"heads": dict(heads)})})
