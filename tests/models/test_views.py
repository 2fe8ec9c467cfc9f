"""Boxes and class maps from several views of a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.heads.contract import SIZES, scene
from tests.models.test_multitask import model
from vistasks.heads.test_time import TestTime, View, parse_views
from vistasks.models import MultiTaskModel
from vistasks.models.views import viewed_images
from vistasks.ops.box_fusion import fuse_detections
from vistasks.types import Batch, Detections


def joint() -> MultiTaskModel:
    return model("detection", "segmentation").eval()


def test_a_view_moves_boxes_and_back() -> None:
    boxes = torch.tensor([[10.0, 20, 30, 60], [0, 0, 100, 80]])
    moved = View(0.5, True).apply_boxes(boxes, (80, 100), (40, 50))
    assert moved.tolist() == [[35, 10, 45, 30], [0, 0, 50, 40]]
    back = View(flip=True).undo_boxes(moved.numpy() * 2, 100)
    assert np.array_equal(back, boxes.numpy())
    assert np.array_equal(View().undo_boxes(boxes.numpy(), 100), boxes.numpy())
    assert torch.equal(View().apply_boxes(boxes, (80, 100), (80, 100)), boxes)


def test_what_a_view_sees_in_its_proposals_is_what_it_saw_in_the_picture() -> None:
    """The crop of a mirrored picture at a mirrored box is the mirrored crop."""
    batch = scene(1)
    x1, y1, x2, y2 = (int(v) for v in batch.proposals[0][0])
    image = batch.images.float()
    view = View(flip=True)
    a, b, c, d = (int(v) for v in view.apply_boxes(batch.proposals[0], SIZES[0], SIZES[0])[0])
    assert torch.equal(view.apply(image)[..., b:d, a:c], image[..., y1:y2, x1:x2].flip(-1))


@pytest.mark.parametrize("views", ["flip", "2,flip"])
def test_boxes_are_those_of_every_view_fused(views: str) -> None:
    """Each view by hand: a batch of the scaled and mirrored picture, predicted plainly, its boxes put
    back.
    """
    net, batch, test_time = joint(), scene(1), parse_views(views)
    answers = []
    for view in test_time.views:
        images = view.apply(batch.images.float()).round().to(torch.uint8)
        size = (images.shape[2], images.shape[3])
        moved = view.apply_boxes(batch.proposals[0], SIZES[0], size)
        found = net.predict(replace(batch, images=images, sizes=(size,), proposals=(moved,)))[0].detections
        boxes = found.boxes.copy()
        if view.flip:
            boxes[:, [0, 2]] = 96 - boxes[:, [2, 0]]
        answers.append(Detections(boxes, found.scores, found.labels, found.class_names))
    net.look(test_time)
    (found,) = net.predict(batch)
    expected = fuse_detections(answers, test_time.fusion, limit=100)
    assert len(expected) and len(found.detections) == len(expected)
    rounded = 0.0 if views == "flip" else 0.02  # by hand a scaled picture has whole numbers again
    np.testing.assert_allclose(found.detections.scores, expected.scores, atol=1e-5 + rounded)
    if not rounded:
        np.testing.assert_allclose(found.detections.boxes, expected.boxes, atol=1e-3)
        assert np.array_equal(found.detections.labels, expected.labels)


def test_a_mirrored_picture_gets_mirrored_boxes() -> None:
    net, batch = joint(), scene(1)
    mirrored = replace(
        batch,
        images=batch.images.flip(-1),
        proposals=(View(flip=True).apply_boxes(batch.proposals[0], SIZES[0], SIZES[0]),),
    )
    net.look(parse_views("flip"))
    here, there = net.predict(batch)[0], net.predict(mirrored)[0]
    boxes = View(flip=True).undo_boxes(there.detections.boxes, 96)
    a, b = np.lexsort(here.detections.boxes.round(1).T), np.lexsort(boxes.round(1).T)
    np.testing.assert_allclose(here.detections.boxes[a], boxes[b], atol=1e-2)
    np.testing.assert_allclose(here.detections.scores[a], there.detections.scores[b], atol=1e-4)
    assert (here.segmentation.labels == there.segmentation.labels[:, ::-1]).mean() > 0.999


def test_one_view_is_the_plain_prediction() -> None:
    net, batch = joint(), scene()
    plain = net.predict(batch)
    net.look(TestTime())
    for before, now in zip(plain, net.predict(batch)):
        assert np.array_equal(before.detections.boxes, now.detections.boxes)
        assert np.array_equal(before.segmentation.labels, now.segmentation.labels)


def test_the_trunk_sees_each_view_once_for_both_heads() -> None:
    net, batch = joint(), scene()
    sizes: list[tuple[int, ...]] = []
    net.backbone.register_forward_hook(lambda module, args, out: sizes.append(tuple(args[0].shape)))
    net.look(parse_views("flip,0.5"))
    net.predict(batch)
    assert sizes == [(1, 3, 64, 96)] * 2 + [(1, 3, 32, 64)] * 2 + [(1, 3, 64, 96)] * 2 + [(1, 3, 32, 64)] * 2
    assert [seen.view for seen in viewed_images(net, batch, 0, parse_views("flip"))] == [
        View(),
        View(flip=True),
    ]


def test_pictures_without_proposals_and_views_without_boxes() -> None:
    net, batch = joint(), scene()
    net.look(parse_views("flip,0.75"))
    empty = replace(batch, proposals=(torch.zeros(0, 4), batch.proposals[1]))
    first, second = net.predict(empty)
    assert len(first.detections) == 0 and first.detections.boxes.shape == (0, 4) and len(second.detections)


def test_some_images_and_further_regions() -> None:
    net, batch = joint(), scene()
    net.look(parse_views("flip"))
    whole = net.predict(batch)
    some = net.predict(batch, rows={"segmentation": [1], "detection": [0]})
    assert some[0].segmentation is None and some[1].detections is None
    assert np.array_equal(some[0].detections.boxes, whole[0].detections.boxes)
    seen = []

    def regions(found: list) -> list[np.ndarray]:
        seen.extend(one.segmentation for one in found)
        return [np.array([[2, 2, 50, 50]], np.float32), np.zeros((0, 4), np.float32)]

    more = net.predict(_without_proposals(batch), rows={"segmentation": [0]}, regions=regions)
    assert np.array_equal(seen[0].labels, whole[0].segmentation.labels) and seen[1] is None
    assert len(more[0].detections) and not len(more[1].detections) and more[1].segmentation is None


def _without_proposals(batch: Batch) -> Batch:
    return replace(batch, proposals=(torch.zeros(0, 4),) * len(batch))


def test_opinions_are_what_a_prediction_is_made_of() -> None:
    net, batch = joint(), scene()
    for views in ("", "flip"):
        net.look(parse_views(views))
        for opinion, prediction in zip(net.opinions(batch), net.predict(batch)):
            assert np.array_equal(opinion["detection"].boxes, prediction.detections.boxes)
            assert opinion["segmentation"].sum(1).allclose(torch.ones(()), atol=1e-5)
        first = net.predict(batch)[0].segmentation.labels
        assert (net.opinions(batch)[0]["segmentation"].argmax(1)[0].numpy() == first).mean() > 0.999
