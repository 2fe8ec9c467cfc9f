"""Every registered backbone holds the contract; a wrong one does not."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from tests.contracts import check_backbone
from vistasks.backbones import BACKBONES
from vistasks.backbones.backbone import Backbone
from vistasks.registry import Registry
from vistasks.types import Features

# Options without a default value; and, where there is a width, a narrow one
REQUIRED = {"timm": {"model": "test_resnet"}}


def names(registry: Registry) -> list[str]:
    """The registered names; none at all must not pass as "no tests"."""
    if not len(registry):
        raise RuntimeError(f"no {registry.kind} is registered: nothing would be tested")
    return list(registry)


def build(name: str) -> Backbone:
    torch.manual_seed(0)
    part = BACKBONES[name]
    options = dict(REQUIRED.get(name, {}))
    if "width" in inspect.signature(part).parameters:
        options["width"] = 0.25
    return BACKBONES.build({"name": name, **options}, where="model.backbone")


@pytest.mark.parametrize("name", names(BACKBONES))
def test_contract(name: str) -> None:
    check_backbone(build(name))


def test_an_empty_registry_fails_at_collection() -> None:
    with pytest.raises(RuntimeError, match="no backbone is registered"):
        names(Registry("backbone"))


class _Tiny(Backbone):
    """A correct backbone of stride 2, whose faults the tests choose."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.extra = nn.Conv2d(4, 4, 1)
        self.calls = 0
        self.channels = {2: 8 if fault == "channels" else 4}
        self.min_size = 2

    def extract(self, images: torch.Tensor) -> Features:
        x = self.extra(self.norm(self.conv(images)))
        if self.fault == "size":
            x = x[:, :, :, 1:]
        if self.fault == "transposed":
            x = x.transpose(2, 3).reshape(x.shape)
        if self.fault == "mirrored":
            x = x.flip(3)
        if self.fault == "batch":
            x = x + images.mean()
        if self.fault == "nan":
            x = x / 0.0
        if self.fault == "detached":
            x = (
                x.detach()
                + images.mean((1, 2, 3), keepdim=True) * 0
                + self.conv(images)
                + self.norm(self.conv(images))
            )
        if self.fault == "state":
            self.calls += 1
            x = x + self.calls
        if self.fault == "input":
            images.mul_(2)
        return Features(maps={4 if self.fault == "stride" else 2: x})

    def stages(self) -> list[nn.Module]:
        if self.fault == "stages":
            return [self.conv, self.norm]
        return [nn.Sequential(self.conv, self.norm), self.extra]

    def train(self, mode: bool = True) -> _Tiny:
        if self.fault == "freeze":
            nn.Module.train(self, mode)
        else:
            super().train(mode)
        return self

    def check_input(self, images: torch.Tensor) -> None:
        if self.fault != "check":
            super().check_input(images)


def test_the_contract_accepts_a_correct_backbone() -> None:
    check_backbone(_Tiny("none"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("channels", "stride 2: publishes 8 channels, the map has 4"),
        ("stride", r"publishes the strides \[2\], gives maps at \[4\]"),
        ("size", r"stride 2: the map of .* pixels is .*, not"),
        ("transposed", "stride 2: .* looks at pixel"),
        ("mirrored", "stride 2: column .* looks at pixel"),
        ("batch", "depends on the batch"),
        ("nan", "infinite or NaN"),
        ("detached", "no gradient reaches .*extra"),
        ("state", "depends on the batch|change after train"),
        ("input", "changes its input"),
        ("stages", "leaves out .*extra"),
        ("freeze", "a BatchNorm of 4 channels changes"),
    ],
)
def test_the_contract_names_what_is_wrong(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_backbone(_Tiny(fault))


def test_the_contract_wants_wrong_sizes_refused() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_backbone(_Tiny("check"))


def test_a_wrong_backbone_in_the_registry_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry("backbone")
    registry.register("wrong")(lambda: _Tiny("channels"))
    for name in names(registry):
        with pytest.raises(AssertionError, match="publishes 8 channels"):
            check_backbone(registry.build({"name": name}, where="model.backbone"))
