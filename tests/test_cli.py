"""The command line: help without heavy imports, exit codes, errors in one line, and what bad input gets end
to end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.tiny_data import config_values, mask_data, voc_data, write_mask_folder, write_voc
from vistasks.checkpoint import read_checkpoint
from vistasks.cli import COMMANDS, build_parser, main
from vistasks.config import load_config

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "torch",
    "numpy",
    "cv2",
    "pydantic",
    "yaml",
    "rich",
    "albumentations",
    "lightning_fabric",
    "matplotlib",
)


def write_config(folder: Path, values: dict[str, Any]) -> str:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., str]:
    """Writes data (voc, or masks for the segmentation task alone) and a config for it."""

    def write(*tasks: str, **train: Any) -> str:
        if tasks == ("segmentation",):
            data = mask_data(write_mask_folder(tmp_path / "data", count=4))
        else:
            data = voc_data(write_voc(tmp_path / "data", count=4))
        return write_config(tmp_path, config_values(tmp_path / "run", data, *tasks, **train))

    return write


def run(*arguments: str, tool: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    start = [str(ROOT / "tools" / f"{tool}.py")] if tool else ["-m", "vistasks.cli"]
    environment = (
        os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | options.pop("environment", {})
    )
    command = [sys.executable, *start, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=900, **options
    )


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: ") and "Traceback" not in text
    return text.removeprefix("error: ").rstrip("\n")


def test_help_needs_no_heavy_import() -> None:
    """So that it appears at once. Every command's help is made in one process."""
    code = (
        "import sys, contextlib, io; from vistasks.cli import COMMANDS, main\n"
        "for arguments in [[], *([name] for name in COMMANDS), ['data', 'prepare'], ['data', 'check'], ['data', 'show']]:\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        main([*arguments, '--help'])\n"
        "    assert 'usage:' in out.getvalue() and '--help' in out.getvalue(), arguments\n"
        f"sys.exit(', '.join(sorted(set({HEAVY}) & set(sys.modules))) or None)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    "tool", sorted(path.stem for path in (ROOT / "tools").glob("*.py") if path.stem != "mutants")
)
def test_the_tools_are_the_same_commands(tool: str) -> None:
    assert tool in COMMANDS
    found = run("--help", tool=tool)
    assert found.returncode == 0 and found.stdout.startswith(f"usage: {tool}.py")
    wanted = build_parser().format_help()
    assert COMMANDS[tool][1].split(".")[0] in " ".join(wanted.split())
    assert COMMANDS[tool][1] in " ".join(found.stdout.split())


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "vistasks train" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["trian"], ["train"], ["train", "--config"], ["train", "--config", "x", "--epochs", "3"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "usage: vistasks" in capsys.readouterr().err


def test_overrides_may_stand_anywhere(
    experiment: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = experiment("segmentation")
    for arguments in (
        ["--config", config, "train.epochs=7", "seed=3", "--print-config"],
        ["train.epochs=7", "--config", config, "--print-config", "seed=3"],
        ["--print-config", "--config", config, "train.epochs=7", "--debug", "seed=3"],
    ):
        assert main(["train", *arguments]) == 0
        printed = tmp_path / "printed.yaml"
        printed.write_text(capsys.readouterr().out)
        assert load_config(printed) == load_config(config, ["train.epochs=7", "seed=3"])


def test_errors_are_one_line_and_debug_shows_where(
    experiment: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = experiment("segmentation")
    assert "\n" not in error_of(capsys, "train", "--config", config, "train.epoch=3")
    with pytest.raises(ValueError, match=r"train\.epoch: unknown key"):
        main(["train", "--debug", "--config", config, "train.epoch=3"])
    for place in (["data", "--debug", "check"], ["data", "check", "--debug"]):
        with pytest.raises(ValueError, match="unknown key"):
            main([*place, "--config", config, "train.epoch=3"])
    error_of(capsys, "data", "check", "--config", config, "train.epoch=3")


@pytest.mark.parametrize(
    "error, code, text",
    [
        (ValueError("no good"), 1, "error: no good\n"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device\n"),
        (ImportError("install vistasks[timm]"), 1, "error: install vistasks[timm]\n"),
        (FloatingPointError("step 3: the loss"), 1, "error: step 3: the loss\n"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "error: CUDA out of memory. To use less memory, "),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (KeyboardInterrupt("go on by --resume"), 130, "\ninterrupted: go on by --resume\n"),
        (BrokenPipeError(), 1, ""),
    ],
)  # fmt: skip
def test_exit_codes(
    error: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("vistasks.config.files.read_config", fails)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # a broken pipe gives it up
    assert main(["evaluate", "--config", "x", "--weights", "y"]) == code
    assert capsys.readouterr().err.startswith(text)


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistasks.config.files.read_config", lambda *_: {}["missing"])
    with pytest.raises(KeyError):
        main(["evaluate", "--config", "x", "--weights", "y"])


def test_train_evaluate_and_report(
    experiment: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = experiment("detection", "segmentation", epochs=1)
    assert main(["train", "--config", config]) == 0
    shown = capsys.readouterr().out
    assert f"run folder   {tmp_path / 'run'}" in shown and "epoch 1: AP " in shown and "done " in shown
    assert (
        f"data         {tmp_path / 'data'}: 4 training, 4 evaluation" in shown
        and "proposals    grid, not cached" in shown
    )
    report = tmp_path / "reports" / "report.json"
    weights = ["--weights", str(tmp_path / "run"), "--device", "cpu"]
    assert main(["evaluate", "--config", config, *weights, "--json", str(report)]) == 0
    shown = capsys.readouterr().out
    assert f"weights      {tmp_path / 'run'}\n" in shown and f"data         {tmp_path / 'data'}\n" in shown
    for text in ("mIoU", "red", "blue", "all classes", "4 images", str(report)):
        assert text in shown
    found = json.loads(report.read_text())
    assert found["images"] == 4 and found["headline"].keys() >= {"AP", "AP50", "VOC_mAP", "mIoU"}
    assert "already holds a run" in error_of(capsys, "train", "--config", config)
    assert main(["train", "--config", config, "--resume", "train.epochs=2"]) == 0
    assert read_checkpoint(tmp_path / "run" / "last.safetensors").state["epoch"] == 2
    assert "no such checkpoint" in error_of(
        capsys, "evaluate", "--config", config, "--weights", str(tmp_path / "nowhere")
    )


def damaged_voc(root: Path, kind: str) -> None:
    picture, xml = root / "JPEGImages" / "scene_2.png", root / "Annotations" / "scene_2.xml"
    mask = root / "SegmentationClass" / "scene_2.png"
    text = xml.read_text()
    if kind == "missing image":
        picture.unlink()
    elif kind == "missing mask":
        mask.unlink()
    elif kind == "no image":
        picture.write_text("this is text")
    elif kind == "broken xml":
        xml.write_text(text[:80])
    elif kind == "unknown class":
        xml.write_text(text.replace("<name>red</name>", "<name>rde</name>"))
    elif kind == "outside":
        xml.write_text(text.replace("</xmax>", "0</xmax>"))
    elif kind == "inverted":
        xml.write_text(text.replace("<xmin>", "<xmin>9").replace("<ymin>", "<ymin>9"))
    elif kind == "nan":
        xml.write_text(text.replace("<xmin>", "<xmin>nan<!--").replace("</xmin>", "--></xmin>"))
    elif kind == "escape":
        xml.write_text(text.replace("<filename>", "<filename>../../../etc/"))


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("missing image", ["scene_2", "no image of this name"]),
        ("missing mask", ["scene_2.png", "missing, though the Segmentation list names 'scene_2'"]),
        ("no image", ["scene_2.png", "not a readable image"]),
        ("broken xml", ["scene_2.xml"]),
        (
            "unknown class",
            [
                "scene_2.xml",
                "'rde'",
                "files have: blue, rde, red; classes has: red, blue",
                "Did you mean 'red'?",
            ],
        ),
        ("outside", ["scene_2.xml", "overhangs the 64x64 image"]),
        ("inverted", ["scene_2.xml", "is inverted"]),
        ("nan", ["scene_2.xml", "is not finite"]),
        ("escape", ["scene_2.xml", "points outside the data folder", "refused"]),
    ],
)
def test_bad_data_is_told_before_training(
    kind: str,
    expected: list[str],
    experiment: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = experiment("detection", "segmentation")
    damaged_voc(tmp_path / "data", kind)
    told = error_of(capsys, "train", "--config", config)
    assert all(text in told for text in expected), told
    assert not (tmp_path / "run").exists()


def test_a_bad_box_can_be_dropped(
    experiment: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = experiment("detection", "segmentation", epochs=1)
    damaged_voc(tmp_path / "data", "inverted")
    assert main(["train", "--config", config, "data.bad_boxes=drop"]) == 0
    assert "note         2 boxes dropped" in capsys.readouterr().out


def test_pixels_that_turn_out_bad_name_their_file(
    experiment: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What only reading the pixels tells comes while training; then the folder holds no checkpoint."""
    config = experiment("segmentation")
    picture = tmp_path / "data" / "images" / "scene_1.png"
    picture.write_bytes(picture.read_bytes()[:900])
    told = error_of(capsys, "train", "--config", config)
    assert str(picture) in told and "truncated" in told
    assert not list((tmp_path / "run").glob("*.safetensors")) and not list((tmp_path / "run").glob(".*"))
    told = error_of(capsys, "train", "--config", config, "data.mask_values={0: background, 1: red}")
    assert "scene_" in told
    missing = error_of(capsys, "train", "--config", config, f"data.root={tmp_path / 'camvid'}")
    assert "does not exist" in missing and "vistasks data prepare camvid" in missing


def test_a_mask_value_without_a_class_names_file_value_and_count(
    experiment: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = experiment("segmentation")
    told = error_of(
        capsys, "train", "--config", config, "data.mask_values={0: background, 1: red}", "train.workers=0"
    )
    assert "masks/scene_" in told and "2" in told and "pixels" in told


SLOW_CONFIG = {"epochs": 2, "batch_size": 1, "workers": 1, "ema": 0.9, "accumulate": 2}


@pytest.mark.slow
def test_killed_and_resumed_with_a_worker_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    data = voc_data(write_voc(tmp_path / "data"))
    values = config_values(tmp_path / "whole", data, "detection", "segmentation", **SLOW_CONFIG)
    values["augment"] = [{"HorizontalFlip": {"p": 0.5}}]
    config = write_config(tmp_path, values)
    whole = run("--config", config, tool="train")
    assert whole.returncode == 0 and "Warning" not in whole.stderr, whole.stderr
    command = [
        sys.executable,
        str(ROOT / "tools" / "train.py"),
        "--config",
        config,
        f"output={tmp_path / 'cut'}",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as process:
        while not (tmp_path / "cut" / "last.json").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    resumed = run("--config", config, f"output={tmp_path / 'cut'}", "--resume", tool="train")
    assert resumed.returncode == 0, resumed.stderr
    one, two = (read_checkpoint(tmp_path / name / "last.safetensors").tensors for name in ("whole", "cut"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_control_c_ends_in_two_lines(tmp_path: Path) -> None:
    values = config_values(
        tmp_path / "run", voc_data(write_voc(tmp_path / "data")), "detection", **SLOW_CONFIG | {"epochs": 500}
    )
    command = [sys.executable, str(ROOT / "tools" / "train.py"), "--config", write_config(tmp_path, values)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        while not (tmp_path / "run" / "last.json").exists() and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
        assert process.stderr is not None
        told = process.stderr.read()
    assert process.returncode == 130
    assert told.strip().startswith("interrupted: ") and "--resume" in told and "Traceback" not in told, told
    assert read_checkpoint(tmp_path / "run" / "last.safetensors").state["epoch"] >= 1


@pytest.mark.slow
def test_faults_in_a_worker_reach_the_user_in_one_line(tmp_path: Path) -> None:
    root = write_mask_folder(tmp_path / "data", count=3)
    config = write_config(
        tmp_path, config_values(tmp_path / "run", mask_data(root), "segmentation", workers=1)
    )
    picture = root / "images" / "scene_1.png"
    picture.write_bytes(picture.read_bytes()[:900])
    found = run("--config", config, tool="train")
    assert found.returncode == 1
    assert (
        found.stderr.startswith("error: ") and found.stderr.count("\n") == 1 and str(picture) in found.stderr
    ), found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("empty", [(), (0, 1, 2, 3)])
def test_two_processes_train_and_evaluate_as_one_set(tmp_path: Path, empty: tuple[int, ...]) -> None:
    """Also where a process sees no object at all. The numbers are those of one process over the same
    weights.
    """
    data = voc_data(write_voc(tmp_path / "data", count=5, empty=empty))
    values = config_values(
        tmp_path / "run", data, "detection", "segmentation", epochs=2, batch_size=1, devices=2, ema=0.9
    )
    config = write_config(tmp_path, values)
    found = run("--config", config, tool="train", environment={"MASTER_ADDR": "127.0.0.1"})
    assert found.returncode == 0 and "Warning" not in found.stderr, found.stderr
    assert found.stdout.count("done ") == 1 and found.stdout.count("run folder") == 1
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    again = tmp_path / "again.json"
    found = run(
        "--config",
        config,
        "--weights",
        str(tmp_path / "run"),
        "--json",
        str(again),
        "--device",
        "cpu",
        tool="evaluate",
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(again.read_text())["headline"] == pytest.approx(report["headline"], abs=1e-6)
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "evaluation" not in line] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_fault_in_one_process_ends_the_other_without_a_traceback(tmp_path: Path) -> None:
    root = write_mask_folder(tmp_path / "data", count=4)
    picture = root / "images" / "scene_3.png"
    picture.write_bytes(picture.read_bytes()[:900])
    values = config_values(
        tmp_path / "run", mask_data(root), "segmentation", epochs=3, batch_size=1, devices=2
    )
    found = run("--config", write_config(tmp_path, values), tool="train")
    assert found.returncode != 0 and "Traceback" not in found.stderr
    assert f"error: {picture}: not a readable image" in found.stderr, found.stderr
