"""The parts of the pages: the document, tables, legends, confusion matrices."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from vistasks.drawing.palette import Colour
from vistasks.system.text import printable

MATRIX_LIMIT = 40  # classes; a larger confusion matrix is shown as its largest confusions


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


def legend(colours: Mapping[str, str]) -> str:
    spans = "".join(
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in colours.items()
    )
    return f'<p class="legend">{spans}</p>'


def confusion_table(confusion: Mapping[str, Any]) -> str:
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
