"""How much each task's loss counts where two heads share one trunk.

A weighting is a module of the model, so that what it has learnt or measured lies in the checkpoint beside the
weights and a resumed run goes on with it. ``model.loss_weights`` are applied before."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from vistasks.registry import WEIGHTINGS
from vistasks.types import Features


class TaskWeighting(nn.Module, ABC):
    """Turns the losses of each task into the terms whose sum is minimised.

    Args:
        tasks: the model's heads, in order.
    """

    reads_shared_maps: ClassVar[bool] = (
        False  # looks at gradients in the maps of whole images that all heads must read
    )

    def __init__(self, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.tasks = tasks

    def tap(self, task: str, features: Features) -> Features:
        """The features as ``task``'s head gets them: a place to look at the gradient that comes back from
        it.
        """
        return features

    @abstractmethod
    def forward(
        self, losses: Mapping[str, Mapping[str, Tensor]], labelled: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Terms ``task/name`` (and the weighting's own) from each task's scalar losses.

        ``labelled[task]`` is a bool scalar: whether this batch labels the task at all. A task that is not
        trained in this step is in neither."""

    @abstractmethod
    def factors(self) -> dict[str, float]:
        """The present factor of each task, for people."""


def _weighted(losses: Mapping[str, Mapping[str, Tensor]], factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        f"{task}/{name}": value * factors[task]
        for task, terms in losses.items()
        for name, value in terms.items()
    }


