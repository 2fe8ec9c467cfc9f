"""Text that comes from files and file names, made fit for where it goes.

Names of files, classes and pictures may hold control characters, terminal escapes and, where a file name is
no UTF-8, lone surrogates. They stay as they are while we work with them, so that files can be opened, and
are made printable on their way out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# control characters, marks that reverse the direction of text, line and paragraph ends, lone surrogates
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
_NOT_IN_NAMES = re.compile(r'[/\\<>:"|?*]')
_FORMULA = ("=", "+", "-", "@")
_LONGEST_NAME = 100  # characters; file systems allow 255 bytes


def printable(text: str, *, keep: str = "") -> str:
    """The text with escapes such as ``\\x1b`` and ``\\u202e`` for what cannot or must not be printed.

    A byte of a file name that is no UTF-8 becomes ``\\xe9`` as well.

    Args:
        keep: characters to leave as they are, for example a newline between lines of our own.
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # Python's stand-in for a byte of a file name
        number -= 0xDC00
    short = {9: "\\t", 10: "\\n", 13: "\\r"}
    return short.get(number) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def few(names: Iterable[str], *, limit: int = 20) -> str:
    """The first ``limit`` names, and how many more there are."""
    known = list(names)
    more = f" and {len(known) - limit:,} more" if len(known) > limit else ""
    return ", ".join(known[:limit]) + more


def csv_cell(text: str) -> str:
    """The text for a cell of a csv file, which no spreadsheet takes for a formula.

    Text that begins with ``=``, ``+``, ``-`` or ``@`` gets an apostrophe before it; a tab or line break, which
    do the same harm, becomes an escape.
    """
    plain = printable(text)
    return f"'{plain}" if plain.lstrip().startswith(_FORMULA) else plain


def plot_label(text: str) -> str:
    """The text for matplotlib, which would take what stands between two dollar signs for a formula."""
    return printable(text).replace("$", r"\$")


def file_name(text: str) -> str:
    """The text as one part of a path that stays in its folder on every system: ``a/b`` -> ``a_b``,
    ``..`` -> ``__``.
    """
    plain = _NOT_IN_NAMES.sub("_", printable(text).replace("\\", "_"))[:_LONGEST_NAME]
    kept = plain.rstrip(". ")  # Windows drops them
    return kept + "_" * (len(plain) - len(kept)) or "_"
