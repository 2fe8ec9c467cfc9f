"""What the proposals commands do, on a small data set in memory."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from vistasks.models.trained_proposals import LearnedProposals
from vistasks.proposals import CachedProposals
from vistasks.proposals.commands import clear_command, compute_command, report_command
from vistasks.proposals.methods import Grid, GroundTruthJitter
from vistasks.proposals.union import Union
from vistasks.types import ClassNames, Sample


class Pictures:
    """Twelve pictures with one object each."""

    classes = ClassNames(("cat", "dog"))

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Sample:
        image = np.full((40, 60, 3), index, np.uint8)
        box = np.array([[10, 10, 30 + index, 30]], np.float32)
        return Sample(str(index), f"{index}.png", image, box, np.array([index % 2]))


class Failing(Grid):
    """Fails at one picture."""

    def __call__(self, sample: Sample) -> np.ndarray:
        if sample.image_id == "7":
            raise OSError("7.png: broken")
        return super().__call__(sample)


def _console() -> Console:
    return Console(file=io.StringIO(), width=200)


def _said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_compute_fills_the_cache_and_goes_on_where_it_was(tmp_path: Path) -> None:
    method, console = CachedProposals(Grid(), tmp_path), _console()
    method(Pictures()[3])
    assert compute_command(Pictures(), method, threads=3, console=console) == 0
    assert "11 images computed, 1 already cached" in _said(console)
    assert all(method.has(Pictures()[index].image) for index in range(12))
    console = _console()
    compute_command(Pictures(), method, threads=3, console=console)
    assert "0 images computed, 12 already cached" in _said(console) and str(tmp_path) in _said(console)


def test_compute_that_fails_keeps_what_it_had(tmp_path: Path) -> None:
    method = CachedProposals(Failing(), tmp_path)
    with pytest.raises(OSError, match=r"7\.png: broken"):
        compute_command(Pictures(), method, threads=1, console=_console())
    assert all(method.has(Pictures()[index].image) for index in range(7))


def test_compute_needs_a_cache(tmp_path: Path) -> None:
    for method in (Grid(), CachedProposals(GroundTruthJitter(), tmp_path)):
        with pytest.raises(ValueError, match=r"set proposals\.cache and a method that can be cached"):
            compute_command(Pictures(), method)


def test_report_shows_writes_and_plots(tmp_path: Path) -> None:
    console, json_path, plot_path = _console(), tmp_path / "new" / "report.json", tmp_path / "plot.png"
    method = CachedProposals(Grid(max_boxes=200), tmp_path / "cache")
    assert (
        report_command(
            Pictures(), method, json_path=json_path, plot_path=plot_path, threads=2, console=console
        )
        == 0
    )
    result = json.loads(json_path.read_text())
    assert (
        result["pictures"] == result["objects"] == 12
        and set(result["abo"]) == {"cat", "dog"}
        and result["seconds"] > 0
    )
    assert result["method"].startswith("grid-1") and result["boxes"] <= 200
    recalls = [row["recall"]["0.5"] for row in result["budgets"].values()]
    assert recalls == sorted(recalls) and recalls[-1] > 0.5
    said = _said(console)
    assert "recall .7" in said and "average recall" in said and "dog" in said and f"{recalls[-1]:.3f}" in said
    assert cv2.imread(str(plot_path)).shape[2] == 3


def test_report_of_a_method_without_a_key(tmp_path: Path) -> None:
    report_command(Pictures(), GroundTruthJitter(3), json_path=tmp_path / "r.json", console=_console())
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["method"] == "GroundTruthJitter" and result["budgets"]["10"]["mabo"] == 1


def test_report_of_a_union_has_its_members(tmp_path: Path) -> None:
    console, method = (
        _console(),
        Union([{"name": "grid", "max_boxes": 50}, {"name": "ground_truth_jitter", "copies": 2}]),
    )
    report_command(Pictures(), method, json_path=tmp_path / "r.json", console=console)
    result = json.loads((tmp_path / "r.json").read_text())
    grid, jitter = result["members"].values()
    assert result["boxes"] == grid["boxes"] + jitter["boxes"] and jitter["boxes"] == 3
    assert (
        result["recall_by_class"]["0.9"] == {"cat": 1, "dog": 1} and grid["recall_by_class"]["0.9"]["dog"] < 1
    )
    assert "GroundTruthJitter alone" in _said(console)


def test_report_of_what_only_the_detector_knows() -> None:
    for method in (LearnedProposals(), Union([{"name": "grid"}, {"name": "rpn"}])):
        with pytest.raises(ValueError, match=r"name its run: proposals\.method\.weights=RUN"):
            report_command(Pictures(), method, console=_console())


def test_clear_says_what_it_removed(tmp_path: Path) -> None:
    compute_command(Pictures(), CachedProposals(Grid(), tmp_path), console=_console())
    console = _console()
    assert clear_command(tmp_path, console=console) == 0
    assert _said(console).startswith("12 files, ")
    assert not list(tmp_path.iterdir())
