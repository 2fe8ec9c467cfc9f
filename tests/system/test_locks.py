"""Two processes and one folder, with real processes and signals."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vistasks.system.locks import LOCK, owned

HOLD = """
import pathlib, sys
from vistasks.system.locks import owned
with owned(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that has the folder until its input ends."""
    command = [sys.executable, "-c", HOLD, str(folder), "rtsp://me:secret@camera/1", "\x1b[2J"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_process_learns_who_has_the_folder(tmp_path: Path) -> None:
    with holder(tmp_path / "out") as process:
        with pytest.raises(ValueError, match=f"process {process.pid} on ") as error, owned(tmp_path / "out"):
            pytest.fail("two have the folder")
        assert "//camera/1" in str(error.value) and "secret" not in str(error.value)
        assert str(tmp_path / "out") in str(error.value) and str(error.value).isprintable()
        process.kill()
    with owned(tmp_path / "out"):  # who is killed holds nothing
        pass


def test_a_thread_is_as_good_as_a_process(tmp_path: Path) -> None:
    refused = []

    def second() -> None:
        with pytest.raises(ValueError, match="another process is writing"), owned(tmp_path):
            pass
        refused.append(True)

    with owned(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert refused


def test_it_may_be_taken_again_within_and_is_free_afterwards(tmp_path: Path) -> None:
    with owned(tmp_path):
        with owned(tmp_path / "." / ""):
            pass
        with holder(tmp_path / "other") as process:
            process.stdin.close()  # type: ignore[union-attr]
    with holder(tmp_path) as process:
        process.stdin.close()  # type: ignore[union-attr]
    assert process.returncode == 0


def test_a_folder_in_which_nothing_was_written_goes_again(tmp_path: Path) -> None:
    with pytest.raises(KeyError), owned(tmp_path / "a" / "out"):
        raise KeyError
    assert not (tmp_path / "a" / "out").exists()
    with owned(tmp_path / "out"):
        (tmp_path / "out" / "result").touch()
        assert (tmp_path / "out" / LOCK).exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result"]


def test_many_want_it_and_one_has_it(tmp_path: Path) -> None:
    """Whoever ends removes the lock file, and nobody takes a removed one for the folder's."""
    inside, most, refused = 0, 0, 0
    count = threading.Lock()

    def want() -> None:
        nonlocal inside, most, refused
        for _ in range(100):
            try:
                with owned(tmp_path / "out"):
                    with count:
                        inside += 1
                        most = max(most, inside)
                    with count:
                        inside -= 1
            except ValueError:
                with count:
                    refused += 1

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and refused < 400
