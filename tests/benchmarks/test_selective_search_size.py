"""The benchmark of time against pixels, on small pictures."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.benchmarks.test_selective_search import data  # noqa: F401 - a fixture
from vistasks.benchmarks.selective_search_size import benchmark, mosaic
from vistasks.cli import main


def test_mosaic_has_the_size_and_the_content() -> None:
    pictures = [np.full((30, 40, 3), value, np.uint8) for value in (10, 20, 30)]
    image = mosaic(pictures, 0.03)
    assert image.shape == (150, 200, 3) and set(np.unique(image)) == {10, 20, 30}


def test_rows_and_exponent(data: Path, tmp_path: Path) -> None:  # noqa: F811
    plot, numbers = tmp_path / "size.png", tmp_path / "size.json"
    command = [
        "benchmark",
        "selective-search-size",
        "--data",
        str(data),
        "--megapixels",
        "0.02,0.04",
        "--threads",
        "1,2",
    ]
    assert main([*command, "--plot", str(plot), "--json", str(numbers)]) == 0
    result = json.loads(numbers.read_text())
    assert [(round(row["megapixels"], 2), row["threads"]) for row in result["rows"]] == [
        (0.02, 1),
        (0.02, 2),
        (0.04, 1),
        (0.04, 2),
    ]
    assert all(row["seconds"] > 0 and row["boxes"] > 0 and row["peak_mb"] > 10 for row in result["rows"])
    assert set(result["exponent"]) == {"1", "2"}
    assert cv2.imread(str(plot)) is not None


def test_bad_options_are_named(data: Path) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="expected a mode of single, fast, quality, sizes over 0"):
        benchmark(data, megapixels=(0,))
