"""Proposals of trained models, and unions."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_data import DETECTION, config_values, mask_data, voc_data
from vistasks.checkpoint import save_checkpoint
from vistasks.config import parse_config
from vistasks.models.building import build_model
from vistasks.models.trained_proposals import ClassMapProposals, LearnedProposals, map_boxes
from vistasks.proposals.union import Union, merged
from vistasks.types import ClassNames, Sample

CLASSES = ClassNames(("red", "blue"), ("background", "red", "blue"))


def saved(folder: Path, task: str, **head: object) -> Path:
    data = voc_data(folder) if task == "detection" else mask_data(folder)
    values = config_values(folder, data, task)
    if task == "detection":
        values["model"]["heads"]["detection"] = {**DETECTION, **head}
    values["input"] = {"min_side": 64}
    config = parse_config(values)
    torch.manual_seed(0)
    model = build_model(config.model, CLASSES)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    save_checkpoint(folder / "best.safetensors", tensors, config=config, classes=CLASSES, state={})
    return folder


def sample() -> Sample:
    return Sample("a", "a.png", np.random.default_rng(0).integers(0, 255, (32, 48, 3)).astype(np.uint8))


def test_boxes_of_a_trained_rpn_are_in_the_pictures_pixels(tmp_path: Path) -> None:
    method = LearnedProposals(
        str(saved(tmp_path, "detection", rpn={"stride": [8], "scales": [1, 2]})), max_boxes=40
    )
    boxes = method(sample())
    Sample("a", "a.png", sample().image, proposals=boxes)  # refuses what is not valid
    assert 5 < len(boxes) <= 40 and boxes.max() > 32  # the network saw 64 x 96
    assert method.key is not None and method.key.startswith("rpn-1 ") and "max_boxes=40" in method.key
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(method))(sample()), boxes
    )  # as a data worker gets it


def test_a_run_without_what_is_asked_of_it(tmp_path: Path) -> None:
    detector = saved(tmp_path, "detection")
    with pytest.raises(ValueError, match="has no rpn"):
        LearnedProposals(str(detector))(sample())
    with pytest.raises(ValueError, match="has no segmentation head to take proposals from"):
        ClassMapProposals(str(detector))(sample())
    with pytest.raises(ValueError, match="no such checkpoint"):
        LearnedProposals(str(tmp_path / "nothing"))


def test_boxes_of_a_class_map(tmp_path: Path) -> None:
    folder = str(saved(tmp_path, "segmentation"))
    boxes = ClassMapProposals(folder, leave_out=(), min_area=1)(sample())
    Sample("a", "a.png", sample().image, proposals=boxes)
    assert len(boxes) >= 1
    with pytest.raises(ValueError, match="leave_out names sky; the classes are background, red, blue"):
        ClassMapProposals(folder, leave_out=("sky",))(sample())
    with pytest.raises(ValueError, match="erosions and min_area must be >= 0"):
        ClassMapProposals(folder, erosions=(-1,))


def test_touching_objects_come_apart() -> None:
    labels = np.zeros((60, 100), np.uint8)
    labels[10:40, 10:40] = labels[10:40, 50:80] = 1
    labels[24:27, 40:50] = 1  # a bridge
    labels[50:52, 90:92] = 2
    whole = map_boxes(labels, [1, 2], erosions=(0,), min_area=5)
    assert whole.tolist() == [[10, 10, 80, 40]]
    parts = map_boxes(labels, [1, 2], erosions=(0, 3), min_area=4)
    assert parts.tolist() == [[10, 10, 80, 40], [10, 10, 41, 40], [49, 10, 80, 40], [90, 50, 92, 52]]
    assert map_boxes(np.full((4, 4), 255, np.uint8), [255], erosions=(0,), min_area=1).shape == (0, 4)


def test_a_union_has_each_box_once() -> None:
    method = Union([{"name": "grid", "max_boxes": 9}, {"name": "grid", "max_boxes": 5}, {"name": "rpn"}])
    assert len(method(sample())) == 9 and method.key is not None and "rpn of the detector" in method.key
    assert Union([{"name": "ground_truth_jitter"}]).key is None
    assert merged([]).shape == (0, 4)
    with pytest.raises(ValueError, match="names none"):
        Union([])
    with pytest.raises(
        ValueError, match=r"proposals\.method\.methods\[0\]\.name: unknown proposal method 'gird'"
    ):
        Union([{"name": "gird"}])


def test_a_union_keeps_the_order_of_its_methods() -> None:
    first, second = (
        np.array(boxes, dtype=np.float32)
        for boxes in ([[9, 9, 20, 20], [5, 5, 8, 8]], [[5, 5, 8, 8], [1, 1, 2, 2]])
    )
    assert merged([first, second]).tolist() == [[9, 9, 20, 20], [5, 5, 8, 8], [1, 1, 2, 2]]
