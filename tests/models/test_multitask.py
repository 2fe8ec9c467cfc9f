from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import vistasks.necks  # noqa: F401 - fills the registry
from tests.heads.contract import CLASSES, scene, small_trunk, unlabelled
from vistasks.loading.batching import collate
from vistasks.models import MultiTaskModel
from vistasks.registry import HEADS, NECKS
from vistasks.types import ClassNames, Prediction, Sample


def model(*tasks: str, weights: dict[str, float] | None = None) -> MultiTaskModel:
    backbone, trunk = small_trunk()
    names = {
        "detection": {"name": "region_classifier", "hidden": [16]},
        "segmentation": {"name": "fcn8s", "hidden": 8},
    }
    given = {"trunk": trunk, "classes": CLASSES}
    heads = {task: HEADS.build(names[task], where=task, given=given) for task in tasks}
    return MultiTaskModel(backbone, None, heads, weights or {})


def test_the_joint_model_runs_the_trunk_once() -> None:
    joint = model("detection", "segmentation").eval()
    calls = []
    joint.backbone.register_forward_hook(lambda *_: calls.append(1))
    prediction = joint.predict(scene())[0]
    assert len(calls) == 1
    assert prediction.detections is not None and prediction.segmentation is not None


def test_each_task_says_the_same_alone_and_joint() -> None:
    joint, alone = model("detection", "segmentation").eval(), model("segmentation").eval()
    alone.load_state_dict(
        {k: v for k, v in joint.state_dict().items() if not k.startswith("heads.detection.")}
    )
    assert (
        joint.predict(scene())[0].segmentation.labels == alone.predict(scene())[0].segmentation.labels
    ).all()


def test_an_absent_task_adds_nothing() -> None:
    joint = model("detection", "segmentation").train()
    batch, bare = scene(), unlabelled(scene())
    without_masks = replace(
        batch, segmentation=bare.segmentation, segmentation_labelled=bare.segmentation_labelled
    )
    terms = joint.loss(without_masks)
    assert terms["segmentation/cross_entropy"].item() == 0
    assert terms["detection/classification"].item() > 0
    terms = joint.loss(replace(without_masks, segmentation=None))
    assert terms["segmentation/cross_entropy"].item() == 0


def test_a_batch_may_mix_samples_of_one_task_each() -> None:
    joint = model("detection", "segmentation").train()
    batch = scene()
    detection = torch.tensor([[True] * 3, [False] * 3])
    mixed = replace(batch, detection_labelled=detection, segmentation_labelled=~detection)
    torch.manual_seed(0)
    terms = joint.loss(mixed)
    changed = batch.segmentation.clone()
    changed[0] = 0  # the first image is not labelled for segmentation: its mask says nothing
    torch.manual_seed(0)
    again = joint.loss(replace(mixed, segmentation=changed))
    assert terms["segmentation/cross_entropy"].item() == pytest.approx(
        again["segmentation/cross_entropy"].item()
    )
    assert terms["segmentation/cross_entropy"].item() > 0 and terms["detection/classification"].item() > 0


def test_loss_weights_scale_a_task() -> None:
    plain, weighted = (
        model("segmentation").eval(),
        model("segmentation", weights={"segmentation": 3.0}).eval(),
    )
    weighted.load_state_dict(plain.state_dict())
    key = "segmentation/cross_entropy"
    assert weighted.loss(scene())[key].item() == pytest.approx(3 * plain.loss(scene())[key].item(), rel=1e-5)


def test_padding_does_not_change_the_losses() -> None:
    joint = model("segmentation").eval()
    batch = scene(1)
    padded = replace(
        batch, segmentation=torch.nn.functional.pad(batch.segmentation, (0, 0, 0, 32), value=255)
    )
    padded = replace(padded, images=torch.nn.functional.pad(batch.images, (0, 0, 0, 32)))
    features = joint.features(padded)
    assert joint.heads["segmentation"](features, (96, 96)).shape[-2:] == (96, 96)
    assert torch.isfinite(joint.loss(padded)["segmentation/cross_entropy"])


