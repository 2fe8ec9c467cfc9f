"""Class weights of the segmentation losses: a rule's name, names with factors, or a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from vistasks.system.text import few

Balance = Literal["median_frequency", "sqrt_median_frequency", "effective_number"]


Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]


ClassWeights = Balance | dict[str, Factor] | list[Factor] | None


def weight_tensor(weights: ClassWeights, classes: Sequence[str]) -> Tensor:
    """(C,) float32; ones where a rule's name has not been worked out yet. A ``ValueError`` where names or
    count do not fit.
    """
    if isinstance(weights, dict):
        unknown = sorted(set(weights) - set(classes))
        if unknown:
            raise ValueError(f"class_weights names {few(unknown)}; the classes are: {few(classes)}")
        return torch.tensor([float(weights.get(name, 1.0)) for name in classes])
    if isinstance(weights, list):
        if len(weights) != len(classes):
            names = few(classes)
            raise ValueError(
                f"class_weights lists {len(weights)} numbers; there are {len(classes)} classes: {names}"
            )
        return torch.tensor([float(weight) for weight in weights])
    return torch.ones(len(classes))
