"""Standard output and error that nothing in a text can steer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from vistasks.system.text import printable


class _PrintableStream:
    """A text stream in which control characters of a text become visible escapes.

    rich, whose colours need them, writes to the stream behind it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # the attribute by which rich looks through streams of this kind

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(printable(text, keep="\n\t\r"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextlib.contextmanager
def printable_streams() -> Iterator[None]:
    """While it is open, what is printed is printable, also in a terminal that knows no Unicode."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    wrapped = [stream and _PrintableStream(stream) for stream in before]
    sys.stdout, sys.stderr = wrapped  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.stdout is wrapped[0]:  # else it was taken away
            sys.stdout = before[0]
        sys.stderr = before[1]
