"""Folding BatchNorm changes no answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.heads.contract import CLASSES, scene
from tests.models.test_multitask import model
from vistasks.config import ModelConfig
from vistasks.models.building import build_model
from vistasks.models.folding import fold_batchnorm
from vistasks.types import ClassNames

NAMES = ClassNames(CLASSES, CLASSES)
LIGHT = ["efficientnet_lite0", "googlenet", "mobilenet_v3_small", "resnet18", "segnet_basic", "vgg11_bn"]


def shaken(module: nn.Module) -> None:
    """Statistics and affine parameters as after a training, so that a wrong fold shows."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low, high in (
                (norm.running_var, 0.5, 2),
                (norm.weight, 0.5, 1.5),
                (norm.running_mean, -0.5, 0.5),
            ):
                values.data.uniform_(low, high, generator=generator)
            norm.bias.data.uniform_(-0.5, 0.5, generator=generator)


@pytest.mark.parametrize("name", LIGHT)
def test_a_trunks_maps_stay_the_same(name: str) -> None:
    torch.manual_seed(0)
    head = {"name": "segnet"} if name in ("segnet_basic", "vgg11_bn") else {"name": "fcn8s", "hidden": 0}
    built = build_model(ModelConfig(backbone={"name": name}, heads={"segmentation": head}), NAMES).eval()
    shaken(built)
    side = max(64, built.backbone.min_size)
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) - 0.5
    with torch.inference_mode():
        before = built.encode(images).maps
        count = sum(type(module) is nn.BatchNorm2d for module in built.modules())
        assert fold_batchnorm(built) == count > 0
        assert not any(isinstance(module, nn.BatchNorm2d) for module in built.modules())
        after = built.encode(images).maps
    for stride in before:
        scale = before[stride].abs().max()
        assert (before[stride] - after[stride]).abs().max() < 1e-4 * scale, stride


def test_a_joint_models_answers_stay_the_same() -> None:
    joint = model("detection", "segmentation").eval()
    shaken(joint)
    before = joint.predict(scene())
    assert fold_batchnorm(joint) > 0
    for here, there in zip(before, joint.predict(scene())):
        assert here.detections is not None and there.detections is not None
        np.testing.assert_allclose(here.detections.scores, there.detections.scores, atol=1e-5)
        np.testing.assert_allclose(here.detections.boxes, there.detections.boxes, atol=1e-2)
        assert here.segmentation is not None and there.segmentation is not None
        assert (here.segmentation.labels == there.segmentation.labels).mean() > 0.999


def test_a_convolution_that_feeds_two_batchnorms_stays() -> None:
    joint = model("segmentation").eval()

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return self.one(x) + self.two(x)

    joint.backbone.features.insert(0, Twice())
    fold_batchnorm(joint)
    assert sum(type(module) is nn.BatchNorm2d for module in joint.modules()) == 2


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"fold_batchnorm: the model is in training mode; call eval\(\) first"
    ):
        fold_batchnorm(model("segmentation"))
