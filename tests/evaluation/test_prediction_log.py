"""Evaluations that are cut off, by a kill and by hand, and resumed: the same numbers and pages as of one that
was left alone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.inference.test_ensemble import save_model
from tests.tiny_data import voc_data, write_voc
from vistasks.commands.evaluate import _bar
from vistasks.config import Config
from vistasks.evaluation.loop import build_metrics, evaluate, evaluate_model
from vistasks.heads.test_time import parse_views
from vistasks.types import ClassNames, Detections, Labelled, Prediction, Sample

JOINT = ("detection", "segmentation")
CLOCK = ("model_seconds_per_image", "peak_megabytes")
LOG = "predictions.jsonl"


class Job:
    """An evaluation of eight pictures, four batches."""

    def __init__(self, folder: Path) -> None:
        self.data = voc_data(write_voc(folder / "voc", count=8, empty=(3,)))
        decoding = {"evaluate": {"batch_size": 2}}
        self.weights, self.config = save_model(folder / "a.safetensors", self.data, *JOINT, **decoding)
        self.config_file = folder / "config.json"
        self.config_file.write_text(self.config.model_dump_json())

    def run(self, page: Path, **options: Any) -> dict[str, Any]:
        return evaluate(
            options.pop("config", self.config), str(self.weights), device="cpu", page=page, **options
        )


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def whole(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation that was left alone."""
    folder = tmp_path_factory.mktemp("whole")
    job.run(folder)
    return folder


def outcome(folder: Path) -> tuple[dict[str, Any], str]:
    """report.json, and the page without what a clock and the process say."""
    report = {
        key: value
        for key, value in json.loads((folder / "report.json").read_text()).items()
        if key not in CLOCK
    }
    return report, re.sub(r"<h2>Cost</h2>.*?</p>", "", (folder / "report.html").read_text(), flags=re.DOTALL)


CHILD = """
import sys, time
from pathlib import Path
from vistasks.config import load_config
from vistasks.evaluation.loop import evaluate

def slowly(steps, total):
    for step in steps:
        yield step
        print("a batch", flush=True)
        time.sleep(0.2)

evaluate(load_config(sys.argv[1], []), sys.argv[2], device="cpu", page=Path(sys.argv[3]), track=slowly)
"""


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_to_the_same_digits(job: Job, whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(job.config_file), str(job.weights), str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert child.stdout is not None
    assert child.stdout.readline() == b"a batch\n" == child.stdout.readline()
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    done = (tmp_path / LOG).read_bytes()
    assert 3 <= done.count(b"\n") < 5 and not (tmp_path / "report.json").exists()
    predicted = count_predicted(job, tmp_path)
    assert predicted == 2 * (5 - done.count(b"\n"))
    assert outcome(tmp_path) == outcome(whole)


def count_predicted(job: Job, folder: Path) -> int:
    """Resumes, and counts the pictures that go through the network."""
    seen = 0

    def hook(module: Any, args: Any, out: Any) -> None:
        nonlocal seen
        if isinstance(module, torch.nn.Conv2d) and module.in_channels == 3:
            seen += len(args[0])

    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    try:
        job.run(folder, resume=True)
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize("share", [0.1, 0.55, 1.0])
def test_a_file_that_was_cut_off_anywhere(job: Job, whole: Path, tmp_path: Path, share: float) -> None:
    content = (whole / LOG).read_bytes()
    (tmp_path / LOG).write_bytes(content[: int(len(content) * share)])
    predicted = count_predicted(job, tmp_path)
    assert (predicted == 0) == (share == 1.0) and (predicted == 8) == (share <= 0.1)
    assert outcome(tmp_path) == outcome(whole)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    expected = [json.loads(line) for line in content.decode().splitlines()]
    assert [line.get("pictures") for line in lines] == [line.get("pictures") for line in expected]


def test_noise_in_the_middle_is_made_again(job: Job, whole: Path, tmp_path: Path) -> None:
    lines = (whole / LOG).read_bytes().splitlines(keepends=True)
    (tmp_path / LOG).write_bytes(b"".join([*lines[:2], b"\x00\x00noise\n", *lines[3:]]))
    assert count_predicted(job, tmp_path) == 6
    assert outcome(tmp_path) == outcome(whole)


def test_without_resume_it_begins_anew(job: Job, whole: Path, tmp_path: Path) -> None:
    (tmp_path / LOG).write_text("anything\n")
    job.run(tmp_path)
    assert outcome(tmp_path) == outcome(whole)
    (tmp_path / LOG).write_text("anything\n")
    with pytest.raises(ValueError, match=r"predictions\.jsonl: not the predictions of an evaluation"):
        job.run(tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"--resume .*--report"):
        evaluate(job.config, str(job.weights), resume=True)


def changed(job: Job, what: str, folder: Path) -> tuple[Config, dict[str, Any]]:
    """The job with something else, and the options for it."""
    values = job.config.model_dump(mode="json")
    if what == "batches":
        values["evaluate"]["batch_size"] = 3
    elif what == "decoding":
        values["model"]["heads"]["detection"]["decoding"] = {"score": 0.3}
    elif what == "weights":
        other, _ = save_model(folder / "b.safetensors", job.data, *JOINT, seed=1)
        return job.config, {"weights": str(other)}
    elif what == "views":
        return job.config, {"test_time": parse_views("flip")}
    return Config(**values), {}


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("batches", r"evaluate\.batch_size: 2 -> 3"),
        ("decoding", r"model\.heads\.detection\.decoding: None -> {'score': 0\.3}"),
        ("weights", r"weights: \w{16} -> \w{16}"),
        ("views", r"views: None -> {'scales': \[\], 'flip': True"),
    ],
)
def test_another_evaluation_is_refused_and_says_what_changed(
    job: Job, whole: Path, tmp_path: Path, what: str, told: str
) -> None:
    config, options = changed(job, what, tmp_path)
    before = (whole / LOG).read_bytes()
    with pytest.raises(ValueError, match=rf"predictions\.jsonl .*changed since:\n  {told}") as caught:
        evaluate(
            config, options.pop("weights", str(job.weights)), device="cpu", page=whole, resume=True, **options
        )
    assert "without --resume" in str(caught.value) and (whole / LOG).read_bytes() == before


