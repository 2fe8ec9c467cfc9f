"""The search: its space, what it varies, and going on after an interruption. Trainings are a formula here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_data import config_values, mask_data
from vistasks.config import Config
from vistasks.training.search import read_space, search

SPACE = """train.optimizer.lr: {low: 1e-5, high: 1e-1, log: true}
train.batch_size: {choices: [2, 4]}
train.epochs: {low: 1, high: 3}
"""


def space(tmp_path: Path, text: str = SPACE) -> Any:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return read_space(path)


def values(tmp_path: Path) -> dict[str, Any]:
    return config_values(tmp_path / "runs", mask_data(tmp_path), "segmentation")


class Formula:
    """As `vistasks.training.loop.train`: best at a rate of 1e-3; breaks off at given calls."""

    def __init__(self, **at: BaseException) -> None:
        self.seen: list[tuple[Config, bool]] = []
        self.at = {int(name[1:]): error for name, error in at.items()}

    def __call__(self, config: Config, *, resume: bool) -> Mapping[str, float | None]:
        self.seen.append((config, resume))
        run = Path(config.output)
        run.mkdir(parents=True, exist_ok=True)
        (run / "last.safetensors").touch()
        if error := self.at.get(len(self.seen)):
            raise error
        return {"mIoU": 1 - abs(math.log10(config.train.optimizer.lr) + 3) / 10, "AP": None}


def test_the_best_training_is_told_and_kept(tmp_path: Path) -> None:
    train, folder, said = Formula(), tmp_path / "search", list[str]()
    best = search(values(tmp_path), space(tmp_path), folder=folder, trials=6, train=train, say=said.append)
    assert len(train.seen) == 6 and not any(resume for _, resume in train.seen)
    assert {Path(config.output).parent for config, _ in train.seen} == {folder}
    assert all(config.data.model_extra["mask_values"][0] == "background" for config, _ in train.seen)  # type: ignore[index]
    rates = [config.train.optimizer.lr for config, _ in train.seen]
    nearest = min(range(6), key=lambda index: abs(math.log10(rates[index]) + 3))
    assert Path(best["folder"]) == Path(train.seen[nearest][0].output)
    assert f"train.optimizer.lr={rates[nearest]}" in best["overrides"]
    assert {type(config.train.epochs) for config, _ in train.seen} == {int}
    assert json.loads((folder / "search.json").read_text())["value"] == best["value"] and len(said) == 6
    again = search(values(tmp_path), space(tmp_path), folder=folder, trials=6, train=train, say=said.append)
    assert len(train.seen) == 6 and again["value"] == best["value"]  # done already
    with pytest.raises(ValueError, match=r"search\.db .*output="):
        search(
            values(tmp_path),
            space(tmp_path, "seed: {choices: [1]}"),
            folder=folder,
            trials=1,
            train=train,
            say=said.append,
        )


def test_a_search_goes_on_with_the_training_that_was_cut_off(tmp_path: Path) -> None:
    train, folder, said = Formula(n2=KeyboardInterrupt()), tmp_path / "search", list[str]()
    with pytest.raises(KeyboardInterrupt):
        search(values(tmp_path), space(tmp_path), folder=folder, trials=3, train=train, say=said.append)
    search(values(tmp_path), space(tmp_path), folder=folder, trials=3, train=train, say=said.append)
    assert "trial 1 was cut off and is taken up again" in said
    (cut, _), (resumed, resume) = train.seen[1:3]
    assert resume and cut == resumed and len(train.seen) == 4


def test_trainings_that_fail_are_told_and_left_out(tmp_path: Path) -> None:
    train, said = Formula(n1=FloatingPointError("the loss is not finite")), list[str]()
    best = search(
        values(tmp_path), space(tmp_path), folder=tmp_path / "search", trials=2, train=train, say=said.append
    )
    assert "trial 0 failed: the loss is not finite" in said and len(train.seen) == 3
    assert [trial["state"] for trial in best["trials"]] == ["FAIL", "COMPLETE", "COMPLETE"]
    hopeless = Formula(**{f"n{number}": ValueError("bad") for number in range(1, 9)})
    with pytest.raises(ValueError, match=r"five trainings in a row failed"):
        search(
            values(tmp_path),
            space(tmp_path),
            folder=tmp_path / "other",
            trials=2,
            train=hopeless,
            say=said.append,
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a.b: {low: 2, high: 1}",
            r"space\.yaml:1: a\.b: needs low < high, or choices; received low 2, high 1",
        ),
        (
            "\nseed: {low: 0, high: 1.0, log: true}",
            r"space\.yaml:2: seed: log: true needs low > 0 and no step",
        ),
        ("seed: {choices: [1], low: 2}", "seed: give a list of choices alone, or low and high"),
        ("seed: {hihg: 1}", r"space\.yaml:1: seed\.hihg: Extra inputs are not permitted"),
        ("seed: 3", r"seed: Input should be a valid dictionary"),
        ("{}", "no value to search"),
    ],
)
def test_a_wrong_space_is_told(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        space(tmp_path, text)


def test_a_key_that_the_config_does_not_have_is_told_before_any_training(tmp_path: Path) -> None:
    train = Formula()
    wrong = space(tmp_path, "train.optimiser.lr: {low: 0.1, high: 1.0}")
    with pytest.raises(ValueError, match=r"search: train\.optimiser: unknown key\. Did you mean 'optimizer'"):
        search(values(tmp_path), wrong, folder=tmp_path / "s", trials=1, train=train)
    assert not train.seen and not (tmp_path / "s").exists()
