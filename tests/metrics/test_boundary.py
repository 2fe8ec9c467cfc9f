"""Boundary IoU, boundary F and trimap accuracy against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from vistasks.metrics.boundary import TRIMAP, BoundaryQuality, boundary_counts
from vistasks.types import Labelled, Prediction, Sample, SegmentationMap

NAMES = ("sky", "car", "road")


def _maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A truth of blobs with some ignored pixels, and a prediction that is shifted and has noise."""
    generator = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(generator.normal(size=(3, 60, 80)), (0, 6, 6))
    truth = field.argmax(axis=0).astype(np.uint8)
    found = np.roll(truth, 2, axis=1)
    found[generator.random(found.shape) < 0.01] = 1
    truth[5:9, 10:30] = 255
    return truth, found


def _inner_band(mask: np.ndarray, depth: int) -> np.ndarray:
    """Pixels of the mask whose square neighbourhood of this radius leaves it, by scipy."""
    padded = np.pad(mask, depth)
    inner = ndimage.binary_erosion(padded, np.ones((2 * depth + 1, 2 * depth + 1)))
    return mask & ~inner[depth:-depth, depth:-depth]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_boundary_iou_is_that_of_the_inner_bands(seed: int) -> None:
    truth, found = _maps(seed)
    counts = boundary_counts(truth, found, 3)
    valid, depth = truth != 255, 2  # 2 % of a diagonal of 100
    for k in range(3):
        a, b = (_inner_band((values == k) & valid, depth) for values in (truth, found))
        assert (counts.intersection[k], counts.union[k]) == ((a & b).sum(), (a | b).sum())


@pytest.mark.parametrize("seed", [0, 1])
def test_boundary_f_and_trimap_by_distances(seed: int) -> None:
    truth, found = _maps(seed)
    counts = boundary_counts(truth, found, 3)
    valid = truth != 255
    for k in range(3):
        a, b = (_inner_band((values == k) & valid, 1) for values in (truth, found))
        precision = (ndimage.distance_transform_edt(~a)[b] <= 1.0).mean()
        recall = (ndimage.distance_transform_edt(~b)[a] <= 1.0).mean()
        assert counts.f[k] == pytest.approx(2 * precision * recall / (precision + recall), abs=0.01)
    assert (np.diff(counts.trimap[1]) >= 0).all() and (counts.trimap[0] <= counts.trimap[1]).all()


def _sample(truth: np.ndarray, image_id: str = "a") -> Sample:
    image = np.zeros((*truth.shape, 3), np.uint8)
    return Sample(
        image_id,
        f"{image_id}.png",
        image,
        segmentation=truth,
        labelled=Labelled(segmentation=frozenset({0, 1, 2})),
    )


def _prediction(found: np.ndarray) -> Prediction:
    return Prediction(None, SegmentationMap(found, NAMES))


def test_perfect_maps_get_one_and_absent_classes_none() -> None:
    truth = np.zeros((40, 50), np.uint8)
    truth[10:30, 10:30] = 1
    metric = BoundaryQuality(NAMES)
    metric.update(_prediction(truth.copy()), _sample(truth))
    result = metric.compute()
    assert result["boundary_mIoU"] == 1 and result["boundary_F"] == 1
    assert result["per_class"]["road"] == {"boundary_IoU": None, "boundary_F": None}
    assert result["trimap"] == {str(width): 1.0 for width in TRIMAP}


def test_an_outline_that_is_off_costs_more_at_the_boundary_than_in_the_area() -> None:
    truth = np.zeros((120, 160), np.uint8)
    truth[20:100, 20:100] = 1
    found = np.roll(truth, 3, axis=1)
    metric = BoundaryQuality(NAMES)
    metric.update(_prediction(found), _sample(truth))
    result = metric.compute()
    assert result["per_class"]["car"]["boundary_IoU"] < 0.75 < (77 * 80) / (83 * 80)
    assert result["trimap"]["1"] < result["trimap"]["8"]


def test_another_size_names_the_file() -> None:
    with pytest.raises(ValueError, match=r"a\.png: the predicted map is \(5, 5\)"):
        BoundaryQuality(NAMES).update(
            _prediction(np.zeros((5, 5), np.uint8)), _sample(np.zeros((6, 6), np.uint8))
        )
