"""The curves of a training run, from its metrics.jsonl, as one picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vistasks.atomic import replacing

SMOOTHING = 0.95


def save_curves(metrics: Path, output: Path) -> None:
    """Draws loss terms (smoothed), learning rate and evaluation results over steps.

    Without pyplot, so that no display, window or global state is touched.
    """
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines() if line.strip()]
    steps = [line for line in lines if "evaluation" not in line]
    evaluations = [line for line in lines if "evaluation" in line]
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, rate, results = figure.subplots(1, 3)
    for name in dict.fromkeys(key for line in steps for key in line if "/" in key):
        having = [line for line in steps if name in line]
        losses.plot([s["step"] for s in having], _smooth([s[name] for s in having]), label=name.replace("/", ": "))
    some = any((line.get_ydata() > 0).any() for line in losses.get_lines())
    losses.set(title="loss terms (smoothed)", xlabel="step", yscale="log" if some else "linear")
    rate.plot([s["step"] for s in steps], [s["lr"] for s in steps], color="0.4")
    rate.set(title="learning rate of the heads", xlabel="step")
    for name in dict.fromkeys(key for line in evaluations for key in line["evaluation"]):
        values = [line["evaluation"].get(name) for line in evaluations]
        results.plot([line["step"] for line in evaluations], [float("nan") if v is None else v for v in values], "o-", label=name)
    results.set(title="evaluation", xlabel="step", ylim=(0, 1))
    for axes in (losses, rate, results):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=100)


def _smooth(values: list[float]) -> np.ndarray:
    smoothed, last = [], values[0]
    for value in values:
        last = SMOOTHING * last + (1 - SMOOTHING) * value
        smoothed.append(last)
    return np.array(smoothed)
