"""Folds and few pictures: the parts of one data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny_data import config_values, voc_data, write_voc
from vistasks.build import build_dataset, build_pipeline
from vistasks.config import Config, parse_config
from vistasks.datasets.annotations import Dataset
from vistasks.datasets.subset import Subset, fold_of_pictures


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc"), count=11, empty=(3, 7))


def config(root: Path, data: dict[str, Any], **train: Any) -> Config:
    return parse_config(config_values(root / "run", {**voc_data(root), **data}, "detection", **train))


def test_a_subset_is_a_data_set(root: Path) -> None:
    whole = build_dataset(config(root, {}), "train")
    part = Subset(whole, [5, 2])
    assert isinstance(part, Dataset) and len(part) == 2 and part.ids == ["scene_5", "scene_2"]
    assert part[1].image_id == "scene_2" and np.array_equal(part.annotation(0).boxes, whole[5].boxes)
    assert np.array_equal(part.sample(1, whole[2].image).boxes, whole[2].boxes) and part.place(0) == (0, 5)


def test_every_picture_is_evaluated_in_exactly_one_fold(root: Path) -> None:
    seen: list[str] = []
    for fold in range(4):
        settings = config(root, {"folds": {"count": 4, "fold": fold}, "val": {}})
        train, held_out = build_dataset(settings, "train"), build_dataset(settings, "val")
        assert not set(train.ids) & set(held_out.ids) and len(train) + len(held_out) == 11
        assert len(held_out) in (2, 3) and settings.data.evaluates
        seen += held_out.ids
    assert sorted(seen) == sorted(build_dataset(config(root, {}), "train").ids)


class Labels:
    """Pictures of one object each: 40 of class 0, ten of class 1."""

    def __len__(self) -> int:
        return 50

    def annotation(self, index: int) -> Any:
        return type("Found", (), {"labels": np.array([int(index % 5 == 0)])})


def test_folds_are_even_in_every_class_and_follow_their_seed() -> None:
    data: Any = Labels()
    folds = fold_of_pictures(data, 5, seed=0)
    for fold in range(5):
        members = np.flatnonzero(folds == fold)
        assert len(members) == 10 and sum(index % 5 == 0 for index in members) == 2
    assert np.array_equal(folds, fold_of_pictures(data, 5, seed=0))
    assert not np.array_equal(folds, fold_of_pictures(data, 5, seed=1))
    with pytest.raises(
        ValueError, match=r"data\.folds\.count: 51 folds need at least as many images, and there are 50"
    ):
        fold_of_pictures(data, 51, seed=0)


def test_folds_are_checked() -> None:
    with pytest.raises(ValueError, match=r"data\.folds\.fold: expected a fold from 0 to 2; received: 3"):
        config(Path("x"), {"folds": {"count": 3, "fold": 3}})


def test_overfitting_sees_the_same_few_pictures_in_training_and_evaluation(root: Path) -> None:
    settings = config(root, {}, overfit_batches=2, batch_size=3)
    train, val = build_dataset(settings, "train"), build_dataset(settings, "val")
    assert len(train) == 6 and train.ids == val.ids
    flip = settings.model_copy(update={"augment": [{"HorizontalFlip": {"p": 1}}]})
    assert build_pipeline(flip, train, training=True).augment is None
    assert build_pipeline(flip.model_copy(update={"train": flip.train.model_copy(update={"overfit_batches": None})}), train,
                          training=True).augment is not None  # fmt: skip
