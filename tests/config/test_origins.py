"""The printed config says where each value came from, and reads back as itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from vistasks.config import load_config, parse_config, read_config
from vistasks.config.origins import to_annotated_yaml

TEXT = """output: runs/a
data:
  format: mask_folder
  root: data/a
  mask_values: {0: road, 255: ignore}
augment:
  - HorizontalFlip: {p: 0.5}
  - Rotate: {limit: 5}
model:
  backbone: {name: resnet18}
  heads:
    segmentation: {name: fcn8s}
train:
  optimizer:
    lr: 1e-3
"""


def printed(path: Path, *overrides: str) -> dict[str, str]:
    """Line -> what its comment says."""
    values, where = read_config(path, overrides)
    text = to_annotated_yaml(parse_config(values, where=where), values, where)
    copy = path.with_name("copy.yaml")
    copy.write_text(text)
    assert load_config(copy) == load_config(path, overrides)
    return {
        line.split(" # ")[0].strip(): line.split(" # ")[1] if " # " in line else ""
        for line in text.splitlines()
    }


def test_each_value_has_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(TEXT)
    lines = printed(path, "train.epochs=7", "model.neck={name: fpn}", "augment.1.Rotate.limit=9")
    assert lines["output: runs/a"] == f"{path}:1" and lines["lr: 0.001"] == f"{path}:15"
    assert lines["epochs: 7"] == "command line" and lines["batch_size: 4"] == "default"
    assert lines["name: fpn"] == "command line" and lines["name: fcn8s"] == f"{path}:12"
    assert lines["0: road"] == f"{path}:5" and lines["momentum: 0.9"] == "default"
    assert lines["- {HorizontalFlip: {p: 0.5}}"] == f"{path}:7" and "Rotate: {limit: 9}" in "".join(lines)
    assert lines["optimizer:"] == "" and lines["seed: 0"] == "default"


@pytest.mark.parametrize("text", ["", "1e-3", "a: b # c", "null", "{x}", "ä", " lead", "yes"])
def test_awkward_texts_survive(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(TEXT)
    values, where = read_config(path)
    values["data"]["root"] = text
    config = parse_config(values, where=where)
    copy = tmp_path / "copy.yaml"
    copy.write_text(to_annotated_yaml(config, values, where), encoding="utf-8")
    assert load_config(copy) == config
