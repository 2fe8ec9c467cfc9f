"""The report of a few pictures: what is in it, and that the page stands alone."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from vistasks.evaluation.loop import build_metrics, headline
from vistasks.evaluation.reports import EvaluationReport
from vistasks.evaluation.reports.detection import analyse_detection
from vistasks.metrics import CocoAveragePrecision
from vistasks.types import ClassNames, Detections, Labelled, Prediction, Sample, SegmentationMap

CLASSES = ClassNames(("cat", "<dog>"), ("background", "cat", "<dog>"))
TASKS = ["detection", "segmentation"]


def _pair(index: int) -> tuple[Prediction, Sample]:
    """A cat at the left, a dog at the right; every third cat is missed, every fourth dog is called a cat."""
    generator = np.random.default_rng(index)
    image = generator.integers(0, 255, (60, 100, 3), dtype=np.uint8)
    boxes = np.array([[5, 5, 35, 45], [55, 10, 95, 50]], np.float32)
    truth = np.zeros((60, 100), np.uint8)
    truth[5:45, 5:35], truth[10:50, 55:95] = 1, 2
    sample = Sample(
        str(index),
        f"folder/{index}.png",
        image,
        boxes,
        np.array([0, 1]),
        segmentation=truth,
        proposals=boxes + np.float32(1),
        labelled=Labelled(frozenset({0, 1}), frozenset({0, 1, 2})),
    )
    labels = np.array([0, 0 if index % 4 == 0 else 1])
    kept = slice(1, 2) if index % 3 == 0 else slice(0, 2)
    found = Detections(
        boxes[kept] + 1, np.array([0.9, 0.8], np.float32)[kept], labels[kept], CLASSES.detection
    )
    return Prediction(found, SegmentationMap(np.roll(truth, index % 5, axis=1), CLASSES.segmentation)), sample


def _evaluated(count: int, tasks: list[str]) -> tuple[EvaluationReport, dict]:
    metrics = build_metrics(CLASSES, tasks, "hotcoco")
    report = EvaluationReport(CLASSES, tasks)
    for index in range(count):
        for each in (*metrics.values(), report):
            each.update(*_pair(index))
    results = {key: metric.compute() for key, metric in metrics.items()}
    base = {"weights": "w", "data": {"root": "r"}, "images": count, "model_seconds_per_image": 0.1, **results}
    return report, report.compute({**base, "headline": headline(base)}, metrics)


def test_intervals_are_as_wide_as_new_pictures_make_the_number_vary() -> None:
    def on_new_pictures(seed: int) -> CocoAveragePrecision:
        generator, metric = np.random.default_rng(seed), CocoAveragePrecision(CLASSES.detection)
        for index in range(60):
            label, hit = generator.integers(0, 2, 3), generator.random(3) < 0.7
            boxes = (np.array([[0, 0, 20, 20], [50, 0, 80, 30], [0, 50, 40, 90]]) + 0.0).astype(np.float32)
            labelled = Labelled(frozenset({0, 1}), frozenset())
            sample = Sample(
                str(index), "p", np.zeros((100, 100, 3), np.uint8), boxes, label, labelled=labelled
            )
            moved = boxes + generator.normal(0, 2, boxes.shape).astype(np.float32)
            moved[~hit] += 300
            scores = np.clip(generator.normal(0.4 + 0.3 * hit, 0.2), 0, 1).astype(np.float32)
            metric.update(Prediction(Detections(moved, scores, label, CLASSES.detection)), sample)
        return metric

    sets = [on_new_pictures(seed) for seed in range(24)]
    analysed = [
        analyse_detection(one.ordered_records(), CLASSES.detection, [None] * 60, score=0.5)
        for one in sets[:3]
    ]
    errors = [(high - low) / 2 / 1.96 for low, high in (found["intervals"]["AP"] for found in analysed)]
    assert np.mean(errors) == pytest.approx(np.std([one.compute()["AP"] for one in sets], ddof=1), rel=0.4)


def test_numbers_that_explain_the_numbers() -> None:
    _, content = _evaluated(12, TASKS)
    found = content["analysis"]["detection"]
    low, high = found["intervals"]["AP50"]
    assert (low + high) / 2 == pytest.approx(content["coco"]["AP50"])
    matrix = np.array(found["confusion"]["matrix"])
    assert matrix[0].tolist() == [8, 0, 4] and matrix[1].tolist() == [
        3,
        9,
        0,
    ]  # four cats missed, three dogs called cats
    assert found["tide"]["count"]["classification"] == 3
    blame = found["proposals"]["0.5"]["all classes"]
    assert blame["objects"] == 24 and blame["proposed"] == 1 and blame["detected"] == pytest.approx(17 / 24)
    for name, values in found["per_class"].items():
        assert values["AP"] == content["coco"]["per_class"][name]["AP"]
    low, high = content["analysis"]["segmentation"]["intervals"]["mIoU"]
    assert low <= content["iou"]["mIoU"] <= high
    assert content["analysis"]["boundary"]["boundary_mIoU"] < content["iou"]["mIoU"]


class _Page(HTMLParser):
    """Collects tags and addresses; fails on tags that are not closed in order."""

    VOID = frozenset({"meta", "br", "img", "circle", "line", "rect", "polyline", "input", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.addresses += [value for key, value in attributes if key in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("tasks", [TASKS, ["detection"], ["segmentation"]])
def test_the_page_stands_alone(tasks: list[str], tmp_path: Path) -> None:
    report, content = _evaluated(8, tasks)
    path = report.write(tmp_path / "out", content)
    text = path.read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert page.open == [] and all(
        address.startswith("data:image/jpeg;base64,") for address in page.addresses
    )
    assert "<dog>" not in text and "&lt;dog&gt;" in text  # names are text, not tags
    assert not re.search(r"https?://", text)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == content


def test_the_gallery_keeps_the_worst_of_each_kind() -> None:
    report, _ = _evaluated(40, ["detection"])
    shown = report.gallery.pictures()
    assert len(shown) <= 2 * report.gallery.each
    assert {kind for picture in shown for kind in picture.errors} == {"classification", "missed"}
    assert all(picture.jpeg[:2] == b"\xff\xd8" for picture in shown)


def test_one_picture_and_no_picture() -> None:
    for count in (0, 1):
        report, content = _evaluated(count, TASKS)
        assert (
            content["analysis"]["detection"]["intervals"] == {}
            and content["analysis"]["segmentation"]["intervals"] == {}
        )
        assert len(report.gallery.pictures()) == count
