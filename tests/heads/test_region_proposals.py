from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from tests.heads.contract import scene
from vistasks.heads.head import Trunk, TrunkMismatch
from vistasks.heads.region_proposals import UNIT, RegionProposals, Rpn, ScoredAnchors
from vistasks.ops.boxes import box_iou, encode
from vistasks.types import Features

TRUNK = Trunk("fpn", {8: 4, 16: 4, 32: 6}, {})


def network(**options: object) -> RegionProposals:
    torch.manual_seed(0)
    return RegionProposals(trunk=TRUNK, options=Rpn(**{"stride": [8, 16], "scales": (2.0, 4.0), **options}))  # type: ignore[arg-type]


def features() -> Features:
    generator = torch.Generator().manual_seed(0)
    return Features({s: torch.rand(2, 4, 64 // s, 96 // s, generator=generator) for s in (8, 16)})


def test_anchors_are_torchvisions_but_for_rounding_and_half_a_cell() -> None:
    peer = AnchorGenerator(sizes=((64, 128),), aspect_ratios=((0.5, 1.0, 2.0),))
    images = ImageList(torch.zeros(1, 3, 64, 96), [(64, 96)])
    expected = peer(images, [torch.zeros(1, 4, 4, 6)])[
        0
    ]  # ratio before size, from the corner of a cell, rounded
    found = network().anchors(16, 4, 6)
    wide = network(scales=(4.0, 8.0)).anchors(16, 4, 6)
    order = [0, 2, 4, 1, 3, 5]
    assert found.shape == (4 * 6 * 6, 4)
    same = wide.view(-1, 6, 4) - 8
    assert torch.allclose(same, expected.view(-1, 6, 4)[:, order], atol=0.51)


def test_the_best_anchor_of_each_object_is_foreground_and_the_bands_are_kept() -> None:
    rpn, batch = network(per_image=400), scene()
    anchors = torch.cat([rpn.anchors(8, 8, 12), rpn.anchors(16, 4, 6)])
    positive, negative, match = rpn._drawn(anchors, batch, 0)
    overlap = box_iou(anchors, batch.boxes[0])
    assert set(match.tolist()) == {0, 1}
    best = overlap.max(dim=1).values
    assert (best[negative] < 0.3).all() and not set(positive.tolist()) & set(negative.tolist())
    assert all(
        (overlap[p, m] >= 0.7) or overlap[p, m] == overlap[:, m].max() for p, m in zip(positive, match)
    )
    crowd = replace(batch, ignored=(torch.tensor([[0.0, 0, 96, 64]]),) * 2)
    assert len(rpn._drawn(anchors, crowd, 1)[1]) < len(rpn._drawn(anchors, batch, 1)[1])
    partly = replace(batch, detection_labelled=torch.tensor([[True, False, True]] * 2))
    assert len(rpn._drawn(anchors, partly, 0)[1]) == 0 < len(rpn._drawn(anchors, partly, 0)[0])


def test_exact_deltas_give_the_objects_and_cost_nothing() -> None:
    rpn, batch = network(per_image=10_000, nms=0.5, keep=30), scene()
    judged = rpn(features())
    anchors = judged.anchors
    every = torch.cat(anchors)
    overlap = box_iou(every, batch.boxes[0])
    wanted = encode(every, batch.boxes[0][overlap.argmax(dim=1)], UNIT)
    counts = [len(a) for a in anchors]
    exact = [torch.stack([part, torch.zeros_like(part)]) for part in wanted.split(counts)]
    foreground = torch.where(overlap.max(dim=1).values > 0.2, 9.0, -9.0)
    sure = [torch.stack([part, torch.full_like(part, -9.0)]) for part in foreground.split(counts)]
    found = rpn.propose(ScoredAnchors(sure, exact, anchors), batch)
    assert (box_iou(batch.boxes[0], found[0][:4]).max(dim=1).values > 0.99).all() and len(found[1]) <= 30
    assert (
        rpn.loss(ScoredAnchors(sure, exact, anchors), batch)["rpn_box"]
        < 1e-6
        < rpn.loss(judged, batch)["rpn_box"]
    )


def test_it_learns_where_the_objects_are() -> None:
    torch.manual_seed(0)
    rpn, batch = (
        RegionProposals(trunk=Trunk("wide", {8: 64}, {}), options=Rpn(stride=[8], scales=(4.0,))),
        scene(),
    )
    maps = Features({8: torch.randn(2, 64, 8, 12)})
    optimizer = torch.optim.Adam(rpn.parameters(), lr=0.01)
    for _ in range(80):
        loss = torch.stack(list(rpn.loss(rpn(maps), batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = rpn.propose(rpn(maps), batch)[0][:10]
    assert (box_iou(batch.boxes[0], best).max(dim=1).values > 0.5).all()


def test_maps_of_different_width() -> None:
    with pytest.raises(TrunkMismatch, match="those of 'fpn' have 4 at 16, 6 at 32; add a neck"):
        network(stride=[16, 32])
    with pytest.raises(TrunkMismatch, match="rpn needs maps at strides 4, but"):
        network(stride=[4])


def test_the_box_loss_of_an_anchor_by_hand() -> None:
    rpn, batch = network(per_image=10_000), scene()
    judged = rpn(features())
    every = torch.cat(judged.anchors)
    positive, negative, match = rpn._drawn(every, batch, 0)
    deltas = torch.zeros(2, len(every), 4)
    deltas[0, positive] = encode(every[positive], batch.boxes[0][match], UNIT)
    deltas[0, positive[0]] += torch.tensor([0.05, -0.05, 0.0, 1.0])
    exact = list(deltas.split([len(anchors) for anchors in judged.anchors], dim=1))
    drawn = len(positive) + len(negative) + sum(len(part) for part in rpn._drawn(every, batch, 1)[:2])
    expected = 2 * 0.5 * 0.05**2 * 9 + (1 - 0.5 / 9)  # smooth L1 with beta 1/9
    found = rpn.loss(ScoredAnchors(judged.logits, exact, judged.anchors), batch)["rpn_box"]
    assert float(found) == pytest.approx(expected / drawn, rel=1e-4)


def test_of_proposals_that_overlap_the_best_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 40], [0.0, 0, 40, 32], [50.0, 0, 90, 40]])  # IoU .8, none
    judged = ScoredAnchors([torch.tensor([[1.0, 2, 0]])], [torch.zeros(1, 3, 4)], [boxes])
    batch = scene(1)
    assert network(nms=0.7).propose(judged, batch)[0].tolist() == boxes[[1, 2]].tolist()
    assert network(nms=0.85).propose(judged, batch)[0].tolist() == boxes[[1, 0, 2]].tolist()


def test_an_anchor_with_just_the_overlap_is_foreground() -> None:
    rpn, batch = network(foreground_iou=0.5, per_image=10), scene(1)
    box = torch.tensor([[0.0, 0, 40, 40]])
    anchors = torch.cat([box, torch.tensor([[0.0, 0, 40, 20], [0.0, 0, 40, 19]])])
    batch = replace(batch, boxes=(box,), labels=(torch.tensor([1]),))
    assert sorted(rpn._drawn(anchors, batch, 0)[0].tolist()) == [0, 1]


def test_both_losses_have_their_weight() -> None:
    batch, found = scene(), []
    for weight in (1.0, 3.0):
        rpn = network(loss_weight=weight, per_image=10_000)
        found.append(rpn.loss(rpn(features()), batch))
    for term in ("rpn_objectness", "rpn_box"):
        assert 0 < found[1][term].item() == pytest.approx(3 * found[0][term].item(), rel=1e-5)


def test_an_anchor_of_which_half_is_ignored_is_no_background() -> None:
    rpn = network(per_image=10)
    batch = replace(scene(1), boxes=(torch.zeros(0, 4),), ignored=(torch.tensor([[0.0, 0, 10, 99]]),))
    anchors = torch.tensor([[0.0, 0, 20, 10], [0.0, 0, 21, 10]])  # shares of .5 and .48
    assert rpn._drawn(anchors, batch, 0)[1].tolist() == [1]
