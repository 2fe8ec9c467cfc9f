"""The pictures of `vistasks inspect`, and Grad-CAM on nets whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.backbones.test_contract import build, names
from tests.heads.contract import scene
from tests.models.test_multitask import model
from tests.tiny_data import config_values, tiny_config, voc_data, write_voc
from tests.tiny_data import scene as tiny_scene
from vistasks.backbones import BACKBONES
from vistasks.checkpoint import save_checkpoint
from vistasks.cli import main
from vistasks.config import parse_config
from vistasks.heads.head import Trunk
from vistasks.heads.region_classifier import Align, RegionClassifier
from vistasks.heads.skip_decoder import SkipDecoder
from vistasks.inference.loaded import load_model
from vistasks.inspection.figures import tiled
from vistasks.inspection.gradcam import class_score, detection_score, grad_cam, occlusion, pixel_score
from vistasks.inspection.inspect import Inspection, inspect
from vistasks.models import MultiTaskModel
from vistasks.models.building import build_model
from vistasks.types import ClassNames


def test_a_local_heat_map_stays_near_its_box_and_its_pixel() -> None:
    joint = model("detection", "segmentation").eval()
    for parameter in joint.heads["segmentation"].skip_scores.parameters():
        torch.nn.init.ones_(parameter)  # a new FCN's skips are 0
    joint.requires_grad_(False)  # a frozen trunk has maps all the same
    batch = scene(1)
    box = torch.tensor([4.0, 4, 40, 40])
    heat = grad_cam(joint, batch, detection_score(joint, batch, box, 1), local=True)
    assert heat.stride == 16 and heat.values.shape == (64, 96) and heat.values.max() == pytest.approx(1)
    assert heat.values[:, 80:].max() == 0, "RoIAlign reads nothing there"
    everywhere = grad_cam(joint, batch, class_score(joint, batch, 1))
    assert everywhere.stride == 32
    near = grad_cam(joint, batch, pixel_score(joint, batch, 10, 10, 2), local=True, stride=8)
    assert near.stride == 8 and near.values[:, 60:].max() == 0
    with pytest.raises(
        ValueError, match=r"does not depend on the backbone's map at stride 1; it does at: 8, 16, 32"
    ):
        grad_cam(joint, batch, pixel_score(joint, batch, 10, 10, 2), stride=1)


def test_hiding_what_a_score_sees_lowers_it() -> None:
    joint = model("segmentation").eval()
    batch = scene(1)
    grey = (joint.mean * 255).round().to(torch.uint8).expand_as(batch.images).clone()
    batch = replace(batch, images=grey)
    batch.images[0, :, 16:32, 64:80] = 255

    def brightness(features):  # type: ignore[no-untyped-def]
        return features.images.sum()

    falls = occlusion(joint, batch, brightness, cells=4)
    assert falls.shape == (4, 6) and np.unravel_index(int(falls.argmax()), falls.shape) == (1, 4)


def test_tiles_are_stretched_one_by_one() -> None:
    tiles = np.stack([np.full((2, 2), 3.0), np.array([[0.0, 1], [2, 4]]), np.array([[5.0, 5], [5, 6]])])
    sheet = tiled(tiles, 2)
    assert (
        sheet.shape == (7, 7)
        and np.isnan(sheet[0]).all()
        and sheet[1:3, 4:6].tolist() == [[0, 0.25], [0.5, 1]]
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    config = tiny_config(
        folder / "run", voc_data(write_voc(folder / "voc", count=1)), "detection", "segmentation"
    )
    classes = ClassNames(("red", "blue"), ("background", "red", "blue"))
    torch.manual_seed(3)
    built = build_model(config.model, classes)
    path = folder / "best.safetensors"
    save_checkpoint(
        path,
        {f"model.{k}": v for k, v in built.state_dict().items()},
        config=config,
        classes=classes,
        state={},
    )
    Image.fromarray(tiny_scene(0)[0]).save(folder / "photo.png")
    return path


def test_what_training_has_changed(weights: Path, tmp_path: Path) -> None:
    image = tiny_scene(0)[0]
    loaded = load_model(weights, "cpu")
    torch.manual_seed(loaded.config.seed)
    first = next(
        m
        for m in build_model(loaded.config.model, loaded.classes).modules()
        if isinstance(m, torch.nn.Conv2d)
    )
    weight = next(m for m in loaded.model.modules() if isinstance(m, torch.nn.Conv2d)).weight
    sizes = []
    for change in (0.0, 0.25):
        weight.data.copy_(first.weight * (1 + change))
        facts = inspect(loaded, image, tmp_path, path="photo", cells=0)
        assert facts["filters"]["changed"] == pytest.approx(change, abs=1e-6)
        with Image.open(tmp_path / "filters.png") as picture:
            sizes.append(picture.size[1])
    assert sizes[1] > sizes[0]  # the difference is drawn only where there is one


def test_the_command(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "inspect",
        "--weights",
        str(weights),
        "--image",
        str(weights.with_name("photo.png")),
        "--output",
        str(tmp_path),
    ]
    assert main([*command, "--occlusion", "2", "--class", "blue", "--pixel", "5,60"]) == 0
    drawn = {path.stem for path in tmp_path.glob("*.png")}
    assert {"filters", "features", "gradcam_class", "occlusion_class", "gradcam_pixel", "regions"} <= drawn
    assert {"gradcam_detection", "occlusion_detection", "roi"} <= drawn
    assert (tmp_path / "inspect.json").is_file() and "at 5, 60" in capsys.readouterr().out
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 3, path
    for options, message in (
        (["--pixel", "5"], "--pixel: expected X,Y such as 120,80; received '5'"),
        (["--occlusion", "-1"], "--occlusion must be 0 or more; received -1"),
    ):
        assert main([*command, *options]) == 1
        assert message in capsys.readouterr().err


def test_messages(weights: Path, tmp_path: Path) -> None:
    with Image.open(weights.with_name("photo.png")) as picture:
        look = Inspection(load_model(weights, "cpu"), np.asarray(picture), tmp_path)
    with pytest.raises(ValueError, match=r"--detection 1000: the model finds \d+ objects"):
        look.detection(1000, cells=0)
    with pytest.raises(
        ValueError, match="--class green: the segmentation map's classes are background, red, blue"
    ):
        look.class_of_map("green", cells=0)
    with pytest.raises(ValueError, match=r"--pixel 64,0 .*64x64"):
        look.pixel((64, 0))
    look.map = None
    with pytest.raises(ValueError, match="this model has no segmentation map"):
        look.pixel(None)


def test_regions_of_a_model_that_proposes_itself(tmp_path: Path) -> None:
    """With ``proposals.method: rpn`` the batch brings none; and too few are said."""
    values = config_values(tmp_path / "run", voc_data(write_voc(tmp_path / "voc", count=1)), "detection")
    head = values["model"]["heads"]["detection"]
    values["model"]["heads"]["detection"] = {**head, "rpn": {"stride": [8], "keep": 30}}
    values["proposals"] = {"method": {"name": "rpn"}, "cache": None}
    config, classes = parse_config(values), ClassNames(("red", "blue"), ())
    torch.manual_seed(3)
    tensors = {f"model.{k}": v for k, v in build_model(config.model, classes).state_dict().items()}
    save_checkpoint(tmp_path / "best.safetensors", tensors, config=config, classes=classes, state={})
    look = Inspection(load_model(tmp_path / "best.safetensors", "cpu"), tiny_scene(0)[0], tmp_path / "out")
    assert len(look.batch.proposals[0]) == 0
    look.regions()
    assert look.facts["regions"]["count"] > 3 and (tmp_path / "out" / "regions.png").is_file()
    look.model.heads["detection"].proposals = lambda *_: [torch.tensor([[0.0, 0, 9, 9]])]
    look.regions()
    assert look.facts["regions"] == "not shown: 1 proposals are too few"


@pytest.mark.parametrize("name", names(BACKBONES))
def test_grad_cam_reads_every_trunk(name: str) -> None:
    """At each stride that it publishes, and frozen; for a box, a class and a pixel."""
    trunk = build(name)
    channels = Trunk(name=name, channels=trunk.channels, pooling=trunk.pooling)
    deepest = max(trunk.channels)
    torch.manual_seed(0)
    heads = {
        "detection": RegionClassifier(
            trunk=channels, classes=("a", "b"), align=Align(stride=deepest, size=3), hidden=[8]
        ),
        "segmentation": SkipDecoder(trunk=channels, classes=("background", "a", "b")),
    }
    joint = MultiTaskModel(trunk, None, heads, {}).eval().requires_grad_(False)
    batch = scene(1)
    box = torch.tensor([10.0, 10, 60, 50])
    for score, local in (
        (detection_score(joint, batch, box, 0), True),
        (class_score(joint, batch, 1), False),
        (pixel_score(joint, batch, 20, 20, 1), True),
    ):
        heat = grad_cam(joint, batch, score, local=local)
        assert heat.stride == deepest and heat.values.shape == (64, 96)
        assert np.isfinite(heat.values).all() and heat.values.min() >= 0 and heat.values.max() <= 1
