"""The learning-rate range test on a formula and on a model of a few seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.tiny_data import config_values, mask_data, write_mask_folder
from vistasks.cli import main
from vistasks.config import parse_config
from vistasks.training.lr_finder import find_learning_rate, suggested_rate


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    rates = np.logspace(-5, 0, 101)
    fall = 1 / (1 + np.exp(6 * (np.log10(rates) + 3)))  # steepest at 1e-3
    loss = 1 + fall + 40 * np.maximum(0, np.log10(rates) + 1.5) ** 2
    found = suggested_rate(rates.tolist(), loss.tolist(), loss.tolist())
    assert found.steepest == pytest.approx(1e-3, rel=0.2) and 0.01 < found.lowest < 0.1
    assert found.suggestion == found.steepest
    late = suggested_rate(rates.tolist(), (-rates).tolist(), (-rates).tolist())  # falls to the end
    assert late.suggestion == pytest.approx(late.lowest / 3)
    with pytest.raises(ValueError, match=r"the loss was not finite after 3 steps; try a lower --lowest"):
        suggested_rate([1e-3] * 3, [1.0] * 3, [1.0] * 3)


def test_command_writes_plot_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = mask_data(write_mask_folder(tmp_path / "data", count=4))
    values = config_values(tmp_path / "run", data, "segmentation", batch_size=2)
    path, plot = tmp_path / "c.yaml", tmp_path / "out" / "lr.png"
    path.write_text(yaml.safe_dump(values))
    assert (
        main(["find-lr", "--config", str(path), "--steps", "20", "--highest", "100", "--output", str(plot)])
        == 0
    )
    printed = capsys.readouterr().out
    numbers = json.loads(plot.with_suffix(".json").read_text())
    assert plot.stat().st_size > 5000 and f"train.optimizer.lr={numbers['suggestion']:.2g}" in printed
    assert len(numbers["rates"]) == len(numbers["losses"]) > 10 and np.isfinite(numbers["losses"]).all()
    assert numbers["rates"][0] == pytest.approx(1e-6) and np.all(np.diff(np.log(numbers["rates"])) > 0)
    assert not (tmp_path / "run").exists()
    assert main(["find-lr", "--config", str(path), "--output", "a.txt"]) == 1
    assert ".png, .jpg, .pdf or .svg" in capsys.readouterr().err
    with pytest.raises(
        ValueError, match=r"needs 0 < lowest < highest and at least 20 steps; received 1\.0, 0\.1, 100"
    ):
        find_learning_rate(parse_config(values), lowest=1.0, highest=0.1)
