"""How much each class's pixels count in the segmentation loss, worked out from the training masks.

A config names the rule (``model.heads.segmentation.class_weights: sqrt_median_frequency``); training counts
the pixels once and writes the numbers in its place, so that the run folder's config.yaml and the checkpoint
hold what was trained with."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from vistasks.config import Config
from vistasks.datasets import Dataset
from vistasks.losses.class_weights import Balance

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
    """The config with the numbers in place of a rule's name; the same config where it names none. ``data`` is
    trained on.
    """
    rule = _rule(config)
    if rule is None:
        return config
    factors = balanced(rule, *count_pixels(data))
    return _with_weights(config, {n: float(f"{f:.4g}") for n, f in zip(data.classes.segmentation, factors)})


def taken_over(config: Config, earlier: Config) -> Config:
    """The config of a run that is gone on with: where it names a rule, the numbers that ``earlier`` was
    trained with.
    """
    numbers = earlier.model.heads.get("segmentation", {}).get("class_weights")
    return (
        config if _rule(config) is None or not isinstance(numbers, dict) else _with_weights(config, numbers)
    )


def _rule(config: Config) -> Balance | None:
    named = config.model.heads.get("segmentation", {}).get("class_weights")
    return named if named in get_args(Balance) else None


def _with_weights(config: Config, weights: dict[str, float]) -> Config:
    head = {**config.model.heads["segmentation"], "class_weights": weights}
    heads: dict[str, Any] = {**config.model.heads, "segmentation": head}
    return config.model_copy(update={"model": config.model.model_copy(update={"heads": heads})})
