"""When the state of a run is saved, which files are kept, and what happens where the disk is full."""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Callable
from pathlib import Path

from vistasks.checkpoint import save_checkpoint, state_of
from vistasks.config import Config
from vistasks.system.atomic import write_text
from vistasks.training.run_folder import BEST, LAST, earlier_checkpoints, earlier_name
from vistasks.training.state import TrainingState
from vistasks.types import ClassNames

RETRIES, RETRY_SECONDS = 60, 10.0  # for what has to be on the disk when a run ends
SOON = 60.0  # seconds after which a save that failed is tried again within an epoch


class Saver:
    """Writes ``best.safetensors`` and ``last.safetensors``; what was ``last`` before is kept among the
    earlier checkpoints.

    A write that fails is said aloud, leaves what was there before, and is tried again at the next occasion.

    Args:
        folder: the run folder.
        config, classes: what goes into the files' headers.
        say: prints a line for a person.
        stopped: whether the run was told to stop, and waits for no disk any more.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        classes: ClassNames,
        say: Callable[[str], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder, self.config, self.classes, self.say, self.stopped = folder, config, classes, say, stopped
        self.tried, self.failed = time.monotonic(), False
        self._owed: tuple[Callable[[], None], str] | None = (
            None  # the best weights, where they could not be written
        )

    def due(self) -> bool:
        """Whether ``checkpoint.every_minutes`` have passed since the last save; sooner where that failed."""
        minutes, waited = self.config.checkpoint.every_minutes, time.monotonic() - self.tried
        return minutes is not None and waited >= (min(SOON, 60 * minutes) if self.failed else 60 * minutes)

    def last(self, state: TrainingState, *, insist: bool = False) -> bool:
        """Saves the whole state; whether that worked. ``insist``: keeps trying for ten minutes, then raises
        an ``OSError``.
        """
        tensors, values = state.everything()

        def write() -> None:
            self._keep_the_one_before()
            save_checkpoint(
                self.folder / LAST, tensors, config=self.config, classes=self.classes, state=values
            )
            self._remove_old(state.progress.step)

        saved = self._attempt(write, f"the state after step {state.progress.step}", insist)
        if saved and self._owed is not None and self._attempt(*self._owed, insist):
            self._owed = None
        self.tried, self.failed = time.monotonic(), not saved
        return saved

    def best(self, state: TrainingState, report: str | None = None, *, insist: bool = False) -> None:
        """Saves the weights that predict, and their report; where that fails, again with the next `last`."""
        tensors = {
            name: value.detach().cpu().clone() for name, value in state.weights().items()
        }  # of now, also if written later
        values = copy.deepcopy(state.values())

        def write() -> None:
            save_checkpoint(
                self.folder / BEST, tensors, config=self.config, classes=self.classes, state=values
            )
            if report is not None:
                write_text(self.folder / "report.json", report)

        what = f"the best weights, of step {state.progress.step},"
        self._owed = None if self._attempt(write, what, insist) else (write, what)

    def _attempt(self, write: Callable[[], None], what: str, insist: bool) -> bool:
        for attempt in range(RETRIES if insist else 1):
            try:
                write()
            except OSError as error:
                reason = error.strerror or str(error)
                then = (
                    f"trying again every {RETRY_SECONDS:.0f} s"
                    if insist
                    else "training goes on and tries again"
                )
                if attempt == 0:
                    self.say(
                        f"warning: {what} could not be saved in {self.folder.resolve()} ({reason}); what was there before "
                        f"is still good; {then}"
                    )
                failure = error
            else:
                if attempt or self.failed:
                    self.say(f"{what} could be saved again")
                return True
            if insist and self._told_to_stop():
                break
        if insist:
            raise OSError(
                f"{what} could not be saved in {self.folder.resolve()}: {failure.strerror or failure}"
            )
        return False

    def _told_to_stop(self) -> bool:
        """Waits before another attempt; True at once when the run is told to stop."""
        end = time.monotonic() + RETRY_SECONDS
        while not self.stopped() and time.monotonic() < end:
            time.sleep(min(0.1, RETRY_SECONDS))
        return self.stopped()

    def _keep_the_one_before(self) -> None:
        """Gives ``last`` a second name among the earlier ones: it stays in its place until the new one takes
        that.
        """
        last = self.folder / LAST
        if self.config.checkpoint.keep == 1 or not last.is_file():
            return
        kept = self.folder / earlier_name(int(state_of(last)["step"]))
        kept.parent.mkdir(exist_ok=True)
        kept.unlink(missing_ok=True)
        try:
            os.link(last, kept)
        except OSError:  # a file system without hard links
            last.replace(kept)

    def _remove_old(self, step: int) -> None:
        """Keeps ``checkpoint.keep`` with ``last``; those of later steps belong to a run that was taken
        back.
        """
        found = earlier_checkpoints(self.folder)
        kept = [path for number, path in found if number <= step][: self.config.checkpoint.keep - 1]
        for _, path in found:
            if path not in kept:
                path.unlink(missing_ok=True)
        if not kept:
            with contextlib.suppress(OSError):  # not there, or something of somebody else's in it
                (self.folder / earlier_name(0)).parent.rmdir()
