"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vistasks.system.atomic import remove_leftovers, replacing, write_text


def test_writes_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "report.json"
    write_text(path, "Größe")
    write_text(path, "neu")
    assert path.read_text(encoding="utf-8") == "neu" and list(path.parent.iterdir()) == [path]


def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as temporary:
        assert temporary.suffix == ".bin" and temporary.parent == tmp_path
        temporary.write_text("half")
        raise KeyError
    with pytest.raises(FileNotFoundError), replacing(path):
        pass  # the writer wrote nothing
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_text("old")
    code = (
        "import sys, time; from pathlib import Path; from vistasks.system.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); print('written', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"written\n"
        os.kill(writer.pid, signal.SIGKILL)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_readers_see_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    texts = {"a" * 50_000, "b" * 50_000}
    write_text(path, "a" * 50_000)
    code = (
        "import sys; from pathlib import Path; from vistasks.system.atomic import write_text\n"
        "for step in range(60): write_text(Path(sys.argv[1]), 'ab'[step % 2] * 50_000)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as writer:
        seen = set()
        while writer.poll() is None:
            seen.add(path.read_text())
            time.sleep(0.001)
    assert seen <= texts


def test_the_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    """safetensors makes its files readable by their owner alone."""
    plain, path = tmp_path / "plain", tmp_path / "x.bin"
    plain.touch()
    with replacing(path) as temporary:
        temporary.write_text("x")
        temporary.chmod(0o600)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
