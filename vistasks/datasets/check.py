"""``vistasks data check``: reads everything once and tells all that is wrong, and what there is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from vistasks.datasets.annotations import Dataset
from vistasks.datasets.problems import DataFaults
from vistasks.system.terminal import PlainConsole
from vistasks.system.text import printable
from vistasks.task import all_tasks, task_of
from vistasks.types import IGNORE_INDEX, Sample

SMALL, MEDIUM = 32.0**2, 96.0**2  # COCO's size ranges by area, in pixels


@dataclass
class CheckReport:
    """What `check` found.

    Attributes:
        name: what was checked, for example "train".
        problems: one line per bad file or object; each keeps training from running as it should.
        warnings: what is legal and yet worth a look: duplicate objects, classes that never occur.
        notes: what the reader itself mended or left out.
        counts: images, read, without_objects, not_labelled, objects, difficult, crowd, small, medium, large,
            ignored_pixels, pixels.
        labels: task -> class -> how many of the task's units (objects, pixels) it has.
        sides: (read images, 2) heights and widths.
    """

    name: str = "data"
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    sides: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))

    @property
    def good(self) -> bool:
        """Whether training can use the data as they are."""
        return not self.problems

    def show(self, console: Console | None = None) -> None:
        """Prints the report as tables."""
        _show(self, console or PlainConsole())


def check(dataset: Dataset, *, name: str = "data", progress: bool = True) -> CheckReport:
    """Reads every sample once. A sample that cannot be read becomes a problem; the others are still read."""
    names = dataset.classes
    report = CheckReport(name=name, notes=list(dataset.notes))
    tasks = list(all_tasks())
    totals = {task.name: np.zeros(0, dtype=np.int64) for task in tasks}
    counts = dict.fromkeys(
        (
            "images",
            "read",
            "without_objects",
            "not_labelled",
            "objects",
            "difficult",
            "crowd",
            "small",
            "medium",
            "large",
            "pixels",
            "ignored_pixels",
        ),
        0,
    )
    counts["images"] = len(dataset)
    sides = []
    for index in _bar(range(len(dataset)), f"reading {name}", progress):
        try:
            sample = dataset[index]
        except Exception as error:  # a reader's own failure is a finding as well
            report.problems.append(named_error(dataset.paths[index], error))
            continue
        counts["read"] += 1
        sides.append(sample.size)
        _count(sample, counts)
        report.warnings += _duplicates(sample, names.detection)
        for task in tasks:
            found = task.counts(sample)
            totals[task.name] = _sum(totals[task.name], found)
            known = len(names.of(task.name))
            report.problems += [
                f"{sample.path}: class id {number} in {task.name}, which has only {known} classes"
                for number in np.flatnonzero(found).tolist()
                if number >= known
            ]
    report.counts, report.sides = counts, np.array(sides, dtype=np.int64).reshape(-1, 2)
    for task_name, total in totals.items():
        own = names.of(task_name)
        report.labels[task_name] = dict(zip(own, _sum(total, np.zeros(len(own), np.int64)).tolist()))
    report.warnings += _never(report)
    return report


def failed(error: Exception, *, name: str = "data") -> CheckReport:
    """The report of a data set that could not even be opened."""
    problems = error.faults if isinstance(error, DataFaults) else [str(error)]
    return CheckReport(name=name, problems=list(problems))


def _bar(indices: Iterable[int], text: str, progress: bool) -> Iterable[int]:
    return track(indices, text, console=PlainConsole(stderr=True), transient=True) if progress else indices


def named_error(path: str, error: Exception) -> str:
    """What was wrong with a picture, in one text that names it."""
    text = str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"
    return text if path in text else f"{path}: {text}"


def _sum(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two arrays of counts, of which one may be shorter."""
    total = np.zeros(max(len(one), len(other)), dtype=np.int64)
    total[: len(one)] += one
    total[: len(other)] += other
    return total


