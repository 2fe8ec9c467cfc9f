"""A third task with no product file edited: it trains, evaluates, predicts, draws and is written."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.inference.video.clips import write_numbered
from tests.tiny_data import config_values, voc_data, write_voc

ROOT = Path(__file__).resolve().parents[2]
SWATCH = 8  # pixels, as in `tests.tasks.mean_colour`, whose import would register the task for every test


def run(*arguments: str) -> str:
    """The command line with the toy task, in a process of its own: the tables of this one stay as they are."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.tasks.mean_colour", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of a detector and the toy task over one backbone."""
    folder = tmp_path_factory.mktemp("toy")
    values = config_values(
        folder / "run", voc_data(write_voc(folder / "voc")), "detection", epochs=15, batch_size=3, workers=0
    )
    values["model"]["heads"]["mean_colour"] = {"name": "colour_average"}
    values["train"] |= {"monitor": "colour_error", "optimizer": {"lr": 5e-3}, "validate_every": 15}
    (folder / "toy.yaml").write_text(yaml.safe_dump(values))
    out = run("train", "--config", str(folder / "toy.yaml"))
    assert "squared_error" in out and "colour_error" in out
    return folder


def test_it_is_evaluated_beside_the_detector(trained: Path) -> None:
    report = trained / "report.json"
    run(
        "evaluate",
        "--config",
        str(trained / "toy.yaml"),
        "--weights",
        str(trained / "run"),
        "--json",
        str(report),
    )
    numbers = json.loads(report.read_text())
    assert numbers["headline"]["colour_error"] == numbers["colour"]["error"] < 0.1
    assert "AP" in numbers["headline"]


def test_its_answers_are_drawn_and_written(trained: Path) -> None:
    out = trained / "out"
    source = trained / "voc" / "JPEGImages"
    run("infer", "--weights", str(trained / "run"), "--source", str(source), "--output", str(out))
    with (out / "colours.csv").open(newline="") as file:
        rows = {row.pop("file"): [float(value) for value in row.values()] for row in csv.DictReader(file)}
    assert len(rows) == 6 and (out / "detections.csv").exists()
    image = np.asarray(Image.open(source / "scene_0.png"))
    assert np.abs(np.array(rows["scene_0.png"]) - image.mean((0, 1)) / 255).max() < 0.2
    swatch = np.asarray(Image.open(out / "scene_0.jpg"))[: SWATCH - 2, : SWATCH - 2].mean((0, 1)) / 255
    assert np.abs(swatch - rows["scene_0.png"]).max() < 0.05


def test_it_alone_on_a_video(trained: Path) -> None:
    clip, out = write_numbered(trained / "clip.mp4", [number / 10 for number in range(6)]), trained / "video"
    run(
        "infer",
        "--weights",
        str(trained / "run"),
        "--source",
        str(clip),
        "--output",
        str(out),
        "--tasks",
        "average",
    )
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 6 and all(
        len(line["mean_colour"]) == 3 and "detections" not in line for line in lines
    )
    assert (out / "colours.csv").read_text().startswith("frame,seconds,red,green,blue")
    assert not (out / "results.json").exists()
