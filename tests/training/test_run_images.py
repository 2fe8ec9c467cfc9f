"""The pictures of a run folder: when they are drawn, and a disk that takes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vistasks.training import run_images as pictures
from vistasks.training.run_images import RunPictures


def _folder(path: Path) -> Path:
    (path / "metrics.jsonl").write_text(json.dumps({"step": 1, "epoch": 0, "lr": 0.1, "a/b": 1.0}) + "\n")
    return path


def test_curves_are_not_drawn_at_every_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = RunPictures(_folder(tmp_path), print)
    shown.curves()
    assert not (tmp_path / "curves.html").exists()
    monkeypatch.setattr(pictures, "EVERY", 0.0)
    shown.curves()
    assert (tmp_path / "curves.html").exists() and (tmp_path / "curves.png").exists()


def test_the_newest_samples_are_on_the_page_also_after_a_resume(tmp_path: Path) -> None:
    first = RunPictures(_folder(tmp_path), print)
    for epoch in (2, 10):
        assert first.samples(np.zeros((8, 8, 3), np.uint8), epoch)
    RunPictures(tmp_path, print).curves(insist=True)
    assert "Samples, epoch 010" in (tmp_path / "curves.html").read_text()


def test_what_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    told: list[str] = []
    shown = RunPictures(_folder(tmp_path), told.append)
    for name in ("replacing", "save_curves", "save_curves_page"):
        monkeypatch.setattr(pictures, name, full)
    assert not shown.samples(np.zeros((8, 8, 3), np.uint8), 1)
    shown.curves(insist=True)
    assert [line.partition(" (")[2] for line in told] == ["No space left on device)"] * 3
    assert "epoch_001.jpg" in told[0] and "curves.html" in told[1] and "curves.png" in told[2]
