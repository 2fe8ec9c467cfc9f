"""The benchmark of the options that spare work, with a small model of random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_data import config_values, voc_data
from vistasks.benchmarks.video_options import Setting, _near, benchmark
from vistasks.checkpoint import save_checkpoint
from vistasks.config import parse_config
from vistasks.datasets.shapes.drawing import CLASSES
from vistasks.models.building import build_model
from vistasks.types import ClassNames, Detections


def model(folder: Path, names: tuple[str, ...], *tasks: str) -> str:
    values = config_values(folder, voc_data(folder), *tasks)
    values["model"]["heads"]["detection"] = {
        **values["model"]["heads"]["detection"],
        "decoding": {"score": 0.0},
    }
    config, classes = (
        parse_config(values),
        ClassNames(names, ("background", *names) if "segmentation" in tasks else ()),
    )
    torch.manual_seed(0)
    tensors = {
        f"model.{name}": tensor for name, tensor in build_model(config.model, classes).state_dict().items()
    }
    save_checkpoint(folder / "best.safetensors", tensors, config=config, classes=classes, state={})
    return str(folder)


def test_what_is_spared_is_compared_with_every_frame(tmp_path: Path) -> None:
    settings = (
        Setting(),
        Setting(propose_every=3),
        Setting(segment_every=3),
        Setting(proposals="segmentation"),
    )
    weights = model(tmp_path, CLASSES, "detection", "segmentation")
    found = benchmark(weights, device="cpu", clips=2, frames=4, size=(64, 96), settings=settings)["settings"]
    assert list(found) == [
        "every frame",
        "--propose-every 3",
        "--segment-every 3",
        "--proposals segmentation",
    ]
    plain = found["every frame"]
    assert (
        plain["gain"] == 1
        and plain["same"] in (0, 1)
        and plain["score_difference"] == 0
        and 0 <= plain["mIoU"] <= 1
    )
    assert (
        found["--segment-every 3"]["AP"] == plain["AP"]
        and found["--propose-every 3"]["mIoU"] == plain["mIoU"]
    )


def test_settings_that_cannot_be_are_left_out(tmp_path: Path) -> None:
    weights = model(tmp_path, CLASSES, "detection")
    settings = (
        Setting(),
        Setting(proposals="segmentation"),
        Setting(segment_every=2),
        Setting(cuda_graphs=True),
    )
    found = benchmark(weights, device="cpu", clips=1, frames=2, size=(64, 96), settings=settings)["settings"]
    assert list(found) == ["every frame"] and "mIoU" not in found["every frame"]
    with pytest.raises(ValueError, match=r"this model detects cat\. Train one with vistasks demo"):
        benchmark(model(tmp_path / "cat", ("cat",), "detection"), device="cpu")


def test_the_nearest_detection_of_the_class() -> None:
    def found(*rows: tuple[float, int]) -> Detections:
        boxes = np.array([[left, 0, left + 10, 10] for left, _ in rows], np.float32).reshape(-1, 4)
        return Detections(
            boxes,
            np.ones(len(rows), np.float32),
            np.array([label for _, label in rows], np.int64),
            ("a", "b"),
        )

    assert _near(found((0, 0), (30, 0), (60, 1)), found((60, 1), (30.2, 0), (0, 1))).tolist() == [-1, 1, 0]
    assert _near(found((0, 0)), found()).tolist() == [-1]
