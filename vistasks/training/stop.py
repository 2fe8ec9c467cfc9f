"""SIGTERM and Ctrl-C: the step is finished, the state saved, and the exit code says so."""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType
from typing import Any

STOPPED = (
    75  # the exit code: EX_TEMPFAIL of sysexits.h, "try again later"; here by the same command with --resume
)


class Stopped(Exception):
    """A run that was told to stop has saved its state; the message says how to go on."""


class StopRequest:
    """While it is open, the first SIGTERM or SIGINT only sets ``requested``; a second one interrupts at once.

    Signals reach the main thread alone; opened in another thread it changes nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._name = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
            }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested:
            raise KeyboardInterrupt(f"a second signal ({name})")
        self.requested, self._name = True, name
        with contextlib.suppress(RuntimeError):  # the signal came in the middle of another print
            print(f"\n{name}: finishing this step and saving; repeat to stop immediately", flush=True)

    def __str__(self) -> str:
        return self._name or "stopped"
