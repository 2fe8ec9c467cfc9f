"""Parameter groups, the schedule's shapes, and the optimizer's way through a checkpoint."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vistasks.config import OptimizerConfig, ScheduleConfig
from vistasks.training.optimization import (
    build_optimizer,
    learning_rate_factor,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.heads = nn.Linear(4, 2)


def optimizer_of(model: nn.Module, **options: object) -> torch.optim.Optimizer:
    return build_optimizer(model, OptimizerConfig(**options))  # type: ignore[arg-type]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        torch.manual_seed(step)
        loss = sum(
            (parameter * torch.randn_like(parameter)).sum()
            for parameter in model.parameters()
            if parameter.requires_grad
        )
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_groups_have_their_own_rate_and_decay(name: str) -> None:
    model = Model()
    optimizer = optimizer_of(model, name=name, lr=1e-2, backbone_lr=1e-3, weight_decay=0.1)
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(of) == len(list(model.parameters()))
    for parameter_name, parameter in model.named_parameters():
        group = of[id(parameter)]
        assert group["lr"] == group["peak"] == (1e-3 if parameter_name.startswith("backbone.") else 1e-2)
        assert group["weight_decay"] == (
            0.1 if parameter_name in ("backbone.0.weight", "heads.weight") else 0.0
        )


def test_without_a_rate_of_its_own_the_trunk_has_the_heads() -> None:
    assert {group["lr"] for group in optimizer_of(Model(), lr=0.5).param_groups} == {0.5}


def test_frozen_parameters_are_in_no_group() -> None:
    model = Model()
    model.backbone.requires_grad_(False)
    optimizer = optimizer_of(model)
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {
        id(p) for p in model.heads.parameters()
    }


NAMES = st.sampled_from(["constant", "cosine", "poly", "step"])


@given(NAMES, st.integers(0, 20), st.integers(1, 200), st.floats(0, 1), st.floats(0.1, 3))
def test_every_schedule_rises_to_one_and_falls(
    name: str, warmup: int, total: int, final: float, power: float
) -> None:
    config = ScheduleConfig(
        name=name, warmup_steps=warmup, final_factor=final, power=power, milestones=[0.5, 0.75]
    )  # type: ignore[arg-type]
    factors = [learning_rate_factor(step, total, config) for step in range(total)]
    assert all(0 < factor <= 1 + 1e-12 for factor in factors) or final == 0
    rising, falling = factors[:warmup], factors[warmup:]
    assert rising == [(step + 1) / warmup for step in range(len(rising))]
    if falling:
        assert falling[0] == pytest.approx(1) or (name == "step" and warmup >= total / 2)
        assert all(b <= a + 1e-12 for a, b in pairwise(falling))


def test_the_shapes_themselves() -> None:
    def at(step: int, total: int = 100, **options: object) -> float:
        return learning_rate_factor(step, total, ScheduleConfig(warmup_steps=0, **options))  # type: ignore[arg-type]

    assert at(50, name="cosine", final_factor=0.2) == pytest.approx(0.6)
    assert at(100, name="cosine", final_factor=0.2) == pytest.approx(0.2)
    assert at(25, name="cosine", final_factor=0) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert at(60, name="poly", power=0.9) == pytest.approx(0.4**0.9)
    steps = [at(step, name="step", milestones=[0.7, 0.9], gamma=0.1) for step in (69, 70, 89, 90)]
    assert steps == pytest.approx([1, 0.1, 0.1, 0.01])
    assert at(99, name="constant") == 1


def test_setting_the_rate_scales_each_groups_peak() -> None:
    optimizer = optimizer_of(Model(), lr=1e-2, backbone_lr=1e-3)
    assert set_learning_rate(optimizer, 0.5) == pytest.approx(5e-3)
    assert set_learning_rate(optimizer, 0.1) == pytest.approx(1e-3)  # of the peak, not of the rate before
    assert {round(group["lr"], 9) for group in optimizer.param_groups} == {1e-3, 1e-4}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_restored_optimizer_goes_on_as_the_first(name: str) -> None:
    torch.manual_seed(0)
    one, two = Model(), Model()
    first = optimizer_of(one, name=name, lr=0.1, backbone_lr=0.05)
    train(one, first, 3)
    tensors, groups = optimizer_tensors(first)
    saved = {key.removeprefix("optimizer."): value.clone() for key, value in tensors.items()}
    before = {key: value.clone() for key, value in saved.items()}
    two.load_state_dict(one.state_dict())
    second = optimizer_of(two, name=name, lr=0.1, backbone_lr=0.05)
    restore_optimizer(second, saved, groups, "last.safetensors")
    train(one, first, 3)
    train(two, second, 3)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))
    assert all(torch.equal(before[key], saved[key]) for key in saved)  # what was read is not written to


def test_other_groups_are_refused() -> None:
    model = Model()
    tensors, groups = optimizer_tensors(optimizer_of(model))
    model.backbone.requires_grad_(False)
    with pytest.raises(ValueError, match=r"last\.safetensors: its optimizer state"):
        restore_optimizer(optimizer_of(model), tensors, groups, "last.safetensors")
