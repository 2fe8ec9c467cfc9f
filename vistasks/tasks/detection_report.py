"""Detection in the evaluation report and in comparisons: errors by kind (TIDE), calibration, proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from vistasks.evaluation.reports.compared import Run, TaskComparison, by_difference, row
from vistasks.evaluation.reports.detection import (
    CONFIDENCE,
    MOST_CLASSES,
    SHOWN_CLASSES,
    analyse_detection,
    bootstrap_samples,
)
from vistasks.evaluation.reports.html import confusion_table, legend, number, table
from vistasks.evaluation.reports.matching import KINDS, MISSED, MatchedDetections, match_detections
from vistasks.evaluation.reports.records import PictureRecords
from vistasks.evaluation.reports.section import Flaws, Section
from vistasks.evaluation.reports.svg import bar_chart, line_chart
from vistasks.metrics import CocoAveragePrecision
from vistasks.metrics.coco_engines import hotcoco_evaluation
from vistasks.metrics.detection_record import (
    DetectionColumns,
    DetectionRecord,
    detection_record,
    of_classes,
)
from vistasks.ops.box_arrays import overlaps
from vistasks.types import ClassNames, Detections, Prediction, Sample

TAGS = {
    "classification": "class",
    "localisation": "place",
    "both": "class+place",
    "duplicate": "twice",
    "background": "nothing there",
}
SCORE = 0.5  # from which on a box counts as an error or a find of a picture


def _detection_classes(
    runs: Sequence[Run], samples: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of AP by class, and of each other run the intervals of AP's headline numbers.

    Only the `SHOWN_CLASSES` classes that differ most get intervals of their own: each takes a bootstrap.
    """
    names = runs[0].records.classes.detection
    columns = [run.records.columns() for run in runs]
    overall = [_paired_boxes(columns[0], other, samples) for other in columns[1:]]
    every = {name: [run.report["coco"]["per_class"][name]["AP"] for run in runs] for name in names}
    known_first = [name for name in names if every[name][0] is not None]
    judged = set(sorted(known_first, key=lambda name: -_spread(every[name]))[:SHOWN_CLASSES])
    rows = []
    for label, name in enumerate(names):
        values = every[name]
        own = [of_classes(each, np.array([label])) for each in columns] if name in judged else columns
        known = [
            _paired_boxes(own[0], other, samples).get("AP") if name in judged else None for other in own[1:]
        ]
        rows.append(row(name, values, known, objects=runs[0].report["coco"]["per_class"][name]["objects"]))
    return by_difference(rows), overall


def _spread(values: Sequence[float | None]) -> float:
    """How far the runs' numbers lie apart."""
    known = [value for value in values if value is not None]
    return max(known) - min(known)


def _paired_boxes(first: DetectionColumns, other: DetectionColumns, samples: int) -> dict[str, list[float]]:
    """Intervals of the differences of COCO's numbers."""
    import hotcoco

    if first.images < 2 or not len(first.boxes):
        return {}
    present = np.unique(first.labels)
    if len(present) > MOST_CLASSES:
        return {}
    samples = min(samples, bootstrap_samples(first.images, len(present)))
    one, two = (
        hotcoco_evaluation(of_classes(columns, present), len(present), ignore_difficult=True)
        for columns in (first, other)
    )
    found = hotcoco.compare(one, two, n_bootstrap=samples, seed=0, confidence=CONFIDENCE)["ci"] or {}
    return {name: [float(interval["lower"]), float(interval["upper"])] for name, interval in found.items()}


def _box_errors(records: PictureRecords) -> np.ndarray:
    """Of each picture: objects that were missed and detections that are wrong."""
    counts = [match_detections(record, SCORE).counts() for record in records.detections.values()]
    return np.array(
        [sum(number for kind, number in count.items() if kind != KINDS[0]) for count in counts], np.float64
    )


KIND_COLOURS = {
    "classification": "#4363d8",
    "localisation": "#f58231",
    "both": "#911eb4",
    "duplicate": "#9a6324",
    "background": "#808080",
    "missed": "#e6194b",
}


