"""The learning-rate range test: a short training whose rate grows from far too small to far too large (Smith
2017, section 3.3).

The loss falls fastest at a rate that is good to train with; where it begins to grow, the rate is too large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vistasks.build import build_dataset, build_loader, build_pipeline
from vistasks.config import Config
from vistasks.loading.batching import to_device
from vistasks.loading.loader import Batches, EpochOrder
from vistasks.models.building import build_model
from vistasks.system.atomic import replacing
from vistasks.training.fabric import build_fabric
from vistasks.training.optimization import build_optimizer, set_learning_rate
from vistasks.types import Batch

_SMOOTH = 0.9  # of the losses; about ten steps are averaged
_DIVERGED = 3.0  # times the best loss


@dataclass(frozen=True)
class RangeTest:
    """What came out.

    Attributes:
        rates: the heads' learning rate of each step; the trunk's is in the config's proportion to it.
        losses: the loss of each step.
        smoothed: the same, averaged over about ten steps.
        steepest: the rate at which the smoothed loss falls fastest.
        lowest: the rate at the smallest smoothed loss; a training diverges not far above it.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    steepest: float
    lowest: float

    @property
    def suggestion(self) -> float:
        """The steepest point, but never more than a third of the rate at the smallest loss."""
        return min(self.steepest, self.lowest / 3)


def find_learning_rate(
    config: Config,
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
    track: Callable[[Iterable[int]], Iterable[int]] = lambda numbers: numbers,
) -> RangeTest:
    """Trains for ``steps`` steps with rates from ``lowest`` to ``highest``, evenly in the logarithm, on one
    device.

    Ends early where the loss is three times the best or not finite. Nothing is kept of the model.

    Raises:
        ValueError: rates or steps that make no range; a loss that is not finite within the first ten steps.
    """
    if not 0 < lowest < highest or steps < 20:
        raise ValueError(
            f"find-lr: needs 0 < lowest < highest and at least 20 steps; received {lowest}, {highest}, {steps}"
        )
    fabric = build_fabric(config.train.model_copy(update={"devices": 1}))
    torch.manual_seed(config.seed)
    data = build_dataset(config, "train")
    model = build_model(config.model, data.classes).to(memory_format=torch.channels_last)
    pipeline = build_pipeline(config, data, training=True)
    order, loader = build_loader(config, pipeline, classes=data.classes, divisor=model.divisor, training=True)
    optimizer = build_optimizer(model, config.train.optimizer)
    peak = max(group["peak"] for group in optimizer.param_groups)
    wrapped, optimizer = fabric.setup(model, optimizer)
    wrapped.train()
    batches = _endless(order, loader)
    rates, losses, smoothed, average = [], [], [], 0.0
    for step in track(range(steps)):
        rate = lowest * (highest / lowest) ** (step / (steps - 1))
        set_learning_rate(optimizer, rate / peak)
        loss = torch.stack(list(wrapped(to_device(next(batches), fabric.device)).values())).sum()
        value = float(loss.detach())
        if not math.isfinite(value):
            break
        average = _SMOOTH * average + (1 - _SMOOTH) * value
        rates.append(rate)
        losses.append(value)
        smoothed.append(average / (1 - _SMOOTH ** (step + 1)))
        if step >= 10 and smoothed[-1] > _DIVERGED * min(smoothed):
            break
        optimizer.zero_grad()
        fabric.backward(loss)
        if config.train.clip_grad_norm:
            fabric.clip_gradients(
                wrapped, optimizer, max_norm=config.train.clip_grad_norm, error_if_nonfinite=False
            )
        optimizer.step()
    return suggested_rate(rates, losses, smoothed)


def suggested_rate(rates: list[float], losses: list[float], smoothed: list[float]) -> RangeTest:
    """The curve's steepest fall and its lowest point. A ``ValueError`` where it has fewer than ten steps."""
    if len(rates) < 10:
        raise ValueError(f"find-lr: the loss was not finite after {len(rates)} steps; try a lower --lowest")
    lowest = int(np.argmin(smoothed))
    slopes = np.gradient(np.array(smoothed), np.log(rates))
    steepest = int(np.argmin(slopes[: max(2, lowest + 1)]))
    return RangeTest(rates, losses, smoothed, rates[steepest], rates[lowest])


def _endless(order: EpochOrder, loader: Batches) -> Iterator[Batch]:
    while True:
        for batch, _ in loader:
            yield batch
        order.epoch += 1


def plot(found: RangeTest, path: Path) -> None:
    """The curve as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(found.rates, found.losses, color="0.8", linewidth=1, label="loss of the step")
    axes.plot(found.rates, found.smoothed, color="tab:blue", label="smoothed")
    for rate, name, colour in (
        (found.suggestion, "suggested", "tab:green"),
        (found.lowest, "smallest loss", "tab:red"),
    ):
        axes.axvline(rate, color=colour, linestyle="--", linewidth=1.2, label=f"{name}: {rate:.2g}")
    axes.set(
        xscale="log", xlabel="learning rate of the heads", ylabel="loss", title="learning-rate range test"
    )
    spread = max(found.smoothed) - min(found.smoothed)
    axes.set_ylim(min(found.smoothed) - 0.1 * spread, max(found.smoothed) + 0.3 * spread)
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def report(found: RangeTest) -> dict[str, Any]:
    """Everything as plain values."""
    return {**asdict(found), "suggestion": found.suggestion}
