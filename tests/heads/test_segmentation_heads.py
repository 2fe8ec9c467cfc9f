from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.heads.contract import model_with, scene, small_trunk
from vistasks.heads.fcn import bilinear_upsampling
from vistasks.heads.head import Trunk, TrunkMismatch
from vistasks.heads.segmentation import class_map
from vistasks.registry import BACKBONES, HEADS
from vistasks.types import Features

CLASSES = ("sky", "road", "car")


def fcn(name: str, **options: object) -> torch.nn.Module:
    trunk = Trunk("trunk", {8: 4, 16: 6, 32: 8}, {})
    return HEADS.build({"name": name, **options}, where="head", given={"trunk": trunk, "classes": CLASSES})


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_starts_as_bilinear_interpolation(factor: int) -> None:
    torch.manual_seed(0)
    maps = torch.randn(1, 3, 6, 7)
    found = bilinear_upsampling(3, factor)(maps)
    expected = functional.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = slice(
        factor, -factor
    )  # at the border the transposed convolution fades to 0, interpolation repeats the edge
    torch.testing.assert_close(found[..., inner, inner], expected[..., inner, inner])


def test_the_skips_start_silent_and_then_speak() -> None:
    head = fcn("fcn8s").eval()
    maps = {8: torch.randn(1, 4, 8, 8), 16: torch.randn(1, 6, 4, 4), 32: torch.randn(1, 8, 2, 2)}
    before = head(Features(maps), (64, 64))
    changed = {**maps, 8: maps[8] + 1}
    assert torch.equal(before, head(Features(changed), (64, 64)))
    torch.nn.init.ones_(head.skip_scores[1].weight)
    assert not torch.equal(head(Features(maps), (64, 64)), head(Features(changed), (64, 64)))


@pytest.mark.parametrize(("name", "strides"), [("fcn32s", 1), ("fcn16s", 2), ("fcn8s", 3)])
def test_reads_as_many_maps_as_its_name_says(name: str, strides: int) -> None:
    assert len(fcn(name).strides) == strides


def test_without_hidden_layers_the_classifier_reads_the_trunk() -> None:
    assert fcn("fcn32s", hidden=0).score.in_channels == 8


def test_unknown_class_weights_show_both_lists() -> None:
    with pytest.raises(ValueError, match=r"class_weights names bus; the classes are: sky, road, car"):
        fcn("fcn8s", class_weights={"bus": 2.0})


def test_finest_is_no_option() -> None:
    with pytest.raises(ValueError, match=r"head\.finest: unknown option"):
        fcn("fcn8s", finest=4)


def test_segnet_needs_pooling_indices() -> None:
    with pytest.raises(TrunkMismatch, match="the backbone 'resnet18' publishes none"):
        HEADS["segnet"](trunk=Trunk("resnet18", {32: 8}, {}), classes=CLASSES)


@pytest.mark.parametrize("name", ["lenet5", "segnet_basic", "vgg16_bn"])
def test_segnet_mirrors_the_encoder(name: str) -> None:
    backbone = BACKBONES[name](**({"width": 0.125} if name.startswith("vgg") else {}))
    backbone.publish_pooling = True
    head = HEADS["segnet"](trunk=Trunk(name, backbone.channels, backbone.pooling), classes=CLASSES)
    convs = sum(isinstance(m, torch.nn.Conv2d) for m in backbone.modules())
    decoder = sum(isinstance(m, torch.nn.Conv2d) for m in head.stages.modules())
    assert decoder == convs
    assert head(backbone(torch.randn(1, 3, 64, 96)), (64, 96)).shape == (1, 3, 64, 96)


def test_segnet_basics_decoder_has_no_relu() -> None:
    backbone = BACKBONES["segnet_basic"]()
    given = {"trunk": Trunk("segnet_basic", backbone.channels, backbone.pooling), "classes": CLASSES}
    plain, with_relu = (HEADS["segnet"](**given, relu=relu) for relu in (False, True))
    assert not any(isinstance(module, torch.nn.ReLU) for module in plain.modules())
    assert plain.state_dict().keys() == with_relu.state_dict().keys()


def test_segnet_puts_values_back_where_they_came_from() -> None:
    """A bright dot that pooling moved returns to its own pixel, to which interpolation could not return
    it.
    """
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 3, 0] = 1
    pooled, indices = functional.max_pool2d(image, 2, return_indices=True)
    assert torch.equal(functional.max_unpool2d(pooled, indices, [2, 2], output_size=[4, 4]), image)


def test_class_maps_are_enlarged_from_the_middles_of_the_pixels() -> None:
    right = torch.tensor([0.0, 1.0]).expand(1, 1, 2, 2)  # 0, .25, .75, 1 at four pixels a row
    scores = torch.cat([torch.full_like(right, 0.3), right], dim=1)
    assert class_map(scores, (4, 4), ("a", "b")).labels.tolist() == [[0, 0, 1, 1]] * 4


def test_the_auxiliary_classifier_learns_the_pixel_in_the_middle_of_each_cell() -> None:
    backbone, trunk = small_trunk()
    options = {"name": "fcn32s", "auxiliary": {"stride": 16, "weight": 0.5}}
    head = HEADS.build(options, where="head", given={"trunk": trunk, "classes": CLASSES})
    sure = torch.tensor([0.0, 50.0, 0.0]).view(1, 3, 1, 1).expand(2, 3, 4, 6)
    head.auxiliary = Constant(sure)
    target = torch.zeros(2, 64, 96, dtype=torch.int64)
    target[:, 8::16, 8::16] = 1
    batch = replace(scene(), segmentation=target)
    model = model_with(head, backbone)
    assert model.loss(batch)["segmentation/auxiliary"].item() == pytest.approx(0, abs=1e-6)
    target[:, 8::16, 8::16] = 2
    assert model.loss(batch)["segmentation/auxiliary"].item() == pytest.approx(0.5 * 50, rel=1e-6)


class Constant(nn.Module):
    """Answers the same to whatever it is asked."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.answer
