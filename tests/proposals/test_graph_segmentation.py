"""Graph segmentation against scikit-image's, and its invariants."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.segmentation import felzenszwalb
from sklearn.metrics import adjusted_rand_score

from tests.paths import shared
from vistasks.proposals import graph_segmentation
from vistasks.proposals.graph_segmentation import coarser, segment, smoothed_planes


@pytest.mark.parametrize("folder", ["bccd", "voc2012_100"])
def test_same_partition_as_scikit_image(folder: str) -> None:
    """Adjusted Rand index over .99: only ties differ (1 is the same partition, 0 is chance)."""
    file = sorted((shared(folder) / "JPEGImages").iterdir())[0]
    image = cv2.imread(str(file))[:240, :320]
    ours = graph_segmentation(image, 300, 0.8, 50)
    theirs = felzenszwalb(image, scale=300, sigma=0.8, min_size=50)
    assert adjusted_rand_score(theirs.ravel(), ours.ravel()) > 0.99
    assert len(np.unique(ours)) == len(np.unique(theirs))


def test_two_halves_are_two_regions() -> None:
    image = np.zeros((20, 30), dtype=np.uint8)
    image[:, 15:] = 200
    labels = graph_segmentation(image, 50, 0, 1)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, (image > 0).astype(np.int32))


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 24), st.integers(1, 24), st.integers(0, 400), st.integers(0, 30), st.integers(0, 2**32 - 1)
)
def test_labels_cover_the_picture_in_raster_order_and_regions_are_connected(
    height, width, k, min_size, seed
) -> None:
    image = np.random.default_rng(seed).integers(0, 4, (height, width, 3)).astype(np.uint8) * 60
    labels = graph_segmentation(image, k, 0, min_size)
    values, first = np.unique(labels, return_index=True)
    np.testing.assert_array_equal(values, np.arange(len(values)))
    assert (np.diff(first) > 0).all()
    for value in values:
        region = (labels == value).astype(np.uint8)
        assert cv2.connectedComponents(region, connectivity=8)[0] == 2
        assert region.sum() >= min(min_size, height * width)


def test_coarser_regions_are_unions_with_the_sizes_of_the_finer() -> None:
    image = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8), (0, 0), 3
    )
    planes = smoothed_planes(np.ascontiguousarray(image.transpose(2, 0, 1)), 0.8)
    labels, size, internal, first, second, weight = segment(planes, 20, 5, 4.0)
    np.testing.assert_array_equal(size, np.bincount(labels))
    assert (np.diff(weight) >= 0).all() and (first < second).all()
    touching = {tuple(sorted(pair)) for pair in _touching_pixels(labels.reshape(60, 80))}
    assert touching == set(zip(first.tolist(), second.tolist(), strict=True))
    merged, count = coarser(size, internal, first, second, weight, 400 * 4.0, 5)
    assert 1 < count < len(size)
    np.testing.assert_array_equal(np.unique(merged), np.arange(count))


def _touching_pixels(labels: np.ndarray) -> set[tuple[int, int]]:
    pairs = set()
    for a, b in (
        (labels[:, 1:], labels[:, :-1]),
        (labels[1:], labels[:-1]),
        (labels[1:, 1:], labels[:-1, :-1]),
        (labels[1:, :-1], labels[:-1, 1:]),
    ):
        pairs |= {(int(x), int(y)) for x, y in zip(a.ravel(), b.ravel(), strict=True) if x != y}
    return pairs


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.float32), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8), [[1]]],
    ids=["float", "empty", "one axis", "list"],
)
def test_refuses_what_is_no_picture(image) -> None:
    with pytest.raises(
        ValueError, match=r"graph_segmentation: expected an \(H, W\) or \(H, W, C\) uint8 array"
    ):
        graph_segmentation(image, 100, 0.8, 20)


@pytest.mark.parametrize("options", [(-1, 0.8, 1), (1, -0.8, 1), (1, 0.8, -1)])
def test_refuses_negative_options(options) -> None:
    with pytest.raises(ValueError, match="k, sigma and min_size must be >= 0"):
        graph_segmentation(np.zeros((4, 4), np.uint8), *options)
