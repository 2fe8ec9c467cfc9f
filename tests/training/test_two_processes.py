"""Two gloo processes on the CPU against one, in a single start: two processes that import everything take
their time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.kills import outcome
from tests.training.two_processes import STEPS, equal_config, train_in_float64, write_data
from vistasks.checkpoint import read_checkpoint
from vistasks.evaluation.loop import evaluate
from vistasks.models.building import build_model

SECONDS = 300


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after the two processes are done."""
    folder = tmp_path_factory.mktemp("two")
    write_data(folder)
    command = [sys.executable, "-m", "tests.training.two_processes", str(folder)]
    environment = {key: value for key, value in os.environ.items() if key != "LOCAL_RANK"} | {
        "OMP_NUM_THREADS": "1"
    }
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def results(base: Path) -> list[dict[str, Any]]:
    return [json.loads((base / f"results_{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_learn_what_one_learns_from_the_same_batch(base: Path) -> None:
    train_in_float64(equal_config(base, "one", devices=1, batch_size=4))
    two, one = (read_checkpoint(base / name / "last.safetensors") for name in ("exact", "one"))
    assert two.state["step"] == one.state["step"] == STEPS
    expected = one.part("model")
    apart = {name: float((value - expected[name]).abs().max()) for name, value in two.part("model").items()}
    assert max(apart.values()) <= 1e-12, apart
    torch.manual_seed(0)
    fresh = build_model(two.config.model, two.classes).state_dict()
    assert (
        max(float((value - fresh[name]).abs().max()) for name, value in two.part("model").items()) > 1e-3
    )  # it has learnt


def test_evaluation_by_two_processes_is_that_of_one_to_the_digit(base: Path) -> None:
    report = json.loads((base / "equal" / "report.json").read_text())
    config = equal_config(base, "equal", devices=1, batch_size=2)
    again = json.loads(json.dumps(evaluate(config, str(base / "equal"), device="cpu")))
    assert report["images"] == 7  # does not divide by two
    for key in report.keys() - {"model_seconds_per_image"}:
        assert report[key] == again[key], key


def test_all_processes_know_the_result_and_one_writes(base: Path, results: list[dict[str, Any]]) -> None:
    assert results[0]["equal"] == results[1]["equal"]
    lines = [json.loads(line) for line in (base / "equal" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "evaluation" not in line] == list(range(1, STEPS + 1))
    assert len(list((base / "equal").glob("events.out.tfevents.*"))) == 1


def test_one_task_alone_no_objects_no_proposals_and_nothing_hangs(
    base: Path, results: list[dict[str, Any]]
) -> None:
    lines = [json.loads(line) for line in (base / "uneven" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "evaluation" not in line]
    assert len(steps) == 3 * 2 and all(line["gradient_norm"] >= 0 for line in steps)
    tensors = read_checkpoint(base / "uneven" / "last.safetensors").tensors
    assert all(bool(torch.isfinite(value).all()) for value in tensors.values())
    assert results[0]["uneven"] == results[1]["uneven"]


def test_a_signal_to_one_process_stops_both_and_they_go_on(base: Path, results: list[dict[str, Any]]) -> None:
    assert all("holds the run after step 7" in result["stopped"] for result in results)
    whole, cut = outcome(base / "equal"), outcome(base / "cut")
    assert [key for key in whole if whole[key] != cut[key]] == []
