"""The curves of a run: drawn from whatever metrics.jsonl has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from vistasks.drawing.curves import save_curves

STEPS = [
    {"step": s, "epoch": 0, "lr": 1e-3 / s, "detection/box": 1.0 / s, "segmentation/ce": 2.0 / s}
    for s in range(1, 9)
]
EVALUATIONS = [
    {"step": 4, "epoch": 1, "evaluation": {"AP": 0.2, "mIoU": None}},
    {"step": 8, "epoch": 2, "evaluation": {"AP": 0.4, "mIoU": 0.5}},
]


def drawn(folder: Path, lines: list[dict[str, Any]], tail: str = "") -> np.ndarray:
    metrics = folder / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    save_curves(metrics, folder / "curves.png")
    return np.array(Image.open(folder / "curves.png").convert("RGB"))


def test_the_picture_shows_the_curves(tmp_path: Path) -> None:
    picture = drawn(tmp_path, [*STEPS[:4], EVALUATIONS[0], *STEPS[4:], EVALUATIONS[1]])
    other = drawn(tmp_path, [*STEPS[:4], EVALUATIONS[1]])
    third = picture.shape[1] // 3
    for part in range(3):  # losses, rate, results: each panel depends on its numbers
        columns = slice(part * third, (part + 1) * third)
        assert picture[:, columns].std() > 0 and not np.array_equal(picture[:, columns], other[:, columns])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "lines", [[], STEPS, EVALUATIONS, STEPS[:1]], ids=["none", "steps", "evaluations", "one step"]
)
def test_a_run_without_some_of_it_is_drawn_too(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    assert drawn(tmp_path, lines, tail="\n").shape[2] == 3


def test_terms_that_come_later_and_zero_losses(tmp_path: Path) -> None:
    late = [
        {"step": 9, "epoch": 1, "lr": 1e-3, "detection/box": 0.0},
        {"step": 10, "epoch": 1, "lr": 1e-3, "x/new": 1.0},
    ]
    assert drawn(tmp_path, [*STEPS, *late]).shape[2] == 3
    assert drawn(tmp_path, [{"step": 1, "epoch": 0, "lr": 0.0, "detection/box": 0.0}]).shape[2] == 3


def test_no_window_and_no_global_state(tmp_path: Path) -> None:
    import sys

    before = dict(matplotlib.rcParams)
    drawn(tmp_path, STEPS)
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
