from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from vistasks.system.text import csv_cell, file_name, plot_label, printable

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "a\nb",
    "\udce9t\udce9",
    "\ud800",
    "\u202egnp.exe",
    "\x9b2J",
    "\x7f",
    "\u2028",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_printable_can_be_written_and_is_one_line(text: str) -> None:
    plain = printable(text)
    assert plain.isprintable() and plain.encode("utf-8") and printable(plain) == plain


def test_escapes_name_what_was_there() -> None:
    assert printable("caf\udce9\t\x1b\u202e.png") == r"caf\xe9\t\x1b\u202e.png"
    assert printable("a\nb\tc\x1b", keep="\n\t") == "a\nb\tc\\x1b"
    for usual in ("Straße", "犬", "👩‍🚀", "a b-c_d.png", "\\x1b"):
        assert printable(usual) == usual


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "\n=1"])
def test_no_cell_begins_like_a_formula(text: str) -> None:
    file = io.StringIO()
    csv.writer(file).writerow([csv_cell(text)])
    (cell,) = next(csv.reader(io.StringIO(file.getvalue())))
    assert cell[0] == "'" or cell.startswith("\\"), cell
    assert csv_cell("cat") == "cat" and csv_cell("a=b-c") == "a=b-c"


@pytest.mark.parametrize(
    "text",
    ["..", ".", "", "a/b", "../../x", "a\\b", "C:x", "a\0b", "x" * 5000, "a.", "~", "\ud800", "é" * 300],
)
def test_a_file_name_stays_in_its_folder(tmp_path: Path, text: str) -> None:
    name = file_name(text)
    path = tmp_path / name / "a.txt"
    assert path.resolve().parent.parent == tmp_path.resolve() and not name.endswith(".")
    path.parent.mkdir()
    path.write_text("a")
    assert [found.name for found in tmp_path.iterdir()] == [name]
    assert file_name("red") == "red" and file_name("traffic light") == "traffic light"


def test_dollars_are_no_formula() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.suptitle(plot_label(r"a$b\frac$c"))
    figure.savefig(io.BytesIO())
