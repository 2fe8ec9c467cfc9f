"""The functions behind `vistasks data ...`, on a small folder of pictures and masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vistasks.config import Config, parse_config
from vistasks.inspection import data as data_commands
from vistasks.inspection.data import check_command, prepare_command, show_command


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for folder in (part, part + "annot"):
            (tmp_path / folder).mkdir()
        for number in range(3):
            image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
            mask = np.zeros((40, 60), np.uint8)
            mask[:, 20 + number :] = 1
            cv2.imwrite(str(tmp_path / part / f"{part}{number}.png"), image)
            cv2.imwrite(str(tmp_path / f"{part}annot" / f"{part}{number}.png"), mask)
    return tmp_path


def config_of(root: Path, **data: object) -> Config:
    values = {
        "output": str(root / "run"),
        "data": {
            "format": "mask_folder",
            "root": str(root),
            "mask_values": {0: "sky", 1: "road"},
            "train": {"images": "train", "masks": "trainannot"},
            "val": {"images": "val", "masks": "valannot"},
            **data,
        },
        "augment": [{"HorizontalFlip": {"p": 1}}],
        "model": {"backbone": {"name": "vgg11"}, "heads": {"segmentation": {"name": "fcn32s"}}},
    }
    return parse_config(values)


def test_check_of_good_data(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_command(config_of(root)) == 0
    out = capsys.readouterr().out
    assert "train: good" in out and "val: good" in out and "all can be read" in out


def test_check_names_every_bad_file_of_both_parts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train" / "train1.png").write_bytes(b"no image")
    (root / "val" / "val2.png").write_bytes(b"")
    assert check_command(config_of(root)) == 1
    out = capsys.readouterr().out
    assert "train1.png" in out and "val2.png" in out and "check again" in out


def test_check_of_data_that_cannot_be_opened(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_command(config_of(root, train={"images": "nowhere", "masks": "trainannot"})) == 1
    out = capsys.readouterr().out
    assert "train: 1 problem" in out and "nowhere" in out and "val: good" in out


def test_check_finds_pictures_that_are_in_both_parts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_command(config_of(root, val={"images": "train", "masks": "trainannot"})) == 0
    assert "3 images are in train and in val" in capsys.readouterr().out


def test_show_writes_what_the_network_sees(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = root / "new" / "sheet.png"
    assert show_command(config_of(root), output, count=2) == 0
    assert str(output) in capsys.readouterr().out
    sheet = cv2.imread(str(output))
    assert sheet is not None and sheet.shape[1] > 400
    again = root / "again.png"
    show_command(config_of(root), again, count=2)
    assert output.read_bytes() == again.read_bytes()


def test_show_errors(root: Path) -> None:
    with pytest.raises(ValueError, match="--count must be at least 1, not 0"):
        show_command(config_of(root), root / "x.png", count=0)
    with pytest.raises(
        ValueError, match=r"x\.xyz: images with the suffix '\.xyz' cannot be written; use \.jpg"
    ):
        show_command(config_of(root), root / "x.xyz", count=1)


def test_prepare_passes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[str, Path]] = []
    monkeypatch.setattr(data_commands, "prepare", lambda name, root: calls.append((name, root)))
    assert prepare_command("bccd", tmp_path) == 0
    assert calls == [("bccd", tmp_path)]
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"unknown data set 'bcd'\. Did you mean 'bccd'"):
        prepare_command("bcd", tmp_path)
