"""What the loop does with its parts, by numbers: the rate of each step, accumulated gradients, clipping, averaged
weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny_data import config_values, mask_data, write_mask_folder
from tests.training.two_processes import train_in_float64
from vistasks.checkpoint import read_checkpoint
from vistasks.config import Config, parse_config
from vistasks.evaluation.loop import evaluate_model
from vistasks.models import MultiTaskModel
from vistasks.models.building import build_model
from vistasks.training.loop import train


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures, every pixel labelled."""
    return write_mask_folder(tmp_path_factory.mktemp("masks"), count=4)


def plain(output: Path, masks: Path, **options: Any) -> Config:
    """A segmenter that draws nothing, trained by plain gradient descent; its pictures in one batch."""
    given: dict[str, Any] = {"batch_size": 4, "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0}}
    given["optimizer"]["weight_decay"] = 0
    values = config_values(output, mask_data(masks), "segmentation", **given | options)
    values["model"] |= {"heads": {"segmentation": {"name": "fcn32s", "hidden": 0}}, "freeze_batchnorm": True}
    return parse_config(values)


def weights(folder: Path, part: str = "model") -> dict[str, Tensor]:
    return read_checkpoint(folder / "last.safetensors").part(part)


def first_weights(config: Config, folder: Path) -> dict[str, Tensor]:
    """What the run began with."""
    torch.manual_seed(config.seed)
    return build_model(config.model, read_checkpoint(folder / "last.safetensors").classes).state_dict()


def test_the_rate_of_each_step(tmp_path: Path, masks: Path) -> None:
    schedule = {"name": "poly", "power": 1, "warmup_steps": 2}
    train(plain(tmp_path, masks, epochs=3, batch_size=2, schedule=schedule, validate_every=3))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if "lr" in line]
    assert rates == pytest.approx([0.05, 0.1, 0.1, 0.075, 0.05, 0.025])


def test_accumulated_batches_teach_what_one_batch_of_all_teaches(tmp_path: Path, masks: Path) -> None:
    parts = plain(tmp_path / "parts", masks, epochs=2, batch_size=1, accumulate=4)
    whole = plain(tmp_path / "whole", masks, epochs=2)
    for config in (parts, whole):
        train_in_float64(config)
    found, expected = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    before = first_weights(whole, tmp_path / "whole")
    assert max(float((expected[name] - before[name]).abs().max()) for name in before) > 1e-3
    assert max(float((found[name] - expected[name]).abs().max()) for name in found) < 1e-12


def test_a_step_is_no_longer_than_its_gradient_is_clipped_to(tmp_path: Path, masks: Path) -> None:
    config = plain(tmp_path, masks, epochs=1, clip_grad_norm=0.01)
    train_in_float64(config)
    before, after = first_weights(config, tmp_path), weights(tmp_path)
    moved = torch.stack([(after[name] - before[name].double()).norm() for name in before]).norm()
    assert float(moved) == pytest.approx(0.1 * 0.01, rel=1e-5)  # rate times norm
    (line,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()][:1]
    assert line["gradient_norm"] > 0.1  # of the gradient as it was


def test_averaged_weights_follow_every_step_and_are_what_is_evaluated(
    tmp_path: Path, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[dict[str, Tensor]] = []

    def watched(model: MultiTaskModel, *arguments: Any) -> dict[str, Any]:
        evaluated.append({name: value.clone() for name, value in model.state_dict().items()})
        return evaluate_model(model, *arguments)

    monkeypatch.setattr("vistasks.training.validation.evaluate_model", watched)
    one = plain(tmp_path / "one", masks, epochs=1, ema=0.5)
    two = plain(tmp_path / "two", masks, epochs=2, ema=0.5)
    for config in (one, two):
        train(config)
    start = first_weights(one, tmp_path / "one")
    first, second = weights(tmp_path / "one", "raw"), weights(tmp_path / "two", "raw")
    for name, averaged in weights(tmp_path / "two").items():
        if averaged.is_floating_point():
            after_one = 0.1 * start[name] + 0.9 * first[name]  # the decay is (1 + step) / (10 + step)
            expected = 2 / 11 * after_one + 9 / 11 * second[name]
            assert torch.allclose(averaged, expected, rtol=0, atol=1e-6), name
            assert torch.equal(averaged, evaluated[-1][name]), name
    assert len(evaluated) == 3
