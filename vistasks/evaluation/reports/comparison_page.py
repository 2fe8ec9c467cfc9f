"""A comparison of runs, for the screen and as one HTML page in the style of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rich.table import Table

from vistasks.evaluation.reports.compared import TaskComparison
from vistasks.evaluation.reports.html import document, number, table
from vistasks.evaluation.reports.svg import interval_chart
from vistasks.task import task_of

CHART_ROWS = 25  # classes that a chart shows
PICTURES = 25  # pictures that a table of the gained, and one of the lost, shows


def comparison_tables(content: Mapping[str, Any]) -> list[Table]:
    """The runs' numbers, and how many pictures gained and lost. A star marks an interval that 0 is not in."""
    names = [run["name"] for run in content["runs"]]
    share = f"{content['confidence']:.0%}"
    caption = f"differences from {names[0]} with {share} paired bootstrap intervals over images; *: the interval excludes 0"
    lines = "\n" if len(names) > 2 else " "  # many columns: the interval stands under the difference
    numbers = Table(title="comparison", caption=caption, caption_justify="left", min_width=78)
    numbers.add_column("", no_wrap=True)
    for name in names:
        numbers.add_column(name, justify="right", overflow="fold")
    for name in names[1:]:
        numbers.add_column(
            f"{name} - {names[0]}" if len(names) > 2 else "difference", justify="right", overflow="fold"
        )
    for row in content["numbers"]:
        numbers.add_row(
            row["name"], *map(number, row["values"]), *(_words(d, lines) for d in row["differences"])
        )
    numbers.add_section()
    seconds = [run["seconds"] for run in content["runs"]]
    numbers.add_row(
        "s per image",
        *map(number, seconds),
        *(f"x {value / max(seconds[0], 1e-9):.2f}" for value in seconds[1:]),
    )
    pictures = Table(title="images", min_width=78)
    for head in ("", "by", "better", "worse", "same"):
        pictures.add_column(head, justify="right" if head in ("better", "worse", "same") else "left")
    for task, changes in content["pictures"].items():
        for change in changes:
            pictures.add_row(
                change["run"],
                _part(task).errors_title,
                *(f"{change[key]:,}" for key in ("better", "worse", "same")),
            )
    return [numbers, pictures]


def _part(task: str) -> TaskComparison:
    part: TaskComparison = task_of(task).comparison()
    return part


def _words(difference: Mapping[str, Any], between: str) -> str:
    if difference["difference"] is None:
        return "-"
    if difference["low"] is None:
        return f"{difference['difference']:+.3f}"
    star = "*" if _clear(difference) else " "
    return (
        f"{difference['difference']:+.3f}{star}{between}[{difference['low']:+.3f}, {difference['high']:+.3f}]"
    )


def _clear(difference: Mapping[str, Any]) -> bool:
    """Whether there is an interval, and 0 is not in it."""
    return difference["low"] is not None and (difference["low"] > 0 or difference["high"] < 0)


def comparison_page(content: Mapping[str, Any]) -> str:
    """HTML that needs no other file and no network, of what
    `vistasks.evaluation.reports.comparison.compare_runs` gives.
    """
    names = [run["name"] for run in content["runs"]]
    protocols = "<br>".join(escape(protocol) for protocol in content["protocols"])
    rows = [
        [run["name"], _what(run), run["pictures"], run["seconds"], _rounded(run["megabytes"])]
        for run in content["runs"]
    ]
    sections = [
        f"<h1>Comparison of {len(names)} runs</h1>",
        f'<p class="faint">data {escape(content["data"])}</p>',
        table(["run", "weights", "images", "s per image", "MB"], rows),
        f"<h2>Metrics</h2><p>{_explained(content)}</p>",
        _differences(names, content["numbers"], []),
        _charts(names, content["numbers"]),
        f'<p class="faint">{protocols}</p>',
    ]
    for task, classes in content["classes"].items():
        part = _part(task)
        sections += [
            f"<h2>{part.classes_title}</h2>",
            _differences(names, classes, [part.count]),
            _charts(names, classes[:CHART_ROWS]),
        ]
    for task, changes in content["pictures"].items():
        sections += [_pictures(task, change, names[0]) for change in changes]
    return document("Comparison", "".join(sections))


