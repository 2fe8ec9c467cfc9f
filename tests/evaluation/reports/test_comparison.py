"""Reports side by side: differences and intervals against known answers, what cannot be compared, and the
page.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation.reports.test_report import CLASSES, TASKS, _Page, _pair
from vistasks.cli import main
from vistasks.evaluation.loop import build_metrics, headline
from vistasks.evaluation.reports import EvaluationReport
from vistasks.evaluation.reports.comparison import compare_runs, read_runs
from vistasks.evaluation.reports.comparison_page import comparison_page
from vistasks.evaluation.reports.records import FILE, read_records
from vistasks.evaluation.reports.svg import interval_chart
from vistasks.types import ClassNames, Prediction, Sample


def perfect(prediction: Prediction, sample: Sample) -> tuple[Prediction, Sample]:
    """The labels themselves as the prediction."""
    found, labels = prediction.detections, prediction.segmentation
    assert found is not None and labels is not None and sample.segmentation is not None
    boxes = replace(
        found, boxes=sample.boxes, scores=np.ones(len(sample.boxes), np.float32), labels=sample.labels
    )
    return Prediction(boxes, replace(labels, labels=sample.segmentation)), sample


def plain(prediction: Prediction, sample: Sample) -> tuple[Prediction, Sample]:
    return prediction, sample


def write_report(folder: Path, count: int, change: Any = plain) -> Path:
    """What ``evaluate --report`` writes, of `_pair`'s pictures."""
    metrics, page = build_metrics(CLASSES, TASKS, "hotcoco"), EvaluationReport(CLASSES, TASKS)
    for index in range(count):
        for each in (*metrics.values(), page):
            each.update(*change(*_pair(index)))
    results = {key: metric.compute() for key, metric in metrics.items()}
    base = {
        "weights": folder.parent.name,
        "data": {"root": "r", "split": "val"},
        "images": count,
        "model_seconds_per_image": 0.1,
    }
    base |= {**results, "headline": headline(results)}
    page.write(folder, page.compute(base, metrics))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    return write_report(root / "weak" / "report", 12), write_report(root / "strong" / "report", 12, perfect)


@pytest.fixture(scope="module")
def content(runs: tuple[Path, Path]) -> dict[str, Any]:
    return compare_runs(
        read_runs([runs[0].parent, runs[1]]), samples=40
    )  # a run folder, and a report's folder


