"""Tables and bars: texts are shown as they are, and can neither style nor steer the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from vistasks.system.text import printable


class PlainConsole(Console):
    """rich's console without markup: a class called ``[red]`` or ``[/]`` is shown as that.

    Styles are given as `rich.text.Text` or ``style=``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        return super().render_str(printable(text, keep="\n\t"), **options)
