"""Evaluations of several runs on the same pictures, side by side: paired differences to the first, with
bootstrap intervals.

The bootstrap draws pictures with replacement, the same ones for both runs: what is hard for both does not
blur the difference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vistasks.evaluation.reports.detection import CONFIDENCE, LARGE_SET
from vistasks.evaluation.reports.matching import KINDS, judge
from vistasks.evaluation.reports.records import FILE, PictureRecords, read_records
from vistasks.evaluation.reports.segmentation import resampled
from vistasks.metrics.coco_engines import hotcoco_evaluation
from vistasks.metrics.detection_record import DetectionColumns

SCORE = 0.5  # from which on a box counts as an error or a find of a picture
PROTOCOLS = ("coco", "voc_2007", "voc_area", "iou")


@dataclass(frozen=True, eq=False)
class Run:
    """An evaluated run: its name among the others, the folder of its report, and what that holds."""

    name: str
    folder: Path
    report: Mapping[str, Any]
    records: PictureRecords


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Reads folders that ``evaluate --report`` wrote, their report.json, or run folders with such a folder in
    them.

    Raises:
        ValueError: fewer than two; no report there; other pictures, objects, classes or protocols than the
            first has.
    """
    if len(paths) < 2:
        raise ValueError(
            "compare takes two or more: folders that `vistasks evaluate --report` wrote, or run folders with them"
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
    for key in PROTOCOLS:
        if (
            key in first.report
            and key in other.report
            and first.report[key]["protocol"] != other.report[key]["protocol"]
        ):
            told = first.report[key]["protocol"], other.report[key]["protocol"]
            raise ValueError(f"{where}: the protocols differ. First: {told[0]}. Other: {told[1]}")
    a, b = first.records, other.records
    shared = [task for task in ("detections", "pixels") if getattr(a, task) and getattr(b, task)]
    if not shared:
        raise ValueError(f"{where}: one has only boxes and the other only class maps")
    for task in shared:
        _check_pictures(first, other, task, where)
    if "detections" in shared:
        pairs = ((i, record, b.detections[i]) for i, record in a.detections.items())
        differ = [
            i
            for i, x, y in pairs
            if not (np.array_equal(x.boxes, y.boxes) and np.array_equal(x.labels, y.labels))
        ]
    else:
        differ = []
    if "pixels" in shared:
        size = len(a.classes.segmentation)
        truths = [r.confusions().reshape(-1, size, size).sum(axis=2) for r in (a, b)]
        differ += [list(a.pixels)[row] for row in np.flatnonzero((truths[0] != truths[1]).any(axis=1))]
    if differ:
        raise ValueError(
            f"{where}: the labels of {len(differ)} pictures differ, such as {differ[0]}: {_both(first, other)}"
        )


def _check_pictures(first: Run, other: Run, task: str, where: str) -> None:
    """A ``ValueError`` where the classes or the pictures of a task differ."""
    names = {"detections": "detection", "pixels": "segmentation"}[task]
    lists = [getattr(run.records.classes, names) for run in (first, other)]
    if lists[0] != lists[1]:
        raise ValueError(
            f"{where}: the {names} classes differ. First: {', '.join(lists[0])}. Other: {', '.join(lists[1])}"
        )
    ids = [set(getattr(run.records, task)) for run in (first, other)]
    if ids[0] != ids[1]:
        counts = f"{len(ids[0])} and {len(ids[1])}, {len(ids[0] & ids[1])} of them the same"
        raise ValueError(f"{where}: they were evaluated on other pictures ({counts}): {_both(first, other)}")


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
            first.report[key]["protocol"] for key in PROTOCOLS if all(key in run.report for run in runs)
        ],
        "classes": {},
        "pictures": {},
    }
    intervals: list[dict[str, Any]] = [{} for _ in runs[1:]]
    if all(run.records.detections for run in runs):
        rows, found = _detection_classes(
            runs, samples or (1000 if first.report["images"] <= LARGE_SET else 100)
        )
        content["classes"]["detection"] = rows
        content["pictures"]["detection"] = _changes(
            runs, [_box_errors(run.records) for run in runs], first.records.detections
        )
        intervals = [{**known, **new} for known, new in zip(intervals, found)]
    if all(run.records.pixels for run in runs):
        rows, found = _segmentation_classes(runs)
        content["classes"]["segmentation"] = rows
        content["pictures"]["segmentation"] = _changes(
            runs, [_wrong_share(run.records) for run in runs], first.records.pixels
        )
        intervals = [{**known, **new} for known, new in zip(intervals, found)]
    content["numbers"] = [
        _row(name, [run.report["headline"][name] for run in runs], [known.get(name) for known in intervals])
        for name in first.report["headline"]
        if all(name in run.report["headline"] for run in runs)
    ]
    return content


