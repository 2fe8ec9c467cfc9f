from __future__ import annotations

import json
from pathlib import Path

from vistasks.benchmarks.evaluate import _gap, benchmark


def test_a_small_run_has_all_that_is_promised() -> None:
    report = benchmark(images=12, detections=403, classes=5, seed=1)
    assert json.loads(json.dumps(report)) == report
    assert (report["images"], report["detections"], report["classes"]) == (12, 403, 5)
    assert report["objects"] >= 12
    assert set(report["seconds"]) == {"update", "hotcoco", "pycocotools"}
    assert report["ratio"] == report["seconds"]["pycocotools"] / report["seconds"]["hotcoco"]
    assert report["max_difference"] < 1e-9
    assert 0 < report["numbers"]["AP"] < report["numbers"]["AP50"] < 1
    assert "hotcoco" in report["protocol"] and "pycocotools" in report["referee"]


def test_with_the_page(tmp_path: Path) -> None:
    found = benchmark(images=12, detections=403, classes=5, seed=1, report=tmp_path)
    text = (tmp_path / "report.html").read_bytes()
    assert found["page"]["bytes"] == len(text) and b"class 4" in text and found["page"]["seconds"] > 0
    assert found["numbers"] == benchmark(images=12, detections=403, classes=5, seed=1)["numbers"]


def test_a_number_that_only_one_engine_has_is_no_agreement() -> None:
    assert _gap(None, None) == 0 and _gap(0.25, 0.5) == 0.25
    assert _gap(None, 0.5) == _gap(0.0, None) == float("inf")
