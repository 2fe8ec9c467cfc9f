"""Which checkpoints are kept, what a full disk and damaged files do, and what signals do."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from tests.tiny_data import mask_data, tiny_config, write_mask_folder
from vistasks.checkpoint import read_checkpoint, save_checkpoint
from vistasks.cli import main
from vistasks.config import Config, parse_config, to_yaml
from vistasks.training.loop import train
from vistasks.training.progress import TrainingDisplay
from vistasks.training.run_folder import candidates
from vistasks.training.saving import Saver
from vistasks.training.state import Progress
from vistasks.training.stop import STOPPED, Stopped, StopRequest
from vistasks.types import ClassNames


def config_of(
    tmp_path: Path, name: str = "run", *, keep: int = 2, minutes: float | None = None, **train: Any
) -> Config:
    data = mask_data(tmp_path / "masks")
    if not (tmp_path / "masks").exists():
        write_mask_folder(tmp_path / "masks", count=4)
    config = tiny_config(
        tmp_path / name, data, "segmentation", **({"epochs": 3, "batch_size": 2, "validate_every": 3} | train)
    )
    return parse_config(config.model_dump() | {"checkpoint": {"every_minutes": minutes, "keep": keep}})


def steps_kept(folder: Path) -> list[int]:
    return [int(read_checkpoint(path).state["step"]) for path in candidates(folder)]


def flip(path: Path) -> None:
    """One bit of the last tensor."""
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def test_the_last_ones_are_kept_and_a_damaged_one_is_said_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, keep=3, minutes=1e-6)  # after every step, too
    train(config)
    folder = tmp_path / "run"
    assert steps_kept(folder) == [6, 6, 5]  # the last step once before its evaluation
    # copies: what is read is a view of the file
    whole = {
        name: value.clone() for name, value in read_checkpoint(folder / "last.safetensors").tensors.items()
    }
    for path in candidates(folder)[:2]:
        flip(path)
    with pytest.raises(ValueError, match=r"last\.safetensors: corrupt"):
        read_checkpoint(folder / "last.safetensors")
    capsys.readouterr()
    train(config, resume=True)
    told = capsys.readouterr().out
    assert "warning: " in told and "last.damaged" in told and "step_00000005.safetensors" in told
    assert "resumed      " in told and "after step 5" in told
    again = read_checkpoint(folder / "last.safetensors")
    assert all(torch.equal(value, again.tensors[name]) for name, value in whole.items())
    for path in candidates(folder):
        flip(path)
    with pytest.raises(
        ValueError,
        match=r"--resume: no intact checkpoint in this run folder:\n  .*last\.safetensors: corrupt",
    ):
        train(config, resume=True)


def test_a_run_goes_on_from_a_checkpoint_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, keep=4)
    train(config)
    folder = tmp_path / "run"
    whole = read_checkpoint(folder / "last.safetensors").tensors
    first = candidates(folder)[-1]
    assert steps_kept(folder) == [6, 4, 2] and "step_00000002" in first.name
    config_file = tmp_path / "config.yaml"
    config_file.write_text(to_yaml(config))
    assert main(["train", "--config", str(config_file), "--resume", str(first), "evaluate.batch_size=3"]) == 0
    assert "changed      evaluate.batch_size: 4 -> 3" in capsys.readouterr().out
    again = read_checkpoint(folder / "last.safetensors").tensors
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    with pytest.raises(ValueError, match=r"holds only weights; .*last\.safetensors .*checkpoints/"):
        train(config, resume=folder / "best.safetensors")
    with pytest.raises(ValueError, match=r"run already holds a run"):
        train(config, resume=(first.rename(tmp_path / "elsewhere.safetensors")))
    assert (
        main(["train", "--config", str(config_file), "--resume", "train.epochs=3"]) == 0
    )  # an override, no path


FULL = "No space left on device"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, FULL), SafetensorError(f'IoError(Os {{ message: "{FULL}" }})')]
)
def test_a_full_disk_is_told_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    from vistasks.checkpoint import file as checkpoint

    original, calls = checkpoint.save_file, []

    def full(tensors: Any, file: Path, metadata: Any) -> None:
        calls.append(file.name)
        if len(calls) == 2:  # the second epoch's
            file.write_bytes(b"half")
            raise error
        original(tensors, file, metadata)

    monkeypatch.setattr(checkpoint, "save_file", full)
    train(config_of(tmp_path))
    told = capsys.readouterr().out
    assert "warning: the state after step 4 could not be saved in " in told
    assert (
        "(No space left on device); what was there before is still good; training goes on and tries again"
        in told
    )
    assert "the state after step 6 could be saved again" in told
    assert steps_kept(tmp_path / "run") == [6, 2] and not list((tmp_path / "run").glob(".*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if os.name != "posix" or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full(
    tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Metrics are complete in the end, and what is on the disk is whole."""
    config = config_of(tmp_path, "disk/run", epochs=6)
    original = TrainingDisplay.step
    filler = small_disk / "filler"

    def step(self: TrainingDisplay, progress: Progress, *values: Any, **named: Any) -> None:
        if progress.step == 3:
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(b"x" * 4096):
                        pass
                except OSError:
                    pass
        if progress.step == 9:
            filler.unlink()
        original(self, progress, *values, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingDisplay, "step", step)
        train(config)
    told = capsys.readouterr().out
    assert "warning: the state after step 4 could not be saved in" in told and "could be saved again" in told
    lines = [json.loads(line) for line in (small_disk / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "evaluation" not in line] == list(range(1, 13))
    assert steps_kept(small_disk / "run")[0] == 12
    assert (
        read_checkpoint(small_disk / "run" / "best.safetensors")
        and (small_disk / "run" / "report.json").exists()
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_run_after_its_step_with_a_code_of_its_own(
    tmp_path: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = config_of(tmp_path)
    config_file = tmp_path / "config.yaml"
    config_file.write_text(to_yaml(config))
    original = TrainingDisplay.step

    def step(self: TrainingDisplay, progress: Progress, *values: Any, **named: Any) -> None:
        original(self, progress, *values, **named)
        if progress.step == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingDisplay, "step", step)
        assert main(["train", "--config", str(config_file)]) == STOPPED == 75
    assert signal.getsignal(number) is before
    told = capsys.readouterr()
    assert f"{number.name}: finishing this step and saving; repeat to stop immediately" in told.out
    assert (
        f"stopped by {number.name}: " in told.err
        and "holds the run after step 3; the same command with --resume" in told.err
    )
    state = read_checkpoint(tmp_path / "run" / "last.safetensors").state
    assert (state["step"], state["epoch"], state["position"]) == (3, 1, 1)
    train(config_of(tmp_path, "whole"))
    train(config, resume=True)
    whole, cut = (read_checkpoint(tmp_path / name / "last.safetensors").tensors for name in ("whole", "run"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    ("number", "everyone"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGHUP, True), (signal.SIGKILL, False)],
    ids=["SIGTERM", "SIGTERM to its group", "SIGHUP to its group", "SIGKILL"],
)
def test_a_process_that_is_stopped_ends_with_its_data_workers(
    tmp_path: Path, number: signal.Signals, everyone: bool
) -> None:
    config = config_of(tmp_path, workers=1, epochs=1000, validate_every=1000)
    for path in (tmp_path / "masks").rglob(
        "*.png"
    ):  # so large that a pipe does not hold what a worker has to say
        Image.open(path).resize((300, 300), Image.Resampling.NEAREST).save(path)
    config_file = tmp_path / "config.yaml"
    config_file.write_text(to_yaml(config))
    command = [sys.executable, "-m", "vistasks.cli", "train", "--config", str(config_file)]
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    lines, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
    while not (lines.exists() and lines.stat().st_size):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    if everyone:
        os.killpg(process.pid, number)  # as `timeout` and job schedulers do
    else:
        process.send_signal(number)
    try:
        _, told = process.communicate(
            timeout=60
        )  # until nobody holds the pipes any more: `train | tee log` waits for that too
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what a failing test would leave behind
    if number != signal.SIGKILL:
        assert process.returncode == STOPPED and f"stopped by {number.name}" in told


def test_a_run_that_is_stopped_while_it_evaluates_evaluates_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, validate_every=1)
    original = TrainingDisplay.track

    def track(self: TrainingDisplay, batches: Any, what: str) -> Any:
        for number, item in enumerate(original(self, batches, what)):
            if number == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(TrainingDisplay, "track", track)
        with pytest.raises(Stopped):
            train(config)
    state = read_checkpoint(tmp_path / "run" / "last.safetensors").state
    assert (state["epoch"], state["position"], state["best"]) == (0, 2, None)
    train(config, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "evaluation" in line] == [1, 2, 3]


def test_a_run_that_waits_for_a_full_disk_stops_at_once_when_told(tmp_path: Path) -> None:
    """At a run's end the disk is waited for; a signal ends that, too."""
    told: list[str] = []
    saver = Saver(tmp_path, config_of(tmp_path), ClassNames(("red",), ()), told.append, lambda: bool(told))

    def write() -> None:
        raise OSError(errno.ENOSPC, FULL)

    start = time.monotonic()
    with pytest.raises(OSError, match=FULL):
        saver._attempt(write, "the state", True)
    assert time.monotonic() - start < 5  # ten minutes, else


def test_a_terminal_that_hangs_up_ends_the_run_in_order(tmp_path: Path) -> None:
    """What is printed after it goes nowhere, instead of being an error before the state is saved."""
    config = config_of(tmp_path, epochs=1000, validate_every=1000)
    config_file = tmp_path / "config.yaml"
    config_file.write_text(to_yaml(config))
    command = [sys.executable, "-m", "vistasks.cli", "train", "--config", str(config_file)]
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    master, slave = os.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    ends = {"stdin": slave, "stdout": slave, "stderr": slave}
    process = subprocess.Popen(command, env=environment, preexec_fn=own_terminal, **ends)
    os.close(slave)
    lines, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
    while not (lines.exists() and lines.stat().st_size):
        assert process.poll() is None and time.monotonic() < deadline
        os.read(master, 1 << 16)
        time.sleep(0.02)
    os.close(master)
    assert process.wait(60) == STOPPED
    assert read_checkpoint(tmp_path / "run" / "last.safetensors").state["step"] > 0


def test_a_second_signal_stops_at_once() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt, match="a second signal"):
            os.kill(os.getpid(), signal.SIGINT)


def test_values_that_changed_bits_or_names_change_the_checksum(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.ones(3), "b": torch.zeros(())}
    save_checkpoint(path, tensors, config=config, classes=ClassNames((), ()), state={"step": 1})
    content = path.read_bytes()
    read_checkpoint(path)
    path.write_bytes(content.replace(b'\\"step\\": 1', b'\\"step\\": 2'))
    with pytest.raises(ValueError, match="SHA-256"):
        read_checkpoint(path)
