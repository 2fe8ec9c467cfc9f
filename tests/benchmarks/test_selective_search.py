"""The benchmark of selective search, with peers that are played by small modules."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from vistasks.benchmarks.selective_search import benchmark

FAKE_CV2 = """
import time
import numpy as np
class Search:
    def setBaseImage(self, image): self.shape = image.shape
    def switchToSelectiveSearchFast(self): pass
    def process(self):
        time.sleep(0.05)
        return np.array([[0, 0, self.shape[1], self.shape[0]], [10, 10, 20, 20]])
class ximgproc:
    class segmentation:
        createSelectiveSearchSegmentation = Search
def setNumThreads(count): pass
"""
FAKE_DLIB = """
class Rectangle:
    def left(self): return 10
    def top(self): return 10
    def right(self): return 29
    def bottom(self): return 29
def find_candidate_object_locations(image, found): found.append(Rectangle())
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A bare VOC folder: three pictures with a bright square."""
    root = tmp_path / "data"
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for name in "abc":
        image = np.zeros((60, 80, 3), np.uint8)
        image[10:30, 10:30] = 200
        cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), image)
        box = "<xmin>11</xmin><ymin>11</ymin><xmax>30</xmax><ymax>30</ymax>"
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>80</width><height>60</height><depth>3</depth></size>"
            f"<object><name>square</name><bndbox>{box}</bndbox></object></annotation>"
        )
    return root


def test_ours_alone(data: Path) -> None:
    result = benchmark(data, pictures=2, modes=("single", "fast"), threads=(1, 2))
    assert (result["pictures"], result["objects"], result["ratios"]) == (2, 2, {})
    assert [(row["method"], row["threads"]) for row in result["rows"]] == [
        ("vistasks single", 1),
        ("vistasks single", 2),
        ("vistasks fast", 1),
        ("vistasks fast", 2),
    ]
    for row in result["rows"]:
        assert row["seconds"] > 0 and row["boxes"] > 1
        assert row["budgets"]["300"]["recall"]["0.7"] == 1


def test_peers_are_asked_and_compared(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cv2.py").write_text(FAKE_CV2)
    (tmp_path / "dlib.py").write_text(FAKE_DLIB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = benchmark(data, peer_python=sys.executable, pictures=3)
    ours, opencv, dlib = result["rows"]
    assert opencv["boxes"] == 2 and opencv["seconds"] >= 0.05 and opencv["abo"] == {"square": 1.0}
    assert dlib["boxes"] == 1 and dlib["budgets"]["all"]["recall"] == {"0.5": 1, "0.7": 1, "0.9": 1}
    assert set(result["ratios"]) == {"opencv fast, 1 thread", "dlib, 1 thread"}
    assert result["ratios"]["opencv fast, 1 thread"]["seconds"] == opencv["seconds"] / ours["seconds"]


def test_peer_without_the_libraries_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text("def setNumThreads(count): pass")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"opencv fast: AttributeError.*pip install opencv-contrib-python dlib-bin"
    ):
        benchmark(data, peer_python=sys.executable)


def test_peer_that_cannot_run_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: cannot be run"):
        benchmark(data, peer_python=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("options", [{"modes": ("slow",)}, {"modes": ()}, {"pictures": 0}, {"threads": (0,)}])
def test_bad_options_are_named(data: Path, options) -> None:
    with pytest.raises(
        ValueError, match="expected modes of single, fast, quality, images and threads of at least 1"
    ):
        benchmark(data, **options)


def test_folder_without_a_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a data set with Annotations"):
        benchmark(tmp_path)