def detection_html(content: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    found = content["analysis"]["detection"]
    rows = [[name, *values.values()] for name, values in found["per_class"].items()]
    head = ["class", *next(iter(found["per_class"].values()), {})]
    lines = {name: [(i / 100, p) for i, p in enumerate(curve)] for name, curve in found["curves"].items()}
    count = max(1, len(lines))
    mean = [(i / 100, sum(curve[i] for curve in found["curves"].values()) / count) for i in range(101)]
    chart = line_chart(
        {**lines, "mean of the classes": mean}, {**colours, "mean of the classes": "#000"}, x="recall", y="precision",
        bold="mean of the classes",
    )  # fmt: skip
    shown = {name: colours[name] for name in lines} if len(lines) <= 20 else {}
    return (
        f"<h2>Boxes</h2>{table(head, rows)}"
        f'<div class="row"><div><h3>Precision-recall curves, IoU .5</h3>{chart}{legend({**shown, "mean": "#000"})}</div>'
        f"<div>{_tide(found['tide'])}</div><div>{_calibration(found['calibration'])}</div></div>"
        f"{_blame(found.get('proposals'))}<h3>Confusion at IoU .5, scores of at least {found['confusion']['score']:g}</h3>"
        "<p>Rows: labels. Columns: predictions. Last column: missed objects; last row: detections of no object.</p>"
        f"{_left_out(found['confusion'])}{confusion_table(found['confusion'])}"
    )


def _left_out(confusion: Mapping[str, Any]) -> str:
    count = confusion.get("left_out", 0)
    return f"<p>{count:,} classes with fewer mistakes are not shown.</p>" if count else ""


def _tide(tide: Mapping[str, Any]) -> str:
    gain = dict(sorted(tide["gain"].items(), key=lambda item: -item[1]))
    labels = {name: f"+{value:.3f} AP50 ({tide['count'][name]:,})" for name, value in gain.items()}
    worst = next(iter(gain), None)
    fixed = number(tide["ap50"] + gain[worst])
    text = f"Fixing all {worst} errors would raise AP50 from {number(tide['ap50'])} to {fixed}."
    shown = bar_chart({name: max(0.0, value) for name, value in gain.items()}, KIND_COLOURS, labels=labels)
    return f"<h3>AP50 gained by fixing each kind of error (TIDE)</h3><p>{escape(text) if worst else ''}</p>{shown}"


def _calibration(calibration: Mapping[str, Any]) -> str:
    points = [(b["score"], b["accuracy"]) for b in calibration["bins"]]
    chart = line_chart(
        {"found": points}, {"found": "#2456c8"}, x="score", y="precision", dots=True, diagonal=True
    )
    text = f"Expected calibration error {number(calibration['expected_error'])}. On the dashed line, scores are probabilities."
    return f"<h3>Reliability diagram</h3><p>{text}</p>{chart}"


def _blame(proposals: Mapping[str, Any] | None) -> str:
    if not proposals:
        return ""
    rows = [
        [
            name,
            values["objects"],
            values["proposed"],
            values["detected"],
            strict["proposed"],
            strict["detected"],
        ]
        for (name, values), strict in zip(proposals["0.5"].items(), proposals["0.7"].values())
    ]
    head = [
        "class",
        "objects",
        "proposed, IoU .5",
        "detected, IoU .5",
        "proposed, IoU .7",
        "detected, IoU .7",
    ]
    overall = proposals["0.5"]["all classes"]
    lost, dropped = 1 - overall["proposed"], max(0.0, overall["proposed"] - overall["detected"])
    who = "The proposals" if lost > dropped else "The classifier and its boxes"
    text = (
        f"{lost:.1%} of the objects have no proposal at IoU .5; another {dropped:.1%} were proposed but have no detection of "
        f"their class at any score. {who} lose more objects."
    )
    return f"<h3>Recall of proposals and detections</h3><p>{escape(text)}</p>{table(head, rows)}"


class DetectionSection(Section):
    """Boxes in the evaluation report.

    Args:
        classes: the model's class names.
        score: what counts as a detection in the gallery and the confusion matrix.
    """

    def __init__(self, classes: ClassNames, *, score: float) -> None:
        self.names, self.score = classes.detection, score
        self._proposed: dict[str, np.ndarray] = {}
        self._records: dict[str, DetectionRecord] = {}

    def update(self, prediction: Prediction, sample: Sample) -> Flaws | None:
        record = detection_record(prediction, sample, self.names)
        if record is None:
            return None
        if sample.proposals is not None:
            covered = overlaps(record.boxes, sample.proposals).max(axis=1, initial=0)
            self._proposed[sample.image_id] = covered
        return self._flaws(record, match_detections(record, self.score))

    def _flaws(self, record: DetectionRecord, judged: MatchedDetections) -> Flaws:
        counts = {kind: number for kind, number in judged.counts().items() if kind != KINDS[0]}
        missed, wrong = np.flatnonzero(~judged.found & ~judged.ignored), np.flatnonzero(judged.kinds > 0)
        rows = judged.kept
        labels = {*record.labels[missed].tolist(), *record.detected_labels[rows[wrong]].tolist()}
        ones = np.ones(len(record.boxes), np.float32)
        return Flaws(
            badness={kind: float(number) for kind, number in counts.items()},
            counts={kind: number for kind, number in counts.items() if number},
            classes=frozenset(self.names[label] for label in labels),
            truth=Detections(record.boxes, ones, record.labels, self.names),
            found=Detections(
                record.detected[rows], record.scores[rows], record.detected_labels[rows], self.names
            ),
            truth_tags=[(record.boxes[index], MISSED) for index in missed],
            found_tags=[(record.detected[rows[i]], TAGS[KINDS[judged.kinds[i]]]) for i in wrong],
        )

    def compute(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        coco = metrics.get("coco")
        if not isinstance(coco, CocoAveragePrecision):
            return {}
        self._records = coco.ordered()
        proposed = [self._proposed.get(image_id) for image_id in self._records]
        found = analyse_detection(list(self._records.values()), self.names, proposed, score=self.score)
        return {"detection": found}

    def records(self) -> dict[str, Any]:
        return {"detections": self._records} if self._records else {}


class DetectionComparison(TaskComparison):
    """Runs by their boxes."""

    errors_title = "errors (missed objects and wrong boxes)"
    classes_title = "Boxes by class: AP"
    pictures_title = "Images gained and lost: boxes"
    count = "objects"
    whole = True

    def pictures(self, records: PictureRecords) -> Mapping[str, Any]:
        return records.detections

    def other_labels(self, one: PictureRecords, other: PictureRecords) -> list[str]:
        pairs = ((i, record, other.detections[i]) for i, record in one.detections.items())
        return [
            i
            for i, x, y in pairs
            if not (np.array_equal(x.boxes, y.boxes) and np.array_equal(x.labels, y.labels))
        ]

    def classes(self, runs: Sequence[Run], samples: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return _detection_classes(runs, samples)

    def errors(self, records: PictureRecords) -> np.ndarray:
        return _box_errors(records)
