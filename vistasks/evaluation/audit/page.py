"""An audit as one HTML page that needs no other file and no network."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from vistasks.evaluation.audit.export import usual_rows
from vistasks.evaluation.audit.findings import DISAGREEMENT, FAULTS, Finding
from vistasks.evaluation.reports.html import document, number, table

if TYPE_CHECKING:
    from vistasks.evaluation.audit.result import Audit

FRAMES = 40  # rows of the table of pictures


def audit_page(
    found: Audit, shown: Sequence[Finding], pictures: Sequence[bytes], *, about: Mapping[str, Any]
) -> str:
    """HTML of an audit; ``pictures`` are the JPEGs of the entries ``shown``, first faults, then
    disagreements.
    """
    data = ", ".join(f"{key}: {value}" for key, value in about["data"].items() if isinstance(value, str))
    head = (
        f'<h1>Suspected label errors</h1><p class="faint">weights {escape(about["weights"])}<br>'
        f"data {escape(data)}<br>{found.pictures} images, {found.labels} labels audited</p>"
    )
    notes = "".join(f"<p>{escape(note)}</p>" for note in found.notes)
    how = (
        "<p>Each score is relative to the model's average score on the labels of that class (confident learning). "
        "Detections and segmentation map have equal weight. Scores run from 0 to 1; at .5 the evidence for and against the label "
        "is equal. Left: labels, right: predictions; white corners mark the place.</p>"
    )
    frames = [
        [_name(f.path), f.worth, f.faults, f.disagreements, f.unsure] for f in found.judgement.frames[:FRAMES]
    ]
    columns = ["image", "worth", "faults", "disagreements", "unsure objects"]
    return document(
        "Label audit",
        f"{head}{_tiles(found)}{notes}<h2>Entries, most likely first</h2>{how}{_gallery(shown, pictures)}"
        "<h2>Images most worth annotating next</h2><p>Ranked by the scores of an image's suspected errors and of the places "
        "where the heads disagree, plus the number of uncertain objects (the sum of 4 p (1 - p)).</p>"
        f"{table(columns, frames)}"
        f"<h2>Class averages</h2><p>The model's averages over the labels of each class.</p>{_usual(found)}",
    )


def _tiles(found: Audit) -> str:
    counts, sure = Counter(), Counter()  # type: Counter[str], Counter[str]
    for entry in (*found.judgement.faults, *found.judgement.disagreements):
        counts[entry.kind] += 1
        sure[entry.kind] += entry.confident
    tiles = [
        f'<div class="tile">{escape(kind)}<b>{counts[kind]}</b><small>{sure[kind]} at usual confidence</small></div>'
        for kind in (*FAULTS, DISAGREEMENT)
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _gallery(shown: Sequence[Finding], pictures: Sequence[bytes]) -> str:
    if not shown:
        return "<p>No suspected label errors.</p>"
    kinds = list(dict.fromkeys(entry.kind for entry in shown))
    classes = sorted({name for entry in shown for name in (entry.given, entry.suggested) if name})
    controls = "".join(
        f'<label>{word} <select name="{key}"><option value="">all</option>'
        f"{''.join(f'<option>{escape(value)}</option>' for value in values)}</select></label>"
        for word, key, values in (("kind", "kinds", kinds), ("class", "classes", classes))
    )
    ranks: Counter[bool] = Counter()
    figures = []
    for entry, jpeg in zip(shown, pictures, strict=True):
        ranks[entry.kind == DISAGREEMENT] += 1
        figures.append(_figure(entry, jpeg, ranks[entry.kind == DISAGREEMENT]))
    return f'<div class="controls">{controls}</div><div class="gallery">{"".join(figures)}</div>'


def _figure(entry: Finding, jpeg: bytes, rank: int) -> str:
    name, image = _name(entry.path), base64.b64encode(jpeg).decode()
    classes = escape("|".join(value for value in (entry.given, entry.suggested) if value))
    return (
        f'<figure data-kinds="{escape(entry.kind)}" data-classes="{classes}"><img loading="lazy" '
        f'alt="{escape(name)}: labels and prediction" src="data:image/jpeg;base64,{image}">'
        f'<figcaption title="{escape(entry.path)}"><b>{rank}. {escape(entry.kind)}</b>, score {number(entry.score, 2)}, '
        f"{escape(name)}<br>{escape(entry.reason)}</figcaption></figure>"
    )


def _usual(found: Audit) -> str:
    rows = usual_rows(found)
    head = [
        "class",
        "labels",
        "score",
        "share of the box in the segmentation map",
        "IoU with the predicted box",
    ]
    return table(head, rows) if rows else "<p>No labels.</p>"


def _name(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]