def _count(sample: Sample, counts: dict[str, int]) -> None:
    counts["without_objects"] += bool(sample.labelled.detection) and not len(sample.labels)
    counts["not_labelled"] += not any(sample.labelled.by_task().values())
    counts["objects"] += len(sample.labels)
    counts["difficult"] += int(np.asarray(sample.difficult).sum())
    counts["crowd"] += int(np.asarray(sample.crowd).sum())
    areas = np.asarray(sample.areas)
    counts["small"] += int((areas < SMALL).sum())
    counts["medium"] += int(((areas >= SMALL) & (areas < MEDIUM)).sum())
    counts["large"] += int((areas >= MEDIUM).sum())
    if sample.segmentation is not None:
        counts["pixels"] += sample.segmentation.size
        counts["ignored_pixels"] += int((sample.segmentation == IGNORE_INDEX).sum())


def _duplicates(sample: Sample, names: tuple[str, ...]) -> list[str]:
    rows = np.column_stack([sample.boxes, sample.labels]) if len(sample.labels) else np.zeros((0, 5))
    unique, counts = np.unique(rows, axis=0, return_counts=True)
    return [
        f"{sample.path}: {names[int(row[4])] if row[4] < len(names) else int(row[4])} at {row[:4].tolist()} stands {count} times"
        for row, count in zip(unique[counts > 1], counts[counts > 1])
    ]


def _never(report: CheckReport) -> list[str]:
    if not report.counts["read"]:
        return []
    missing = []
    for task, counts in report.labels.items():
        if any(counts.values()):
            unit = task_of(task).unit.removesuffix("s")
            missing += [f"no {unit} of the class '{name}'" for name, count in counts.items() if not count]
    return missing


def _show(report: CheckReport, console: Console) -> None:
    count = len(report.problems)
    state = ("good", "green") if report.good else (f"{count} problem{'s' * (count != 1)}", "red")
    console.print(Text.assemble("\n", (printable(report.name), "bold"), ": ", state))
    if report.counts:
        console.print(_overview(report))
    for task, counts in report.labels.items():
        if sum(counts.values()):
            console.print(_classes(task_of(task).unit, counts))
    sections = (
        ("problems", report.problems, "red"),
        ("worth a look", report.warnings, "yellow"),
        ("notes", report.notes, "dim"),
    )
    for title, lines, style in sections:
        if lines:
            console.print(title, style=style)
            for line in lines:
                console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _overview(report: CheckReport) -> Table:
    counts, table = report.counts, Table(show_header=False, box=None, padding=(0, 2))
    unreadable = counts["images"] - counts["read"]
    table.add_row("images", f"{counts['images']:,}" + (f", {unreadable:,} unreadable" if unreadable else ""))
    if len(report.sides):
        for side, column in (("width", 1), ("height", 0)):
            low, middle, high = np.quantile(report.sides[:, column], [0, 0.5, 1]).astype(int)
            table.add_row(side, f"{low} px" if low == high else f"{low} to {high} px, median {middle}")
    if counts["objects"] or counts["without_objects"]:
        table.add_row(
            "objects", f"{counts['objects']:,}, {counts['difficult']:,} difficult, {counts['crowd']:,} crowds"
        )
        table.add_row(
            "by area",
            f"{counts['small']:,} below 32², {counts['medium']:,} up to 96², {counts['large']:,} larger",
        )
        table.add_row("without objects", f"{counts['without_objects']:,} images")
    if counts["pixels"]:
        table.add_row("ignored pixels", f"{100 * counts['ignored_pixels'] / counts['pixels']:.1f} %")
    table.add_row("not labelled", f"{counts['not_labelled']:,} images")
    return table


def _classes(unit: str, counts: dict[str, int]) -> Table:
    table = Table(title=unit, title_justify="left", box=None, padding=(0, 2))
    table.add_column("id", justify="right")
    table.add_column("class")
    table.add_column(unit, justify="right")
    table.add_column("%", justify="right")
    total = sum(counts.values())
    for index, (class_name, count) in enumerate(counts.items()):
        table.add_row(str(index), Text(printable(class_name)), f"{count:,}", f"{100 * count / total:.1f}")
    return table
