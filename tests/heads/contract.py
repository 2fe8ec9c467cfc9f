"""What every head must hold; each check fails with a message that names what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from vistasks.heads.head import Head, Trunk
from vistasks.models import MultiTaskModel
from vistasks.registry import BACKBONES
from vistasks.types import IGNORE_INDEX, Batch, Detections, SegmentationMap

CLASSES = ("background", "cat", "dog")
SIZES = ((64, 96), (50, 70))  # (height, width) within a padded 64 x 96
ORIGINALS = ((64, 96), (100, 140))


def small_trunk() -> tuple[nn.Module, Trunk]:
    """A trunk with every stride and with pooling indices, so that every head can stand on it."""
    torch.manual_seed(0)
    backbone = BACKBONES["vgg11_bn"](width=0.125)
    return backbone, Trunk("vgg11_bn", backbone.channels, backbone.pooling)


def scene(count: int = 2) -> Batch:
    """Two images: one with objects and a mask, one negative; both labelled for both tasks."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 64, 96), generator=generator, dtype=torch.uint8)
    mask = torch.randint(0, 3, (count, 64, 96), generator=generator)
    mask[1:, 50:] = IGNORE_INDEX
    mask[1:, :, 70:] = IGNORE_INDEX
    near = [[4.0, 4, 40, 40], [6, 6, 44, 42], [50, 10, 66, 48]]
    proposals = torch.tensor([*near, [0, 0, 70, 50], [20, 20, 30, 30], [5, 30, 60, 50]])
    boxes = torch.tensor([[5.0, 5, 42, 40], [48, 12, 68, 50]])
    return Batch(
        images=images,
        sizes=SIZES[:count],
        original_sizes=ORIGINALS[:count],
        boxes=(boxes, torch.zeros(0, 4))[:count],
        labels=(torch.tensor([1, 2]), torch.zeros(0, dtype=torch.int64))[:count],
        ignored=(torch.zeros(0, 4),) * count,
        proposals=(proposals, proposals[:4])[:count],
        segmentation=mask,
        detection_labelled=torch.ones(count, 3, dtype=torch.bool),
        segmentation_labelled=torch.ones(count, 3, dtype=torch.bool),
        image_ids=("a", "b")[:count],
        paths=("a.jpg", "b.jpg")[:count],
    )


def unlabelled(batch: Batch) -> Batch:
    """The same images with nothing labelled for either task."""
    none = torch.zeros_like(batch.detection_labelled)
    empty = torch.full_like(batch.segmentation, IGNORE_INDEX)
    count = len(batch)
    return replace(
        batch,
        boxes=(torch.zeros(0, 4),) * count,
        labels=(torch.zeros(0, dtype=torch.int64),) * count,
        detection_labelled=none,
        segmentation_labelled=none,
        segmentation=empty,
    )


def model_with(head: Head, backbone: nn.Module) -> MultiTaskModel:
    return MultiTaskModel(backbone, None, {head.task: head}, {})


def check_head(head: Head, backbone: nn.Module) -> None:
    """Every promise of `Head`, on two small images.

    Raises:
        AssertionError: names the broken promise.
    """
    assert head.task in ("detection", "segmentation"), f"task is {head.task!r}"
    model = model_with(head, backbone)
    reached = check_loss(model)
    check_absent_task(model, reached)
    check_without_proposals(model, reached)
    check_prediction(model, head.task)
    check_batch_equals_single(model, head.task)


def check_loss(model: MultiTaskModel) -> set[str]:
    """Returns the parameters that the loss reaches: all of the head's, and what it reads of the trunk."""
    model.train()
    model.zero_grad()
    torch.manual_seed(0)
    terms = model.loss(scene())
    assert terms, "loss gives no term"
    for name, value in terms.items():
        assert value.shape == (), f"the loss term {name} has the shape {tuple(value.shape)}, not a scalar"
        assert value.dtype == torch.float32, f"the loss term {name} is {value.dtype}"
        assert bool(torch.isfinite(value)) and value >= 0, f"the loss term {name} is {value.item()}"
    torch.stack(list(terms.values())).sum().backward()
    lacking = [name for name, p in model.heads.named_parameters() if p.grad is None or not p.grad.any()]  # type: ignore[attr-defined]
    assert not lacking, f"no gradient reaches {', '.join(lacking)}"
    return in_graph(model)


