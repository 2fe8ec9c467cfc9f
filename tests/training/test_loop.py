"""Training end to end on a few small pictures: what it learns, what it writes, what it refuses, and how it
goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.tiny_data import config_values, mask_data, tiny_config, voc_data, write_mask_folder, write_voc
from vistasks.checkpoint import read_checkpoint
from vistasks.config import Config, load_config, parse_config
from vistasks.evaluation.loop import evaluate
from vistasks.inference.loaded import load_model
from vistasks.models import MultiTaskModel
from vistasks.training.loop import train
from vistasks.training.run_folder import keep_finished_steps
from vistasks.training.state import Progress
from vistasks.types import Batch

JOINT = ("detection", "segmentation")
OUTPUTS = {
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "report.json",
    "curves.png",
    "curves.html",
    "samples",
}
CLOCK = ("images_per_second", "seconds")  # what a clock says in metrics.jsonl
OUTPUTS |= {"best.safetensors", "best.json", "last.safetensors", "last.json", "checkpoints"}


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [line for line in lines_of(folder) if "evaluation" not in line]


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mask_folder(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, voc: Path) -> tuple[Config, dict[str, Any]]:
    """A joint model that has learnt six pictures by heart."""
    folder = tmp_path_factory.mktemp("trained") / "runs" / "joint"
    values = config_values(folder, voc_data(voc), *JOINT, epochs=40, validate_every=20)
    values["model"]["heads"] |= {"segmentation": {"name": "fcn8s", "hidden": 0}}
    values["train"]["optimizer"] = {"lr": 5e-3}
    config = parse_config(values)
    return config, train(config)


def test_it_learns_the_pictures_by_heart(trained: tuple[Config, dict[str, Any]]) -> None:
    config, results = trained
    steps = steps_of(Path(config.output))
    assert [step["step"] for step in steps] == list(range(1, 81)) and steps[-1]["epoch"] == 39
    for name in ("detection/classification", "segmentation/cross_entropy"):
        first, last = (np.mean([step[name] for step in part]) for part in (steps[:4], steps[-4:]))
        assert last < 0.25 * first, name
    assert results["mIoU"] > 0.85 and results["AP50"] > 0.9


def test_what_a_run_leaves(trained: tuple[Config, dict[str, Any]]) -> None:
    config, results = trained
    folder = Path(config.output)
    names = {path.name for path in folder.iterdir()}
    assert {name for name in names if not name.startswith("events.out.tfevents.")} == OUTPUTS
    assert load_config(folder / "config.yaml") == config
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["torch"] == torch.__version__ and environment["device"] == "cpu"
    report = json.loads((folder / "report.json").read_text())
    assert report["headline"] == results and report["images"] == 6
    assert {"coco", "voc_2007", "voc_area", "iou"} <= set(report) and all(
        report[key]["protocol"] for key in ("coco", "iou")
    )
    assert [line["epoch"] for line in lines_of(folder) if "evaluation" in line] == [20, 40]
    with Image.open(folder / "curves.png") as curves:
        assert curves.size[0] > 500
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["epoch_020.jpg", "epoch_040.jpg"]
    assert "Samples, epoch 040" in (folder / "curves.html").read_text()
    best, last = read_checkpoint(folder / "best.safetensors"), read_checkpoint(folder / "last.safetensors")
    assert last.state["epoch"] == 40 and last.state["step"] == 80 and best.state["best"] == last.state["best"]
    assert not best.part("optimizer") and last.part("optimizer") and not last.part("raw")


def test_evaluating_the_best_weights_gives_the_report(trained: tuple[Config, dict[str, Any]]) -> None:
    config, _ = trained
    report = json.loads((Path(config.output) / "report.json").read_text())
    again = json.loads(json.dumps(evaluate(config, config.output, device="cpu")))
    assert {key: again[key] for key in report if key != "model_seconds_per_image"} == {
        key: value for key, value in report.items() if key != "model_seconds_per_image"
    }


def test_a_folder_in_use_is_refused(trained: tuple[Config, dict[str, Any]]) -> None:
    config, _ = trained
    before = {path.name: path.stat().st_mtime_ns for path in Path(config.output).iterdir()}
    with pytest.raises(ValueError, match=r"joint already holds a run \(last\.safetensors\).*--resume"):
        train(config)
    assert {path.name: path.stat().st_mtime_ns for path in Path(config.output).iterdir()} == before


def test_a_finished_run_that_is_resumed_has_nothing_to_do(trained: tuple[Config, dict[str, Any]]) -> None:
    config, results = trained
    weights = (Path(config.output) / "last.safetensors").read_bytes()
    lines = lines_of(Path(config.output))
    assert train(config, resume=True) == results
    assert (Path(config.output) / "last.safetensors").read_bytes() == weights and lines_of(
        Path(config.output)
    ) == lines


@pytest.mark.parametrize(
    "path, value, expected",
    [
        ("model.backbone.width", 0.2, "the model section of the config is not that of .*last.safetensors"),
        (
            "train.optimizer.name",
            "sgd",
            "train.optimizer.name is sgd, but .* adamw",
        ),
        (
            "train.batch_size",
            2,
            r"an epoch has 3 steps now, but .* made 80 steps in 40 epochs; keep the data, train.batch_size",
        ),
        (
            "data.classes",
            ["blue", "red"],
            "the detection classes of the data are blue, red, but .* has red, blue, in this order",
        ),
    ],
)
def test_what_a_resumed_run_must_keep(
    trained: tuple[Config, dict[str, Any]], path: str, value: Any, expected: str
) -> None:
    config, _ = trained
    values = yaml.safe_load((Path(config.output) / "config.yaml").read_text())
    *keys, last = path.split(".")
    section = values
    for key in keys:
        section = section[key]
    section[last] = value
    with pytest.raises(ValueError, match=rf"--resume: {expected}"):
        train(parse_config(values), resume=True)


def test_nothing_to_resume(tmp_path: Path, voc: Path) -> None:
    with pytest.raises(ValueError, match=r"--resume: there is no .*none/last\.safetensors to go on from"):
        train(tiny_config(tmp_path / "none", voc_data(voc), "detection"), resume=True)
    assert not (tmp_path / "none").exists()


class Stop(Exception):
    pass


def interrupted_at(step: int, error: type[BaseException]) -> Callable[..., None]:
    """A display that stops the run after an optimizer step."""
    from vistasks.training.progress import TrainingDisplay

    original = TrainingDisplay.step

    def stopping(self: TrainingDisplay, progress: Progress, *values: Any, **named: Any) -> None:
        original(self, progress, *values, **named)
        if progress.step == step:
            raise error

    return stopping


def same_tensors(a: Path, b: Path) -> bool:
    one, two = read_checkpoint(a).tensors, read_checkpoint(b).tensors
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    kind: str, tmp_path: Path, voc: Path, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With augmentation, accumulation, averaged weights, region sampling and dropout; cut off in the middle
    of an epoch.
    """
    train_values: dict[str, Any] = {"epochs": 3, "batch_size": 1, "accumulate": 2, "clip_grad_norm": 1.0}
    train_values |= {
        "optimizer": {"name": kind, "lr": 1e-3},
        "schedule": {"name": "cosine", "warmup_steps": 2},
    }
    if kind == "adamw":
        values = config_values(tmp_path / "whole", voc_data(voc), *JOINT, **train_values, ema=0.9)
        values["model"]["heads"]["detection"] = values["model"]["heads"]["detection"] | {"dropout": 0.3}
    else:
        values = config_values(tmp_path / "whole", mask_data(masks), "segmentation", **train_values)
    values["augment"] = [{"HorizontalFlip": {"p": 0.5}}, {"RandomBrightnessContrast": {"p": 0.8}}]
    whole, cut = parse_config(values), parse_config(values | {"output": str(tmp_path / "cut")})
    results = train(whole)
    with monkeypatch.context() as patch:
        patch.setattr("vistasks.training.loop.TrainingDisplay.step", interrupted_at(5, Stop))
        with pytest.raises(Stop):
            train(cut)
    state = read_checkpoint(tmp_path / "cut" / "last.safetensors").state
    assert (state["epoch"], state["step"]) == (1, 3) and len(steps_of(tmp_path / "cut")) == 5
    torch.manual_seed(99)  # another process has other random numbers
    assert train(cut, resume=True) == results
    for name in ("last.safetensors", "best.safetensors"):
        assert same_tensors(tmp_path / "whole" / name, tmp_path / "cut" / name), name
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "cut")]
    assert reports[0]["headline"] == reports[1]["headline"]
    assert bool(read_checkpoint(tmp_path / "cut" / "last.safetensors").part("raw")) == (kind == "adamw")


