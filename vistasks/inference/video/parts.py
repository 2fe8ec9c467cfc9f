"""What lets an interrupted run go on: its results in parts, each of which is there whole or does not
count.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vistasks.system.atomic import write_text

_RUN = "run.json"


@dataclass(frozen=True)
class Part:
    """A part that is complete.

    Attributes:
        frames, detections: in it.
        first, last: ticks (1/90,000 s) of its first and last frame; -1 without a video.
        size: (height, width) of its video; None without.
    """

    frames: int
    detections: int
    first: int = -1
    last: int = -1
    size: tuple[int, int] | None = None


class PartFolder:
    """A hidden folder of numbered parts.

    Part 3 is ``00003.*``, and complete once ``00003.json`` is there.

    Args:
        path: the folder; made if missing.
        run: what the results depend on, as JSON: a run with others cannot go on here.
        resume: keep the complete parts that are there; else everything is removed.

    Attributes:
        done: the complete parts, in order.

    Raises:
        ValueError: with ``resume``, parts of a run that differs, with the first difference.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], *, resume: bool) -> None:
        self.path, self.done = path, list[Part]()
        if resume and (path / _RUN).is_file():
            self._check(json.loads((path / _RUN).read_text(encoding="utf-8")), json.loads(json.dumps(run)))
            while (facts := self.file(len(self.done), "json")).is_file():
                known = json.loads(facts.read_text(encoding="utf-8"))
                self.done.append(Part(**{**known, "size": tuple(known["size"]) if known["size"] else None}))
            self.drop_incomplete()
        elif path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / _RUN, json.dumps(run, indent=1))

    def _check(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                raise ValueError(
                    f"{self.path}: the interrupted run had {key} = {before.get(key)}, this one has {now.get(key)}; "
                    "use the same values, or start again without --resume"
                )

    def file(self, number: int, suffix: str) -> Path:
        """The file of a part's ``suffix``, such as "mp4"."""
        return self.path / f"{number:05d}.{suffix}"

    def complete(self, part: Part) -> None:
        """The next part's files are written and closed."""
        number = len(self.done)
        for path in self.path.glob(f"{number:05d}.*"):
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        write_text(self.file(number, "json"), json.dumps(asdict(part)))
        self.done.append(part)

    def drop_incomplete(self) -> None:
        """Removes the files of parts that are not complete."""
        whole = {f"{number:05d}" for number in range(len(self.done))}
        for path in self.path.iterdir():
            if path.name != _RUN and path.name.split(".")[0] not in whole:
                path.unlink()

    def remove(self) -> None:
        shutil.rmtree(self.path)
