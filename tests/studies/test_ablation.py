"""The ablation study on six small pictures, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_data import config_values, voc_data, write_voc
from vistasks.cli import main
from vistasks.config import parse_config, to_yaml
from vistasks.studies import ablation
from vistasks.studies.ablation import BASE, read_changes, rows, study_ablation


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("study")
    return config_values(folder / "unused", voc_data(write_voc(folder / "voc")), "detection", epochs=1)


def test_each_change_beside_the_config_as_it_is(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"no EMA": ["train.ema=null"], "2 epochs": ["train.epochs=2", "train.validate_every=2"]}
    first = study_ablation(values, {"no EMA": changes["no EMA"]}, tmp_path, isolate=False)
    assert list(first["trainings"]) == [BASE, "no EMA"]
    trained: list[str] = []

    def run_part(plan: dict[str, Any], finished: str) -> None:  # a third training would show nothing new
        trained.append(finished)
        epochs = {"epochs": plan["train"]["epochs"]}
        Path(finished).write_text(json.dumps({**first["trainings"]["no EMA"], **epochs}), encoding="utf-8")

    monkeypatch.setattr(ablation, "run_part", run_part)
    found = study_ablation(values, changes, tmp_path, isolate=False)  # goes on: only what is new is trained
    assert [Path(path).name for path in trained] == ["2_epochs.json"]
    table = rows(found)
    assert [row[0] for row in table] == ["", BASE, "no EMA", "2 epochs"] and table[0][1] == "AP"
    assert "(" not in table[1][1] and "(" in table[2][1] and [row[-4] for row in table[1:]] == ["1", "1", "2"]
    assert (tmp_path / "study.md").read_text().count("\n") == 5 and (
        tmp_path / "no_EMA" / "best.safetensors"
    ).is_file()
    with pytest.raises(
        ValueError, match=r"holds a study in which 'no EMA' has another train; choose another --output"
    ):
        study_ablation(values, {"no EMA": ["train.ema=0.5"]}, tmp_path, isolate=False)


def test_what_cannot_be_studied(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"change 'x': config: train\.emma: unknown key"):
        study_ablation(values, {"x": ["train.emma=1"]}, tmp_path)
    with pytest.raises(ValueError, match=r"change 'x': command line: expected key\.path=value"):
        study_ablation(values, {"x": ["train.ema"]}, tmp_path)
    with pytest.raises(ValueError, match="same folder name"):
        study_ablation(values, {"a b": ["train.ema=0.5"], "a_b": ["train.ema=0.6"]}, tmp_path)
    with pytest.raises(ValueError, match=r"data\.val"):
        study_ablation(values, {"x": ["data.val={}"]}, tmp_path)
    path = tmp_path / "changes.yaml"
    path.write_text("fine: [train.ema=null]\nno EMA: {ema: null}\n")
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(parse_config(values)))
    command = [
        "study",
        "ablation",
        "--config",
        str(config),
        "--changes",
        str(path),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert (
        f"{path}:2: no EMA: expected a list of key.path=value, such as [train.ema=null]; received {{'ema': None}}"
        in said
    )
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="no change to study"):
        read_changes(path)
    path.write_text("no EMA: train.ema=null\n")
    assert read_changes(path) == {"no EMA": ["train.ema=null"]}
