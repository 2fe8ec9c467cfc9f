from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

from vistasks.losses.classification import partial_cross_entropy
from vistasks.losses.segmentation import LOSSES, PixelLoss, pixel_losses
from vistasks.registry import checked_options
from vistasks.types import IGNORE_INDEX


def only(name: str, **options: float) -> PixelLoss:
    return PixelLoss(**{**dict.fromkeys(LOSSES, 0.0), name: 1.0, **options})


def loss(name: str, logits: torch.Tensor, target: torch.Tensor, **more: object) -> torch.Tensor:
    options = more.pop("options", None) or only(name)
    given = {
        "labelled": torch.ones(logits.shape[:2], dtype=torch.bool),
        "background": None,
        "class_weights": None,
        **more,
    }
    return pixel_losses(logits, target, options=options, **given)[name]


def scene(classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    logits, target = torch.randn(2, classes, 6, 7), torch.randint(0, classes, (2, 6, 7))
    target[0, :2] = IGNORE_INDEX
    return logits, target


@pytest.mark.parametrize("name", LOSSES)
def test_is_near_zero_where_the_answer_is_right_and_larger_where_it_is_not(name: str) -> None:
    _, target = scene()
    right = functional.one_hot(target.clamp(max=3), 4).movedim(-1, 1) * 30.0
    wrong = right.roll(1, dims=1)
    assert loss(name, right, target).item() < 1e-3
    assert loss(name, wrong, target).item() > 0.9


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_have_no_gradient_and_no_value(name: str) -> None:
    logits, target = scene()
    logits.requires_grad_()
    value = loss(name, logits, target)
    value.backward()
    assert not logits.grad[0, :, :2].any() and logits.grad[1].any()
    changed = logits.detach().clone()
    changed[0, :, :2] = 9 * torch.randn(4, 2, 7)
    torch.testing.assert_close(loss(name, changed, target), value.detach())


@pytest.mark.parametrize("name", LOSSES)
def test_a_class_that_an_image_does_not_label_takes_no_part_there(name: str) -> None:
    """What the second image says of class 3 goes into its background's likelihood, whichever way it is
    split.
    """
    logits, target = scene()
    target[1][target[1] == 3] = 0
    labelled = torch.tensor([[True] * 4, [True, True, True, False]])
    value = loss(name, logits, target, labelled=labelled, background=0)
    split = logits.clone()
    both = torch.logsumexp(logits[1, [0, 3]], dim=0)
    split[1, 0], split[1, 3] = both + torch.tensor(0.3).log(), both + torch.tensor(0.7).log()
    torch.testing.assert_close(loss(name, split, target, labelled=labelled, background=0), value)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("empty", ["ignored", "not labelled"])
def test_is_zero_with_zero_gradients_where_nothing_counts(name: str, empty: str) -> None:
    logits, target = scene()
    logits.requires_grad_()
    labelled = torch.full((2, 4), empty == "ignored")
    target = torch.full_like(target, IGNORE_INDEX) if empty == "ignored" else target
    value = loss(name, logits, target, labelled=labelled)
    value.backward()
    assert value.item() == 0 and not logits.grad.any()


def test_cross_entropy_is_the_one_of_partly_labelled_data() -> None:
    logits, target = scene()
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    labelled = torch.tensor([[True] * 4, [True, False, True, True]])
    found = loss("cross_entropy", logits, target, labelled=labelled, background=0, class_weights=weights)
    expected = partial_cross_entropy(logits, target, labelled=labelled, background=0, class_weights=weights)
    torch.testing.assert_close(found, expected)


def test_focal_without_gamma_is_cross_entropy_and_looks_away_from_easy_pixels_with_it() -> None:
    logits, target = scene()
    torch.testing.assert_close(
        loss("focal", logits, target, options=only("focal", focal_gamma=0)),
        loss("cross_entropy", logits, target),
    )
    probability = torch.tensor([[0.9, 0.1]])
    found = loss("focal", probability.log()[..., None, None], torch.zeros(1, 1, 1, dtype=torch.int64))
    torch.testing.assert_close(found, -(0.1**2) * torch.tensor(0.9).log())


def test_ohem_is_the_mean_of_the_hard_pixels() -> None:
    probability = torch.tensor([0.95, 0.9, 0.6, 0.2, 0.8])  # of class 0, to which all five belong
    logits = torch.stack([probability, 1 - probability]).log().view(1, 2, 1, 5)
    target = torch.zeros(1, 1, 5, dtype=torch.int64)
    hard = loss("ohem", logits, target, options=only("ohem", ohem_threshold=0.7, ohem_keep=0.2))
    torch.testing.assert_close(hard, -probability[2:4].log().mean())
    at_least = loss("ohem", logits, target, options=only("ohem", ohem_threshold=0.1, ohem_keep=0.6))
    torch.testing.assert_close(at_least, -probability[[2, 3, 4]].log().mean())


def test_dice_is_its_formula() -> None:
    logits, target = scene(3)
    valid = target != IGNORE_INDEX
    probability = logits.softmax(1)
    scores = []
    for number in range(3):
        own = (target == number)[valid].float()
        p = probability[:, number][valid]
        scores.append(1 - 2 * (p * own).sum() / (p.sum() + own.sum()))
    torch.testing.assert_close(loss("dice", logits, target), torch.stack(scores).mean())


def test_lovasz_of_hard_answers_is_one_minus_the_intersection_over_union() -> None:
    """On the corners of the cube the Lovász extension is the set function itself (Berman et al. 2018, section
    3).
    """
    for answer in itertools.product(range(3), repeat=4):
        target = torch.tensor([0, 0, 1, 2])
        logits = functional.one_hot(torch.tensor(answer), 3).T.float().view(1, 3, 1, 4) * 60
        found = loss("lovasz", logits, target.view(1, 1, 4))
        ious = []
        for number in range(3):
            own, said = target == number, torch.tensor(answer) == number
            ious.append((own & said).sum() / (own | said).sum())
        torch.testing.assert_close(found, 1 - torch.stack(ious).mean(), atol=1e-5, rtol=0)


def test_lovasz_sorts_no_more_pixels_than_it_may() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 3, 40, 50), torch.randint(0, 3, (1, 40, 50))
    logits.requires_grad_()
    loss("lovasz", logits, target, options=only("lovasz", lovasz_pixels=100)).backward()
    assert 0 < (logits.grad.abs().sum(1) > 0).sum() <= 100


def test_the_sum_is_weighted() -> None:
    logits, target = scene()
    given = {"labelled": torch.ones(2, 4, dtype=torch.bool), "background": None, "class_weights": None}
    terms = pixel_losses(logits, target, options=PixelLoss(dice=0.5, lovasz=2.0), **given)
    assert list(terms) == ["cross_entropy", "dice", "lovasz"]
    torch.testing.assert_close(terms["dice"], 0.5 * loss("dice", logits, target))
    torch.testing.assert_close(terms["lovasz"], 2 * loss("lovasz", logits, target))


def test_nothing_to_learn_is_an_error() -> None:
    with pytest.raises(ValueError, match="every factor is 0; the losses are cross_entropy"):
        PixelLoss(cross_entropy=0)


def test_a_misspelt_loss_names_the_nearest() -> None:
    def part(*, loss: PixelLoss) -> None: ...

    with pytest.raises(ValueError, match=r"head\.loss\.lovas: unknown option\. Did you mean 'lovasz'\?"):
        checked_options(eval_hints(part), {"loss": {"lovas": 1}}, where="head", given={})


def eval_hints(part: object) -> object:
    part.__annotations__["loss"] = PixelLoss
    return part