def _what(run: Mapping[str, Any]) -> str:
    """The weights, and how the pictures were looked at."""
    weights, views = run["weights"], run["test_time"] or {}
    seen = [*(["flip"] if views.get("flip") else []), *(f"{scale:g}" for scale in views.get("scales", ()))]
    words = [weights] if isinstance(weights, str) else [" + ".join(weights)]
    words += [f"--tta {','.join(seen)}"] if seen else []
    return ", ".join([*words, *([f"--window {views['window']}"] if views.get("window") else [])])


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)


def _explained(content: Mapping[str, Any]) -> str:
    first = escape(content["runs"][0]["name"])
    return (
        f"Differences from {first}, with {content['confidence']:.0%} intervals of a paired bootstrap: images are resampled "
        "with replacement, the same ones for both runs. Coloured where the interval excludes 0."
    )


def _differences(names: Sequence[str], rows: Sequence[Mapping[str, Any]], more: Sequence[str]) -> str:
    """A table that sorts: a row a number or class, a column a run, then a column a difference; ``more`` are
    further keys.
    """
    heads = ["", *more, *names, *(f"{name} - {names[0]}" for name in names[1:])]
    lines = []
    for row in rows:
        cells = [
            _cell(row["name"]),
            *(_cell(row[key]) for key in more),
            *(_cell(value) for value in row["values"]),
        ]
        lines.append(f"<tr>{''.join(cells)}{''.join(_difference(d) for d in row['differences'])}</tr>")
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    return f'<div class="scroll"><table class="sorts"><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _cell(value: Any) -> str:
    sorts = "" if value is None else escape(str(value))
    return f'<td data-value="{sorts}">{escape(value) if isinstance(value, str) else number(value)}</td>'


def _difference(found: Mapping[str, Any]) -> str:
    value = found["difference"]
    if value is None:
        return '<td data-value="">-</td>'
    between = "" if found["low"] is None else f" <small>{found['low']:+.3f} to {found['high']:+.3f}</small>"
    kind = ("gained" if value > 0 else "lost") if _clear(found) else ""
    return f'<td data-value="{value}" class="{kind}">{value:+.3f}{between}</td>'


def _charts(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A chart for each other run, of the rows that have an interval."""
    charts = []
    for position, name in enumerate(names[1:]):
        known = [
            (row["name"], row["differences"][position])
            for row in rows
            if row["differences"][position]["low"] is not None
        ]
        if known:
            chart = interval_chart({label: (d["low"], d["difference"], d["high"]) for label, d in known})
            charts.append(f"<div><h3>{escape(name)} - {escape(names[0])}</h3>{chart}</div>")
    return f'<div class="row">{"".join(charts)}</div>'


def _pictures(task: str, change: Mapping[str, Any], first: str) -> str:
    words = _part(task).errors_title
    text = (
        f"By {words}, {change['better']:,} of {change['better'] + change['worse'] + change['same']:,} images are better in "
        f"{change['run']} than in {first}, {change['worse']:,} are worse and {change['same']:,} equal."
    )
    gained = change["changed"][: min(PICTURES, change["better"])]
    lost = change["changed"][::-1][: min(PICTURES, change["worse"])]
    tables = []
    for title, rows in (("Most gained", gained), ("Most lost", lost)):
        if rows:
            kind = int if _part(task).whole else float
            shown = [[_name(row["path"]), kind(row["first"]), kind(row["other"])] for row in rows]
            tables.append(f"<div><h3>{title}</h3>{table(['image', first, change['run']], shown)}</div>")
    title = _part(task).pictures_title
    return f'<h2>{title}, {escape(change["run"])}</h2><p>{escape(text)}</p><div class="row">{"".join(tables)}</div>'


def _name(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]
