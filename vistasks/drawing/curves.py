"""The curves of a training run, from its metrics.jsonl, as one picture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vistasks.system.atomic import replacing
from vistasks.system.text import plot_label

SMOOTHING = 0.95


@dataclass(frozen=True, eq=False)
class RunLines:
    """The lines of a metrics.jsonl: of steps, and of evaluations."""

    steps: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]

    @property
    def losses(self) -> list[str]:
        """The names of the loss terms, in the order in which they came."""
        return list(dict.fromkeys(key for line in self.steps for key in line if "/" in key))


def read_lines(metrics: Path) -> RunLines:
    """Reads a run's metrics.jsonl."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines() if line.strip()]
    return RunLines(
        [line for line in lines if "evaluation" not in line], [line for line in lines if "evaluation" in line]
    )


def save_curves(metrics: Path, output: Path) -> None:
    """Draws loss terms (smoothed), learning rate and evaluation results over steps.

    Without pyplot, so that no display, window or global state is touched.
    """
    lines = read_lines(metrics)
    steps, evaluations = lines.steps, lines.evaluations
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, rate, results = figure.subplots(1, 3)
    for name in lines.losses:
        having = [line for line in steps if name in line]
        losses.plot(
            [s["step"] for s in having],
            smoothed([s[name] for s in having]),
            label=plot_label(name.replace("/", ": ")),
        )
    some = any((line.get_ydata() > 0).any() for line in losses.get_lines())
    losses.set(title="loss terms (smoothed)", xlabel="step", yscale="log" if some else "linear")
    rate.plot([s["step"] for s in steps], [s["lr"] for s in steps], color="0.4")
    rate.set(title="learning rate of the heads", xlabel="step")
    for name in dict.fromkeys(key for line in evaluations for key in line["evaluation"]):
        values = [line["evaluation"].get(name) for line in evaluations]
        results.plot(
            [line["step"] for line in evaluations],
            [float("nan") if v is None else v for v in values],
            "o-",
            label=plot_label(name),
        )
    results.set(title="evaluation", xlabel="step", ylim=(0, 1))
    for axes in (losses, rate, results):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=100)


def smoothed(values: list[float]) -> np.ndarray:
    """The running mean that forgets by `SMOOTHING` a step; at least one value."""
    means, last = [], values[0]
    for value in values:
        last = SMOOTHING * last + (1 - SMOOTHING) * value
        means.append(last)
    return np.array(means)
