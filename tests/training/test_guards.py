"""Gradient spikes, numbers that are not finite, a loader that gives nothing, memory that runs out, and the
batch that is kept.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.heads.contract import scene
from tests.tiny_data import config_values, tiny_config, voc_data, write_voc
from vistasks.checkpoint import save_checkpoint
from vistasks.cli import main
from vistasks.config import parse_config
from vistasks.models import MultiTaskModel
from vistasks.models.building import build_model
from vistasks.training.ema import AveragedWeights
from vistasks.training.guards import LEAST, GradientWatch, LoaderWatch, NotFinite
from vistasks.training.loop import train
from vistasks.training.out_of_memory import advice, ran_out
from vistasks.training.state import Progress, TrainingState
from vistasks.types import Batch, ClassNames


def test_a_norm_far_above_the_others_is_told_with_its_pictures() -> None:
    watch = GradientWatch([], scaled=False)
    assert all(watch.check(step, 1.0 + step % 3, ["a.jpg"]) is None for step in range(LEAST))
    assert watch.check(LEAST, 19.0, ["a.jpg"]) is None
    told = watch.check(LEAST + 1, 60.0, ["a.jpg", "b.jpg"])
    assert (
        told
        == f"step {LEAST + 1}: gradient norm 60, 30 times the median of {LEAST + 1} steps; images: a.jpg, b.jpg"
    )


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_stop_the_run_unless_the_loss_is_scaled(norm: float) -> None:
    with pytest.raises(
        NotFinite,
        match=r"step 3: the loss is finite, but the norm of its gradients is .* a\.jpg.* train\.optim",
    ):
        GradientWatch([], scaled=False).check(3, norm, ["a.jpg"])
    norms: list[float] = []
    assert GradientWatch(norms, scaled=True).check(3, norm, ["a.jpg"]) is None and norms == []


def test_a_batch_that_does_not_come_is_told() -> None:
    said: list[str] = []
    with LoaderWatch(said.append, seconds=0.05) as watch:
        with watch.waiting(lambda: "batch 3 (a.jpg) is awaited"):
            deadline = time.monotonic() + 20
            while len(said) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
        assert (
            said[0].startswith("warning: no data for 0 s: batch 3 (a.jpg) is awaited. A disk or network")
            and len(said) >= 2
        )
        assert watch.waited > 0.05


def model(**options: Any) -> tuple[MultiTaskModel, Any]:
    values = config_values(Path("x"), {"format": "voc", "root": "x"}, "detection", "segmentation")
    values["model"] = {"backbone": {"name": "resnet18"}, "heads": values["model"]["heads"]} | options
    values["model"]["heads"]["segmentation"] = {"name": "fcn32s", "hidden": 0}
    config = parse_config(values | {"input": {"max_side": 640}})
    torch.manual_seed(0)
    return build_model(config.model, ClassNames(("a", "b"), ("a", "b", "c"))), config


def test_memory_that_ran_out_names_what_gives_some_back() -> None:
    built, config = model()
    optimizer = torch.optim.AdamW(built.parameters())
    state = TrainingState(built, AveragedWeights(built, 0.9), optimizer, None, Progress())  # type: ignore[arg-type]
    batch = scene()
    told = advice(state, batch, config, 12)
    half = len(batch) // 2
    assert (
        told.startswith(f"step 12: out of memory with {len(batch)} images of") and "averaged weights" in told
    )
    for knob in (
        f"train.batch_size={half} ",
        "input.max_side=512: about 36%",
        "model.gradient_checkpointing=true",
        "bf16-mixed",
    ):
        assert knob in told, told
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert ran_out(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not ran_out(RuntimeError("shapes"))


def test_out_of_memory_in_a_step_ends_in_that_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: MultiTaskModel, batch: Batch) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    monkeypatch.setattr(MultiTaskModel, "loss", full)
    config = tiny_config(
        tmp_path / "run", voc_data(write_voc(tmp_path / "voc", count=2)), "detection", batch_size=2
    )
    expected = r"step 0: out of memory with 2 images of 64x64(.|\n)*train\.batch_size=1 train\.accumulate=2"
    with pytest.raises(MemoryError, match=expected):
        train(config)


def test_a_batch_that_stopped_a_run_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture whose loss is not finite because a weight is: the file tells which, and where numbers end."""
    values = config_values(
        tmp_path / "run", voc_data(write_voc(tmp_path / "voc", count=2)), "detection", batch_size=2
    )
    values["model"]["backbone"] = {"name": "resnet18"}
    original = MultiTaskModel.train

    def broken(self: MultiTaskModel, mode: bool = True) -> MultiTaskModel:
        with torch.no_grad():
            self.backbone.get_parameter("layer2.0.bn1.weight").fill_(float("inf"))
        return original(self, mode)

    monkeypatch.setattr(MultiTaskModel, "train", broken)
    with pytest.raises(
        FloatingPointError,
        match=r"the loss is not finite .* vistasks debug-batch .*step_00000000\.safetensors",
    ):
        train(parse_config(values))
    monkeypatch.undo()
    (kept,) = (tmp_path / "run" / "debug").glob("*.safetensors")
    assert main(["debug-batch", str(kept), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "scene_0.png" in told and "2 objects" in told and "64x64" in told
    assert "weights        not finite: backbone.layer2.0.bn1.weight" in told
    assert "first non-finite output: backbone.layer2.0.bn1 (BatchNorm2d)" in told


def test_a_checkpoint_is_no_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, config = model()
    save_checkpoint(tmp_path / "x.safetensors", {}, config=config, classes=ClassNames((), ()), state={})
    assert main(["debug-batch", str(tmp_path / "x.safetensors")]) == 1
    assert "a checkpoint without a batch" in capsys.readouterr().err


def test_gradient_checkpointing_changes_nothing_but_the_memory() -> None:
    """Gradients and BatchNorm's statistics to the bit, with fewer bytes kept for the backward pass."""
    found, kept = [], []
    for on in (False, True):
        built, _ = model(gradient_checkpointing=on)
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        built.train()
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = torch.stack(list(built.loss(scene()).values())).sum()
        kept.append(sum(sizes.values()))
        loss.backward()
        gradients = {name: p.grad for name, p in built.named_parameters() if p.grad is not None}
        found.append(gradients | dict(built.named_buffers()))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert kept[1] < kept[0]


def test_a_trunk_that_cannot_be_checkpointed_says_so() -> None:
    with pytest.raises(
        ValueError,
        match=r"model\.gradient_checkpointing: the backbone 'timm' cannot do that; set it to false",
    ):
        model(backbone={"name": "timm", "model": "resnet18"}, gradient_checkpointing=True)
