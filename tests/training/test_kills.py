"""Sessions that are killed at random times, also while they write a checkpoint: `tests.training.kills`,
slow.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_thirty_kills_change_nothing() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.training.kills",
        "--kills",
        "30",
        "--workers",
        "0",
        "2",
        "--epochs",
        "60",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0 and done.stdout.count("different: nothing") == 2, (
        done.stdout + done.stderr[-3000:]
    )
