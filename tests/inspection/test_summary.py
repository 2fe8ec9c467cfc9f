"""The summary of layers against known figures and brute force."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torchvision.models import resnet18

from tests.tiny_data import config_values, voc_data, write_voc
from vistasks.cli import main
from vistasks.config import ModelConfig
from vistasks.inspection.receptive_field import ReceptiveFields
from vistasks.inspection.summary import summarise
from vistasks.models.building import build_model
from vistasks.types import ClassNames

CLASSES = ClassNames(("a", "b"), ("background", "a", "b"))


def measured_field(net: nn.Module, side: int) -> int:
    """From the first to the last column of the input that one of two cells amid the output depends on,
    whichever is more.
    """
    spans = []
    for more in (0, 1):
        image = torch.ones(1, 3, side, side, requires_grad=True)
        output = net(image)
        output[0, :, output.shape[2] // 2, output.shape[3] // 2 + more].sum().backward()
        assert image.grad is not None
        columns = torch.nonzero(image.grad.abs().sum(dim=(0, 1, 2))).flatten()
        spans.append(int(columns[-1] - columns[0] + 1))
    return max(spans)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(
            nn.Conv2d(3, 4, 7, stride=2, padding=3), nn.AvgPool2d(3, stride=2, padding=1), nn.Conv2d(4, 4, 3)
        ),
        nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=4, dilation=4),
            nn.Conv2d(4, 4, 5, stride=3, padding=2),
            nn.Conv2d(4, 4, 3),
        ),
        nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=4), nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1), nn.Conv2d(4, 4, 3)
        ),
    ],
)
def test_the_receptive_field_is_what_gradients_reach(net: nn.Module) -> None:
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    image = torch.ones(1, 3, 96, 96)
    fields = ReceptiveFields(image)
    with torch.no_grad(), fields:
        found = fields.of(net(image))
    assert found is not None and found.size == measured_field(net, 96)


def test_resnet18_is_known() -> None:
    """Parameters and multiply-adds of torchvision's; receptive fields from Araujo et al. 2019's table (435 at
    the end).
    """
    config = ModelConfig(
        backbone={"name": "resnet18"}, heads={"segmentation": {"name": "fcn32s", "hidden": 0}}
    )
    found = summarise(build_model(config, CLASSES), CLASSES, (224, 224))
    peer = resnet18(weights=None)
    known = sum(p.numel() for name, p in peer.named_parameters() if not name.startswith("fc."))
    assert found["parts"]["backbone"]["parameters"] == known
    assert found["parts"]["backbone"]["multiply_adds"] == 1_814_073_344 - 512 * 1000
    layers = {layer["name"]: layer for layer in found["layers"]}
    stem = layers["backbone.conv1"]
    assert (stem["output"], stem["kernel"], stem["stride"], stem["receptive_field"]) == (
        "112x112x64",
        "7x7",
        "2",
        7,
    )
    assert stem["formula"] == "(224-7+6)/2+1 = 112.5"
    assert stem["memory_mib"] == pytest.approx(112 * 112 * 64 * 4 / 2**20, abs=1e-3)
    assert layers["backbone.maxpool"]["receptive_field"] == 11
    last = next(
        layer
        for name, layer in reversed(layers.items())
        if name.startswith("backbone.layer4") and layer["kernel"]
    )
    assert last["receptive_field"] in (435, 403) and last["output"] == "7x7x512"
    assert max(layer["receptive_field"] for layer in found["layers"] if layer["part"] == "backbone") == 435
    assert found["strides"] == {"segmentation": [32]}
    assert found["total"]["parameters"] == sum(p.numel() for p in build_model(config, CLASSES).parameters())
    assert 0 < found["total"]["seconds"]["cpu"] <= found["seconds"]["cpu"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = config_values(
        tmp_path / "run", voc_data(write_voc(tmp_path / "voc", count=2)), "detection", "segmentation"
    )
    (tmp_path / "c.yaml").write_text(yaml.dump(values))
    command = ["summary", "--config", str(tmp_path / "c.yaml")]
    assert main([*command, "--size", "60x90", "--proposals", "7", "--json", str(tmp_path / "s.json")]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["padded"] == [64, 96] and found["strides"]["detection"] == [8]
    assert "detection reads strides 8\n" in printed and "by the formula" in printed and "\ntotal " in printed
    assert "BatchNorm2d" not in printed
    names = [layer["name"] for layer in found["layers"]]
    assert any(name.startswith("heads.detection") for name in names) and any(
        name.startswith("heads.segm") for name in names
    )
    assert main([*command, "--classes", "4", "--size", "64x64", "--all"]) == 0
    assert "BatchNorm2d" in capsys.readouterr().out
    for options, message in (
        (["--size", "64"], "received '64'"),
        (["--classes", "0"], "--proposals and --classes must be at least 1"),
    ):
        assert main([*command, *options]) == 1
        assert message in capsys.readouterr().err
