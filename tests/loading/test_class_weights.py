from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_data import config_values, mask_data, write_mask_folder
from vistasks.checkpoint import read_checkpoint
from vistasks.config import Config, load_config, parse_config
from vistasks.loading.class_weights import balanced, count_pixels, resolved_config, taken_over
from vistasks.losses.class_weights import weight_tensor
from vistasks.training.loop import train
from vistasks.types import ClassNames, Sample

CLASSES = ("sky", "road", "car", "bus")


class Masks:
    """Pictures whose masks are given."""

    classes = ClassNames(segmentation=CLASSES)

    def __init__(self, *masks: object) -> None:
        self.masks = [None if m is None else np.array(m, dtype=np.uint8) for m in masks]

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> Sample:
        mask = self.masks[index]
        shape = (2, 2) if mask is None else mask.shape
        return Sample(
            image_id=str(index), path="x.png", image=np.zeros((*shape, 3), np.uint8), segmentation=mask
        )


DATA = Masks([[0, 0], [0, 1]], None, [[1, 1], [2, 255]])


def config(weights: object) -> Config:
    head = {"name": "skip_decoder", "class_weights": weights}
    model = {"backbone": {"name": "resnet18"}, "heads": {"segmentation": head}}
    return parse_config({"output": "x", "data": {"format": "mask_folder", "root": "x"}, "model": model})


def weights_of(found: Config) -> object:
    return found.model.heads["segmentation"]["class_weights"]


def test_pixels_are_counted_where_they_are_marked() -> None:
    pixels, around = count_pixels(DATA)
    assert pixels.tolist() == [3, 3, 1, 0]
    assert around.tolist() == [4, 7, 3, 0]  # 255 counts nowhere


def test_of_large_data_an_even_sample_is_counted() -> None:
    data = Masks(*[[[number % 4]] for number in range(41)])
    assert count_pixels(data, most=11)[0].sum() == 11


def test_median_frequency_is_the_papers_formula() -> None:
    frequency = np.array([3 / 4, 3 / 7, 1 / 3])
    expected = [*(np.median(frequency) / frequency), 1]
    assert balanced("median_frequency", *count_pixels(DATA)) == pytest.approx(expected)
    assert balanced("sqrt_median_frequency", *count_pixels(DATA)) == pytest.approx(np.sqrt(expected))


def test_effective_number_is_inverse_frequency_for_rare_classes_and_levels_off_for_common_ones() -> None:
    pixels = np.array([10, 20, 10**9, 2 * 10**9]) * 1024
    found = balanced("effective_number", pixels, pixels)
    assert found[0] / found[1] == pytest.approx(2, rel=1e-2)
    assert found[2] / found[3] == pytest.approx(1)
    assert found.mean() == pytest.approx(1)


def test_no_mask_at_all_leaves_ones() -> None:
    assert balanced("median_frequency", *count_pixels(Masks(None))).tolist() == [1] * 4


def test_a_rule_becomes_numbers_and_the_rest_stays() -> None:
    assert weights_of(resolved_config(config("median_frequency"), DATA)) == {
        "sky": 0.5714,
        "road": 1,
        "car": 1.286,
        "bus": 1,
    }
    for given in ({"car": 2.0}, [1.0, 2.0, 3.0, 4.0], None):
        assert weights_of(resolved_config(config(given), DATA)) == given


def test_a_run_that_goes_on_keeps_its_numbers() -> None:
    numbers = {"sky": 3.0}
    assert weights_of(taken_over(config("median_frequency"), config(numbers))) == numbers
    assert weights_of(taken_over(config({"car": 2.0}), config(numbers))) == {"car": 2.0}


def test_weights_by_name_and_by_order() -> None:
    assert weight_tensor({"bus": 2}, CLASSES).tolist() == [1, 1, 1, 2]
    assert weight_tensor([1, 2, 3, 4], CLASSES).tolist() == [1, 2, 3, 4]
    assert weight_tensor(None, CLASSES).dtype == torch.float32


def test_a_list_of_another_length_is_an_error() -> None:
    with pytest.raises(
        ValueError, match="class_weights lists 2 numbers; there are 4 classes: sky, road, car, bus"
    ):
        weight_tensor([1, 2], CLASSES)


def test_training_writes_the_numbers_down_and_goes_on_with_them(tmp_path: Path) -> None:
    data = mask_data(write_mask_folder(tmp_path / "data", count=3))

    def config(epochs: int) -> Config:
        values = config_values(tmp_path / "run", data, "segmentation", epochs=epochs)
        values["model"]["heads"] = {"segmentation": {"name": "segnet", "class_weights": "median_frequency"}}
        return parse_config(values)

    train(config(1))
    kept = weights_of(load_config(tmp_path / "run" / "config.yaml"))
    assert list(kept) == ["background", "red", "blue"] and kept["background"] < kept["red"]
    assert weights_of(read_checkpoint(tmp_path / "run").config) == kept
    (tmp_path / "data" / "masks" / "scene_2.png").unlink()
    (tmp_path / "data" / "images" / "scene_2.png").unlink()
    write_mask_folder(tmp_path / "data", count=1, first=7)  # other frequencies now
    train(config(2), resume=True)
    assert weights_of(read_checkpoint(tmp_path / "run").config) == kept
