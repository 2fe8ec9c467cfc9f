"""The moving average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vistasks.training.ema import AveragedWeights


def model_of(value: float) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


def test_the_first_steps_follow_quickly_and_later_ones_by_the_decay() -> None:
    averaged, expected = AveragedWeights(model_of(0), decay=0.5), 0.0
    for step in range(20):
        averaged.update(model_of(step + 1), step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
        assert next(averaged.model.parameters()).mean().item() == pytest.approx(expected, rel=1e-5)


def test_weights_that_do_not_change_stay_bit_for_bit() -> None:
    """Frozen stages, for example: an average of equal values must not drift."""
    torch.manual_seed(0)
    model = nn.Linear(50, 50)
    averaged = AveragedWeights(model, decay=0.9)
    for step in range(100):
        averaged.update(model, step)
    assert all(torch.equal(a, b) for a, b in zip(averaged.model.parameters(), model.parameters()))


def test_buffers_are_copied_and_the_model_is_left_alone() -> None:
    model = model_of(1)
    averaged = AveragedWeights(model, decay=0.9)
    model.train()
    model(torch.randn(4, 2))
    averaged.update(model, 0)
    norm, copied = model[1], averaged.model[1]
    assert isinstance(norm, nn.BatchNorm1d) and isinstance(copied, nn.BatchNorm1d)
    assert norm.running_mean is not None and copied.running_mean is not None
    assert (
        torch.equal(norm.running_mean, copied.running_mean)
        and copied.num_batches_tracked == norm.num_batches_tracked == 1
    )
    assert copied.running_mean is not norm.running_mean
    assert model.training and not averaged.model.training
    assert all(p.requires_grad for p in model.parameters()) and not any(
        p.requires_grad for p in averaged.model.parameters()
    )
