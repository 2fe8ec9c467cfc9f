"""The report as one HTML page that needs no other file and no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from vistasks.drawing.palette import Colour, model_colours
from vistasks.evaluation.reports.gallery import CLASS_MAP
from vistasks.evaluation.reports.svg import bar_chart, line_chart
from vistasks.system.text import printable
from vistasks.types import ClassNames

KIND_COLOURS = {
    "classification": "#4363d8",
    "localisation": "#f58231",
    "both": "#911eb4",
    "duplicate": "#9a6324",
    "background": "#808080",
    "missed": "#e6194b",
}
MATRIX_LIMIT = 40  # classes; a larger confusion matrix is shown as its largest confusions


def page(content: Mapping[str, Any], classes: ClassNames, gallery: Sequence[Mapping[str, Any]]) -> str:
    """HTML of what `EvaluationReport.compute` gives, with the gallery's entries."""
    colours = {name: css(colour) for name, colour in model_colours(classes).items()}
    sections = [_head(content), _tiles(content)]
    if "detection" in content["analysis"]:
        sections.append(_detection(content, colours))
    if "segmentation" in content["analysis"]:
        sections.append(_segmentation(content))
    sections += [_gallery(gallery, colours), _cost(content), _gain(content.get("gain", []))]
    return document("Evaluation report", "".join(sections))


def document(title: str, body: str) -> str:
    """A whole page with the style and the script inside."""
    style, script = (
        (files("vistasks.evaluation.reports") / name).read_text(encoding="utf-8")
        for name in ("page.css", "page.js")
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f"<body>{body}<script>{script}</script></body></html>\n"
    )
    return printable(page, keep="\n\t")


