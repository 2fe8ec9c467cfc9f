"""Calibrated scores: the fit on drawn scores, and the command on a checkpoint with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.models.test_trained_proposals import saved
from tests.tiny_data import config_values, voc_data, write_voc
from vistasks.checkpoint import read_checkpoint
from vistasks.cli import main
from vistasks.config import parse_config
from vistasks.evaluation.loop import evaluate
from vistasks.heads.region_decoding import calibrated
from vistasks.inference.loaded import load_model
from vistasks.refining.calibrate import Scored, apply, calibration_error, fit


def test_the_fit_finds_the_curve_that_drew_the_labels() -> None:
    draw = np.random.default_rng(0)
    scores = draw.uniform(0.01, 0.99, 20000)
    truth = 1 / (1 + np.exp(-(0.5 * np.log(scores / (1 - scores)) - 1)))
    right = draw.random(20000) < truth
    slope, offset = fit(scores, right)
    assert slope == pytest.approx(0.5, abs=0.03) and offset == pytest.approx(-1, abs=0.05)
    found = Scored(scores, np.zeros(20000, int), right, np.zeros(20000, int))
    assert (
        calibration_error(scores, right)
        > 0.15
        > 0.02
        > calibration_error(apply(found, [(slope, offset)]), right)
    )


def test_few_detections_change_little_and_the_order_stays() -> None:
    assert fit(np.zeros(0), np.zeros(0, bool)) == (1, 0)
    slope, offset = fit(np.array([0.2, 0.9]), np.array([True, False]))  # the wrong way round: still rising
    assert 0.3 < slope < 1 and abs(offset) < 0.5


def test_the_error_by_hand() -> None:
    scores, right = np.array([0.05, 0.92, 0.98]), np.array([False, True, False])
    assert calibration_error(scores, right) == pytest.approx((0.05 + 2 * (0.95 - 0.5)) / 3)
    assert calibration_error(np.zeros(0), np.zeros(0, bool)) == 0


def test_scores_by_class() -> None:
    curves = {"cat": (1.0, 0.0), "dog": (2.0, 1.0)}
    scores = calibrated(torch.tensor([0.5, 0.5]), torch.tensor([0, 1]), ("cat", "dog"), curves)
    assert scores.tolist() == pytest.approx([0.5, 1 / (1 + np.exp(-1))])


def written(folder: Path, decoding: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """A config with this decoding, as plain values and as a file."""
    values = config_values(folder, voc_data(write_voc(folder / "data")), "detection")
    values["model"]["heads"]["detection"] = {**values["model"]["heads"]["detection"], "decoding": decoding}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return values, path


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(saved(tmp_path / "run", "detection", decoding={"score": 0.0, "max_detections": 20}))
    values, path = written(tmp_path, {"score": 0.0, "max_detections": 20})
    out = tmp_path / "out"
    assert main(["calibrate", "--config", str(path), "--weights", run, "--output", str(out)]) == 0
    assert "all classes" in capsys.readouterr().out
    decoding = read_checkpoint(out).config.model.heads["detection"]["decoding"]
    assert (
        all(slope > 0 for slope, _ in decoding["calibration"].values()) and decoding["max_detections"] == 20
    )

    config = parse_config(values)
    before, after = evaluate(config, run), evaluate(config, str(out))
    assert [row["AP"] for row in before["coco"]["per_class"].values()] == [
        r["AP"] for r in after["coco"]["per_class"].values()
    ]

    loaded = load_model(out, "cpu")
    head = loaded.model.heads["detection"]
    loaded.decode_with({"score": 0.0, "max_detections": 20})  # as it was fitted: the calibration stays
    assert head.decoding.calibration is not None
    loaded.decode_with({"score": 0.0, "max_detections": 10})
    assert head.decoding.calibration is None
    with pytest.raises(ValueError, match=r"decoding\.calibration is of the classes bird; the head's are"):
        loaded.decode_with({"calibration": {"bird": [1.0, 0.0]}})


def test_what_cannot_be_calibrated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, path = written(tmp_path, {"score": 1.0})

    def refused(weights: Path, output: Path, *more: str) -> str:
        assert (
            main(
                [
                    "calibrate",
                    "--config",
                    str(path),
                    "--weights",
                    str(weights),
                    "--output",
                    str(output),
                    *more,
                ]
            )
            == 1
        )
        return capsys.readouterr().err

    run = saved(tmp_path / "run", "detection")
    assert "detects nothing on" in refused(run, tmp_path / "out")
    assert "choose another folder" in refused(run, run)
    assert "data.val is empty" in refused(run, tmp_path / "out", "data.val={}")
    assert "no region_classifier" in refused(saved(tmp_path / "map", "segmentation"), tmp_path / "out")
