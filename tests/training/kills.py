"""A small joint run that is killed (SIGKILL) again and again and resumed each time, beside one that was left
alone.

    python -m tests.training.kills --kills 30 --workers 0 2

Each session is a process of its own, forked from this one so that it need not import everything again. A
third of the kills come at a random time from the session's start, a third at a random time after its first
save, a third while a checkpoint is written."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.tiny_data import config_values, voc_data, write_voc
from vistasks.checkpoint import checksum, read_checkpoint
from vistasks.config import Config, parse_config
from vistasks.training.loop import train

CLOCK = ("images_per_second", "seconds")


def joint_config(output: Path, root: Path, *, workers: int, epochs: int) -> Config:
    """Detector and segmenter with augmentation, dropout, region sampling, averaged weights, accumulation and
    clipping.
    """
    values = config_values(
        output, voc_data(root), "detection", "segmentation", epochs=epochs, batch_size=1, accumulate=2
    )
    values["model"]["heads"] = {
        "detection": values["model"]["heads"]["detection"] | {"dropout": 0.3},
        "segmentation": {"name": "fcn32s", "hidden": 0},
    }
    values["augment"] = [{"HorizontalFlip": {"p": 0.5}}, {"RandomBrightnessContrast": {"p": 0.8}}]
    values["train"] |= {
        "workers": workers,
        "ema": 0.9,
        "clip_grad_norm": 5.0,
        "deterministic": True,
        "validate_every": 10,
    }
    values["train"]["schedule"] = {"name": "cosine", "warmup_steps": 10}
    values["checkpoint"] = {"every_minutes": 0.003, "keep": 3}
    return parse_config(values)


def outcome(folder: Path) -> dict[str, Any]:
    """What must be equal: every tensor of both checkpoints, the state, the metrics without what a clock says,
    the report.
    """
    found: dict[str, Any] = {}
    for name in ("last", "best"):
        checkpoint = read_checkpoint(folder / f"{name}.safetensors")
        found[f"{name} weights"] = checksum("", checkpoint.tensors)
        found[f"{name} state"] = checkpoint.state
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]
    report = json.loads((folder / "report.json").read_text())
    report.pop("model_seconds_per_image")
    return found | {"report": report}


def session(config: Config, log: Path) -> int:
    """Starts or goes on with the run in a process of its own; its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            folder = Path(config.output)
            train(
                config,
                resume=(folder / "last.safetensors").exists()
                or any(folder.glob("checkpoints/*.safetensors")),
            )
            code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def killed(config: Config, number: int, log: Path, draws: random.Random) -> bool:
    """One session that is killed; False where it came to its end before."""
    folder = Path(config.output)
    before = state_of_files(folder)
    child = session(config, log)
    kind, since = number % 3, time.monotonic()
    deadline = since + draws.uniform(0.0, 3.0) if kind == 0 else None
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, f"a session failed, see {log}"
            return False
        if deadline is None and state_of_files(folder) != before:
            deadline = time.monotonic() + draws.uniform(0.0, 1.5)
        if (
            deadline is not None
            and time.monotonic() > deadline
            and (kind != 2 or any(folder.glob(".last.*.tmp.safetensors")))
        ):
            break
        time.sleep(0.0005 if kind == 2 else 0.01)
    if kind == 2:
        time.sleep(draws.uniform(0.0, 0.01))  # into the writing
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def state_of_files(folder: Path) -> int:
    last = folder / "last.safetensors"
    return last.stat().st_mtime_ns if last.exists() else 0


def run(base: Path, *, kills: int, workers: int, epochs: int, seed: int) -> dict[str, Any]:
    """Kills a run ``kills`` times and lets it end; its `outcome`."""
    config = joint_config(base / f"killed_{workers}", base / "voc", workers=workers, epochs=epochs)
    draws, log = random.Random(seed), base / f"killed_{workers}.log"
    folder = Path(config.output)
    leftovers = 0
    for number in range(kills):
        assert killed(config, number, log, draws), (
            f"the run ended after {number} kills: more epochs are needed"
        )
        leftovers += len(list(folder.glob(".*.tmp*")))
    child = session(config, log)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, f"the last session failed, see {log}"
    print(f"{workers} workers: {kills} kills, of which {leftovers} left a file half written", flush=True)
    return outcome(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        write_voc(base / "voc")
        alone = joint_config(base / "alone", base / "voc", workers=0, epochs=options.epochs)
        child = session(alone, base / "alone.log")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, (base / "alone.log").read_text()
        expected = outcome(base / "alone")
        print(f"left alone: weights {expected['last weights']}", flush=True)
        for workers in options.workers:
            found = run(base, kills=options.kills, workers=workers, epochs=options.epochs, seed=options.seed)
            different = [key for key in expected if found[key] != expected[key]]
            told = ", ".join(different) or "nothing"
            print(f"{workers} workers: weights {found['last weights']}; different: {told}", flush=True)
            if different:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
