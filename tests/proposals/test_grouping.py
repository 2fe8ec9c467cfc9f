"""Hierarchical grouping against a direct reading of the paper's algorithm 1."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vistasks.proposals.colour import COLOUR_SPACES
from vistasks.proposals.regions import COLOUR_BINS
from vistasks.proposals.selective_search import Regions, hierarchy, initial_regions


def _picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((48, 64, 3), 90, dtype=np.uint8)
    for _ in range(25):
        x, y, w, h = rng.integers((0, 0, 4, 4), (50, 36, 24, 24))
        image[y : y + h, x : x + w] = rng.integers(0, 255, 3)
    return image + rng.integers(0, 9, image.shape).astype(np.uint8)


def _by_the_paper(regions: Regions, similarities: str) -> list[tuple[int, ...]]:
    """Algorithm 1 with dicts and sets, in float64."""
    colours = regions.planes * COLOUR_BINS
    size = dict(enumerate(regions.size.astype(float)))
    box = dict(enumerate(regions.box.astype(float)))
    histogram = {i: regions.counts[i].astype(float) / (size[i] * regions.planes) for i in size}
    near: dict[int, set[int]] = {i: set() for i in size}

    def similarity(a: int, b: int) -> float:
        smaller = np.minimum(histogram[a], histogram[b])
        both = size[a] + size[b]
        x1, y1 = np.minimum(box[a][:2], box[b][:2])
        x2, y2 = np.maximum(box[a][2:], box[b][2:])
        terms = {
            "C": smaller[:colours].sum(),
            "T": smaller[colours:].sum(),
            "S": 1 - both / regions.area,
            "F": 1 - ((x2 - x1) * (y2 - y1) - both) / regions.area,
        }
        return sum(terms[letter] for letter in similarities)

    waiting = {}
    for a, b in zip(regions.first.tolist(), regions.second.tolist(), strict=True):
        near[a].add(b)
        near[b].add(a)
        waiting[a, b] = similarity(a, b)
    boxes = [tuple(row) for row in regions.box.tolist()]
    for t in itertools.count(len(size)):
        if not waiting:
            return boxes
        a, b = max(waiting, key=lambda pair: waiting[pair])
        size[t] = size[a] + size[b]
        box[t] = np.concatenate([np.minimum(box[a][:2], box[b][:2]), np.maximum(box[a][2:], box[b][2:])])
        histogram[t] = (size[a] * histogram[a] + size[b] * histogram[b]) / size[t]
        near[t] = (near[a] | near[b]) - {a, b}
        waiting = {pair: value for pair, value in waiting.items() if a not in pair and b not in pair}
        for r in near[t]:
            near[r] = near[r] - {a, b} | {t}
            waiting[r, t] = similarity(r, t)
        boxes.append(tuple(int(v) for v in box[t]))
    return boxes


@pytest.mark.parametrize(("similarities", "common"), [("CTSF", 1.0), ("TSF", 0.9), ("C", 0.9), ("F", 0.9)])
@pytest.mark.parametrize("seed", [0, 1])
def test_same_hierarchy_as_the_paper(similarities: str, common: float, seed: int) -> None:
    """Box for box with all four similarities; with fewer of them small regions tie, and ties may go either
    way.
    """
    regions = initial_regions(_picture(seed), "Lab", (20,), 12)[0]
    assert len(regions.size) > 20
    ours = [tuple(row) for row in hierarchy(regions, similarities)[0].tolist()]
    expected = _by_the_paper(regions, similarities)
    assert len(ours) == len(expected)
    assert len(set(ours) & set(expected)) >= common * len(set(expected))


@pytest.mark.parametrize("space", COLOUR_SPACES)
def test_every_hierarchy_ends_with_the_whole_picture(space: str) -> None:
    image = _picture(3)
    for regions in initial_regions(image, space, (20, 100), 5):
        boxes, joins = hierarchy(regions, "CTSF")
        assert boxes.shape == (2 * len(regions.size) - 1, 4)
        assert boxes[-1].tolist() == [0, 0, 64, 48]
        # each join's box holds the boxes of the two that it joined, and each region is joined once
        assert sorted(joins.ravel().tolist()) == list(range(len(boxes) - 1))
        pairs = boxes[joins]
        unions = np.concatenate([pairs[..., :2].min(axis=1), pairs[..., 2:].max(axis=1)], axis=1)
        np.testing.assert_array_equal(boxes[len(regions.size) :], unions)
        assert regions.size.sum() == 48 * 64
        # each pixel is counted once in each plane's colour and texture histogram
        np.testing.assert_array_equal(regions.counts.sum(axis=1), 2 * regions.planes * regions.size)


def test_region_boxes_are_tight() -> None:
    image = np.zeros((12, 16, 3), dtype=np.uint8)
    image[3:7, 4:9] = 255
    regions = initial_regions(image, "I", (1,), 1)[0]
    assert [4, 3, 9, 7] in hierarchy(regions, "S")[0].tolist() or len(
        regions.size
    ) > 2  # the smoothing may leave a rim
    assert regions.box[:, 2:].max(axis=0).tolist() == [16, 12]
