"""Class names of a config against class names of files: names are the keys, ids follow from their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from vistasks.registry import nearest
from vistasks.system.text import few

OtherClasses = Literal["error", "drop"]


class ClassTable:
    """Name -> id for the objects of a data set, with an account of the names that it does not have."""

    def __init__(self, names: Sequence[str], others: OtherClasses) -> None:
        if len(set(names)) < len(names):
            raise ValueError(f"classes: duplicate name in {list(names)}")
        self.names = tuple(names)
        self._ids = {name: index for index, name in enumerate(names)}
        self._others = others
        self._met: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def find(self, name: str, place: str) -> int | None:
        """The id, or None for a name that the table does not have (which is then an error or a note)."""
        self._met[name] += 1
        self._first.setdefault(name, place)
        return self._ids.get(name)

    @property
    def _unknown(self) -> list[str]:
        return sorted(name for name in self._met if name not in self._ids)

    @property
    def errors(self) -> list[str]:
        """One line per unknown name, if unknown names are errors."""
        if self._others == "drop" or not self._unknown:
            return []
        known = list(self.names)
        return [
            f"{self._first[name]}: the class '{name}' ({self._met[name]} objects) is not in classes.{nearest(name, known)}"
            for name in self._unknown
        ]

    @property
    def advice(self) -> str:
        """Both lists and the way out, if there are errors."""
        if not self.errors:
            return ""
        both = f"the files have: {few(sorted(self._met))}; classes has: {few(self.names) or 'none'}"
        return f"{both} (other_classes: drop leaves out what classes does not have)"

    @property
    def notes(self) -> list[str]:
        """How many objects of which unknown names were left out."""
        if self._others == "error" or not self._unknown:
            return []
        total = sum(self._met[name] for name in self._unknown)
        return [
            f"{total} objects of other classes left out: {', '.join(f'{name} {self._met[name]}' for name in self._unknown)}"
        ]


def labelled_ids(classes: Sequence[str], labelled: Sequence[str] | None) -> frozenset[int]:
    """The ids of ``labelled`` in ``classes``; all ids for None. An unknown name is a ``ValueError`` with both
    lists.
    """
    if labelled is None:
        return frozenset(range(len(classes)))
    for name in labelled:
        if name not in classes:
            raise ValueError(
                f"labelled_classes: '{name}' is not among the classes.{nearest(name, list(classes))} "
                f"labelled_classes: {few(labelled)}; classes: {few(classes)}"
            )
    return frozenset(classes.index(name) for name in labelled)
