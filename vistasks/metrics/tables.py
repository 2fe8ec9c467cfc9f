"""The metrics' results as tables for the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

GAINED = ("AP", "AP50", "mIoU")  # the numbers that `gain_table` shows
WIDTH = 78  # characters: the captions stay readable under short class names


def report_tables(report: Mapping[str, Any]) -> list[Table]:
    """A table for each metric's result in ``report``, titled with its key; other entries are passed over."""
    tables = []
    for key, result in report.items():
        if isinstance(result, Mapping) and "per_class" in result:
            make = segmentation_table if "mIoU" in result else detection_table
            tables.append(make(result, title=key))
    return tables


def detection_table(result: Mapping[str, Any], *, title: str = "detection") -> Table:
    """What `CocoAveragePrecision` or `VocAveragePrecision` computed: one row per class and one for all;
    protocol below.
    """
    return _table(result, title=title, total={"AP": "mAP" if "mAP" in result else "AP"})


def segmentation_table(result: Mapping[str, Any], *, title: str = "segmentation") -> Table:
    """What `MeanIoU` computed: one row per class and one for all; the protocol below."""
    return _table(result, title=title, total={"IoU": "mIoU", "accuracy": "mean_class_accuracy"})


def gain_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The "gain" of `vistasks.evaluation.loop.evaluate`: its rows, and the last against the best of the
    others.
    """
    names = [name for name in GAINED if any(row["numbers"].get(name) is not None for row in rows)]
    table = Table(
        title="gain and cost",
        caption="s: seconds per image in the model",
        caption_justify="left",
        min_width=WIDTH,
    )
    table.add_column("", overflow="fold")
    for name in (*names, "s", "times"):
        table.add_column(name, justify="right", no_wrap=True)
    least = min(row["seconds"] for row in rows)
    for row in rows:
        cells = [_cell(row["numbers"].get(name)) for name in names]
        table.add_row(row["name"], *cells, _cell(row["seconds"]), f"{row['seconds'] / least:.1f}")
    table.add_section()
    best = {
        name: max((v for row in rows[:-1] if (v := row["numbers"].get(name)) is not None), default=None)
        for name in names
    }
    gained = [(rows[-1]["numbers"].get(name), best[name]) for name in names]
    cells = ["-" if now is None or before is None else f"{now - before:+.3f}" for now, before in gained]
    table.add_row("last against the best before", *cells, "", "")
    return table


def _table(result: Mapping[str, Any], *, title: str, total: Mapping[str, str]) -> Table:
    """``total[column]`` is the result's key for the number over all classes where it is not called like the
    column.
    """
    rows = result["per_class"]
    columns = list(next(iter(rows.values())))
    shown = {"protocol", "per_class", "pixels", "segments", *columns, *total.values()}
    rest = "  ".join(f"{name}={_cell(value)}" for name, value in result.items() if name not in shown)
    caption = f"{rest}\n{result['protocol']}" if rest else result["protocol"]
    table = Table(title=title, caption=caption, caption_justify="left", min_width=WIDTH)
    table.add_column("class")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(_cell(row[column]) for column in columns))
    table.add_section()
    table.add_row("all classes", *(_cell(_overall(result, column, total)) for column in columns))
    return table


def _overall(result: Mapping[str, Any], column: str, total: Mapping[str, str]) -> float | int | None:
    """The number over all classes; counts are summed."""
    if column in ("objects", "pixels", "segments"):
        return sum(row[column] for row in result["per_class"].values())
    return result[total.get(column, column)]


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
