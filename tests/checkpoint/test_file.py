"""Save and load: what comes back, and what damaged, foreign and mismatching files get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_data import mask_data, tiny_config, voc_data
from vistasks.checkpoint import HEADER, find_checkpoint, read_checkpoint, save_checkpoint
from vistasks.config import Config
from vistasks.inference.loaded import load_model
from vistasks.models import MultiTaskModel
from vistasks.models.building import build_model, restore
from vistasks.types import ClassNames

CLASSES = ClassNames(("red", "blue"), ("background", "red", "blue"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("run")
    data = voc_data(folder) | {"mask_values": {0: "background", 1: "red", 2: "blue"}}
    return tiny_config(folder, data, "detection", "segmentation")


@pytest.fixture(scope="module")
def model(config: Config) -> MultiTaskModel:
    torch.manual_seed(0)
    return build_model(config.model, CLASSES).eval()


def save(
    path: Path, model: MultiTaskModel, config: Config, classes: ClassNames = CLASSES, **more: torch.Tensor
) -> Path:
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()} | more
    save_checkpoint(
        path, tensors, config=config, classes=classes, state={"epoch": 3, "results": {"AP": None}}
    )
    return path


def test_everything_comes_back(tmp_path: Path, model: MultiTaskModel, config: Config) -> None:
    path = save(tmp_path / "last.safetensors", model, config, **{"optimizer.0.step": torch.tensor(7.0)})
    found = read_checkpoint(path)
    assert (found.config.model, found.classes, found.path) == (config.model, CLASSES, path)
    assert found.state == {"epoch": 3, "results": {"AP": None}}
    assert found.part("optimizer") == {"0.step": torch.tensor(7.0)} and found.part("nothing") == {}
    weights = found.part("model")
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    header = json.loads((tmp_path / "last.json").read_text())
    assert header["classes"]["detection"] == ["red", "blue"] and header["state"]["epoch"] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.json", "last.safetensors"]


def test_shared_and_strided_tensors_are_saved_as_they_are(tmp_path: Path, config: Config) -> None:
    base = torch.arange(12.0).view(3, 4)
    tensors = {"a": base, "b": base.t(), "c": base[:, 1], "d": torch.zeros(0, 3)}
    save_checkpoint(tmp_path / "x.safetensors", tensors, config=config, classes=CLASSES, state={})
    found = read_checkpoint(tmp_path / "x.safetensors").tensors
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_what_predicts_is_the_same_after_loading(
    tmp_path: Path, model: MultiTaskModel, config: Config
) -> None:
    loaded = load_model(save(tmp_path / "best.safetensors", model, config), "cpu")
    images = [
        np.random.default_rng(index).integers(0, 255, (40 + 9 * index, 50, 3), dtype=np.uint8)
        for index in range(2)
    ]
    proposals = [loaded.propose(image) for image in images]
    assert all(found is not None and len(found) for found in proposals)
    batch = loaded.make_batch(images, proposals)  # type: ignore[arg-type]
    assert batch.original_sizes == ((40, 50), (49, 50)) and batch.images.shape[-2:] == (64, 64)
    for here, there in zip(model.predict(batch), loaded.model.predict(batch)):
        assert (
            here.segmentation is not None and there.segmentation is not None and there.detections is not None
        )
        assert np.array_equal(here.segmentation.labels, there.segmentation.labels)
        assert here.detections is not None and np.array_equal(here.detections.scores, there.detections.scores)
    assert not loaded.model.training


def test_a_segmenter_needs_no_proposals(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, mask_data(tmp_path), "segmentation")
    loaded = load_model(
        save(tmp_path / "best.safetensors", build_model(config.model, CLASSES), config), "cpu"
    )
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    assert loaded.propose(image) is None
    (prediction,) = loaded.model.predict(loaded.make_batch([image], None))
    assert prediction.detections is None and prediction.segmentation is not None
    assert prediction.segmentation.labels.shape == (20, 30)


def test_a_run_folder_stands_for_its_best(tmp_path: Path, model: MultiTaskModel, config: Config) -> None:
    with pytest.raises(
        ValueError, match=r"no best\.safetensors or last\.safetensors in this folder; is it a run folder\?"
    ):
        find_checkpoint(tmp_path)
    last = save(tmp_path / "last.safetensors", model, config)
    assert find_checkpoint(tmp_path) == last
    best = save(tmp_path / "best.safetensors", model, config)
    assert find_checkpoint(tmp_path) == best and find_checkpoint(last) == last
    with pytest.raises(ValueError, match=r"nowhere: no such checkpoint or run folder"):
        find_checkpoint(tmp_path / "nowhere")


def test_damaged_files_name_themselves(tmp_path: Path, model: MultiTaskModel, config: Config) -> None:
    good = save(tmp_path / "good.safetensors", model, config).read_bytes()
    damaged = {
        "empty": b"",
        "cut": good[: len(good) // 2],
        "cut in the header": good[:50],
        "pickle": b"\x80\x02}q\x00.",
        "text": b"hello, this is no checkpoint at all",
        "huge header": b"\xff" * 8 + good[8:],
        "header of noise": good[:8] + bytes(range(1, 200)) * (len(good) // 199),
    }
    for name, content in damaged.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            read_checkpoint(path)
        assert str(caught.value).startswith(
            f"{path}: not a readable checkpoint (.safetensors written by vistasks): "
        ), name


def test_foreign_weights_say_where_they_belong(tmp_path: Path) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(
        ValueError, match=r"without the vistasks header\. .* model\.backbone\.weights=.*resnet\.safetensors"
    ):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "header", ["[]", "3", "{}", '{"classes": 3}', '{"classes": {"detection": []}, "config": {}}']
)
def test_headers_of_another_kind(tmp_path: Path, header: str) -> None:
    save_file({"x": torch.zeros(3)}, tmp_path / "x.safetensors", {HEADER: header})
    with pytest.raises(
        ValueError, match=r"x\.safetensors: its vistasks header is incomplete; was it written by another"
    ):
        read_checkpoint(tmp_path / "x.safetensors")


def test_a_config_that_this_version_does_not_know(
    tmp_path: Path, model: MultiTaskModel, config: Config
) -> None:
    path = save(tmp_path / "x.safetensors", model, config)
    header = json.loads((tmp_path / "x.json").read_text())
    header["config"]["train"]["epoch"] = 3
    save_file(load_file(path), path, {HEADER: json.dumps(header)})
    with pytest.raises(
        ValueError, match=r"x\.safetensors, its config: train\.epoch: unknown key\. Did you mean 'epochs'\?"
    ):
        read_checkpoint(path)


def test_weights_of_another_model_show_the_difference(model: MultiTaskModel, config: Config) -> None:
    weights: dict[str, Any] = dict(model.state_dict())
    other = build_model(config.model, ClassNames(("red", "blue", "green"), CLASSES.segmentation))
    with pytest.raises(ValueError) as caught:
        restore(other, weights, "best.safetensors")
    lines = str(caught.value).splitlines()
    assert lines[0] == "best.safetensors: weights do not match the model:"
    first = "heads.detection.stages.0.classify.bias: (3,) in the file, (4,) in the model; "
    assert lines[1].startswith(f"  other shapes (4): {first}")
    name, value = next(iter(weights.items()))
    del weights[name]
    weights["extra"] = value
    with pytest.raises(ValueError) as caught:
        restore(model, weights, "best.safetensors")
    assert str(caught.value).splitlines()[1:] == [f"  missing (1): {name}", "  unexpected (1): extra"]


def test_weights_under_the_names_of_an_earlier_version(model: MultiTaskModel) -> None:
    present = "heads.detection.stages.0."
    earlier = {
        name.replace(present, "heads.detection."): value + 1 for name, value in model.state_dict().items()
    }
    assert not any(name.startswith(present) for name in earlier)
    restore(model, earlier, "x")
    named = {name.replace(present, "heads.detection."): value for name, value in model.state_dict().items()}
    assert all(torch.equal(value, earlier[name]) for name, value in named.items())


def test_a_refused_file_leaves_the_model_alone(model: MultiTaskModel) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="do not match the model"):
        restore(model, {key: value + 1 for key, value in list(before.items())[:-1]}, "x")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_writing_that_fails_leaves_the_old_checkpoint(
    tmp_path: Path, model: MultiTaskModel, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "last.safetensors", model, config)
    before = path.read_bytes()

    def full(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vistasks.checkpoint.file.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save(path, model, config)
    assert path.read_bytes() == before and read_checkpoint(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.json", "last.safetensors"]


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "tpu:1", ""])
def test_devices_that_do_not_exist(
    tmp_path: Path, model: MultiTaskModel, config: Config, device: str
) -> None:
    path = save(tmp_path / "x.safetensors", model, config)
    with pytest.raises(ValueError, match=r"device '.*': expected auto, cpu, cuda, cuda:NUMBER or mps"):
        load_model(path, device)


@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_devices_that_are_not_there(
    tmp_path: Path, model: MultiTaskModel, config: Config, device: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    path = save(tmp_path / "x.safetensors", model, config)
    with pytest.raises(
        ValueError, match=rf"device '{device}': PyTorch sees 0 cuda devices here; use device cpu or auto"
    ):
        load_model(path, device)
    assert load_model(path, "auto").device.type == "cpu"
