"""Truncated SVD of a detector's layers, on a checkpoint with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.test_trained_proposals import saved
from vistasks.checkpoint import read_checkpoint
from vistasks.cli import main
from vistasks.inference.loaded import load_model
from vistasks.refining.compress import compress, factors, rank_for

CASCADE = {"hidden": [24, 16], "refine": {"foreground_iou": [0.6]}}


def test_the_factors_are_the_best_of_their_rank() -> None:
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    first, second, kept = factors(weight, 7)
    assert first.shape == (7, 30) and second.shape == (20, 7)
    values = torch.linalg.svdvals(weight)
    error = (weight - second @ first).norm()
    assert float(error) == pytest.approx(float(values[7:].norm()), rel=1e-5)  # Eckart and Young
    assert kept == pytest.approx(1 - float(error**2 / weight.norm() ** 2), rel=1e-5)
    rank = rank_for(weight, kept)
    assert rank == 7 and rank_for(weight, kept + 1e-6) == 8 and rank_for(weight, 1) == 20


def test_full_rank_predicts_the_same_and_a_small_one_is_smaller(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", "detection", **CASCADE)
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    proposals = np.array([[4, 4, 40, 40], [10, 20, 60, 60]], np.float32)

    def answer(path: Path) -> np.ndarray:
        loaded = load_model(path, "cpu")
        return loaded.model.predict(loaded.make_batch([picture], [proposals]))[0].detections.scores

    done = compress(str(run), tmp_path / "whole", ranks=[24, 16])
    np.testing.assert_allclose(answer(tmp_path / "whole"), answer(run), atol=1e-5)
    assert [(row["stage"], row["layer"], row["energy"]) for row in done["layers"]] == [
        (0, 1, 1),
        (0, 2, 1),
        (1, 1, 1),
        (1, 2, 1),
    ]
    small = compress(str(run), tmp_path / "small", keep=0.5)
    assert small["parameters"]["after"] < small["parameters"]["before"]
    assert all(row["energy"] >= 0.5 for row in small["layers"])
    assert read_checkpoint(tmp_path / "small").config.model.heads["detection"]["ranks"] == small["ranks"]


def test_what_cannot_be_compressed(tmp_path: Path) -> None:
    run = str(saved(tmp_path / "run", "detection", **CASCADE))
    for ranks, keep in ((None, None), ([1, 1], 0.5)):
        with pytest.raises(ValueError, match="give either ranks, one for each hidden layer, or keep"):
            compress(run, tmp_path / "x", ranks=ranks, keep=keep)
    with pytest.raises(ValueError, match="one for each of the 2 hidden layers; received 1"):
        compress(run, tmp_path / "x", ranks=[4])
    with pytest.raises(ValueError, match="hidden layer 2 must be from 1 to 16; received 17"):
        compress(run, tmp_path / "x", ranks=[4, 17])
    with pytest.raises(ValueError, match=r"keep must be above 0 and at most 1; received 1\.5"):
        compress(run, tmp_path / "x", keep=1.5)
    compress(run, tmp_path / "x", ranks=[4, 4])
    with pytest.raises(ValueError, match="choose another folder"):
        compress(run, tmp_path / "x", ranks=[4, 4])
    with pytest.raises(ValueError, match=r"ranks \[4, 4\]"):
        compress(str(tmp_path / "x"), tmp_path / "y", ranks=[4, 4])
    with pytest.raises(ValueError, match="no region_classifier"):
        compress(str(saved(tmp_path / "map", "segmentation")), tmp_path / "z", ranks=[4])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(saved(tmp_path / "run", "detection"))
    assert main(["compress", "--weights", run, "--output", str(tmp_path / "small"), "--ranks", "8"]) == 0
    said = capsys.readouterr().out
    assert "energy kept" in said and str(tmp_path / "small" / "best.safetensors") in said.replace("\n", "")
    assert main(["compress", "--weights", run, "--output", str(tmp_path / "x"), "--ranks", "a,b"]) == 1
    assert "--ranks" in capsys.readouterr().err