def _policy(script: str) -> str:
    """The page loads nothing and runs no script but its own, whatever a name in it tries."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def css(colour: Colour) -> str:
    """For example "#e6194b"."""
    return "#" + "".join(f"{channel:02x}" for channel in colour)


def number(value: Any, digits: int = 3) -> str:
    """For a person: ".584", "1,234", "-" for what does not exist."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, kind: str = "sorts") -> str:
    """An HTML table whose columns sort at a click; the first column is text."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = []
    for row in rows:
        cells = "".join(
            f'<td data-value="{"" if value is None else escape(str(value))}">'
            f"{escape(value) if isinstance(value, str) else number(value)}</td>"
            for value in row
        )
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _head(content: Mapping[str, Any]) -> str:
    data = ", ".join(
        f"{key}: {value}" for key, value in content.get("data", {}).items() if isinstance(value, str)
    )
    weights = escape(str(content.get("weights", "")))
    about = f"weights {weights}<br>data {escape(data)}<br>{content['images']} pictures"
    return f'<h1>Evaluation report</h1><p class="faint">{about}</p>'


def _tiles(content: Mapping[str, Any]) -> str:
    intervals: dict[str, Any] = {}
    for part in ("detection", "segmentation"):
        intervals |= content["analysis"].get(part, {}).get("intervals", {})
    tiles = []
    for name, value in content["headline"].items():
        low_high = intervals.get(name)
        between = f"95 %: {number(low_high[0])} to {number(low_high[1])}" if low_high else "&nbsp;"
        tiles.append(f'<div class="tile">{escape(name)}<b>{number(value)}</b><small>{between}</small></div>')
    protocols = [
        content[key]["protocol"] for key in ("coco", "voc_2007", "voc_area", "iou") if key in content
    ]
    notes = "<br>".join(escape(protocol) for protocol in protocols)
    note = "Intervals: bootstrap over pictures." if intervals else ""
    return f'<div class="tiles">{"".join(tiles)}</div><p class="faint">{note}<br>{notes}</p>'


def _legend(colours: Mapping[str, str]) -> str:
    spans = "".join(
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in colours.items()
    )
    return f'<p class="legend">{spans}</p>'


def _detection(content: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    found = content["analysis"]["detection"]
    rows = [[name, *values.values()] for name, values in found["per_class"].items()]
    head = ["class", *next(iter(found["per_class"].values()), {})]
    lines = {name: [(i / 100, p) for i, p in enumerate(curve)] for name, curve in found["curves"].items()}
    count = max(1, len(lines))
    mean = [(i / 100, sum(curve[i] for curve in found["curves"].values()) / count) for i in range(101)]
    chart = line_chart(
        {**lines, "mean of the classes": mean}, {**colours, "mean of the classes": "#000"}, x="recall", y="precision",
        bold="mean of the classes",
    )  # fmt: skip
    shown = {name: colours[name] for name in lines} if len(lines) <= 20 else {}
    return (
        f"<h2>Boxes</h2>{table(head, rows)}"
        f'<div class="row"><div><h3>Precision against recall, IoU .5</h3>{chart}{_legend({**shown, "mean": "#000"})}</div>'
        f"<div>{_tide(found['tide'])}</div><div>{_calibration(found['calibration'])}</div></div>"
        f"{_blame(found.get('proposals'))}<h3>Confusion at IoU .5, scores of at least {found['confusion']['score']:g}</h3>"
        "<p>Rows: what it is. Columns: what it was called. Last column: missed; last row: nothing there.</p>"
        f"{_matrix(found['confusion'])}"
    )


def _tide(tide: Mapping[str, Any]) -> str:
    gain = dict(sorted(tide["gain"].items(), key=lambda item: -item[1]))
    labels = {name: f"+{value:.3f} AP50 ({tide['count'][name]:,})" for name, value in gain.items()}
    worst = next(iter(gain), None)
    fixed = number(tide["ap50"] + gain[worst])
    text = f"Fixing every {worst} error alone would bring AP50 from {number(tide['ap50'])} to {fixed}."
    shown = bar_chart({name: max(0.0, value) for name, value in gain.items()}, KIND_COLOURS, labels=labels)
    return f"<h3>What fixing each kind of error would gain (TIDE)</h3><p>{escape(text) if worst else ''}</p>{shown}"


def _calibration(calibration: Mapping[str, Any]) -> str:
    points = [(b["score"], b["accuracy"]) for b in calibration["bins"]]
    chart = line_chart(
        {"found": points}, {"found": "#2456c8"}, x="score", y="share that is right", dots=True, diagonal=True
    )
    text = f"Expected calibration error {number(calibration['expected_error'])}; on the dashed line a score is a probability."
    return f"<h3>Are the scores honest?</h3><p>{text}</p>{chart}"


def _blame(proposals: Mapping[str, Any] | None) -> str:
    if not proposals:
        return ""
    rows = [
        [
            name,
            values["objects"],
            values["proposed"],
            values["detected"],
            strict["proposed"],
            strict["detected"],
        ]
        for (name, values), strict in zip(proposals["0.5"].items(), proposals["0.7"].values())
    ]
    head = [
        "class",
        "objects",
        "proposed, IoU .5",
        "detected, IoU .5",
        "proposed, IoU .7",
        "detected, IoU .7",
    ]
    overall = proposals["0.5"]["all classes"]
    lost, dropped = 1 - overall["proposed"], max(0.0, overall["proposed"] - overall["detected"])
    who = "the proposals" if lost > dropped else "the classifier"
    text = (
        f"{lost:.1%} of the objects have no proposal at IoU .5; another {dropped:.1%} were proposed and yet have no detection of "
        f"their class, whatever its score. More is lost by {who}."
    )
    return f"<h3>Proposals or classifier?</h3><p>{escape(text)}</p>{table(head, rows)}"


def _matrix(confusion: Mapping[str, Any]) -> str:
    """Cells tinted by their share of the row; a large matrix as its largest entries off the diagonal."""
    names, matrix = confusion["names"], confusion["matrix"]
    if len(names) > MATRIX_LIMIT:
        wrong = [
            (n, names[i], names[j]) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n
        ]
        rows = [[f"{a} as {b}", n] for n, a, b in sorted(wrong, reverse=True)[:40]]
        text = f"The forty most frequent of {len(names)} x {len(names)}; all of them in report.json."
        return f"<p>{text}</p>{table(['confusion', 'count'], rows)}"
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *names))
    lines = []
    for i, (name, row) in enumerate(zip(names, matrix)):
        total = sum(row) or 1
        cells = "".join(
            f'<td style="background:rgba({"36,140,80" if i == j else "214,60,60"},{min(1.0, value / total):.2f})" '
            f'title="{value / total:.1%} of {escape(name)}">{value:,}</td>'
            for j, value in enumerate(row)
        )
        lines.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    grid = f'<table class="matrix"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'<div class="scroll">{grid}</div>'


def _segmentation(content: Mapping[str, Any]) -> str:
    found, boundary, iou = (
        content["analysis"]["segmentation"],
        content["analysis"]["boundary"],
        content["iou"],
    )
    rows = [
        [
            name,
            values["IoU"],
            outline["boundary_IoU"],
            outline["boundary_F"],
            values["accuracy"],
            values["pixels"],
        ]
        for (name, values), outline in zip(iou["per_class"].items(), boundary["per_class"].values())
    ]
    rows.append(
        [
            "all classes",
            iou["mIoU"],
            boundary["boundary_mIoU"],
            boundary["boundary_F"],
            iou["mean_class_accuracy"],
            iou["pixels"],
        ]
    )
    pairs = [[f"{p['truth']} as {p['prediction']}", p["share"], p["pixels"]] for p in found["pairs"]]
    points = [(float(width), share) for width, share in boundary["trimap"].items() if share is not None]
    chart = line_chart(
        {"accuracy": points}, {"accuracy": "#2456c8"}, x="pixels from an outline", y="pixel accuracy", x_range=(0, 32), dots=True,
        ticks=[width for width, _ in points],
    )  # fmt: skip
    return (
        "<h2>Class map</h2>"
        f"{table(['class', 'IoU', 'boundary IoU', 'boundary F', 'accuracy', 'pixels'], rows)}"
        f'<p class="faint">{escape(boundary["protocol"])}</p>{_panoptic(content.get("panoptic"))}'
        f'<div class="row"><div><h3>Accuracy near outlines (trimap)</h3>{chart}</div>'
        f"<div><h3>Most confused</h3>{table(['confusion', 'share of the class', 'pixels'], pairs)}</div></div>"
        f"<h3>Confusion, pixels</h3>{_matrix(found['confusion'])}"
    )


def _panoptic(found: Mapping[str, Any] | None) -> str:
    """Panoptic quality, where a model has both heads."""
    if found is None:
        return ""
    numbers = ("PQ", "SQ", "RQ", "segments")
    rows = [
        [name, *(values[key] for key in numbers)]
        for name, values in found["per_class"].items()
        if values["PQ"] is not None
    ]
    rows.append(["all classes", found["PQ"], found["SQ"], found["RQ"], sum(row[-1] for row in rows)])
    text = "SQ: how well what was found is outlined; RQ: how much was found; PQ: their product."
    shown = table(["class", "PQ", "SQ", "RQ", "segments"], rows)
    return f'<h3>Panoptic quality</h3><p>{text}</p>{shown}<p class="faint">{escape(found["protocol"])}</p>'


def _gallery(gallery: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    if not gallery:
        return "<h2>Worst pictures</h2><p>No picture has an error.</p>"
    kinds = sorted({kind for entry in gallery for kind in _kinds(entry)})
    names = sorted({name for entry in gallery for name in entry["classes"]})
    controls = "".join(
        f'<label>{word} <select name="{key}"><option value="">all</option>'
        f"{''.join(f'<option>{escape(value)}</option>' for value in values)}</select></label>"
        for word, key, values in (("error", "kinds", kinds), ("class", "classes", names))
    )
    figures = "".join(_picture(entry) for entry in gallery)
    return (
        "<h2>Worst pictures</h2><p>Left the labels (missed objects are marked), right what the model says (with what is wrong "
        f"with a box): the pictures with the most errors of each kind.</p>{_legend(colours) if len(colours) <= 30 else ''}"
        f'<div class="controls">{controls}</div><div class="gallery">{figures}</div>'
    )


def _kinds(entry: Mapping[str, Any]) -> list[str]:
    return [*entry["errors"], *([CLASS_MAP] if entry["wrong_pixels"] else [])]


def _picture(entry: Mapping[str, Any]) -> str:
    said = [f"{count} {kind}" for kind, count in entry["errors"].items()]
    if entry["wrong_pixels"] is not None:
        said.append(f"{entry['wrong_pixels']:.1%} of the pixels wrong")
    name = entry["path"].replace("\\", "/").rsplit("/", 1)[-1]
    kinds, classes = (escape("|".join(values)) for values in (_kinds(entry), entry["classes"]))
    return (
        f'<figure data-kinds="{kinds}" data-classes="{classes}"><img loading="lazy" alt="{escape(name)}: labels and prediction" '
        f'src="data:image/jpeg;base64,{entry["image"]}"><figcaption title="{escape(entry["path"])}"><b>{escape(name)}</b>: '
        f"{escape(', '.join(said) or 'no errors')}</figcaption></figure>"
    )


def _cost(content: Mapping[str, Any]) -> str:
    seconds, memory = content["model_seconds_per_image"], content["peak_megabytes"]
    text = f"{seconds:.3f} s a picture in the model"
    if memory is not None:
        text += f"; at most {memory:,.0f} MB of memory in the evaluating process"
    return f"<h2>Cost</h2><p>{text}.</p>"


def _gain(rows: Sequence[Mapping[str, Any]]) -> str:
    """What each model alone, in one view, gets at what cost; the last row is what this page is about."""
    names = [
        name for name in ("AP", "AP50", "mIoU") if any(row["numbers"].get(name) is not None for row in rows)
    ]
    cells = [[row["name"], *(row["numbers"].get(name) for name in names), row["seconds"]] for row in rows]
    return f"<h2>Gain and cost</h2>{table(['', *names, 's a picture'], cells)}" if rows else ""
