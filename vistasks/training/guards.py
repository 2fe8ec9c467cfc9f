"""What watches a training step: losses and gradients that are not finite, gradient spikes, a loader that
gives nothing.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

SPIKE, WINDOW, LEAST = 10.0, 100, 20  # times the median of so many norms, once there are at least so many
STALL_SECONDS = 60.0


class NotFinite(FloatingPointError):
    """A loss or a gradient is infinite or NaN."""


def refuse_non_finite(step: int, loss: Tensor, terms: Mapping[str, Tensor], paths: Sequence[str]) -> None:
    """`NotFinite` with the step, every term and the pictures where the loss is not a number to learn from."""
    if not torch.isfinite(loss):
        values = ", ".join(f"{name} = {value.item():.4g}" for name, value in terms.items())
        raise NotFinite(
            f"step {step}: the loss is not finite ({values}). Images of this step: {', '.join(paths)}. {ADVICE}"
        )


ADVICE = "A lower train.optimizer.lr, train.clip_grad_norm=1 or train.precision=32-true usually help"


def gradient_norm(
    fabric: Fabric, module: nn.Module, optimizer: torch.optim.Optimizer, clip: float | None
) -> float:
    """The 2-norm over all gradients before they are clipped to ``clip``, at the scale of the loss itself."""
    if clip is not None:
        norm = fabric.clip_gradients(module, optimizer, max_norm=clip, error_if_nonfinite=False)
        assert norm is not None  # Fabric gives it whenever it is told a max_norm
        return float(norm)
    fabric.strategy.precision.unscale_gradients(getattr(optimizer, "optimizer", optimizer))
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


class GradientWatch:
    """Compares each gradient norm with the last ones.

    Args:
        norms: those of the last steps; kept up to date in place, so that a resumed run judges alike.
        scaled: the precision scales the loss (16-mixed): norms that are not finite are its business, and such
            steps are left out.
    """

    def __init__(self, norms: list[float], *, scaled: bool) -> None:
        self.norms, self.scaled = norms, scaled

    def check(self, step: int, norm: float, paths: Sequence[str]) -> str | None:
        """What to tell a person about this step's norm, or None; `NotFinite` where it is not and nothing
        skips the step.
        """
        if norm != norm or norm == float("inf"):
            if self.scaled:
                return None
            raise NotFinite(
                f"step {step}: the loss is finite, but the norm of its gradients is {norm}. Images of this step: "
                f"{', '.join(paths)}. {ADVICE}"
            )
        usual = statistics.median(self.norms) if len(self.norms) >= LEAST else None
        self.norms.append(norm)
        del self.norms[:-WINDOW]
        if usual is None or norm <= SPIKE * usual:
            return None
        times, count = norm / usual if usual else float("inf"), len(self.norms) - 1
        names = ", ".join(paths)
        return f"step {step}: gradient norm {norm:.3g}, {times:.0f} times the median of {count} steps; images: {names}"


class LoaderWatch:
    """Says so where a batch is awaited for long, from a thread of its own: the waiting one cannot.

    Args:
        say: prints a line for a person.
        seconds: after how long; then again after twice that, four times that and so on.
    """

    def __init__(self, say: Callable[[str], None], seconds: float = STALL_SECONDS) -> None:
        self.say, self.seconds = say, seconds
        self.waited = 0.0  # seconds, over all batches
        self._waiting: tuple[float, Callable[[], str]] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="loader-watch")

    def __enter__(self) -> LoaderWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @contextmanager
    def waiting(self, what: Callable[[], str]) -> Iterator[None]:
        """While the next batch is awaited; ``what`` names it where it comes to that."""
        start = time.perf_counter()
        self._waiting = (start, what)
        try:
            yield
        finally:
            self._waiting = None
            self.waited += time.perf_counter() - start

    def _watch(self) -> None:
        told, limit = None, self.seconds
        while not self._ended.wait(min(1.0, self.seconds / 4)):
            waiting = self._waiting
            if waiting is not told:
                told, limit = waiting, self.seconds
            if waiting is not None and time.perf_counter() - waiting[0] >= limit:
                self.say(
                    f"warning: no data for {limit:.0f} s: {waiting[1]()}. A disk or network that does not answer, images whose "
                    "proposals are not in the cache (vistasks proposals compute fills it), or too few train.workers"
                )
                limit *= 2
