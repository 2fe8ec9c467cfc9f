"""An audit as COCO json, which labelling tools import, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from vistasks.evaluation.audit.findings import Finding
from vistasks.evaluation.audit.places import PictureEvidence

if TYPE_CHECKING:
    from vistasks.evaluation.audit.result import Audit

USUAL = ("labels", "score", "share_of_the_box", "iou")


def coco(
    found: Audit, evidence: Sequence[PictureEvidence], *, about: Mapping[str, Any], root: Path
) -> dict[str, Any]:
    """A COCO ground-truth file: an annotation for every entry, of the class that the model suggests.

    Besides COCO's keys an annotation has "score", "reason", "kind", "given", "suggested", "confident", "rank"
    and, for a box that should be elsewhere, "better" (x, y, width, height); an image has "worth" and "rank",
    how much annotating it would settle. What was checked, what could not be, and the classes' self-confidence
    stand in "info". File names are relative to ``root`` where the pictures lie under it."""
    names = list(dict.fromkeys([*found.words.boxes, *found.words.areas]))
    numbers = {name: number for number, name in enumerate(names, 1)}
    sizes = {one.index: one.size for one in evidence}
    images = [
        {
            "id": frame.index + 1,
            "file_name": _relative(frame.path, root),
            "height": sizes[frame.index][0],
            "width": sizes[frame.index][1],
            "worth": round(frame.worth, 4),
            "rank": rank,
        }
        for rank, frame in enumerate(found.judgement.frames, 1)
    ]
    ranked = [(rank, entry) for part in (found.judgement.faults, found.judgement.disagreements)
              for rank, entry in enumerate(part, 1)]  # fmt: skip
    annotations = [
        _annotation(number, rank, entry, numbers) for number, (rank, entry) in enumerate(ranked, 1)
    ]
    info = {
        "description": "suspected label errors, by a trained model",
        **about,
        "notes": found.notes,
        "labels": found.labels,
        "usual": {row[0]: dict(zip(USUAL, row[1:])) for row in usual_rows(found)},
    }
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()]
    return {
        "info": info,
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def _annotation(number: int, rank: int, entry: Finding, numbers: Mapping[str, int]) -> dict[str, Any]:
    box = _xywh(entry.box)
    facts: dict[str, Any] = {
        "id": number,
        "image_id": entry.index + 1,
        "category_id": numbers[entry.suggested or entry.given],
        "bbox": box,
        "area": round(box[2] * box[3], 2),
        "iscrowd": 0,
        "segmentation": [],
        "score": round(entry.score, 4),
        "reason": f"{entry.kind}: {entry.reason}",
        "kind": entry.kind,
        "given": entry.given,
        "suggested": entry.suggested,
        "confident": entry.confident,
        "rank": rank,
    }
    return facts if entry.better is None else {**facts, "better": _xywh(entry.better)}


def _xywh(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]


def _relative(path: str, root: Path) -> str:
    full = Path(path).resolve()
    return (
        full.relative_to(root.resolve()).as_posix()
        if full.is_relative_to(root.resolve())
        else Path(path).as_posix()
    )


def usual_rows(found: Audit) -> list[list[Any]]:
    """What the model says on average of each class's labels: its name, then `USUAL`; None where nobody says
    anything.
    """
    rows: list[list[Any]] = []
    for means, names in (
        (found.judgement.of_boxes, found.words.boxes),
        (found.judgement.of_areas, found.words.areas),
    ):
        if means is not None:
            rows += [
                [
                    name,
                    int(means.labels[k]),
                    _number(means.scores[k]),
                    _number(means.seen[k]),
                    _number(means.placed[k]),
                ]
                for k, name in enumerate(names)
            ]
    return rows


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def entry_lines(entries: Sequence[Finding]) -> list[str]:
    """The ranked entries for the terminal, two lines each: where, and why."""
    lines = []
    for rank, entry in enumerate(entries, 1):
        place = ", ".join(f"{value:.0f}" for value in entry.box)
        lines.append(f"{rank:3}. {entry.score:.2f}  {entry.kind:13}  {Path(entry.path).name}  [{place}]")
        lines.append(f"           {entry.reason}")
    return lines


def frames_table(found: Audit, *, count: int) -> Table:
    """The pictures most worth annotating next."""
    table = Table(title="images most worth annotating next", title_justify="left")
    table.add_column("image", overflow="fold")
    for name in ("worth", "faults", "disagreements", "unsure objects"):
        table.add_column(name, justify="right")
    for frame in found.judgement.frames[:count]:
        numbers = (frame.worth, frame.faults, frame.disagreements, frame.unsure)
        table.add_row(Path(frame.path).name, *(f"{value:.1f}" for value in numbers))
    return table