def test_changed_pictures_and_objects_are_refused(job: Job, whole: Path, tmp_path: Path) -> None:
    root = Path(job.data["root"])
    picture, xml = root / "JPEGImages" / "scene_1.png", root / "Annotations" / "scene_1.xml"
    times, text = picture.stat(), xml.read_text()
    picture.touch()
    xml.write_text(text.replace("<name>red</name>", "<name>blue</name>"))
    try:
        with pytest.raises(
            ValueError, match=r"  picture files: \w+ -> \w+\n  annotations: \w+ -> \w+\n.*--resume"
        ):
            job.run(whole, resume=True)
    finally:
        xml.write_text(text)
        os.utime(picture, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_pictures_that_are_skipped(tmp_path: Path) -> None:
    """A bad picture is left out and stays left out; its batch is smaller, and one batch is gone
    altogether.
    """
    job = Job(tmp_path)
    config = Config(
        **{
            **job.config.model_dump(mode="json"),
            "data": {**job.config.model_dump()["data"], "on_error": "skip"},
        }
    )
    for name in ("scene_2", "scene_4", "scene_5"):
        picture = Path(job.data["root"]) / "JPEGImages" / f"{name}.png"
        picture.write_bytes(picture.read_bytes()[:300])
    first = job.run(tmp_path / "whole", config=config)
    assert first["images"] == 5 and len(first["skipped"]) == 3
    lines = (tmp_path / "whole" / LOG).read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    (tmp_path / LOG).write_bytes(b"".join(lines[:3]))
    job.run(tmp_path, config=config, resume=True)
    assert outcome(tmp_path) == outcome(tmp_path / "whole")


def test_gain_is_resumed_as_well(job: Job, tmp_path: Path) -> None:
    report = job.run(tmp_path, test_time=parse_views("flip"), gain=True)
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {LOG, "alone_1.jsonl"}
    before = outcome(tmp_path)
    again = job.run(tmp_path, test_time=parse_views("flip"), gain=True, resume=True)
    assert outcome(tmp_path) == before and again["gain"] == report["gain"]


def test_nothing_but_what_the_metrics_keep_grows() -> None:
    """Of the pictures and predictions no more than the batch at hand and the one before are alive, however
    many there were.
    """
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    class Model(torch.nn.Module):
        def predict(self, batch: int) -> list[Prediction]:
            nonlocal most
            most = max(most, len(alive))
            found = Detections(
                np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ("a",)
            )
            prediction = Prediction(found)
            alive.add(prediction)
            return [prediction]

    def pictures() -> Any:
        for number in range(40):
            sample = Sample(
                str(number), f"{number}.png", np.zeros((9, 9, 3), np.uint8), labelled=Labelled(frozenset({0}))
            )
            alive.add(sample)
            yield number, [sample]

    metrics = build_metrics(ClassNames(("a",)), ["detection"], "hotcoco")
    evaluate_model(Model(), pictures(), metrics, torch.device("cpu"))  # type: ignore[arg-type]
    assert most <= 4


def test_the_bar_is_for_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(_bar(iter(range(3)), 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    for _ in _bar(iter(range(3)), 3):
        time.sleep(0.11)
    shown = capsys.readouterr()
    assert "evaluating" in shown.err and "/3" in shown.err and shown.out == ""
