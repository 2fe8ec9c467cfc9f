"""What the machine has, and how threads wait."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vistasks.system import machine
from vistasks.system.machine import cores, peak_bytes, wait_without_spinning


def test_threads_sleep_unless_the_user_says_how_they_wait() -> None:
    environment: dict[str, str] = {}
    wait_without_spinning(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}
    for name in machine.WAITING:
        given = {name: "7"}
        wait_without_spinning(given)
        assert given == {name: "7"}


def test_the_command_line_says_so_before_pytorch_is_there() -> None:
    code = "import sys, vistasks.cli; assert 'torch' not in sys.modules; vistasks.cli.main(['--help'])"
    code = f"import os\ntry:\n    {code}\nfinally:\n    assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 0, done.stderr


def test_memory_and_cores_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores() >= 1 and peak_bytes() > 10 << 20
    monkeypatch.setattr(machine, "Path", lambda *parts: _Absent())
    assert peak_bytes() > 10 << 20  # getrusage says it, too
    monkeypatch.setattr(machine, "resource", None)
    assert peak_bytes() == 0


class _Absent:
    """A path that does not exist."""

    def exists(self) -> bool:
        return False


def test_it_works_without_what_only_unix_has(tmp_path: Path) -> None:
    """No `resource`, `fcntl`, ``memfd_create``, ``fork`` and ``forkserver``."""
    command = [sys.executable, "-m", "tests.system.without_unix", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["images"] == 2 and report["peak_megabytes"] > 10  # /proc is there
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 2
