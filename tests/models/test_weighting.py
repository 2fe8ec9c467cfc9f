"""How the losses of two tasks are weighed against each other."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.heads.contract import scene, unlabelled
from tests.models.test_multitask import model
from vistasks.models import MultiTaskModel
from vistasks.models.weighting import GradientNormWeights, UncertaintyWeights
from vistasks.registry import WEIGHTINGS
from vistasks.types import Features

TASKS = ("detection", "segmentation")
YES = {task: torch.tensor(True) for task in TASKS}


def joint(**options: Any) -> MultiTaskModel:
    torch.manual_seed(0)
    made = model(*TASKS)
    weighting = WEIGHTINGS.build(options, where="model.weighting", given={"tasks": TASKS})
    return MultiTaskModel(made.backbone, None, dict(made.heads), {}, weighting).train()


def total(learner: MultiTaskModel, batch: Any) -> Tensor:
    torch.manual_seed(1)
    return torch.stack(list(learner.loss(batch).values())).sum()


@pytest.mark.parametrize("name", list(WEIGHTINGS))
def test_every_weighting_starts_from_equal_factors_and_learns(name: str) -> None:
    learner = joint(name=name)
    assert learner.weighting.factors() == {"detection": 1.0, "segmentation": 1.0}
    optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-3)
    losses = []
    for _ in range(15):
        loss = total(learner, scene())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and all(math.isfinite(value) for value in losses)


@pytest.mark.parametrize("name", list(WEIGHTINGS))
def test_its_state_is_in_the_models(name: str) -> None:
    learner = joint(name=name)
    for _ in range(3):
        total(learner, scene()).backward()
    again = joint(name=name)
    again.load_state_dict(learner.state_dict())
    assert total(learner, scene()).item() == total(again, scene()).item()
    assert learner.weighting.factors() == again.weighting.factors()


def test_uncertainty_settles_at_the_optimum() -> None:
    """e^-s L + s / 2 is least at e^-s = 1 / (2 L)."""
    weighting = UncertaintyWeights(tasks=TASKS, speed=1.0)
    losses = {
        "detection": {"a": torch.tensor(3.0), "b": torch.tensor(1.0)},
        "segmentation": {"c": torch.tensor(0.1)},
    }
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.05)
    for _ in range(400):
        terms = weighting(losses, YES)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    assert weighting.factors()["detection"] == pytest.approx(1 / 8, rel=1e-2)
    assert weighting.factors()["segmentation"] == pytest.approx(5, rel=1e-2)
    assert terms["detection/a"].item() == pytest.approx(3 / 8, rel=1e-2)


def test_uncertainty_is_left_alone_by_what_a_batch_does_not_label() -> None:
    learner = joint(name="uncertainty")
    total(learner, unlabelled(scene())).backward()
    assert all(parameter.grad is None or parameter.grad == 0 for parameter in learner.weighting.parameters())
    learner.active = ("detection",)
    learner.zero_grad()
    assert set(learner.loss(scene())) == {
        "detection/classification",
        "detection/box",
        "weighting/log_variance",
    }
    total(learner, scene()).backward()
    grads = {name: parameter.grad for name, parameter in learner.weighting.named_parameters()}
    assert grads["log_variance.segmentation"] is None and grads["log_variance.detection"] != 0


class Pull(nn.Module):
    """Two "heads" on one map, the second of which pulls ``ratio`` times as hard."""

    def __init__(self, weighting: GradientNormWeights, ratio: float) -> None:
        super().__init__()
        self.weighting, self.ratio = weighting, ratio
        self.shared = nn.Parameter(torch.ones(1, 2, 3, 3))

    def losses(self) -> dict[str, dict[str, Tensor]]:
        features = Features({8: self.shared * 1.0})
        one, two = (self.weighting.tap(task, features).maps[8] for task in TASKS)
        return {"detection": {"a": one.sum()}, "segmentation": {"b": self.ratio * two.sum()}}


def test_gradient_norms_become_equal_and_factors_sum_to_the_tasks() -> None:
    weighting = GradientNormWeights(tasks=TASKS)
    pull = Pull(weighting, 9.0)
    for _ in range(3):
        terms = weighting(pull.losses(), YES)
        torch.stack(list(terms.values())).sum().backward()
    assert weighting.factors()["detection"] == pytest.approx(1.8) and weighting.factors()[
        "segmentation"
    ] == pytest.approx(0.2)
    assert weighting.norm.tolist() == pytest.approx([math.sqrt(18), 9 * math.sqrt(18)])
    weighting.eval()
    before = {name: value.clone() for name, value in weighting.named_buffers()}
    torch.stack(list(weighting(pull.losses(), YES).values())).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in weighting.named_buffers()), (
        "only training measures"
    )


def test_gradient_norm_targets_and_limit() -> None:
    weighting = GradientNormWeights(tasks=TASKS, targets={"detection": 3.0}, limit=4.0)
    for _ in range(2):
        torch.stack(list(weighting(Pull(weighting, 2.0).losses(), YES).values())).sum().backward()
    factors = weighting.factors()
    assert factors["detection"] * 1 / (factors["segmentation"] * 2) == pytest.approx(3)
    limited = GradientNormWeights(tasks=TASKS, limit=4.0)
    for _ in range(2):
        torch.stack(list(limited(Pull(limited, 1000.0).losses(), YES).values())).sum().backward()
    assert limited.factors()["detection"] / limited.factors()["segmentation"] == pytest.approx(4)


def test_alpha_pulls_towards_the_task_that_lags_behind() -> None:
    weighting = GradientNormWeights(tasks=TASKS, alpha=1.5, momentum=0.0)
    pull = Pull(weighting, 1.0)
    for value in (1.0, 0.5, 0.5):  # both tasks have equal gradients, but detection's loss has halved
        losses = pull.losses()
        losses["detection"]["a"] = losses["detection"]["a"] + (value - 1) * 18
        torch.stack(list(weighting(losses, YES).values())).sum().backward()
    factors = weighting.factors()
    assert factors["segmentation"] / factors["detection"] == pytest.approx(2**1.5, rel=1e-5)


def test_in_a_model_both_tasks_pull_equally_hard() -> None:
    learner = joint(name="gradient_norm", momentum=0.0)
    for _ in range(3):
        total(learner, scene()).backward()
    weighted = learner.weighting.square.sqrt()  # of the last pass, with its factors in it
    assert weighted[0].item() == pytest.approx(weighted[1].item(), rel=1e-3)
    batch = replace(scene(), segmentation_labelled=torch.zeros_like(scene().segmentation_labelled))
    norms = learner.weighting.norm.clone()
    total(learner, batch).backward()
    total(learner, scene()).backward()
    assert learner.weighting.norm[1].item() == pytest.approx(norms[1].item(), rel=1e-3), (
        "an unlabelled batch has no norm"
    )


@pytest.mark.parametrize(
    "options, expected",
    [
        (
            {"name": "gradnorm"},
            r"model\.weighting\.name: unknown loss weighting 'gradnorm'\. Did you mean 'gradient_norm'\?",
        ),
        (
            {"name": "gradient_norm", "targets": {"boxes": 1}},
            "targets names boxes; the heads are: detection, segmentation",
        ),
        (
            {"name": "gradient_norm", "momentum": 1},
            r"expected 0 <= momentum < 1 and alpha >= 0; received 1\.0 and 0\.0",
        ),
        ({"name": "uncertainty", "speed": 0}, r"model\.weighting\.speed: Input should be greater than 0"),
    ],
)
def test_messages(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        joint(**options)
