"""Training two heads by the options that only joint training has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_data import config_values, voc_data, write_voc
from vistasks.checkpoint import read_checkpoint
from vistasks.config import Config, parse_config
from vistasks.models.building import build_model
from vistasks.training.loop import train
from vistasks.training.progress import TrainingDisplay
from vistasks.training.run_folder import Progress
from vistasks.types import ClassNames

JOINT = ("detection", "segmentation")


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc"))


def config(output: Path, voc: Path, weighting: dict[str, Any], **settings: Any) -> Config:
    values = config_values(output, voc_data(voc), *JOINT, **settings)
    values["model"]["weighting"] = weighting
    return parse_config(values)


def steps_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k != "images_per_second"}
        for line in lines
        if "evaluation" not in line
    ]


@pytest.mark.parametrize(
    "weighting, settings",
    [
        ({"name": "gradient_norm", "alpha": 0.5}, {"stages": [{"tasks": ["detection"], "until": 0.4}]}),
        ({"name": "uncertainty"}, {"task_sampling": {"detection": 1.0}, "ema": 0.9}),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    weighting: dict[str, Any], settings: Any, tmp_path: Path, voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= {"epochs": 2, "batch_size": 2, "validate_every": 2}
    train(config(tmp_path / "whole", voc, weighting, **settings))
    cut = config(tmp_path / "cut", voc, weighting, **settings)
    original = TrainingDisplay.step

    def stopping(self: TrainingDisplay, progress: Progress, *values: Any, **named: Any) -> None:
        original(self, progress, *values, **named)
        if progress.step == 4:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(TrainingDisplay, "step", stopping)
        with pytest.raises(Stop):
            train(cut)
    train(cut, resume=True)
    one, two = (read_checkpoint(tmp_path / name / "last.safetensors").tensors for name in ("whole", "cut"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert any(name.startswith("model.weighting.") for name in one)
    assert steps_of(tmp_path / "cut") == steps_of(tmp_path / "whole")
    tasks = [
        {key.split("/")[0] for key in step if "/" in key} - {"weighting"}
        for step in steps_of(tmp_path / "cut")
    ]
    if "stages" in settings:
        assert tasks == [{"detection"}] * 3 + [set(JOINT)] * 3
    else:
        assert {frozenset(step) for step in tasks} == {frozenset({"detection"}), frozenset({"segmentation"})}


def test_one_head_alone_is_not_weighed(tmp_path: Path, voc: Path) -> None:
    values = config_values(tmp_path, voc_data(voc), "detection")
    values["model"]["weighting"] = {"name": "uncertainty"}
    alone = build_model(parse_config(values).model, ClassNames(("red", "blue"), ()))
    assert not any(name.startswith("weighting") for name in alone.state_dict())


def test_messages(tmp_path: Path, voc: Path) -> None:
    values = config_values(
        tmp_path / "run", voc_data(voc), "detection", stages=[{"tasks": ["segmentation"], "until": 0.5}]
    )
    with pytest.raises(
        ValueError, match=r"train\.stages\.0\.tasks names segmentation; model\.heads has detection"
    ):
        train(parse_config(values))
    with pytest.raises(ValueError, match=r"train\.stages\.0\.tasks: .*boxes"):
        config(tmp_path, voc, {"name": "fixed"}, stages=[{"tasks": ["boxes"], "until": 0.5}])
    values = config_values(tmp_path, voc_data(voc), *JOINT)
    values["model"]["heads"]["detection"] = {
        "name": "region_classifier",
        "roi": "warp",
        "warp": {"crop": 32, "context": 0},
    }
    values["model"]["weighting"] = {"name": "gradient_norm"}
    classes = ClassNames(("red", "blue"), ("background", "red", "blue"))
    with pytest.raises(
        ValueError, match=r"model\.weighting: gradient_norm compares gradients .* detection passes crops"
    ):
        build_model(parse_config(values).model, classes)
