"""Evaluations of several runs on the same pictures, side by side: paired differences to the first, with
bootstrap intervals.

The bootstrap draws pictures with replacement, the same ones for both runs: what is hard for both does not
blur the difference."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vistasks.evaluation.reports.compared import Run, TaskComparison, row
from vistasks.evaluation.reports.detection import CONFIDENCE, LARGE_SET
from vistasks.evaluation.reports.records import FILE, read_records
from vistasks.task import Task, all_tasks


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Reads folders that ``evaluate --report`` wrote, their report.json, or run folders with such a folder in
    them.

    Raises:
        ValueError: fewer than two; no report there; other pictures, objects, classes or protocols than the
            first has.
    """
    if len(paths) < 2:
        raise ValueError(
            "compare needs two or more folders written by `vistasks evaluate --report`, or run folders with one named report"
        )
    folders = [_report_folder(Path(path)) for path in paths]
    runs = []
    for name, folder in zip(_names(folders), folders):
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        runs.append(Run(name, folder, report, read_records(folder / FILE)))
    for other in runs[1:]:
        _check_comparable(runs[0], other)
    return runs


def _report_folder(path: Path) -> Path:
    folder = path.parent if path.name == "report.json" else path
    for place in (folder, folder / "report"):
        if (place / "report.json").is_file() and (place / FILE).is_file():
            return place
    has = (
        "its report.json is not one of --report, which has more"
        if (folder / "report.json").is_file()
        else "it has none"
    )
    raise ValueError(
        f"{path}: expected a folder that `vistasks evaluate --report` wrote (report.json and {FILE}), or a run folder with one "
        f"called report; {has}. Evaluate with --report {folder / 'report'}"
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart, without a last "report"."""
    parts = [[*folder.resolve().parts] for folder in folders]
    parts = [part[:-1] if part[-1] == "report" and len(part) > 1 else part for part in parts]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{part[-1]} ({number})" for number, part in enumerate(parts, 1)]


def _check_comparable(first: Run, other: Run) -> None:
    where = f"{first.folder} and {other.folder} cannot be compared"
    for key in _protocols():
        if (
            key in first.report
            and key in other.report
            and first.report[key]["protocol"] != other.report[key]["protocol"]
        ):
            told = first.report[key]["protocol"], other.report[key]["protocol"]
            raise ValueError(f"{where}: the protocols differ. First: {told[0]}. Other: {told[1]}")
    a, b = first.records, other.records
    shared = [part for part in _parts() if all(part[1].pictures(run.records) for run in (first, other))]
    if not shared:
        raise ValueError(f"{where}: no task was evaluated in both")
    for task, part in shared:
        _check_pictures(first, other, task, part, where)
    differ = [image_id for _, part in shared for image_id in part.other_labels(a, b)]
    if differ:
        raise ValueError(
            f"{where}: the labels of {len(differ)} images differ, such as {differ[0]}: {_both(first, other)}"
        )


def _protocols() -> list[str]:
    """The keys of the metrics that name their protocol."""
    return [key for task in all_tasks() for key in task.protocols]


def _parts() -> list[tuple[Task, TaskComparison]]:
    """The tasks by which runs can be compared."""
    found = [(task, task.comparison()) for task in all_tasks()]
    return [(task, part) for task, part in found if part is not None]


def _check_pictures(first: Run, other: Run, task: Task, part: TaskComparison, where: str) -> None:
    """A ``ValueError`` where the classes or the pictures of a task differ."""
    lists = [run.records.classes.of(task.name) for run in (first, other)]
    if lists[0] != lists[1]:
        raise ValueError(
            f"{where}: the {task.name} classes differ. First: {', '.join(lists[0])}. Other: {', '.join(lists[1])}"
        )
    ids = [set(part.pictures(run.records)) for run in (first, other)]
    if ids[0] != ids[1]:
        counts = f"{len(ids[0])} and {len(ids[1])}, {len(ids[0] & ids[1])} of them the same"
        raise ValueError(
            f"{where}: they were evaluated on different images ({counts}): {_both(first, other)}"
        )


def _both(first: Run, other: Run) -> str:
    return f"the first is of {_data(first)}, the other of {_data(other)}"


def _data(run: Run) -> str:
    return ", ".join(
        f"{key}: {value}" for key, value in run.report["data"].items() if isinstance(value, str | int)
    )


def compare_runs(runs: Sequence[Run], *, samples: int | None = None) -> dict[str, Any]:
    """The content of the comparison, as json can hold it.

    Args:
        runs: as `read_runs` gives them.
        samples: of the bootstrap of AP; None: 1,000, and 100 of more than 1,000 pictures.

    Returns: "runs": name, folder, weights, pictures, seconds and megabytes of each; "numbers": rows of
    "name", "values" (one a run) and "differences" ({"difference", "low", "high"} to the first, one for each
    other run; low and high None where no interval is known); "classes": by task the same rows by class with
    "objects" or "pixels", the largest difference first; "pictures": by task, for each other run, how many are
    "better", "worse" and "same", and the "changed" ones, most gained first; "protocols"."""
    first = runs[0]
    content: dict[str, Any] = {
        "runs": [
            {
                "name": run.name,
                "folder": str(run.folder),
                "weights": run.report["weights"],
                "test_time": run.report.get("test_time"),
                "pictures": run.report["images"],
                "seconds": run.report["model_seconds_per_image"],
                "megabytes": run.report.get("peak_megabytes"),
            }
            for run in runs
        ],
        "confidence": CONFIDENCE,
        "data": _data(first),
        "protocols": [
            first.report[key]["protocol"] for key in _protocols() if all(key in run.report for run in runs)
        ],
        "classes": {},
        "pictures": {},
    }
    intervals: list[dict[str, Any]] = [{} for _ in runs[1:]]
    samples = samples or (1000 if first.report["images"] <= LARGE_SET else 100)
    for task, part in _parts():
        if not all(part.pictures(run.records) for run in runs):
            continue
        content["classes"][task.name], found = part.classes(runs, samples)
        errors = [part.errors(run.records) for run in runs]
        content["pictures"][task.name] = _changes(runs, errors, part.pictures(first.records))
        intervals = [{**known, **new} for known, new in zip(intervals, found)]
    content["numbers"] = [
        row(name, [run.report["headline"][name] for run in runs], [known.get(name) for known in intervals])
        for name in first.report["headline"]
        if all(name in run.report["headline"] for run in runs)
    ]
    return content


def _changes(
    runs: Sequence[Run], errors: Sequence[np.ndarray], ids: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """For each other run, which pictures have fewer errors than in the first and which have more."""
    paths, names = runs[0].records.paths, list(ids)
    found = []
    for run, own in zip(runs[1:], errors[1:]):
        difference = own - errors[0]
        changed = [
            {"path": paths.get(names[i], names[i]), "first": float(errors[0][i]), "other": float(own[i])}
            for i in np.argsort(difference, kind="stable")
            if difference[i]
        ]
        better, worse = int((difference < 0).sum()), int((difference > 0).sum())
        same = len(names) - better - worse
        found.append({"run": run.name, "better": better, "worse": worse, "same": same, "changed": changed})
    return found
