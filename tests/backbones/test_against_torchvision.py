"""torchvision as the referee: with one state dict, the same maps; and its whole state dicts load by plain
name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision.models as tv
from torch import Tensor, nn

from tests.contracts import TOLERANCE
from vistasks.backbones import BACKBONES
from vistasks.backbones.backbone import Backbone


def same_state(name: str, reference: nn.Module, folder: Path) -> Backbone:
    """Our backbone with the reference's state dict, through a file as a user has it."""
    torch.save(reference.state_dict(), folder / "reference.pth")
    return BACKBONES.build(
        {"name": name, "weights": str(folder / "reference.pth")}, where="model.backbone"
    ).eval()


def seeded(make: Callable[..., nn.Module], **options: object) -> nn.Module:
    """A random network in evaluation mode, whose BatchNorms hold statistics as after training (not 0 and
    1).
    """
    torch.manual_seed(0)
    net = make(**options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return net.eval()


def seeded_features(make: Callable[..., nn.Module]) -> nn.Module:
    """As `seeded`, for VGG and AlexNet, with a small layer for the real classifier, which has up to 0.5
    GB.
    """
    with torch.device("meta"):
        net = make()
    net.classifier = nn.Sequential(nn.Linear(2, 2))
    net.to_empty(device="cpu")

    def initialised() -> nn.Module:
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.normal_(module.bias, 0.0, 0.1)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.zeros_(module.bias)
                module.num_batches_tracked.zero_()
        return net

    return seeded(initialised)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@torch.no_grad()
def test_resnet(name: str, tmp_path: Path) -> None:
    reference = seeded(getattr(tv, name))
    maps = same_state(name, reference, tmp_path)(IMAGES).maps
    x = reference.relu(reference.bn1(reference.conv1(IMAGES)))
    assert_close(maps[2], x)
    x = reference.maxpool(x)
    for index in range(4):
        x = getattr(reference, f"layer{index + 1}")(x)
        assert_close(maps[4 << index], x)


@pytest.mark.parametrize("name", ["vgg11", "vgg16_bn"])
@torch.no_grad()
def test_vgg(name: str, tmp_path: Path) -> None:
    reference = seeded_features(getattr(tv, name))
    maps = same_state(name, reference, tmp_path)(IMAGES).maps
    x, stride = IMAGES, 1
    for layer in reference.features:
        if isinstance(layer, nn.MaxPool2d):
            assert_close(maps[stride], x)
            stride *= 2
        x = layer(x.clone())
    assert_close(maps[32], x)


@torch.no_grad()
def test_alexnet_equals_torchvisions_away_from_the_lower_right_border(tmp_path: Path) -> None:
    reference = seeded_features(tv.alexnet)
    images = torch.randn(1, 3, 224, 256, generator=torch.Generator().manual_seed(4))
    maps = same_state("alexnet", reference, tmp_path)(images).maps
    # last row of torchvision's conv1 that lies on 224 pixels is 54, and each later window loses what it sees
    # beyond
    for stride, layers, border in ((4, 2, 1), (8, 5, 3), (16, 12, 5), (32, 13, 3)):
        expected = reference.features[:layers](images)
        rows, columns = maps[stride].shape[2] - border, maps[stride].shape[3] - border
        assert rows >= 4
        assert_close(maps[stride][:, :, :rows, :columns], expected[:, :, :rows, :columns])


@torch.no_grad()
def test_googlenet(tmp_path: Path) -> None:
    reference = seeded(tv.googlenet, init_weights=False, aux_logits=False)
    ours = same_state("googlenet", reference, tmp_path)
    maps = ours(IMAGES).maps
    found: dict[int, Tensor] = {}

    def keep(stride: int, module: nn.Module) -> None:
        module.register_forward_hook(lambda _, __, output: found.update({stride: output.clone()}))

    for stride, part in {
        2: "conv1",
        4: "conv3",
        8: "inception3b",
        16: "inception4e",
        32: "inception5b",
    }.items():
        keep(stride, getattr(reference, part))
    reference(IMAGES)
    assert sorted(found) == sorted(maps)
    for stride, expected in found.items():
        assert_close(maps[stride], expected)


def test_googlenets_normalisation_is_what_torchvision_makes_of_imagenets() -> None:
    ours, theirs = (
        BACKBONES["googlenet"](),
        tv.googlenet(init_weights=False, aux_logits=False, transform_input=True),
    )
    pixels = torch.rand(1, 3, 4, 4)
    imagenet = BACKBONES["resnet18"]()
    normalised = [
        (pixels - torch.tensor(b.mean).view(3, 1, 1)) / torch.tensor(b.std).view(3, 1, 1)
        for b in (ours, imagenet)
    ]
    assert_close(normalised[0], theirs._transform_input(normalised[1]))


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
@torch.no_grad()
def test_mobilenet_v3(name: str, tmp_path: Path) -> None:
    reference = seeded(getattr(tv, name))
    maps = same_state(name, reference, tmp_path)(IMAGES).maps
    assert_close(maps[32], reference.features(IMAGES))
    assert_close(maps[8], reference.features[: 7 if name.endswith("large") else 4](IMAGES))


@pytest.mark.parametrize(
    "name", ["vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]
)
def test_every_vgg_has_torchvisions_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = BACKBONES[name]().state_dict(), getattr(tv, name)().features.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        f"features.{key}": value.shape for key, value in theirs.items()
    }


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_every_resnet_has_torchvisions_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = BACKBONES[name]().state_dict(), getattr(tv, name)().state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items() if not key.startswith("fc.")
    }


@torch.no_grad()
def test_channels_last_gives_the_same_maps() -> None:
    backbone = BACKBONES["resnet18"]().eval()
    expected = backbone(IMAGES).maps
    found = backbone.to(memory_format=torch.channels_last)(
        IMAGES.contiguous(memory_format=torch.channels_last)
    ).maps
    assert found[4].is_contiguous(memory_format=torch.channels_last)
    for stride, tensor in found.items():
        assert float((tensor - expected[stride]).abs().max()) <= TOLERANCE * float(
            expected[stride].abs().max()
        )
