"""The pictures of the stages: that they show what the algorithm did."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vistasks.cli import main
from vistasks.proposals.colour import COLOUR_SPACES
from vistasks.proposals.graph_segmentation import segment, smoothed_planes
from vistasks.proposals.selective_search import LEVELS, MODES, SIGMA, hierarchy, initial_regions, prepared
from vistasks.proposals.stages import LEFT, labels_after, painted, stages


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    generator = np.random.default_rng(0)
    small = generator.integers(0, 255, (20, 28, 3), dtype=np.uint8)
    return cv2.resize(small, (280, 200), interpolation=cv2.INTER_NEAREST)


def test_one_picture_a_stage(image: np.ndarray) -> None:
    found = stages(image, "fast")
    shape = prepared(image, "fast")[0].shape
    assert all(picture.shape == shape and picture.dtype == np.uint8 for _, picture in found)
    titles = " | ".join(title for title, _ in found)
    for k in MODES["fast"].k:
        assert f"k = {k:g}: " in titles
    assert len(found) == 1 + len(MODES["fast"].k) + len(LEFT) + 2


@pytest.mark.parametrize("left", [1, 2, 5, 10_000])
def test_labels_of_each_step_are_the_joins_of_the_hierarchy(image: np.ndarray, left: int) -> None:
    """The box of each label is one of the hierarchy's, and so many regions are left."""
    rgb, smallest = prepared(image, "fast")
    regions = initial_regions(rgb, "I", (50,), smallest)[0]
    boxes, joins = hierarchy(regions, "CTSF")
    count = len(regions.size)
    assert count > 10
    # the initial regions as labels: in the order of their first pixel, as `segment` numbers them
    flat = segment(smoothed_planes(COLOUR_SPACES["I"](rgb), SIGMA), 50, smallest, LEVELS)[0]
    labels = labels_after(flat.reshape(rgb.shape[:2]), joins, count, left)
    found = np.unique(labels)
    assert len(found) == min(left, count)
    for label in found:
        y, x = np.nonzero(labels == label)
        assert [x.min(), y.min(), x.max() + 1, y.max() + 1] == boxes[label].tolist()


def test_regions_are_painted_in_their_mean_colour() -> None:
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[:, 3:] = 10
    rgb[0, 5] = 130
    labels = np.zeros((4, 6), np.int32)
    labels[:, 3:] = 7
    picture = painted(rgb, labels)
    assert picture[0, 0].tolist() == [0, 0, 0] and picture[0, 4].tolist() == [20, 20, 20]
    assert picture[0, 3].tolist() == [255, 255, 255]  # the line between them


def test_the_command_writes_the_sheet(
    image: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), image)
    output = tmp_path / "out" / "stages.jpg"
    assert (
        main(
            [
                "proposals",
                "stages",
                "--image",
                str(tmp_path / "a.png"),
                "--output",
                str(output),
                "--mode",
                "single",
            ]
        )
        == 0
    )
    assert cv2.imread(str(output)) is not None and str(output) in capsys.readouterr().out
    assert (
        main(["proposals", "stages", "--image", str(tmp_path / "a.png"), "--output", str(tmp_path / "a.txt")])
        == 1
    )
    assert "must end in .png or .jpg" in capsys.readouterr().err