def test_records_are_read_as_they_were_written(runs: tuple[Path, Path], tmp_path: Path) -> None:
    records = read_records(runs[0] / FILE)
    assert list(records.detections) == list(records.pixels) == [str(i) for i in range(12)]  # 10 after 9
    assert records.paths["11"] == "folder/11.png" and records.classes == CLASSES
    prediction, sample = _pair(3)
    found = records.detections["3"]
    assert np.array_equal(found.detected, prediction.detections.boxes) and np.array_equal(
        found.boxes, sample.boxes
    )
    assert np.array_equal(found.scores, prediction.detections.scores) and found.difficult.dtype == bool
    total = records.confusions().sum(axis=0).reshape(3, 3)
    assert (
        total.tolist()
        == json.loads((runs[0] / "report.json").read_text())["analysis"]["segmentation"]["confusion"][
            "matrix"
        ]
    )
    records.write(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (runs[0] / FILE).read_bytes()


def test_differences_and_their_intervals(runs: tuple[Path, Path], content: dict[str, Any]) -> None:
    assert [run["name"] for run in content["runs"]] == ["weak", "strong"]
    numbers = {row["name"]: row for row in content["numbers"]}
    weak = json.loads((runs[0] / "report.json").read_text())["headline"]
    for name, row in numbers.items():
        assert row["values"] == [weak[name], 1.0]
        (found,) = row["differences"]
        assert found["difference"] == pytest.approx(1 - weak[name])
        if not name.startswith("VOC"):
            assert 0 < found["low"] <= found["difference"] <= found["high"]
    intervals = json.loads((runs[0] / "report.json").read_text())["analysis"]["segmentation"]["intervals"]
    bounds = numbers["mIoU"]["differences"][0]
    assert [1 - bounds["high"], 1 - bounds["low"]] == pytest.approx(
        intervals["mIoU"]
    )  # only the first varies
    classes = content["classes"]["detection"]
    gains = [row["differences"][0]["difference"] for row in classes]
    assert gains == sorted(gains, reverse=True) and {row["name"] for row in classes} == {"cat", "<dog>"}
    assert all(row["objects"] == 12 and row["differences"][0]["low"] > 0 for row in classes)
    assert {row["name"] for row in content["classes"]["segmentation"]} == set(CLASSES.segmentation)


def test_pictures_that_gained_and_lost(runs: tuple[Path, Path], content: dict[str, Any]) -> None:
    (boxes,) = content["pictures"]["detection"]
    assert (boxes["better"], boxes["worse"], boxes["same"]) == (
        6,
        0,
        6,
    )  # a cat missed in 4, a dog misnamed in 3, both in one
    assert boxes["changed"][0] == {"path": "folder/0.png", "first": 3.0, "other": 0.0}
    (back,) = compare_runs(read_runs(runs[::-1]), samples=2)["pictures"]["detection"]
    assert (back["better"], back["worse"]) == (0, 6) and back["changed"][-1]["path"] == "folder/0.png"
    (maps,) = content["pictures"]["segmentation"]
    assert (maps["better"], maps["same"]) == (9, 3) and maps["changed"][0]["other"] == 0


def test_a_run_beside_itself_differs_in_nothing(runs: tuple[Path, Path]) -> None:
    content = compare_runs(read_runs([runs[0], runs[0], runs[1]]), samples=20)
    assert len({run["name"] for run in content["runs"]}) == 3
    for row in [*content["numbers"], *(row for rows in content["classes"].values() for row in rows)]:
        same, other = row["differences"]
        assert same["difference"] == 0 and same["low"] in (0, None) and same["high"] in (0, None)
        assert other["difference"] >= 0
    assert content["pictures"]["detection"][0]["same"] == 12


def test_the_command_and_the_page(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads((runs[0] / "report.json").read_text())
    (runs[0] / "report.json").write_text(
        json.dumps({**report, "test_time": {"flip": True, "scales": [0.5], "window": None}})
    )
    assert (
        main(
            [
                "compare",
                *map(str, runs),
                str(runs[0] / "report.json"),
                "--output",
                str(tmp_path),
                "--samples",
                "20",
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert (
        "mIoU" in shown and "weak (3)" in shown and "*" in shown and str(tmp_path / "compare.html") in shown
    )
    content = json.loads((tmp_path / "compare.json").read_text())
    text = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert text == comparison_page(content)
    page = _Page()
    page.feed(text)
    assert page.open == [] and page.addresses == []
    assert "<dog>" not in text and "&lt;dog&gt;" in text and not re.search(r"https?://", text)
    for words in (
        '"gained"',
        "Images gained and lost: boxes",
        "Segmentation map by class",
        ">0.png</td>",
        "weak, --tta flip,0.5",
    ):
        assert words in text
    assert '<td data-value="3">3</td><td data-value="0">0</td>' in text  # numbers of errors are whole


def altered(folder: Path, to: Path, without: tuple[str, ...] = (), **changes: Any) -> Path:
    """A copy of a report whose records are others, without some of the headline's numbers."""
    report = json.loads((folder / "report.json").read_text())
    report["headline"] = {
        name: value for name, value in report["headline"].items() if not name.startswith(without or "-")
    }
    to.mkdir()
    (to / "report.json").write_text(json.dumps(report))
    replace(read_records(folder / FILE), **changes).write(to / FILE)
    return to


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.135, 0.15), (0.073, 0.08), (1.0, 1.0), (0.00021, 0.0003), (9.5, 10.0)]
)
def test_the_axis_of_differences_ends_at_a_round_number(value: float, rounded: float) -> None:
    chart = interval_chart(
        {"a": (-value / 3, value / 2, value), "a very long name of a class": (-value, -value / 2, -value / 4)}
    )
    assert f">+{rounded:g}<" in chart and f">-{rounded:g}<" in chart
    assert (
        "#c02626" in chart
        and "a very long name of\u2026" in chart
        and "a very long name of a class: -" in chart
    )


def test_runs_of_different_tasks_share_what_they_have(runs: tuple[Path, Path], tmp_path: Path) -> None:
    boxes = altered(runs[0], tmp_path / "boxes", ("mIoU", "pixel", "mean"), pixels={})
    content = compare_runs(read_runs([runs[0], boxes]), samples=2)
    assert "AP" in [row["name"] for row in content["numbers"]] and "mIoU" not in [
        row["name"] for row in content["numbers"]
    ]
    assert list(content["classes"]) == ["detection"]
    maps = altered(runs[0], tmp_path / "maps", ("AP", "VOC"), detections={})
    assert list(compare_runs(read_runs([runs[1], maps]))["classes"]) == ["segmentation"]
    with pytest.raises(ValueError, match="maps cannot be compared: no task"):
        read_runs([boxes, maps])


def test_what_is_no_report(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two or more"):
        read_runs([runs[0]])
    told = r"nowhere: expected a folder that .* \(report\.json and pictures\.safetensors\).*; it has none\. Evaluate with --rep"
    with pytest.raises(ValueError, match=told):
        read_runs([runs[0], tmp_path / "nowhere"])
    broken = altered(runs[0], tmp_path / "broken")
    (broken / FILE).write_bytes(b"noise")
    with pytest.raises(
        ValueError, match=r"broken.pictures\.safetensors: not what vistasks evaluate --report writes"
    ):
        read_runs([runs[0], broken])
    (broken / FILE).unlink()
    with pytest.raises(
        ValueError, match=r"broken: .* its report\.json is not one of --report, which has more"
    ):
        read_runs([runs[0], broken])
    with pytest.raises(ValueError, match=r"pictures\.safetensors: missing; evaluate again with --report"):
        read_records(broken / FILE)


def test_what_cannot_be_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    records = read_records(runs[0] / FILE)
    boxes, pixels, seven = records.detections, records.pixels, records.detections["7"]
    few = {i: record for i, record in boxes.items() if int(i) < 9}
    cells, counts = pixels["7"]
    names = ClassNames(("lion", "<dog>"), CLASSES.segmentation)
    data = r"the first is of root: r, split: val, the other of root: r"
    for number, (changes, told) in enumerate(
        [
            ({"detections": few}, rf"different images \(12 and 9, 9 of them the same\): {data}"),
            (
                {"detections": {**boxes, "7": replace(seven, boxes=seven.boxes + np.float32(1))}},
                rf"the labels of 1 images differ, such as 7: {data}",
            ),
            (
                {"pixels": {**pixels, "7": (cells, counts + 1)}},
                rf"the labels of 1 images differ, such as 7: {data}",
            ),
            ({"classes": names}, r"the detection classes differ\. First: cat, <dog>\. Other: lion, <dog>"),
        ]
    ):
        other = altered(runs[0], tmp_path / str(number), **changes)
        with pytest.raises(ValueError, match=f"{number} cannot be compared: .*{told}"):
            read_runs([runs[0], other])
    report = json.loads((other / "report.json").read_text())
    report["coco"]["protocol"] = "another"
    (other / "report.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match=r"the protocols differ\. First: COCO box AP .* Other: another"):
        read_runs([runs[0], other])
