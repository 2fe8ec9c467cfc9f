"""What the joint benchmark reports; the peers are stand-ins here, since theirs are seconds a pass."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fake_model import save_picture
from vistasks.benchmarks import joint
from vistasks.cli import main


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    def peers() -> tuple[Any, Any]:
        return (lambda picture: {"boxes": np.zeros((3, 4))}), (lambda picture: time.sleep(0.01))

    monkeypatch.setattr(joint, "HEIGHT", 64)
    monkeypatch.setattr(joint, "WIDTH", 96)
    monkeypatch.setattr(joint, "_peers", peers)


def test_the_report(small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = save_picture(tmp_path / "grey.png", size=(50, 40))
    report = joint.benchmark(image=picture, threads=1, rounds=2)
    assert report["picture"] == "96x64, grey.png" and report["weights"] == "random for all"
    assert sum(report["our_stages_share"].values()) == pytest.approx(1, abs=0.01)
    assert list(report["our_stages_share"]) == [
        "proposals", "batch", "trunk and neck", "region head", "boxes", "map head", "class map"
    ]  # fmt: skip
    total = report["median_seconds"]["ours_joint"]
    assert sum(report["our_stages_seconds"].values()) == pytest.approx(total, rel=0.5)
    assert report["least_seconds"]["deeplabv3_mobilenet_v3_large"] >= 0.01
    assert report["boxes_found"]["fasterrcnn_mobilenet_v3_large_fpn"] == 3
    assert (
        main(
            ["benchmark", "joint", "--rounds", "1", "--threads", "1", "--json", str(tmp_path / "joint.json")]
        )
        == 0
    )
    assert (tmp_path / "joint.json").is_file() and "ours_over_both_median" in capsys.readouterr().out


def test_messages() -> None:
    with pytest.raises(ValueError, match="--threads and --rounds must be at least 1; received 0 and 7"):
        joint.benchmark(threads=0)
