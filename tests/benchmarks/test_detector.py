"""The detector's benchmark, on a small data set and small networks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.tiny_data import config_values, mask_data, voc_data, write_mask_folder, write_voc
from vistasks.benchmarks.detector import benchmark, peer_detector
from vistasks.cli import main
from vistasks.config import Config, parse_config, to_yaml


@pytest.fixture
def config(tmp_path: Path) -> Config:
    write_voc(tmp_path, count=6)
    values = config_values(tmp_path / "run", voc_data(tmp_path), "detection")
    values["model"]["backbone"] = {"name": "efficientnet_lite0"}
    return parse_config({**values, "input": {"min_side": 64, "max_side": 96}})


def test_the_command_times_both_on_the_same_trunk(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    arguments = [
        "benchmark",
        "detector",
        "--config",
        str(tmp_path / "c.yaml"),
        "--pictures",
        "2",
        "--rounds",
        "1",
    ]
    assert main([*arguments, "--json", str(tmp_path / "numbers.json")]) == 0
    result = json.loads((tmp_path / "numbers.json").read_text())
    assert result == json.loads(capsys.readouterr().out)
    parts, seconds = result["parts"], result["seconds"]
    assert seconds["ours, proposals computed"] == pytest.approx(
        parts["proposals"] + parts["network"], abs=2e-4
    )
    assert seconds["ours, proposals cached"] == pytest.approx(parts["cache"] + parts["network"], abs=2e-4)
    assert set(seconds) == set(result["images_per_second"])
    assert result["pictures"] == 2 and result["backbone"] == "efficientnet_lite0"


def test_the_peer_is_torchvisions_over_our_trunk(config: Config) -> None:
    peer = peer_detector(config, 2, trained=True)
    assert peer.roi_heads.box_predictor.cls_score.out_features == 3 and peer.transform.min_size == (64,)
    maps = peer.backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps.values()] == [
        (128, 16, 24),
        (128, 8, 12),
        (128, 4, 6),
        (128, 2, 3),
        (128, 1, 2),
    ]


def test_what_cannot_be_timed(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be at least 1; received 0, 3 and 1"):
        benchmark(config, pictures=0)
    write_mask_folder(tmp_path / "masks")
    segmenter = parse_config(config_values(tmp_path / "run", mask_data(tmp_path / "masks"), "segmentation"))
    with pytest.raises(ValueError, match=r"model\.heads has no detection head"):
        benchmark(segmenter)