def in_graph(model: MultiTaskModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def check_absent_task(model: MultiTaskModel, reached: set[str]) -> None:
    """A batch that labels nothing adds exactly 0, yet reaches the same parameters (distributed training waits
    for them).
    """
    model.train()
    model.zero_grad()
    terms = model.loss(unlabelled(scene()))
    for name, value in terms.items():
        assert value.item() == 0, f"the loss term {name} is {value.item()} where nothing is labelled"
    torch.stack(list(terms.values())).sum().backward()
    assert in_graph(model) == reached, (
        f"not in the graph where nothing is labelled: {sorted(reached - in_graph(model))}"
    )
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or not parameter.grad.any(), (
            f"{name} has a gradient where nothing is labelled"
        )


def check_without_proposals(model: MultiTaskModel, reached: set[str]) -> None:
    """No proposal and no object: finite losses that reach the same parameters, and a prediction."""
    nothing, no_label = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    batch = replace(scene(), proposals=(nothing,) * 2, boxes=(nothing,) * 2, labels=(no_label,) * 2)
    model.train()
    model.zero_grad()
    total = torch.stack(list(model.loss(batch).values())).sum()
    assert bool(torch.isfinite(total)), "the loss is not finite without proposals and objects"
    total.backward()
    assert in_graph(model) == reached, (
        f"not in the graph without proposals: {sorted(reached - in_graph(model))}"
    )
    model.eval()
    assert len(model.predict(batch)) == 2, "predict does not give one prediction an image without proposals"


def check_prediction(model: MultiTaskModel, task: str) -> None:
    predictions = model.eval().predict(scene())
    assert len(predictions) == 2, f"{len(predictions)} predictions for 2 images"
    for prediction, (height, width) in zip(predictions, ORIGINALS):
        if task == "segmentation":
            _check_map(prediction.segmentation, height, width)
        else:
            _check_detections(prediction.detections, height, width)


def _check_map(found: SegmentationMap | None, height: int, width: int) -> None:
    assert isinstance(found, SegmentationMap), f"predict gives {type(found).__name__}, not SegmentationMap"
    assert found.labels.shape == (height, width), (
        f"the map is {found.labels.shape}, the original image {(height, width)}"
    )
    assert found.labels.dtype == np.uint8, f"the map is {found.labels.dtype}, not uint8"
    assert found.labels.max() < len(CLASSES), f"the map has class {found.labels.max()} of {len(CLASSES)}"
    assert found.names == CLASSES, f"the map's names are {found.names}"


def _check_detections(found: Detections | None, height: int, width: int) -> None:
    assert isinstance(found, Detections), f"predict gives {type(found).__name__}, not Detections"
    count = len(found.boxes)
    assert found.boxes.shape == (count, 4), f"boxes are {found.boxes.shape}"
    assert found.boxes.dtype == np.float32, f"boxes are {found.boxes.dtype}"
    assert found.scores.shape == (count,) and found.labels.shape == (count,), (
        "scores and labels do not fit the boxes"
    )
    assert (np.diff(found.scores) <= 0).all(), "the detections are not best first"
    assert count == 0 or (found.labels.min() >= 0 and found.labels.max() < len(CLASSES)), (
        "a label is no class"
    )
    x1, y1, x2, y2 = found.boxes.T
    inside = (x1 >= 0) & (y1 >= 0) & (x2 <= width + 1e-3) & (y2 <= height + 1e-3) & (x2 > x1) & (y2 > y1)
    assert inside.all(), f"the box {found.boxes[~inside][:1]} is not inside the {width}x{height} original"


def check_batch_equals_single(model: MultiTaskModel, task: str) -> None:
    model.eval()
    both, first = model.predict(scene())[0], model.predict(scene(1))[0]
    if task == "segmentation":
        same = (both.segmentation.labels == first.segmentation.labels).mean()
        assert same > 0.999, f"an image alone gives another map than in a batch ({same:.1%} equal)"
    else:
        assert np.allclose(both.detections.boxes, first.detections.boxes, atol=1e-2), (
            "an image alone gives other boxes"
        )
        assert np.allclose(both.detections.scores, first.detections.scores, atol=1e-4), (
            "an image alone gives other scores"
        )
