"""How the hot loops of this room are compiled: numba without the interpreter lock, cached on disk where that
is possible.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

import numba
from numba.core import event

ABOUT_SECONDS = 25  # measured on one core; only said, never relied on


class _Announcement(event.Listener):
    """Says once, on stderr, that this installation is compiling; silent where the cache on disk already has
    the code.
    """

    def __init__(self) -> None:
        self.said = False

    def on_start(self, event: event.Event) -> None:
        """Called by numba when it starts to compile any function; only those of this room are announced."""
        module = getattr(getattr(event.data.get("dispatcher"), "py_func", None), "__module__", None)
        if not self.said and str(module).startswith(__package__):
            self.said = True
            print(
                f"compiling selective search once (about {ABOUT_SECONDS} s)...", file=sys.stderr, flush=True
            )

    def on_end(self, event: event.Event) -> None:
        """Nothing to say."""


event.register("numba:compile", _Announcement())


def compiled(function: Callable[..., Any], *, inline: Literal["never", "always"] = "never") -> Any:
    """Decorator: the function compiled by numba at its first call, ``nogil``, kept in numba's cache on disk.

    Where no cache folder can be written (neither beside the source nor in the user's home) it is compiled in
    memory for each process instead. ``fastmath`` lets sums of minima and square roots use vector
    instructions; no NaN or infinity ever reaches these functions. ``inline="always"`` copies a small function
    into its callers."""
    options: dict[str, Any] = {
        "nogil": True,
        "fastmath": True,
        "boundscheck": False,
        "error_model": "numpy",
        "inline": inline,
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        return numba.njit(**options)(function)
