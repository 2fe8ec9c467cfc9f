"""The curves of a training run as one HTML page that needs no other file and no network."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vistasks.drawing.curves import RunLines, read_lines, smoothed
from vistasks.drawing.palette import class_colour
from vistasks.evaluation.reports.html import css, document, number, table
from vistasks.evaluation.reports.svg import Points, line_chart
from vistasks.system.atomic import write_text

POINTS = 400  # of a line at most: the page stays small however long the run
LEAST = 1e-6  # what a logarithmic axis shows of a loss that is 0


def save_curves_page(metrics: Path, output: Path, *, samples: Path | None = None) -> None:
    """Writes the page from a run's metrics.jsonl, with the sheet of sample predictions ``samples`` (a JPEG)
    inside.
    """
    write_text(output, curves_page(read_lines(metrics), name=metrics.resolve().parent.name, samples=samples))


def curves_page(lines: RunLines, *, name: str, samples: Path | None = None) -> str:
    """HTML with losses, learning rate, gradient norm, speed and evaluations over steps."""
    steps, evaluations = lines.steps, lines.evaluations
    last = steps[-1]["step"] if steps else evaluations[-1]["step"] if evaluations else 0
    epochs = steps[-1]["epoch"] + 1 if steps else 0
    head = f'<h1>Training of {escape(name)}</h1><p class="faint">{last:,} steps, epoch {epochs}</p>'
    losses = {key.replace("/", ": "): _line(steps, key, smooth=True) for key in lines.losses}
    charts = [
        _log_chart("Loss terms (smoothed)", losses, last),
        _chart("Learning rate", {"learning rate": _line(steps, "lr")}, last),
    ]
    for key, title in (
        ("gradient_norm", "Gradient norm (smoothed)"),
        ("images_per_second", "Images per second (smoothed)"),
    ):
        if any(key in line for line in steps):
            charts.append(_log_chart(title, {key: _line(steps, key, smooth=True)}, last))
    body = f'{head}{_tiles(evaluations)}<div class="row">{"".join(charts)}</div>{_results(evaluations, last)}'
    return document(f"Training of {name}", body + _samples(samples))


def _line(steps: Sequence[Mapping[str, Any]], key: str, *, smooth: bool = False) -> list[tuple[float, float]]:
    """(step, value) points, thinned to `POINTS`."""
    having = [line for line in steps if isinstance(line.get(key), (int, float)) and math.isfinite(line[key])]
    if not having:
        return []
    values = smoothed([line[key] for line in having]).tolist() if smooth else [line[key] for line in having]
    stride = max(1, math.ceil(len(having) / POINTS))
    chosen = sorted({*range(0, len(having), stride), len(having) - 1})
    return [(float(having[i]["step"]), float(values[i])) for i in chosen]


def _figure(title: str, series: Mapping[str, Points], chart: str) -> str:
    colours = _colours(series)
    spans = "".join(
        f'<span><i style="background:{colours[name]}"></i>{escape(name)}</span>' for name in series
    )
    legend = f'<p class="legend">{spans}</p>' if len(series) > 1 else ""
    return f"<div><h3>{escape(title)}</h3>{chart}{legend}</div>"


def _colours(series: Mapping[str, Points]) -> dict[str, str]:
    return {name: css(class_colour(index)) for index, name in enumerate(series)}


def _chart(
    title: str, series: Mapping[str, Points], last: int, *, top: float | None = None, dots: bool = False
) -> str:
    highest = top or max((value for line in series.values() for _, value in line), default=1.0) or 1.0
    chart = line_chart(
        series, _colours(series), x="step", y="", x_range=(0, max(1, last)), y_range=(0, highest), dots=dots
    )
    return _figure(title, series, chart)


def _log_chart(title: str, series: Mapping[str, Points], last: int) -> str:
    """Whole powers of ten at both ends."""
    placed = {
        name: [(step, math.log10(max(LEAST, value))) for step, value in line] for name, line in series.items()
    }
    values = [value for line in placed.values() for _, value in line] or [0.0]
    low, high = math.floor(min(values)), max(math.ceil(max(values)), math.floor(min(values)) + 1)
    chart = line_chart(
        placed, _colours(series), x="step", y="", x_range=(0, max(1, last)), y_range=(low, high),
        y_text=lambda power: f"{float(f'{10**power:.2g}'):g}",
    )  # fmt: skip
    return _figure(title, series, chart)


def _tiles(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """The best value of each number, and when it was reached."""
    tiles = []
    for name in _names(evaluations):
        values = [(line["evaluation"].get(name), line["epoch"]) for line in evaluations]
        known = [(value, -epoch) for value, epoch in values if value is not None]
        best, epoch = max(known) if known else (None, 0)
        now = f"epoch {-epoch}; now {number(values[-1][0])}" if known else "&nbsp;"
        tiles.append(f'<div class="tile">best {escape(name)}<b>{number(best)}</b><small>{now}</small></div>')
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _results(evaluations: Sequence[Mapping[str, Any]], last: int) -> str:
    if not evaluations:
        return "<h2>Evaluations</h2><p>No evaluation yet.</p>"
    names = _names(evaluations)
    series = {
        name: [
            (float(line["step"]), float(value))
            for line in evaluations
            if (value := line["evaluation"].get(name)) is not None
        ]
        for name in names
    }
    rows = [
        [line["epoch"], line["step"], *(line["evaluation"].get(name) for name in names)]
        for line in evaluations
    ]
    chart = _chart("On the validation images", series, last, top=1.0, dots=True)
    return f'<h2>Evaluations</h2><div class="row">{chart}</div>{table(["epoch", "step", *names], rows)}'


def _names(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for line in evaluations for key in line["evaluation"]))


def _samples(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    image = base64.b64encode(path.read_bytes()).decode()
    return (
        f"<h2>Samples, {escape(path.stem.replace('_', ' '))}</h2><p>Fixed validation images. Left: labels, right: predictions. "
        f'Earlier samples are in {escape(path.parent.name)}/.</p><img alt="labels and predictions" style="max-width:100%" '
        f'src="data:image/jpeg;base64,{image}">'
    )
