from __future__ import annotations

import io
import sys

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table

from vistasks.cli import main
from vistasks.system.streams import printable_streams
from vistasks.system.terminal import PlainConsole
from vistasks.system.text import printable

NAMES = ["[/]", "[bold red]x[/bold red]", ":smile:", "\x1b]0;title\x07", "caf\udce9"]


def test_names_are_shown_as_they_are() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, width=200, force_terminal=False)
    for name in NAMES:
        table = Table(name, title=name)
        table.add_row(name)
        console.print(table)
        console.print(name)
        with Progress(TextColumn("{task.description}", markup=False), console=console) as bar:
            bar.add_task(printable(name))
    text = file.getvalue()
    text.encode("utf-8")
    assert "\x1b" not in text and "\x07" not in text
    for shown in ("[/]", "[bold red]x[/bold red]", ":smile:", r"\x1b]0;title\x07", r"caf\xe9"):
        assert text.count(shown) >= 4, shown


def test_printing_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with printable_streams():
        print("\x1b[2Jcaf\udce9", end="\n\r")
        print("\x9b\u202e", file=sys.stderr, flush=True)
        PlainConsole(force_terminal=True, color_system="standard", legacy_windows=False).print(
            "x", style="red"
        )
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("\\x1b[2Jcaf\\xe9\n\r\x1b[31mx\x1b[0m\n", "\\x9b\\u202e\n")


def test_an_error_names_a_file_that_is_no_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "caf\udce9\x1b.yaml"]) == 1
    said = capsys.readouterr().err
    assert r"caf\xe9\x1b.yaml" in said and "\x1b" not in said