def test_an_interrupt_says_how_to_go_on_and_leaves_a_usable_checkpoint(
    tmp_path: Path, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path / "run", mask_data(masks), "segmentation")
    with monkeypatch.context() as patch:
        patch.setattr("vistasks.training.loop.TrainingDisplay.step", interrupted_at(1, KeyboardInterrupt))
        with pytest.raises(
            KeyboardInterrupt, match=r"nothing was saved yet, so there is nothing to go on from in .*run"
        ):
            train(config)
    (tmp_path / "run" / ".last.12.tmp.safetensors").write_text("of a killed process")
    with monkeypatch.context() as patch:
        patch.setattr("vistasks.training.loop.TrainingDisplay.step", interrupted_at(3, KeyboardInterrupt))
        with pytest.raises(
            KeyboardInterrupt, match=r"last\.safetensors holds the run after step 2; .* --resume goes on"
        ):
            train(config)  # the folder holds no run yet, so it may be used again
    assert [step["step"] for step in steps_of(tmp_path / "run")] == [1, 2, 3]  # nothing of the first attempt
    assert not list((tmp_path / "run").glob(".*"))
    assert load_model(tmp_path / "run", "cpu").classes.segmentation == ("background", "red", "blue")


def test_lines_of_steps_that_are_made_again_are_removed(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    keep_finished_steps(metrics, 0, 0)
    assert not metrics.exists()
    lines = '{"step": 1}\n{"step": 2, "epoch": 1, "evaluation": {}}\n'
    metrics.write_text(lines + '{"step": 2, "epoch": 2, "evaluation": {}}\n{"step": 3}\n[]\n{"st')
    keep_finished_steps(metrics, 2, 1)
    assert metrics.read_text() == lines


def test_images_without_any_object_train_and_evaluate(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", count=3, empty=(0, 1, 2))
    results = train(tiny_config(tmp_path / "run", voc_data(root), *JOINT, epochs=1, batch_size=2))
    assert results["AP"] is None and results["VOC_mAP"] is None and results["mIoU"] is not None
    (step,) = steps_of(tmp_path / "run")
    assert (
        step["detection/box"] == 0
        and np.isfinite(step["detection/classification"])
        and step["detection/classification"] > 0
    )
    json.loads((tmp_path / "run" / "report.json").read_text(), parse_constant=pytest.fail)  # no NaN in it


def test_sets_labelled_for_one_task_each_mix(tmp_path: Path, masks: Path) -> None:
    """Each absent task adds exactly 0; without masks in the evaluated part there is no mIoU but an AP."""
    root = write_voc(tmp_path / "voc", count=3, masks=False, first=20)
    section = mask_data(masks)
    also = {key: section[key] for key in ("format", "root", "mask_values")} | section["train"]
    data = voc_data(root) | {"tasks": ["detect"], "also": [also]}
    results = train(tiny_config(tmp_path / "run", data, *JOINT, epochs=2, batch_size=1))
    steps = steps_of(tmp_path / "run")
    assert len(steps) == 18
    present = [
        (step["detection/classification"] > 0, step["segmentation/cross_entropy"] > 0) for step in steps
    ]
    assert sorted(present) == [(False, True)] * 12 + [(True, False)] * 6
    for step, (detection, _) in zip(steps, present):
        assert detection or (step["detection/classification"] == 0 and step["detection/box"] == 0)
    assert results["AP"] is not None and results["mIoU"] is None


def test_without_an_evaluated_part_the_last_weights_are_the_best(tmp_path: Path, masks: Path) -> None:
    data = mask_data(masks) | {"val": {}}
    assert train(tiny_config(tmp_path / "run", data, "segmentation", epochs=1)) == {}
    last, best = (read_checkpoint(tmp_path / "run" / f"{name}.safetensors") for name in ("last", "best"))
    assert all(torch.equal(value, last.part("model")[name]) for name, value in best.part("model").items())
    for change in ({"monitor": "mIoU"}, {"early_stopping": 2}):
        with pytest.raises(ValueError, match=r"train\.monitor and train\.early_stopping .*data\.val"):
            train(tiny_config(tmp_path / "other", data, "segmentation", **change))
    with pytest.raises(ValueError, match=r"data\.val is empty"):
        evaluate(tiny_config(tmp_path, data, "segmentation"), str(tmp_path / "run"))


def test_a_loss_that_is_not_finite_names_step_terms_and_files(
    tmp_path: Path, voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = MultiTaskModel.loss, []

    def poisoned(self: MultiTaskModel, batch: Batch) -> dict[str, torch.Tensor]:
        seen.append(batch.paths)
        terms = original(self, batch)
        return terms if len(seen) < 3 else terms | {"detection/box": terms["detection/box"] * float("nan")}

    monkeypatch.setattr(MultiTaskModel, "loss", poisoned)
    with pytest.raises(FloatingPointError) as caught:
        train(tiny_config(tmp_path / "run", voc_data(voc), *JOINT, epochs=3, batch_size=3))
    message = str(caught.value)
    assert (
        message.startswith("step 2: the loss is not finite (detection/classification = ")
        and "detection/box = nan" in message
    )
    assert all(path in message for path in seen[-1]) and "train.optimizer.lr" in message
    saved = read_checkpoint(tmp_path / "run" / "last.safetensors")  # of the epoch before
    assert saved.state["epoch"] == 1 and all(torch.isfinite(value).all() for value in saved.tensors.values())


@pytest.mark.parametrize(
    "change, expected",
    [
        (
            {"monitor": "mIuO"},
            r"train\.monitor: 'mIuO' is not among the results\. Did you mean 'mIoU'\? Known: mIoU, pixel_acc",
        ),
        ({"monitor": "AP"}, r"train\.monitor: 'AP' is not among the results\. Known: mIoU"),
        (
            {"precision": "16-mixed"},
            r"train\.precision=16-mixed needs a CUDA device, and this run is on cpu: use bf16-mixed",
        ),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_is_written(
    tmp_path: Path, masks: Path, change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        train(tiny_config(tmp_path / "run", mask_data(masks), "segmentation", **change))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("accelerator, devices", [("cuda", 1), ("cuda", 3), ("mps", 2)])
def test_devices_that_are_not_there(
    tmp_path: Path, masks: Path, accelerator: str, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    expected = rf"train\.accelerator={accelerator} with train\.devices={devices}: PyTorch sees \d {accelerator} devices here"
    with pytest.raises(ValueError, match=expected):
        train(
            tiny_config(
                tmp_path / "run", mask_data(masks), "segmentation", accelerator=accelerator, devices=devices
            )
        )


def test_training_stops_early_where_nothing_gets_better(
    tmp_path: Path, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.3, 0.5, 0.5, 0.4])
    monkeypatch.setattr("vistasks.training.validation.headline", lambda report: {"mIoU": next(values)})
    config = tiny_config(
        tmp_path / "run", mask_data(masks), "segmentation", epochs=9, batch_size=6, early_stopping=2
    )
    assert train(config) == {"mIoU": 0.5}
    state = read_checkpoint(tmp_path / "run" / "last.safetensors").state
    assert (state["epoch"], state["best_epoch"], state["best"]) == (4, 2, 0.5)


def test_fewer_batches_than_accumulate_still_make_a_step(tmp_path: Path, masks: Path) -> None:
    config = tiny_config(
        tmp_path / "run", mask_data(masks), "segmentation", epochs=2, batch_size=2, accumulate=50
    )
    train(config)
    assert [step["step"] for step in steps_of(tmp_path / "run")] == [1, 2]


def test_a_rest_too_small_for_an_update_is_left_out(tmp_path: Path, masks: Path) -> None:
    train(
        tiny_config(tmp_path / "run", mask_data(masks), "segmentation", epochs=1, batch_size=1, accumulate=4)
    )
    assert [step["step"] for step in steps_of(tmp_path / "run")] == [1]


def test_mixed_precision_leaves_the_boxes_alone(
    tmp_path: Path, voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fabric would cast them to bf16, where 203.0 is 203 but 261.5 is 262."""
    seen: list[tuple[Batch, torch.dtype]] = []
    original = MultiTaskModel.forward

    def watching(self: MultiTaskModel, batch: Batch) -> dict[str, torch.Tensor]:
        inside = torch.nn.functional.linear(torch.zeros(1, 2), torch.zeros(2, 2)).dtype
        seen.append((batch, inside))
        return original(self, batch)

    monkeypatch.setattr(MultiTaskModel, "forward", watching)
    train(tiny_config(tmp_path / "run", voc_data(voc), *JOINT, epochs=1, precision="bf16-mixed"))
    for batch, inside in seen:
        assert inside == torch.bfloat16  # autocast is on
        assert batch.images.dtype == torch.uint8
        assert all(boxes.dtype == torch.float32 for boxes in (*batch.boxes, *batch.proposals))
    assert all(
        tensor.dtype != torch.bfloat16 for tensor in read_checkpoint(tmp_path / "run").tensors.values()
    )


def test_frozen_stages_stay_as_they_were(tmp_path: Path, masks: Path) -> None:
    values = config_values(tmp_path / "run", mask_data(masks), "segmentation", epochs=2, ema=0.5)
    values["model"] |= {"freeze_stages": 2, "freeze_batchnorm": True}
    config = parse_config(values)
    torch.manual_seed(config.seed)
    train(config)
    from vistasks.models.building import build_model

    torch.manual_seed(config.seed)
    fresh = build_model(config.model, read_checkpoint(tmp_path / "run").classes)
    after = read_checkpoint(tmp_path / "run" / "last.safetensors").part("model")
    frozen = [name for name, parameter in fresh.named_parameters() if not parameter.requires_grad]
    frozen += [name for name, _ in fresh.backbone.named_buffers(prefix="backbone") if name in after]
    assert frozen and all(torch.equal(fresh.state_dict()[name], after[name]) for name in frozen)
    learnt = [name for name, parameter in fresh.named_parameters() if parameter.requires_grad]
    assert any(not torch.equal(fresh.state_dict()[name], after[name]) for name in learnt)


def test_nothing_is_written_where_data_or_model_are_wrong(tmp_path: Path, voc: Path) -> None:
    wrong_root = tiny_config(tmp_path / "run", voc_data(tmp_path / "bccd"), "detection")
    with pytest.raises(FileNotFoundError, match=r"vistasks data prepare bccd"):
        train(wrong_root)
    values = config_values(tmp_path / "run", voc_data(voc), "segmentation")
    values["model"]["backbone"] = {"name": "resnet18"}
    with pytest.raises(ValueError, match=r"segnet unpools"):
        train(parse_config(values))
    values = config_values(tmp_path / "run", voc_data(voc) | {"val": {"split": "test"}}, "detection")
    with pytest.raises((ValueError, OSError), match=r"test"):
        train(parse_config(values))
    assert not (tmp_path / "run").exists()


def test_deterministic_kernels_or_a_word_about_which_are_missing(tmp_path: Path, voc: Path) -> None:
    values = config_values(tmp_path / "a", voc_data(voc), *JOINT, epochs=1, deterministic=True)
    try:
        with pytest.raises(
            ValueError,
            match=r"train\.deterministic: PyTorch has no deterministic kernel .* on cpu \(max_unpool",
        ):
            train(parse_config(values))
        values["model"]["heads"]["segmentation"] = {"name": "fcn32s", "hidden": 0}
        train(parse_config(values))
        train(parse_config(values | {"output": str(tmp_path / "b")}))
    finally:
        torch.use_deterministic_algorithms(False)
    assert same_tensors(tmp_path / "a" / "last.safetensors", tmp_path / "b" / "last.safetensors")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_training_and_resuming_on_a_gpu(
    tmp_path: Path, voc: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "accelerator": "cuda",
        "precision": precision,
        "epochs": 3,
        "batch_size": 2,
        "ema": 0.9,
    }
    config = tiny_config(tmp_path / "run", voc_data(voc), *JOINT, **options)
    with monkeypatch.context() as patch:
        patch.setattr("vistasks.training.loop.TrainingDisplay.step", interrupted_at(4, KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            train(config)
    results = train(config, resume=True)
    assert all(results[name] is not None for name in ("AP", "mIoU"))
    assert [step["step"] for step in steps_of(tmp_path / "run")] == list(range(1, 10))
    assert all(torch.isfinite(tensor).all() for tensor in read_checkpoint(tmp_path / "run").tensors.values())
