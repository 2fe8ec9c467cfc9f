"""The signals that ask a run to end."""

from __future__ import annotations

import contextlib
import os
import signal
import stat


def stopping_signals() -> list[signal.Signals]:
    """Those that ask a run to end in order. SIGHUP is none of them under nohup, or where there is none."""
    found = [signal.SIGTERM, signal.SIGINT]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        found.append(hangup)
    return found


def leave_terminal() -> None:
    """After SIGHUP a terminal takes nothing more; what is printed into it would be an error."""
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            # a character device, as a terminal is; isatty says no once it has hung up
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