def test_a_warping_detector_alone_does_not_pass_whole_images() -> None:
    backbone, trunk = small_trunk()
    options = {"name": "region_classifier", "roi": "warp", "warp": {"crop": 32, "context": 0}, "hidden": [8]}
    head = HEADS.build(options, where="head", given={"trunk": trunk, "classes": CLASSES})
    alone = MultiTaskModel(backbone, None, {"detection": head}, {}).eval()
    seen: list[tuple[int, ...]] = []
    backbone.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    alone.predict(scene())
    assert seen and all(shape[-2:] == (32, 32) for shape in seen)


def test_a_detector_on_a_neck() -> None:
    backbone, trunk = small_trunk()
    neck = NECKS.build({"name": "fpn", "channels": 8}, where="neck", given={"in_channels": trunk.channels})
    options = {"name": "region_classifier", "align": {"stride": 8, "size": 3}, "hidden": [8]}
    given = {"trunk": replace(trunk, channels=neck.channels), "classes": CLASSES}
    head = HEADS.build(options, where="head", given=given)
    with_neck = MultiTaskModel(backbone, neck, {"detection": head}, {})
    assert set(with_neck.loss(scene())) == {"detection/classification", "detection/box"}


@pytest.mark.parametrize("tasks", [("detection",), ("segmentation",), ("detection", "segmentation")])
def test_overfits_one_batch(tasks: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    learner = model(*tasks).train()
    batch = scene()
    smooth = torch.zeros_like(batch.segmentation)
    smooth[:, :, 48:] = 1
    batch = replace(batch, segmentation=torch.where(batch.segmentation == 255, 255, smooth))
    optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        loss = torch.stack(list(learner.loss(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0], f"the loss only fell from {losses[0]:.3f} to {losses[-1]:.3f}"


def test_a_head_that_is_asked_about_some_images_says_the_same_about_them() -> None:
    joint, batch = model("detection", "segmentation").eval(), scene()
    whole = joint.predict(batch)
    some = joint.predict(batch, rows={"segmentation": [1], "detection": [0]})
    assert len(batch) == 2 and some[0].segmentation is None and some[1].detections is None
    assert (some[1].segmentation.labels == whole[1].segmentation.labels).all()
    np.testing.assert_allclose(some[0].detections.boxes, whole[0].detections.boxes, atol=1e-3)
    assert joint.predict(batch, rows={"segmentation": []})[0].segmentation is None


def test_regions_from_the_class_map_are_classified_in_the_same_pass() -> None:
    joint, batch = model("detection", "segmentation").eval(), scene()
    bare = replace(batch, proposals=tuple(p[:0] for p in batch.proposals))
    seen = []

    def regions(answers: list[Prediction]) -> list[np.ndarray]:
        seen.append([answer.segmentation.labels.shape for answer in answers])
        factors = [(o[1] / s[1], o[0] / s[0]) * 2 for o, s in zip(batch.original_sizes, batch.sizes)]
        return [(p.numpy() * np.array(f, dtype=np.float32)) for p, f in zip(batch.proposals, factors)]

    given, found = joint.predict(batch), joint.predict(bare, regions=regions)
    assert seen == [list(batch.original_sizes)]
    for one, other in zip(given, found):
        np.testing.assert_allclose(one.detections.boxes, other.detections.boxes, atol=1e-2)
        np.testing.assert_allclose(one.detections.scores, other.detections.scores, atol=1e-4)
    assert len(given[0].detections) > 0


def test_bfloat16_changes_the_answers_little() -> None:
    joint, batch = model("detection", "segmentation").eval(), scene()
    exact = joint.predict(batch)
    joint.precision = torch.bfloat16
    near = joint.predict(batch)
    for one, other in zip(exact, near):
        assert (
            one.segmentation.labels == other.segmentation.labels
        ).mean() > 0.8  # random weights: many near ties
        assert other.detections.scores.dtype == np.float32 and other.detections.boxes.dtype == np.float32


def test_the_trunk_sees_normalised_red_green_and_blue() -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[..., 0] = 255
    batch = collate(
        [Sample(image_id="red", path="red", image=image)],
        [(64, 64)],
        classes=ClassNames(CLASSES, ()),
        divisor=32,
    )
    seen = model("detection").features(batch).images
    assert seen is not None
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]  # ImageNet's mean and deviation
    assert seen[0, :, 5, 5].tolist() == pytest.approx(expected, rel=1e-5)
