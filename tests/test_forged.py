"""Forged checkpoints, every hostile value at every key: no program started, no file or address opened, a clear
error or a prediction, in bounded memory and time. The default suite tries a few, ``pytest -m slow`` all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def fuzz(folder: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.forged", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-3000:]}"  # negative: a signal
    found: dict[str, Any] = json.loads(done.stdout)
    print(done.stdout)
    assert not found["wrong"], "\n".join(found["wrong"][:20])
    assert found["programs"] == found["events"] == 0
    assert found["tried"] == found["told"] + found["predicted"]
    assert found["megabytes"] < 1500, found["megabytes"]
    return found


def test_a_few_forged_checkpoints(tmp_path: Path) -> None:
    found = fuzz(tmp_path, "--every", "331")
    assert found["told"] > 20 and found["predicted"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("first", range(5))
def test_every_hostile_value_at_every_key(tmp_path: Path, first: int) -> None:
    assert fuzz(tmp_path, "--every", "5", "--first", str(first))["tried"] > 2000
