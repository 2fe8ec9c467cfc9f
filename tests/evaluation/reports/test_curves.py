"""The page of a run's curves: whatever metrics.jsonl has, and small however long the run."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.drawing.test_curves import EVALUATIONS, STEPS
from vistasks.evaluation.reports.curves import POINTS, save_curves_page


def _page(folder: Path, lines: list[dict[str, Any]], samples: Path | None = None) -> str:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_curves_page(folder / "metrics.jsonl", folder / "curves.html", samples=samples)
    return (folder / "curves.html").read_text()


def _polylines(page: str) -> dict[str, list[tuple[float, float]]]:
    found = re.findall(r'<polyline points="([^"]*)"[^>]*><title>([^<]*)</title>', page)
    return {name: [tuple(map(float, point.split(","))) for point in points.split()] for points, name in found}  # type: ignore[misc]


def test_every_number_has_its_line(tmp_path: Path) -> None:
    page = _page(tmp_path, [*STEPS[:4], EVALUATIONS[0], *STEPS[4:], EVALUATIONS[1]])
    lines = _polylines(page)
    assert {"detection: box", "segmentation: ce", "learning rate", "AP", "mIoU"} <= set(lines)
    assert len(lines["learning rate"]) == len(STEPS) and len(lines["AP"]) == 2 and len(lines["mIoU"]) == 1
    assert lines["AP"][0][1] > lines["AP"][1][1]  # higher on the page is a smaller y
    assert (
        "best AP<b>0.400</b><small>epoch 2; now 0.400" in page
        and not re.search("https?:", page)
        and "8 steps" in page
    )


def test_losses_are_on_a_logarithmic_axis(tmp_path: Path) -> None:
    steps = [{"step": s, "epoch": 0, "lr": 1.0, "a/b": 90.0, "a/c": 0.0012} for s in range(3)]
    page = _page(tmp_path, steps)
    assert ">0.001<" in page and ">0.1<" in page and ">100<" in page


@pytest.mark.parametrize(
    "lines", [[], STEPS, EVALUATIONS, [{**STEPS[0], "detection/box": 0.0, "gradient_norm": float("nan")}]]
)
def test_a_run_without_some_of_it(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    assert _page(tmp_path, lines).endswith("</html>\n")


def test_a_long_run_is_a_small_page(tmp_path: Path) -> None:
    steps = [{"step": s, "epoch": s // 100, "lr": 1e-3, "detection/box": 1.0} for s in range(1, 5001)]
    page = _page(tmp_path, steps)
    assert len(page) < 100_000
    assert (
        all(len(line) <= POINTS + 1 for line in _polylines(page).values()) and "5,000 steps, epoch 51" in page
    )


def test_the_samples_are_inside(tmp_path: Path) -> None:
    sheet = tmp_path / "samples" / "epoch_003.jpg"
    assert "Samples" not in _page(tmp_path, STEPS, sheet)
    sheet.parent.mkdir()
    content = b"\xff\xd8 an image"
    sheet.write_bytes(content)
    page = _page(tmp_path, STEPS, sheet)
    assert (
        "Samples, epoch 003" in page
        and f"data:image/jpeg;base64,{base64.b64encode(content).decode()}" in page
    )
