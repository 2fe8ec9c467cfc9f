"""Scaling and padding, and what undoes them."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vistasks.loading.batching import collate, input_size, scale_sample, to_device
from vistasks.types import IGNORE_INDEX, ClassNames, Labelled, Sample

CLASSES = ClassNames(("a", "b"), ("x", "y", "z"))
sides = st.integers(1, 60)


def sample(height: int, width: int, *, boxes: int = 3, seed: int = 0, **values: object) -> Sample:
    generator = np.random.default_rng(seed)
    corners = np.sort(generator.random((2, boxes, 2)), axis=0) * [width, height]
    found = np.concatenate(corners, axis=1).astype(np.float32)
    found = found[(found[:, 2:] > found[:, :2]).all(axis=1)]
    content = {
        "boxes": found,
        "labels": generator.integers(0, 2, len(found)),
        "proposals": found[::-1],
        "segmentation": generator.integers(0, 3, (height, width), dtype=np.uint8),
        "labelled": Labelled(frozenset({0, 1}), frozenset({0, 2})),
    }
    image = generator.integers(1, 255, (height, width, 3), dtype=np.uint8)
    return Sample(**{"image_id": f"{seed}", "path": f"{seed}.png", "image": image, **content, **values})


@given(sides, sides, st.none() | st.integers(1, 80), st.none() | st.integers(1, 80))
def test_input_size(height: int, width: int, min_side: int | None, max_side: int | None) -> None:
    found = input_size((height, width), min_side=min_side, max_side=max_side)
    assert min(found) >= 1
    if min_side is None and max_side is None:
        assert found == (height, width)
    if max_side is not None:
        assert max(found) <= max_side
    if min_side is not None and max_side is None:
        assert min(found) == min_side
    if min_side is None:
        assert found[0] <= height and found[1] <= width  # max_side alone never enlarges
    factor = found[0] / height
    assert (
        abs(found[1] - width * factor) <= 1 + width / height or min(found) == 1
    )  # the aspect ratio, to rounding


@settings(deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 9))
def test_scaling_multiplies_boxes_and_is_undone_by_the_sizes(
    h: int, w: int, new_h: int, new_w: int, seed: int
) -> None:
    before = sample(h, w, seed=seed)
    after = scale_sample(before, (new_h, new_w))  # a Sample again: all its conventions hold
    assert after.size == (new_h, new_w) and after.segmentation is not None
    assert len(after.boxes) == len(before.boxes) == len(after.labels)
    factors = np.array([new_w / w, new_h / h] * 2)
    assert np.allclose(after.boxes, before.boxes * factors, rtol=1e-5, atol=1e-4)
    assert np.allclose(after.boxes / factors, before.boxes, rtol=1e-4, atol=1e-3)
    assert after.proposals is not None and np.allclose(after.proposals, after.boxes[::-1])
    assert np.allclose(after.areas, before.areas * (new_w / w) * (new_h / h), rtol=1e-4)
    assert set(np.unique(after.segmentation)) <= set(
        np.unique(before.segmentation)
    )  # no class made up between two


def test_scaling_keeps_the_mask_on_the_image() -> None:
    """A picture whose red channel is its mask: after scaling by whole factors both still say the same, where
    neither mixes.
    """
    mask = np.kron(np.array([[0, 1], [2, 1]], dtype=np.uint8), np.ones((8, 8), dtype=np.uint8))
    image = np.repeat((mask * 100)[..., None], 3, axis=2)
    before = Sample(image_id="a", path="a.png", image=image, segmentation=mask)
    smaller = scale_sample(before, (8, 8))
    assert smaller.segmentation is not None and np.array_equal(
        smaller.image[..., 0], smaller.segmentation * 100
    )
    larger = scale_sample(before, (32, 32))
    assert larger.segmentation is not None and np.array_equal(
        larger.segmentation, np.kron(mask, np.ones((2, 2), np.uint8))
    )


def test_the_same_size_is_the_same_sample() -> None:
    before = sample(9, 7)
    assert scale_sample(before, (9, 7)) is before


def test_slivers_that_rounding_empties_go_with_their_labels() -> None:
    boxes = np.array([[0, 0, 5, 5], [9.999999, 0, 10, 5]], dtype=np.float32)
    image = np.zeros((10, 10, 3), np.uint8)
    before = Sample(
        image_id="a", path="a.png", image=image, boxes=boxes, labels=np.array([1, 0]), proposals=boxes
    )
    after = scale_sample(before, (1, 1))
    assert len(after.boxes) == len(after.labels) == len(after.areas) and after.labels[0] == 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=4), st.sampled_from([1, 8, 32]))
def test_padding(shapes: list[tuple[int, int]], divisor: int) -> None:
    samples = [sample(h, w, seed=index) for index, (h, w) in enumerate(shapes)]
    batch = collate(samples, shapes, classes=CLASSES, divisor=divisor)
    height, width = batch.images.shape[-2:]
    assert height % divisor == 0 and width % divisor == 0
    assert (
        0 <= height - max(h for h, _ in shapes) < divisor and 0 <= width - max(w for _, w in shapes) < divisor
    )
    assert len(batch) == len(shapes) and batch.sizes == tuple(shapes) and batch.segmentation is not None
    for index, (one, (h, w)) in enumerate(zip(samples, shapes)):
        assert np.array_equal(batch.images[index, :, :h, :w].permute(1, 2, 0).numpy(), one.image)
        assert one.segmentation is not None and np.array_equal(
            batch.segmentation[index, :h, :w].numpy(), one.segmentation
        )
        outside = torch.ones(height, width, dtype=torch.bool)
        outside[:h, :w] = False
        assert (batch.images[index][:, outside] == 0).all() and (
            batch.segmentation[index][outside] == IGNORE_INDEX
        ).all()
        assert np.array_equal(batch.boxes[index].numpy(), one.boxes)


def test_crowd_and_difficult_objects_are_ignored_not_learnt() -> None:
    boxes = np.array([[0, 0, 4, 4], [1, 1, 5, 5], [2, 2, 6, 6]], dtype=np.float32)
    difficult, crowd = np.array([True, False, False]), np.array([False, False, True])
    one = replace(
        sample(8, 8, boxes=0),
        boxes=boxes,
        labels=np.array([0, 1, 0]),
        difficult=difficult,
        crowd=crowd,
        areas=None,
    )
    batch = collate([one], [(8, 8)], classes=CLASSES, divisor=8)
    assert batch.boxes[0].tolist() == boxes[1:2].tolist() and batch.labels[0].tolist() == [1]
    assert batch.ignored[0].tolist() == boxes[[0, 2]].tolist()


def test_what_is_not_labelled_stays_empty() -> None:
    plain = Sample(image_id="a", path="a.png", image=np.zeros((8, 8, 3), np.uint8))
    batch = collate([plain, sample(8, 8)], [(8, 8)] * 2, classes=CLASSES, divisor=8)
    assert batch.segmentation is not None and (batch.segmentation[0] == IGNORE_INDEX).all()
    assert batch.detection_labelled.tolist() == [[False, False], [True, True]]
    assert batch.segmentation_labelled.tolist() == [[False] * 3, [True, False, True]]
    assert batch.proposals[0].shape == (0, 4) and batch.boxes[0].shape == (0, 4)
    assert collate([plain], [(8, 8)], classes=ClassNames(("a",), ()), divisor=8).segmentation is None


@pytest.mark.parametrize("value", [3, 200])
def test_class_ids_that_do_not_exist_name_the_picture(value: int) -> None:
    one = sample(8, 8, boxes=1)
    assert one.segmentation is not None
    mask = one.segmentation.copy()
    mask[2, :2] = value
    with pytest.raises(
        ValueError, match=rf"0\.png: the mask has the class id {value} \(2 pixels\), .* fill_mask"
    ):
        collate([replace(one, segmentation=mask)], [(8, 8)], classes=CLASSES, divisor=8)
    with pytest.raises(
        ValueError, match=rf"0\.png: an object has the class id {value}, but there are 2 classes"
    ):
        collate([replace(one, labels=one.labels * 0 + value)], [(8, 8)], classes=CLASSES, divisor=8)


def test_arrays_that_cannot_be_written_are_taken() -> None:
    """As a cache or a mapped file gives them; PyTorch warns of such, and warnings are errors here."""
    one = sample(8, 8)
    for field in fields(one):
        if isinstance(value := getattr(one, field.name), np.ndarray):
            value.setflags(write=False)
    batch = collate([one], [(8, 8)], classes=CLASSES, divisor=8)
    batch.proposals[0].add_(1)
    assert one.proposals is not None and not np.array_equal(batch.proposals[0].numpy(), one.proposals)


def test_to_device_moves_every_tensor() -> None:
    batch = to_device(collate([sample(8, 8)], [(8, 8)], classes=CLASSES, divisor=8), torch.device("meta"))
    for field in fields(batch):
        value = getattr(batch, field.name)
        for one in value if isinstance(value, tuple) else [value]:
            assert not isinstance(one, torch.Tensor) or one.device.type == "meta", field.name
