"""Weighted boxes fusion: an example by hand, the paper's loop as the referee, and what must not change the
result.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistasks.ops.box_fusion import BoxFusion, fuse_boxes, fuse_detections
from vistasks.types import Detections

RULES = [
    BoxFusion(score=score, agreement=agreement)
    for score in ("mean", "max")
    for agreement in ("sources", "boxes", "none")
]


def detections(*found: tuple[list[float], float, int]) -> Detections:
    """From (box, score, label)."""
    boxes = np.array([box for box, _, _ in found], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in found], np.float32)
    return Detections(boxes, scores, np.array([label for _, _, label in found], np.int64), ("a", "b"))


def literally(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    sources: np.ndarray,
    count: int,
    fusion: BoxFusion,
) -> list[tuple]:
    """Section 3 of the paper, line by line, one class after the other."""
    results = []
    for label in np.unique(labels):
        clusters: list[list[int]] = []
        fused: list[np.ndarray] = []
        for i in sorted(np.flatnonzero(labels == label), key=lambda i: (-scores[i], *boxes[i])):
            ious = [iou(boxes[i], other) for other in fused]
            best = int(np.argmax(ious)) if ious else -1
            if best >= 0 and ious[best] > fusion.iou:
                clusters[best].append(i)
            else:
                best = len(clusters)
                clusters.append([i])
                fused.append(boxes[i])
            fused[best] = np.average(boxes[clusters[best]], axis=0, weights=scores[clusters[best]])
        for members, box in zip(clusters, fused):
            score = scores[members].mean() if fusion.score == "mean" else scores[members].max()
            share = {"sources": len(set(sources[members])), "boxes": min(len(members), count), "none": count}[
                fusion.agreement
            ]
            results.append((score * share / count, int(label), *box))
    return sorted(results)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    shared = sides.prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def random_boxes(seed: int, number: int = 60, count: int = 4) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(seed)
    places = generator.uniform(0, 80, (6, 2))[generator.integers(0, 6, number)]
    corner = places + generator.normal(0, 2, (number, 2))
    boxes = np.concatenate([corner, corner + 20 + generator.normal(0, 2, (number, 2))], axis=1)
    return (
        boxes,
        generator.uniform(0.05, 1, number),
        generator.integers(0, 3, number),
        generator.integers(0, count, number),
    )


def test_an_example_by_hand() -> None:
    """Two of three sources see one object: IoU 90/110 = .82. Its box: (.9 * 0 + .6 * 1) / 1.5 = .4, (.9 * 10
    + .6 * 11) / 1.5 = 10.4; its score: (.9 + .6) / 2 * 2/3 = .5. The same place in another class, and a box
    elsewhere, stay alone: .6/3 and .3/3."""
    first = detections(([0, 0, 10, 10], 0.9, 0), ([50, 50, 60, 60], 0.3, 0))
    second = detections(([1, 0, 11, 10], 0.6, 0), ([0, 0, 10, 10], 0.6, 1))
    found = fuse_detections([first, second, detections()], BoxFusion())
    np.testing.assert_allclose(found.scores, [0.5, 0.2, 0.1], rtol=1e-6)
    np.testing.assert_allclose(found.boxes, [[0.4, 0, 10.4, 10], [0, 0, 10, 10], [50, 50, 60, 60]], rtol=1e-6)
    assert found.labels.tolist() == [0, 1, 0] and found.class_names == ("a", "b")
    assert found.boxes.dtype == found.scores.dtype == np.float32 and found.labels.dtype == np.int64


def test_the_rules_of_the_score() -> None:
    """Three boxes of one object, two of them of one source, from three sources."""
    twice = detections(([0, 0, 10, 10], 0.9, 0), ([0, 0, 10, 10], 0.3, 0))
    answers = [twice, detections(([0, 0, 10, 10], 0.6, 0)), detections()]
    scores = {(r.score, r.agreement): float(fuse_detections(answers, r).scores[0]) for r in RULES}
    assert scores == pytest.approx(
        {
            ("mean", "sources"): 0.6 * 2 / 3,
            ("mean", "boxes"): 0.6,
            ("mean", "none"): 0.6,
            ("max", "sources"): 0.9 * 2 / 3,
            ("max", "boxes"): 0.9,
            ("max", "none"): 0.9,
        }
    )


def test_one_source_whose_boxes_are_apart_stays_as_it_is() -> None:
    one = detections(
        ([0.1, 0.2, 10.3, 10.4], 0.7, 0), ([30, 30, 44.4, 55.5], 0.61, 1), ([0, 0, 10, 5], 0.333, 0)
    )
    for rule in RULES:
        found = fuse_detections([one], rule)
        assert np.array_equal(found.boxes, one.boxes) and np.array_equal(found.scores, one.scores)
        assert np.array_equal(found.labels, one.labels)


def test_sources_that_agree_to_the_bit_change_nothing() -> None:
    one = detections(([0.1, 0.2, 10.3, 10.4], 0.7, 0), ([30, 30, 44.4, 55.5], 0.61, 1))
    found = fuse_detections([one, one, one, one], BoxFusion())
    np.testing.assert_allclose(found.boxes, one.boxes, rtol=1e-7)
    np.testing.assert_allclose(found.scores, one.scores, rtol=1e-7)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_the_papers_loop(rule: BoxFusion, seed: int) -> None:
    boxes, scores, labels, sources = random_boxes(seed)
    found = fuse_boxes(boxes, scores, labels, sources, votes=np.ones(4), fusion=rule)
    expected = literally(boxes, scores, labels, sources, 4, rule)
    assert 15 <= len(expected) < 50  # some are fused
    rows = sorted((float(s), int(label), *map(float, box)) for box, s, label in zip(*found))
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    assert (np.diff(found[1]) <= 0).all()


def test_votes_by_hand() -> None:
    """Votes 3 and 1. The box: (3 * .9 * 0 + .6 * 1) / (2.7 + .6) = .1818; its score: (3 * .9 + .6) / 4 =
    .825. What only one of them sees: .4 * 3/4 and .4 * 1/4."""
    first = detections(([0, 0, 10, 10], 0.9, 0), ([50, 50, 60, 60], 0.4, 0))
    second = detections(([1, 0, 11, 10], 0.6, 0), ([80, 80, 90, 90], 0.4, 0))
    found = fuse_detections([first, second], BoxFusion(), votes=[3, 1])
    np.testing.assert_allclose(found.scores, [0.825, 0.3, 0.1], rtol=1e-6)
    np.testing.assert_allclose(found.boxes[0], [0.6 / 3.3, 0, 10 + 0.6 / 3.3, 10], rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_two_votes_are_two_sources_that_agree(rule: BoxFusion) -> None:
    boxes, scores, labels, sources = random_boxes(3, count=3)
    found = fuse_boxes(boxes, scores, labels, sources, votes=np.array([2.0, 1, 1]), fusion=rule)
    copy = sources == 0
    twice = [np.concatenate([values, values[copy]]) for values in (boxes, scores, labels)]
    expected = fuse_boxes(
        *twice, np.concatenate([sources, np.full(copy.sum(), 3)]), votes=np.ones(4), fusion=rule
    )
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_neither_the_order_of_the_boxes_nor_the_numbers_of_the_sources_matter(seed: int, other: int) -> None:
    boxes, scores, labels, sources = random_boxes(seed, 30)
    scores = np.round(scores, 1)  # many are equal
    generator = np.random.default_rng(other)
    order, renamed = generator.permutation(30), generator.permutation(4)
    votes, back = np.array([2.0, 0.5, 1.0, 0.5]), np.argsort(renamed)
    found = fuse_boxes(boxes, scores, labels, sources, votes=votes, fusion=BoxFusion())
    again = fuse_boxes(
        boxes[order],
        scores[order],
        labels[order],
        renamed[sources[order]],
        votes=votes[back],
        fusion=BoxFusion(),
    )
    for a, b in zip(found, again):
        assert np.array_equal(a, b)
    hull = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)]).astype(np.float32)
    assert (
        (found[0][:, :2] >= hull[:2]).all()
        and (found[0][:, 2:] <= hull[2:]).all()
        and (found[1] <= scores.max() + 1e-6).all()
    )


def test_nothing_found_and_a_limit() -> None:
    none = fuse_detections([detections(), detections()], BoxFusion())
    assert none.boxes.shape == (0, 4) and none.scores.shape == none.labels.shape == (0,)
    three = detections(*(([i * 20, 0, i * 20 + 9, 9], 0.9 - 0.1 * i, 0) for i in range(3)))
    assert fuse_detections([three, detections()], BoxFusion(), limit=2).boxes[:, 0].tolist() == [0, 20]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iou": 0.0}, "the IoU must be between 0 and 1; received 0.0"),
        ({"iou": 1.0}, "the IoU must be between 0 and 1; received 1.0"),
        ({"score": "median"}, "score is one of mean, max; received 'median'"),
        ({"agreement": "all"}, "agreement is one of sources, boxes, none; received 'all'"),
    ],
)
def test_rules_that_there_are_not(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoxFusion(**options)
