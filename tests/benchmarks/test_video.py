from __future__ import annotations

import json

import pytest

from vistasks.benchmarks.video import benchmark, resident_bytes
from vistasks.cli import main


def test_a_small_run_has_all_that_is_promised() -> None:
    report = benchmark(frames=6, size=(48, 64), memory_frames=20, batch_size=2)
    assert json.loads(json.dumps(report)) == report
    assert list(report["stages"]) == ["decode", "propose", "batch", "predict", "draw", "encode", "write"]
    assert all(stage["rate"] > 0 and stage["cpu"] >= 0 for stage in report["stages"].values())
    assert report["slowest_rate"] == min(stage["rate"] for stage in report["stages"].values())
    assert report["ratio_to_slowest"] == report["pipeline"] / report["slowest_rate"]
    assert report["ratio_to_in_turn"] == report["pipeline"] / report["in_turn"]
    assert set(report["memory"]["bytes"]) == {"2", "20"} and report["memory"]["rate"] > 0
    assert report["waiting"] > 0.3 and resident_bytes() > 1e7


@pytest.mark.parametrize("size", ["640", "0x4", "axb"])
def test_a_size_that_is_none_is_named(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "video", "--size", size]) == 1
    assert f"received {size}" in capsys.readouterr().err