def _row(
    name: str, values: Sequence[float | None], intervals: Sequence[Sequence[float] | None], **more: Any
) -> dict[str, Any]:
    differences = [
        {
            "difference": None if value is None or values[0] is None else value - values[0],
            "low": interval[0] if interval else None,
            "high": interval[1] if interval else None,
        }
        for value, interval in zip(values[1:], intervals)
    ]
    return {"name": name, "values": list(values), "differences": differences, **more}


def _by_difference(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(
        rows, key=lambda row: -max((abs(d["difference"] or 0) for d in row["differences"]), default=0)
    )


def _detection_classes(
    runs: Sequence[Run], samples: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of AP by class, and of each other run the intervals of AP's headline numbers."""
    names = runs[0].records.classes.detection
    columns = [run.records.columns() for run in runs]
    overall = [_paired_boxes(columns[0], other, len(names), samples) for other in columns[1:]]
    rows = []
    for label, name in enumerate(names):
        values = [run.report["coco"]["per_class"][name]["AP"] for run in runs]
        own = [_of_class(each, label) for each in columns]
        known = [
            _paired_boxes(own[0], other, 1, samples).get("AP") if values[0] is not None else None
            for other in own[1:]
        ]
        rows.append(_row(name, values, known, objects=runs[0].report["coco"]["per_class"][name]["objects"]))
    return _by_difference(rows), overall


def _paired_boxes(
    first: DetectionColumns, other: DetectionColumns, classes: int, samples: int
) -> dict[str, list[float]]:
    """Intervals of the differences of COCO's numbers."""
    import hotcoco

    if first.images < 2 or not len(first.boxes):
        return {}
    one, two = (hotcoco_evaluation(columns, classes, ignore_difficult=True) for columns in (first, other))
    found = hotcoco.compare(one, two, n_bootstrap=samples, seed=0, confidence=CONFIDENCE)["ci"] or {}
    return {name: [float(interval["lower"]), float(interval["upper"])] for name, interval in found.items()}


def _of_class(columns: DetectionColumns, label: int) -> DetectionColumns:
    """The objects and detections of one class, as the only one."""
    kept, found = columns.labels == label, columns.detected_labels == label
    objects = {
        name: getattr(columns, name)[kept]
        for name in ("boxes", "labels", "difficult", "crowd", "areas", "image")
    }
    boxes = {
        name: getattr(columns, name)[found]
        for name in ("detected", "scores", "detected_labels", "detected_image")
    }
    one = replace(columns, **objects, **boxes)
    return replace(one, labels=np.zeros_like(one.labels), detected_labels=np.zeros_like(one.detected_labels))


def _segmentation_classes(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of IoU by class, and of each other run the intervals of the class map's headline numbers."""
    names = runs[0].records.classes.segmentation
    drawn = [np.array(list(_draws(run.records, len(names)))) for run in runs]  # (samples, 3 + S) each
    low, high = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
    known: list[dict[str, Any]] = []
    for other in drawn[1:]:
        keys = ["mIoU", "pixel_accuracy", "mean_class_accuracy", *(f"IoU {name}" for name in names)]
        columns = {key: column[np.isfinite(column)] for key, column in zip(keys, (other - drawn[0]).T)}
        known.append(
            {
                key: np.percentile(column, [low, high]).tolist()
                for key, column in columns.items()
                if len(column)
            }
        )
    rows = []
    for name in names:
        cells = [run.report["iou"]["per_class"][name] for run in runs]
        of_class = [bounds.get(f"IoU {name}") for bounds in known]
        rows.append(_row(name, [cell["IoU"] for cell in cells], of_class, pixels=cells[0]["pixels"]))
    return _by_difference(rows), known


def _draws(records: PictureRecords, classes: int) -> Iterator[np.ndarray]:
    """mIoU, pixel accuracy, mean class accuracy and each class's IoU of each resampled data set; NaN where a
    class is absent.
    """
    for matrix in resampled(records.confusions(), classes):
        hits, truth = np.diag(matrix), matrix.sum(axis=1)
        union = truth + matrix.sum(axis=0) - hits
        ious = np.divide(hits, union, out=np.full(classes, np.nan), where=union > 0)
        recalls = np.divide(hits, truth, out=np.full(classes, np.nan), where=truth > 0)
        total = max(1.0, matrix.sum())
        numbers = [np.nanmean(ious), hits.sum() / total, np.nanmean(recalls)] if union.any() else [np.nan] * 3
        yield np.array([*numbers, *ious])


def _box_errors(records: PictureRecords) -> np.ndarray:
    """Of each picture: objects that were missed and detections that are wrong."""
    counts = [judge(record, SCORE).counts() for record in records.detections.values()]
    return np.array(
        [sum(number for kind, number in count.items() if kind != KINDS[0]) for count in counts], np.float64
    )


def _wrong_share(records: PictureRecords) -> np.ndarray:
    """Of each picture: the share of its labelled pixels that have another class."""
    each = records.confusions()
    classes = len(records.classes.segmentation)
    right = each[:, :: classes + 1].sum(axis=1)
    return np.asarray(1 - right / np.maximum(each.sum(axis=1), 1))


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
