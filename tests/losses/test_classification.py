from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from vistasks.losses.classification import partial_cross_entropy
from vistasks.types import IGNORE_INDEX


def everything(count: int, classes: int) -> torch.Tensor:
    return torch.ones(count, classes, dtype=torch.bool)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5, 3.0])])
def test_is_the_ordinary_cross_entropy_where_every_class_is_labelled(weights: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, 5, 6), torch.randint(0, 4, (2, 5, 6))
    target[0, :2] = IGNORE_INDEX
    expected = functional.cross_entropy(logits, target, weight=weights, ignore_index=IGNORE_INDEX)
    found = partial_cross_entropy(
        logits, target, labelled=everything(2, 4), background=0, class_weights=weights
    )
    torch.testing.assert_close(found, expected)


def test_background_means_background_or_what_the_image_does_not_label() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4]]))  # background, then a, b, c
    labelled = torch.tensor([[False, True, False, True]])
    found = partial_cross_entropy(logits, torch.tensor([0]), labelled=labelled, background=0)
    assert found.item() == pytest.approx(-math.log(0.1 + 0.3))  # background or b


def test_an_example_of_a_class_that_the_image_does_not_label_is_ignored() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    labelled = torch.tensor([[True, True, False], [True, True, False]])
    with_it = partial_cross_entropy(logits, torch.tensor([1, 2]), labelled=labelled, background=0)
    without = partial_cross_entropy(logits[:1], torch.tensor([1]), labelled=labelled[:1], background=0)
    torch.testing.assert_close(with_it, without)


def test_without_a_background_class_only_marked_examples_count() -> None:
    logits = torch.randn(2, 3)
    labelled = torch.tensor([[True, False, True], [False, False, False]])
    found = partial_cross_entropy(logits, torch.tensor([2, 0]), labelled=labelled, background=None)
    torch.testing.assert_close(found, functional.cross_entropy(logits[:1], torch.tensor([2])))


@pytest.mark.parametrize("target", [torch.zeros(0, dtype=torch.int64), torch.full((3,), IGNORE_INDEX)])
def test_is_zero_with_zero_gradients_where_nothing_counts(target: torch.Tensor) -> None:
    logits = torch.randn(len(target), 3, requires_grad=True)
    loss = partial_cross_entropy(logits, target, labelled=everything(len(target), 3), background=2)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_gradients_are_finite_where_an_unlabelled_class_is_certain() -> None:
    logits = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    loss = partial_cross_entropy(
        logits, torch.tensor([2]), labelled=torch.tensor([[False, True, True]]), background=2
    )
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert torch.isfinite(logits.grad).all()


def test_label_smoothing_is_pytorchs() -> None:
    logits, target = (
        torch.randn(5, 4, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 3, 2, 1, 3]),
    )
    labelled = torch.ones(5, 4, dtype=torch.bool)
    ours = partial_cross_entropy(logits, target, labelled=labelled, background=3, label_smoothing=0.1)
    assert torch.allclose(ours, functional.cross_entropy(logits, target, label_smoothing=0.1))


def test_pixels_that_mean_background_or_what_the_image_does_not_label() -> None:
    logits = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4])).view(1, 4, 1, 1).expand(1, 4, 2, 3)
    labelled = torch.tensor([[False, True, False, True]])
    target = torch.zeros(1, 2, 3, dtype=torch.int64)
    found = partial_cross_entropy(logits, target, labelled=labelled, background=0)
    assert found.item() == pytest.approx(-math.log(0.1 + 0.3))
    whole = partial_cross_entropy(logits, target, labelled=torch.zeros_like(labelled), background=0)
    assert whole.item() == 0  # nothing is labelled, so nothing is known to be background
