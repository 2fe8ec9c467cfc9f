"""The joint study on six small pictures, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.heads.contract import scene
from tests.models.test_multitask import model
from tests.tiny_data import config_values, voc_data, write_voc
from vistasks.cli import main
from vistasks.config import Config, parse_config, to_yaml
from vistasks.studies import joint
from vistasks.studies.gradients import gradient_conflict
from vistasks.studies.joint_part import part_config, time_steps

JOINT = ("detection", "segmentation")
PARTS = ("detection", "segmentation", "joint")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("study")
    values = config_values(
        folder / "unused", voc_data(write_voc(folder / "voc")), *JOINT, epochs=1, monitor="mIoU"
    )
    values["model"] |= {"weighting": {"name": "uncertainty"}, "loss_weights": {"segmentation": 2.0}}
    values["train"]["stages"] = [{"tasks": ["detection"], "until": 0.3}]
    return parse_config(values)


@pytest.fixture(scope="module")
def study(config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    output = tmp_path_factory.mktemp("output") / "study"
    return joint.study_joint(config, output, isolate=False), output


def test_what_it_finds(study: tuple[dict[str, Any], Path]) -> None:
    found, output = study
    assert found["epochs"] == dict.fromkeys(PARTS, 1)
    parts = found["parts"]
    assert "mIoU" in parts["segmentation"]["results"] and "AP" not in parts["segmentation"]["results"]
    assert "AP" in parts["detection"]["results"] and {"AP", "mIoU"} <= set(parts["joint"]["results"])
    for part in PARTS:
        assert parts[part]["training_seconds"] > 0 and parts[part]["pass_seconds"] > 0
        assert parts[part]["training_peak_memory_mib"] > 50
        assert (output / part / "best.safetensors").is_file()
    assert parts["joint"]["parameters_millions"] > parts["segmentation"]["parameters_millions"]
    difference = parts["joint"]["results"]["mIoU"] - parts["segmentation"]["results"]["mIoU"]
    assert found["joint_minus_alone"]["mIoU"] == pytest.approx(difference, abs=1e-4)
    for when in ("before", "after"):
        gradients = parts["joint"]["gradients"][when]
        assert (
            -1 <= gradients["cosine"] <= 1
            and gradients["batches"] == 2
            and set(gradients["gradient_norm"]) == set(JOINT)
        )
    assert parts["joint"]["factors"]["detection"] != 1.0, "the uncertainty has learnt"


def test_the_table(study: tuple[dict[str, Any], Path]) -> None:
    found, output = study
    text = (output / "study.md").read_text().splitlines()
    assert text[0] == "|  | detection | segmentation | joint | joint - alone |"
    assert any(line.startswith("| gradient cosine after |") for line in text)
    assert len({len(row) for row in joint.rows(found)}) == 1
    assert json.loads((output / "study.json").read_text())["parts"].keys() == set(PARTS)


def test_run_again_it_trains_only_what_is_missing(
    config: Config, study: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, output = study
    trained: list[str] = []

    def run(values: dict[str, Any], finished: str) -> dict[str, Any]:
        trained.append(values["output"])
        facts = found["parts"]["segmentation"]
        Path(finished).write_text(json.dumps(facts))
        return dict(facts)

    monkeypatch.setattr(joint, "run_part", run)
    assert joint.study_joint(config, output, isolate=False) == found and not trained
    (output / "segmentation.json").unlink()
    assert joint.study_joint(config, output, isolate=False) == found
    assert trained == [str(output / "segmentation")]


def test_another_study_is_refused(config: Config, study: tuple[dict[str, Any], Path]) -> None:
    _, output = study
    with pytest.raises(
        ValueError,
        match=r"study holds a study whose budget differs from what is asked for now; choose another",
    ):
        joint.study_joint(config, output, epochs=3, isolate=False)
    with pytest.raises(ValueError, match=r"holds a study whose seed, budget differs"):
        joint.study_joint(config.model_copy(update={"seed": 5}), output, minutes=1, isolate=False)


def test_a_part_is_the_joint_config_without_the_other_head(config: Config, tmp_path: Path) -> None:
    alone = part_config(config, "detection", tmp_path, 7)
    assert (
        set(alone.model.heads) == {"detection"}
        and alone.model.weighting == {"name": "fixed"}
        and not alone.train.stages
    )
    assert (
        alone.train.monitor is None
        and alone.train.epochs == 7
        and alone.output == str(tmp_path / "detection")
    )
    both = part_config(config, "joint", tmp_path, 7)
    assert (
        both.model == config.model
        and both.train.stages == config.train.stages
        and both.train.monitor == "mIoU"
    )


def test_minutes_become_epochs(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timing = time_steps(part_config(config, "segmentation", tmp_path, 1).model_dump())
    assert timing["steps_per_epoch"] == 2 and timing["epoch_seconds"] == pytest.approx(
        2 * timing["step_seconds"]
    )
    chosen: list[int] = []

    def run(values: dict[str, Any], finished: str) -> dict[str, Any]:
        chosen.append(values["train"]["epochs"])
        raise InterruptedError

    monkeypatch.setattr(joint, "time_steps", lambda values: {"step_seconds": 6.0, "epoch_seconds": 12.0})
    monkeypatch.setattr(joint, "run_part", run)
    for _ in range(2):  # the second time with the plan of the first
        with pytest.raises(InterruptedError):
            joint.study_joint(config, tmp_path / "study", minutes=1.1, isolate=False)
        monkeypatch.setattr(joint, "time_steps", None)
    assert chosen == [6, 6]


@pytest.mark.parametrize(
    "update, options, expected",
    [
        (
            {"model.heads.segmentation": None},
            {},
            "study joint compares two heads with one; model.heads has detection",
        ),
        ({"data.val": {}}, {}, "data.val"),
        ({"train.devices": 2}, {}, "study joint trains on one device; set train.devices to 1"),
        ({}, {"epochs": 1, "minutes": 1}, "give --epochs or --minutes, not both"),
        ({}, {"minutes": -1}, "the budget must be positive; received -1"),
        ({}, {"epochs": 0}, "the budget must be positive; received 0"),
    ],
)
def test_messages(
    config: Config, tmp_path: Path, update: dict[str, Any], options: Any, expected: str
) -> None:
    values = config.model_dump()
    values["train"] |= {"monitor": None, "stages": []}
    values["model"]["loss_weights"] = {}
    for path, value in update.items():
        *keys, last = path.split(".")
        section = values
        for key in keys:
            section = section[key]
        section[last] = value
    with pytest.raises(ValueError, match=expected):
        joint.study_joint(parse_config(values), tmp_path, **options)


def test_the_command_says_what_is_wrong(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    arguments = ["study", "joint", "--config", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--epochs", "0"]) == 1
    assert "error: the budget must be positive" in capsys.readouterr().err


class OneSided(nn.Module):
    """A head whose loss is a multiple of the sum of a map."""

    reads_image_features = True
    needs_pooling = False

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def loss(self, features: Any, batch: Any, encode: Any) -> dict[str, torch.Tensor]:
        return {"sum": self.factor * features.maps[8].sum()}


@pytest.mark.parametrize("factor, expected", [(3.0, 1.0), (-3.0, -1.0)])
def test_the_cosine_of_heads_that_agree_or_fight(factor: float, expected: float) -> None:
    both = model(*JOINT)
    both.heads["detection"], both.heads["segmentation"] = OneSided(1.0), OneSided(factor)  # type: ignore[index]
    found = gradient_conflict(both, [scene(), scene()])
    assert found["cosine"] == pytest.approx(expected, abs=1e-5) and found["deviation"] < 1e-5
    assert found["share_below_0"] == (expected < 0)
    norms = found["gradient_norm"]
    assert norms["segmentation"] == pytest.approx(3 * norms["detection"], rel=1e-4)


def test_gradient_messages() -> None:
    with pytest.raises(ValueError, match="the cosine is between two heads; this model has segmentation"):
        gradient_conflict(model("segmentation"), [scene()])
    with pytest.raises(ValueError, match="needs at least one batch"):
        gradient_conflict(model(*JOINT), [])
    frozen = model(*JOINT)
    frozen.backbone.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable shared layer"):
        gradient_conflict(frozen, [scene()])
