"""Names -> parts: what build_model and build_dataset refuse, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_data import (
    BACKBONE,
    GRID,
    config_values,
    mask_data,
    tiny_config,
    voc_data,
    write_mask_folder,
    write_voc,
)
from vistasks.build import build_augment, build_dataset, build_proposals
from vistasks.config import ModelConfig, ProposalsConfig, parse_config
from vistasks.models.building import build_model
from vistasks.proposals.cache import CachedProposals
from vistasks.registry import BACKBONES, HEADS
from vistasks.types import ClassNames

CLASSES = ClassNames(("cat", "dog"), ("background", "cat", "dog"))
SEGNET = {"segmentation": {"name": "segnet"}}


def message(classes: ClassNames = CLASSES, **model: Any) -> str:
    with pytest.raises(ValueError) as caught:
        build_model(ModelConfig(**({"backbone": BACKBONE, "heads": SEGNET} | model)), classes)
    return str(caught.value)


def test_segnet_on_a_trunk_without_pooling_indices_names_the_trunks_that_have_them() -> None:
    found = message(backbone={"name": "resnet18"})
    before, _, trunks = found.partition(" Backbones that can (without a neck): ")
    assert before == (
        "model.heads.segmentation: segnet unpools by the encoder's pooling indices, and the backbone 'resnet18' publishes none."
    )
    names = trunks.split(", ")
    assert "vgg16_bn" in names and "lenet5" in names and "resnet18" not in names
    with torch.device("meta"):  # the promise is true
        build_model(ModelConfig(backbone={"name": names[0]}, heads=SEGNET), CLASSES)


def test_a_neck_takes_the_pooling_indices_away() -> None:
    found = message(backbone={"name": "vgg11_bn", "width": 0.1}, neck={"name": "fpn", "channels": 8})
    assert "the backbone 'vgg11_bn + fpn' publishes none" in found and "vgg11_bn," in found


def test_a_stride_that_no_trunk_has() -> None:
    found = message(heads={"detection": {"name": "region_classifier", "align": {"stride": 64}}})
    assert found.startswith(
        "model.heads.detection: region_classifier needs maps at strides 64"
    ) and found.endswith(": none")


@pytest.mark.parametrize(
    "model, expected",
    [
        (
            {"backbone": {"name": "resnet81"}},
            "model.backbone.name: unknown backbone 'resnet81'. Did you mean 'resnet18'?",
        ),
        ({"backbone": {"width": 1}}, "model.backbone.name is missing; expected one of: "),
        (
            {"backbone": {"name": "vgg11", "widht": 1}},
            "model.backbone.widht: unknown option. Did you mean 'width'?",
        ),
        ({"backbone": {"name": "vgg11", "width": -1}}, "model.backbone: vgg11: width must be above 0"),
        ({"neck": {"name": "fpm"}}, "model.neck.name: unknown neck 'fpm'. Did you mean 'fpn'?"),
        ({"neck": {"name": "fpn", "in_channels": {}}}, "model.neck.in_channels: unknown option."),
        ({"neck": {"name": "fpn", "channels": 0}}, "model.neck: fpn: channels must be at least 1"),
        (
            {"heads": {"segmentation": {"name": "fcn8"}}},
            "model.heads.segmentation.name: unknown head 'fcn8'. Did you mean",
        ),
        (
            {"heads": {"segmentation": {"name": "fcn8s", "finest": 4}}},
            "model.heads.segmentation.finest: unknown option.",
        ),
        (
            {"heads": {"segmentation": {"name": "fcn8s", "dropout": 4}}},
            "model.heads.segmentation: dropout probability has to be",
        ),
        (
            {"heads": {"segmentation": {"name": "fcn8s", "hidden": -4}}},
            "model.heads.segmentation: Trying to create tensor with",
        ),
        (
            {"heads": {"segmentation": {"name": "segnet", "class_weights": {"cow": 2}}}},
            "model.heads.segmentation: class_weights names cow; the classes are: background, cat, dog",
        ),
        (
            {"heads": {"segmentation": {"name": "region_classifier", "align": {"stride": 8}}}},
            "model.heads.segmentation.name: 'region_classifier' is a detection head; put it under model.heads.detection",
        ),
        (
            {"heads": {"detection": {"name": "region_classifier", "align": {"strid": 8}}}},
            "model.heads.detection.align.strid: unknown option. Did you mean 'stride'? Known: stride, size, reduce",
        ),
        (
            {"heads": {"detection": {"name": "region_classifier", "roi": "warp", "warp": {"crop": 100}}}},
            "model.heads.detection: crop must divide by the backbone's stride 32: use 96 or 128",
        ),
        ({"freeze_stages": 50}, "model.freeze_stages: PooledBackbone has 5 stages; cannot freeze 50"),
    ],
)
def test_wrong_models(model: dict[str, Any], expected: str) -> None:
    assert message(**model).startswith(expected)


def test_a_task_without_classes() -> None:
    assert message(ClassNames(("cat",), ())) == (
        "model.heads.segmentation: the data names no class for segmentation; set data.classes or data.segmentation_classes"
    )


def test_weights_are_not_looked_for_when_a_checkpoint_follows(tmp_path: Path) -> None:
    config = ModelConfig(backbone={**BACKBONE, "weights": str(tmp_path / "missing.pth")}, heads=SEGNET)
    assert build_model(config, CLASSES, pretrained=False)
    with pytest.raises((ValueError, OSError), match=r"missing\.pth"):
        build_model(config, CLASSES)


@pytest.mark.parametrize("head", list(HEADS))
def test_every_head_stands_on_some_registered_trunk(head: str) -> None:
    """And the search for such trunks ends for each head, in the words of the message."""
    from vistasks.models.building import _trunks_for

    found = _trunks_for({"name": head}, ("background", "cat"))
    assert found and set(found) <= set(BACKBONES)


def test_the_readers_tasks_follow_the_heads(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", count=2)
    for heads in (["detection"], ["segmentation"], ["detection", "segmentation"]):
        data = build_dataset(tiny_config(tmp_path, voc_data(root), *heads), "train")
        assert bool(data.classes.detection) == ("detection" in heads)
        assert bool(data.classes.segmentation) == ("segmentation" in heads)
    only = voc_data(root) | {"tasks": ["detect"]}
    assert not build_dataset(
        tiny_config(tmp_path, only, "detection", "segmentation"), "train"
    ).classes.segmentation


def test_further_sets_join_the_training_part_alone(tmp_path: Path) -> None:
    voc, masks = write_voc(tmp_path / "voc", count=2, masks=False), write_mask_folder(tmp_path / "m", count=3)
    also = {key: value for key, value in mask_data(masks).items() if key not in ("train", "val")} | mask_data(
        masks
    )["train"]
    config = tiny_config(
        tmp_path, voc_data(voc) | {"tasks": ["detect"], "also": [also]}, "detection", "segmentation"
    )
    data = build_dataset(config, "train")
    assert data.classes == ClassNames(("red", "blue"), ("background", "red", "blue"))
    assert (len(data), len(build_dataset(config, "val", data.classes))) == (5, 2)
    assert (
        data[0].segmentation is None
        and data[0].labelled.detection == {0, 1}
        and not data[0].labelled.segmentation
    )
    assert (
        data[4].segmentation is not None
        and not data[4].labelled.detection
        and data[4].labelled.segmentation == {0, 1, 2}
    )


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"format": "vok"}, "data.format: unknown dataset format 'vok'. Did you mean 'voc'?"),
        ({"clases": ["red"]}, "data.clases: unknown option. Did you mean 'classes'?"),
        ({"also": [{"root": "x"}]}, "data.also.0.format is missing; expected one of: "),
        ({"also": [{"format": ["voc"]}]}, "data.also.0.format: unknown dataset format '['voc']'."),
        (
            {"also": [{"format": "voc", "rooot": "x"}]},
            "data.also.0.rooot: unknown option. Did you mean 'root'?",
        ),
    ],
)
def test_wrong_data_sections(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    config = tiny_config(tmp_path, voc_data(write_voc(tmp_path / "voc", count=1)) | change, "detection")
    with pytest.raises(ValueError) as caught:
        build_dataset(config, "train")
    assert str(caught.value).startswith(expected)


def test_a_missing_set_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, voc_data(tmp_path / "voc2007"), "detection")
    with pytest.raises(FileNotFoundError, match=r"voc2007 does not exist.*vistasks data prepare voc2007"):
        build_dataset(config, "train")


def test_proposals_stand_behind_their_cache(tmp_path: Path) -> None:
    cached = build_proposals(ProposalsConfig(method={"name": "grid"}, cache=str(tmp_path)))
    assert isinstance(cached, CachedProposals)
    assert not isinstance(build_proposals(ProposalsConfig(**GRID)), CachedProposals)
    jitter = ProposalsConfig(method={"name": "ground_truth_jitter"}, cache=str(tmp_path))
    assert not isinstance(build_proposals(jitter), CachedProposals)  # its boxes are not the picture's alone
    with pytest.raises(
        ValueError, match=r"proposals\.method\.stried: unknown option\. Did you mean 'stride'\?"
    ):
        build_proposals(ProposalsConfig(method={"name": "grid", "stried": 1}))
    with pytest.raises(ValueError, match=r"proposals\.method: grid: sizes, ratios and stride must be > 0"):
        build_proposals(ProposalsConfig(method={"name": "grid", "stride": -1}))


def test_augmentation_is_optional_and_named_by_its_path(tmp_path: Path) -> None:
    values = config_values(tmp_path, voc_data(tmp_path), "detection")
    assert build_augment(parse_config(values)) is None
    assert build_augment(parse_config(values | {"augment": ["HorizontalFlip"]})) is not None
    with pytest.raises(
        ValueError, match=r"augment\[0\]\.HorizontalFlap: unknown transform\. Did you mean 'HorizontalFlip'\?"
    ):
        build_augment(parse_config(values | {"augment": ["HorizontalFlap"]}))
