"""The report as one HTML page that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from vistasks.drawing.palette import model_colours
from vistasks.evaluation.reports.html import css, document, legend, number, table
from vistasks.task import all_tasks
from vistasks.types import ClassNames


def page(content: Mapping[str, Any], classes: ClassNames, gallery: Sequence[Mapping[str, Any]]) -> str:
    """HTML of what `EvaluationReport.compute` gives, with the gallery's entries."""
    colours = {name: css(colour) for name, colour in model_colours(classes).items()}
    sections = [_head(content), _tiles(content)]
    for task in all_tasks():
        if task.name in content["analysis"]:
            sections.append(task.report_html(content, colours))
    sections += [_gallery(gallery, colours), _cost(content), _gain(content.get("gain", []))]
    return document("Evaluation report", "".join(sections))


def _head(content: Mapping[str, Any]) -> str:
    data = ", ".join(
        f"{key}: {value}" for key, value in content.get("data", {}).items() if isinstance(value, str)
    )
    weights = escape(str(content.get("weights", "")))
    about = f"weights {weights}<br>data {escape(data)}<br>{content['images']} images"
    return f'<h1>Evaluation report</h1><p class="faint">{about}</p>'


def _tiles(content: Mapping[str, Any]) -> str:
    intervals: dict[str, Any] = {}
    for task in all_tasks():
        intervals |= content["analysis"].get(task.name, {}).get("intervals", {})
    tiles = []
    for name, value in content["headline"].items():
        low_high = intervals.get(name)
        between = f"95 %: {number(low_high[0])} to {number(low_high[1])}" if low_high else "&nbsp;"
        tiles.append(f'<div class="tile">{escape(name)}<b>{number(value)}</b><small>{between}</small></div>')
    keys = [key for task in all_tasks() for key in task.protocols if key in content]
    protocols = [content[key]["protocol"] for key in keys]
    notes = "<br>".join(escape(protocol) for protocol in protocols)
    note = "Intervals: 95 % bootstrap over images." if intervals else ""
    return f'<div class="tiles">{"".join(tiles)}</div><p class="faint">{note}<br>{notes}</p>'


def _gallery(gallery: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    if not gallery:
        return "<h2>Worst images</h2><p>No image has errors.</p>"
    kinds = sorted({kind for entry in gallery for kind in entry["kinds"]})
    names = sorted({name for entry in gallery for name in entry["classes"]})
    controls = "".join(
        f'<label>{word} <select name="{key}"><option value="">all</option>'
        f"{''.join(f'<option>{escape(value)}</option>' for value in values)}</select></label>"
        for word, key, values in (("error", "kinds", kinds), ("class", "classes", names))
    )
    figures = "".join(_picture(entry) for entry in gallery)
    return (
        "<h2>Worst images</h2><p>The images with the most errors of each kind. Left: labels, with missed objects marked. "
        f"Right: predictions, with the error of each wrong box.</p>{legend(colours) if len(colours) <= 30 else ''}"
        f'<div class="controls">{controls}</div><div class="gallery">{figures}</div>'
    )


def _picture(entry: Mapping[str, Any]) -> str:
    said = [f"{count} {kind}" for kind, count in entry["errors"].items()]
    if entry["wrong_pixels"] is not None:
        said.append(f"{entry['wrong_pixels']:.1%} of pixels wrong")
    name = entry["path"].replace("\\", "/").rsplit("/", 1)[-1]
    kinds, classes = (escape("|".join(values)) for values in (entry["kinds"], entry["classes"]))
    return (
        f'<figure data-kinds="{kinds}" data-classes="{classes}"><img loading="lazy" alt="{escape(name)}: labels and prediction" '
        f'src="data:image/jpeg;base64,{entry["image"]}"><figcaption title="{escape(entry["path"])}"><b>{escape(name)}</b>: '
        f"{escape(', '.join(said) or 'no errors')}</figcaption></figure>"
    )


def _cost(content: Mapping[str, Any]) -> str:
    seconds, memory = content["model_seconds_per_image"], content["peak_megabytes"]
    text = f"{seconds:.3f} s per image in the model"
    if memory is not None:
        text += f"; peak memory of the evaluation process {memory:,.0f} MB"
    return f"<h2>Cost</h2><p>{text}.</p>"


def _gain(rows: Sequence[Mapping[str, Any]]) -> str:
    """What each model alone, in one view, gets at what cost; the last row is what this page is about."""
    names = [
        name for name in ("AP", "AP50", "mIoU") if any(row["numbers"].get(name) is not None for row in rows)
    ]
    cells = [[row["name"], *(row["numbers"].get(name) for name in names), row["seconds"]] for row in rows]
    return f"<h2>Gain and cost</h2>{table(['', *names, 's per image'], cells)}" if rows else ""