@WEIGHTINGS.register("fixed")
class FixedWeights(TaskWeighting):
    """Every task as its losses come, times ``model.loss_weights``."""

    def __init__(self, *, tasks: tuple[str, ...]) -> None:
        super().__init__(tasks)

    def forward(
        self, losses: Mapping[str, Mapping[str, Tensor]], labelled: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        return {f"{task}/{name}": value for task, terms in losses.items() for name, value in terms.items()}

    def factors(self) -> dict[str, float]:
        return dict.fromkeys(self.tasks, 1.0)


@WEIGHTINGS.register("uncertainty")
class UncertaintyWeights(TaskWeighting):
    """exp(-s) L + s / 2 with a learnt s = log variance per task (Kendall, Gal and Cipolla 2018, eq. 7-10).

    A task has one s for all its losses, which so keep the proportions that its paper gives them. A batch that
    does not label a task leaves its s alone.

    Args:
        tasks: the model's heads.
        speed: what is learnt is s / speed, because s must move by whole units where weights move by
            thousandths: with Adam, s moves by about learning rate x speed a step.
    """

    def __init__(self, *, tasks: tuple[str, ...], speed: PositiveFloat = 10.0) -> None:
        super().__init__(tasks)
        self.speed = speed
        self.log_variance = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in tasks})

    def forward(
        self, losses: Mapping[str, Mapping[str, Tensor]], labelled: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        s = {task: self.log_variance[task].float() * self.speed for task in losses}
        terms = _weighted(losses, {task: torch.exp(-value) for task, value in s.items()})
        penalties = [value / 2 * labelled[task] for task, value in s.items()]
        return {**terms, "weighting/log_variance": torch.stack(penalties).sum()}

    def factors(self) -> dict[str, float]:
        return {task: float(torch.exp(-self.log_variance[task].detach() * self.speed)) for task in self.tasks}


@WEIGHTINGS.register("gradient_norm")
class GradientNormWeights(TaskWeighting):
    """Factors that make the tasks pull equally hard at the maps that they share (after GradNorm, Chen et al.
    2018).

    The norm of each task's gradient is read where its head's backward pass enters the shared maps, so that it
    costs no second pass; the paper takes the last shared layer's weights. Where the paper moves its factors
    by gradient steps towards ``factor x norm = mean norm x rate ** alpha`` (eq. 1 and 2), the factors here
    are that equation's solution for running means of the norms. They sum to the number of tasks, as there.

    Args:
        tasks: the model's heads.
        alpha: strength of the pull towards tasks whose loss has fallen less than the others'; 0: only the
            norms count.
        momentum: of the running means over steps.
        targets: desired ratio of the norms, by task; 1 where not named.
        limit: no norm counts as less than the largest / limit, so that a task that is nearly learnt is not
            blown up.
    """

    reads_shared_maps = True
    norm: Tensor
    square: Tensor
    factor: Tensor
    first: Tensor
    recent: Tensor
    target: Tensor

    def __init__(
        self,
        *,
        tasks: tuple[str, ...],
        alpha: float = 0.0,
        momentum: float = 0.9,
        targets: dict[str, PositiveFloat] | None = None,
        limit: PositiveFloat = 100.0,
    ) -> None:
        super().__init__(tasks)
        strange = sorted(set(targets or {}) - set(tasks))
        if strange:
            raise ValueError(f"targets names {', '.join(strange)}; the heads are: {', '.join(tasks)}")
        if not 0 <= momentum < 1 or alpha < 0:
            raise ValueError(f"expected 0 <= momentum < 1 and alpha >= 0; received {momentum} and {alpha}")
        self.alpha, self.momentum, self.limit = alpha, momentum, limit
        for name in ("norm", "square", "first", "recent"):  # 0: not seen yet
            self.register_buffer(name, torch.zeros(len(tasks)))
        self.register_buffer("factor", torch.ones(len(tasks)))
        target = torch.tensor([(targets or {}).get(task, 1.0) for task in tasks])
        self.register_buffer("target", target, persistent=False)

    def tap(self, task: str, features: Features) -> Features:
        """Every map passes its gradient's square on to ``square[task]``."""
        if not self.training or not torch.is_grad_enabled():
            return features
        maps = {}
        for stride, tensor in features.maps.items():
            maps[stride] = tensor.view_as(tensor)
            if tensor.requires_grad:  # a frozen trunk has no gradient to look at
                maps[stride].register_hook(self._adds_to(self.tasks.index(task)))
        return replace(features, maps=maps)

    def _adds_to(self, index: int) -> Callable[[Tensor], None]:
        def add(gradient: Tensor) -> None:
            self.square[index] += gradient.detach().float().square().sum()

        return add

    @torch.no_grad()
    def _look_back(self) -> None:
        """The last backward pass's norms, of which its factors are taken out again, into the running
        means.
        """
        norm = self.square.sqrt() / self.factor
        seen = torch.isfinite(norm) & (norm > 0)
        self.norm.copy_(torch.where(seen, self._mean(self.norm, norm), self.norm))
        self.square.zero_()

    def _mean(self, old: Tensor, new: Tensor) -> Tensor:
        return torch.where(old > 0, self.momentum * old + (1 - self.momentum) * new, new)

    @torch.no_grad()
    def _balance(self, losses: Mapping[str, Mapping[str, Tensor]]) -> None:
        for task, terms in losses.items():
            index, value = self.tasks.index(task), torch.stack(list(terms.values())).sum().detach().float()
            seen = torch.isfinite(value) & (value > 0)
            self.first[index] = torch.where(seen & (self.first[index] == 0), value, self.first[index])
            self.recent[index] = torch.where(seen, self._mean(self.recent[index], value), self.recent[index])
        ratio = torch.where(self.first > 0, self.recent / self.first.clamp(min=1e-12), 1.0)
        rate = ratio / ratio.mean().clamp(min=1e-12)  # the paper's relative inverse training rate
        wanted = (
            self.target * rate**self.alpha / self.norm.clamp(min=1e-20).maximum(self.norm.max() / self.limit)
        )
        factor = wanted / wanted.mean().clamp(min=1e-30)
        self.factor.copy_(torch.where((self.norm > 0).all(), factor, torch.ones_like(factor)))

    def forward(
        self, losses: Mapping[str, Mapping[str, Tensor]], labelled: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        if self.training and torch.is_grad_enabled():
            self._look_back()
            self._balance(losses)
        return _weighted(losses, {task: self.factor[self.tasks.index(task)].clone() for task in losses})

    def factors(self) -> dict[str, float]:
        return {task: float(value) for task, value in zip(self.tasks, self.factor)}
