"""Faults are collected over the whole data set and told together, not one a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

OnError = Literal["raise", "skip"]  # what happens to a picture whose files are damaged

SHOWN = 20


class DataFaults(ValueError):
    """Faults found in one pass over a data set: ``faults`` has them all, the message the first, ``advice``
    the ways out.
    """

    def __init__(self, message: str, faults: Sequence[str] = (), advice: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.faults, self.advice = list(faults), list(advice)


def flag(value: object, key: str) -> bool:
    """A yes or no of an annotation file: a number or text 0 or 1, true or false (any case), nothing or
    "Unspecified" for no; anything else is a ``ValueError``.
    """
    word = str(value).strip().lower()
    if word in ("1", "1.0", "true"):
        return True
    if value is None or word in ("", "0", "0.0", "false", "unspecified"):
        return False
    raise ValueError(f"{key} must be 0 or 1, not {value!r}")


def listed(faults: Sequence[str], *, limit: int = SHOWN) -> str:
    """The first ``limit`` faults, one an indented line, and how many more there are."""
    lines = [f"  {fault}" for fault in faults[:limit]]
    if len(faults) > limit:
        lines.append(f"  ... and {len(faults) - limit} more")
    return "\n".join(lines)


def raise_if_any(faults: Sequence[str], *, source: str, advice: Sequence[str] = ()) -> None:
    """One `DataFaults` (a ``ValueError``) with the first 20 faults and their total; nothing if there are
    none.
    """
    if faults:
        total = "1 problem" if len(faults) == 1 else f"{len(faults)} problems"
        ways_out = [line for line in advice if line]
        message = f"{source}: {total}\n{listed(faults)}" + "".join(f"\n{line}" for line in ways_out)
        raise DataFaults(message, faults, ways_out)


def counted(faults: Sequence[str], what: str, *, limit: int = 5) -> list[str]:
    """A note such as ``2 boxes dropped: a.xml object 11: zero area; ...``, in a list; an empty list without
    faults.
    """
    if not faults:
        return []
    more = f"; and {len(faults) - limit} more" if len(faults) > limit else ""
    return [f"{len(faults)} {what}: {'; '.join(faults[:limit])}{more}"]
