"""SIGTERM, SIGHUP and Ctrl-C: the step is finished, the state saved, and the exit code says so."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from vistasks.system.signals import leave_terminal, stopping_signals

STOPPED = (
    75  # the exit code: EX_TEMPFAIL of sysexits.h, "try again later"; here by the same command with --resume
)


class Stopped(Exception):
    """A run that was told to stop has saved its state; the message says how to go on."""


class StoppedWaiting(Exception):
    """A signal came while the next batch was awaited."""


class StopRequest:
    """While it is open, the first SIGTERM, SIGHUP or SIGINT only sets ``requested``; a second one interrupts at once.

    Signals reach the main thread alone; opened in another thread it changes nothing.
    """

    def __init__(self) -> None:
        self.requested = self._waits = False
        self._name = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in stopping_signals()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def ends_waiting(self) -> Iterator[None]:
        """Within, a signal raises `StoppedWaiting`: what is awaited may never come."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested:
            raise KeyboardInterrupt(f"a second signal ({name})")
        self.requested, self._name = True, name
        if name == "SIGHUP":
            leave_terminal()
        with contextlib.suppress(RuntimeError):  # the signal came in the middle of another print
            print(f"\n{name}: finishing this step and saving; repeat to stop immediately", flush=True)
        if self._waits:
            raise StoppedWaiting

    def __str__(self) -> str:
        return self._name or "stopped"
