"""A study's table, a header and then rows of text, for a file and for the screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from vistasks.system.terminal import PlainConsole


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]]) + "\n"


def print_rows(rows: Sequence[Sequence[str]], *, title: str) -> None:
    """The table on the screen; the first column holds words, the others numbers."""
    header, *body = rows
    table = Table(title=title)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in body:
        table.add_row(*row)
    PlainConsole().print(table)
